/** Small things an agent tells of its cluster: asked rarely, told often. */
import { Context, Deferred, Duration, Effect, Layer, Option, Random, Ref, Schedule, Schema } from "effect"
import type { Facts, Versions } from "../domain/kinds/Cluster.ts"
import { Kube } from "../infra/kube/Kube.ts"
import { make as makeResource } from "../infra/kube/KubeResource.ts"

/** What is known of the cluster now. */
export interface KnownFacts {
  readonly versions: Versions
  readonly nodeCount?: number
  readonly facts?: typeof Facts.Type
}

export class ClusterFacts extends Context.Service<ClusterFacts, {
  readonly now: Effect.Effect<KnownFacts>
  /** Uid of the kube-system namespace: what makes a cluster this cluster. Waits until it can be read. */
  readonly clusterUid: Effect.Effect<string>
}>()("kubeprober/agent/ClusterFacts") {
  static readonly layer = (options: { readonly version: string }): Layer.Layer<ClusterFacts, never, Kube> =>
    Layer.effect(ClusterFacts, make(options))
}

/** Versions and node counts change slowly; two requests in five minutes is what the figures of a cluster are worth. */
const REFRESH = Duration.minutes(5)

/** Until both are known. */
const AGAIN = Duration.seconds(30)

const retries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("15 seconds")]).pipe(
  Schedule.jittered
)

const ServerVersion = Schema.fromJsonString(Schema.Struct({ gitVersion: Schema.String, platform: Schema.String }))

/** Nothing of them is read but how many there are. */
const CountedNode = makeResource({
  kind: "Node",
  plural: "nodes",
  scope: "Cluster",
  metadataOnly: true,
  fields: {}
})
const SystemNamespace = makeResource({
  kind: "Namespace",
  plural: "namespaces",
  scope: "Cluster",
  metadataOnly: true,
  fields: {}
})

const make = Effect.fnUntraced(function*({ version }: { readonly version: string }) {
  const kube = yield* Kube
  const known = yield* Ref.make<KnownFacts>({ versions: { agent: version } })

  const server = kube.raw("/version").pipe(
    Effect.flatMap(({ body }) => Schema.decodeEffect(ServerVersion)(body)),
    Effect.timeout("5 seconds"),
    Effect.option
  )
  // One item and how many remain: the cost does not grow with the cluster.
  const nodes = kube.list(CountedNode, { maximum: 1 }).pipe(
    Effect.map(({ items, remaining }) => items.length + remaining),
    Effect.timeout("5 seconds"),
    Effect.option
  )
  const refresh = Effect.gen(function*() {
    const [answer, count] = yield* Effect.all([server, nodes], { concurrency: 2 })
    yield* Ref.update(known, (before): KnownFacts => ({
      ...before,
      ...Option.match(answer, {
        onNone: () => ({}),
        onSome: ({ gitVersion, platform }) => ({
          versions: { agent: version, kubernetes: gitVersion },
          facts: { platform }
        })
      }),
      ...Option.match(count, { onNone: () => ({}), onSome: (nodeCount) => ({ nodeCount }) })
    }))
    const next = Option.isSome(answer) && Option.isSome(count) ? REFRESH : AGAIN
    yield* Effect.sleep(Duration.times(next, yield* Random.nextBetween(0.8, 1.2)))
  })
  yield* Effect.forkScoped(Effect.forever(refresh))

  const uid = yield* Deferred.make<string>()
  yield* kube.get(SystemNamespace, { name: "kube-system" }).pipe(
    Effect.timeout("5 seconds"),
    Effect.map(({ metadata }) => metadata.uid),
    Effect.filterOrFail((found) => found !== undefined, () => new Error("namespace kube-system has no uid")),
    Effect.tapError((error) =>
      Effect.logWarning(`the agent cannot tell its master which cluster this is: ${error.message}`)
    ),
    Effect.retry(retries),
    Effect.flatMap((found) => Deferred.succeed(uid, found)),
    Effect.ignore,
    Effect.forkScoped
  )
  return ClusterFacts.of({ now: Ref.get(known), clusterUid: Deferred.await(uid) })
})
