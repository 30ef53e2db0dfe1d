/**
 * The fleet as it is wished for: Clusters and Probes, followed in memory, and what follows from them for each cluster.
 */
import {
  Context,
  Deferred,
  Effect,
  HashMap,
  Layer,
  Option,
  Result,
  Schedule,
  Schema,
  Stream,
  SubscriptionRef
} from "effect"
import type { ClusterState } from "../domain/kinds/Cluster.ts"
import { ProbeSpec } from "../domain/kinds/Probe.ts"
import type { ReflectorEvent } from "../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import { Cluster, UnreadProbe } from "../infra/kube/resources/kubeprober.ts"
import { type Desired as DesiredOfCluster, desiredSetOf } from "./fleet/desiredSet.ts"
import type { RegisteredCluster, RegisteredProbe } from "./Registry.ts"
import { Resources, type ResourcesError } from "./Resources.ts"

/** A cluster, with the status that was last written. */
export interface KnownCluster extends RegisteredCluster {
  readonly status: ClusterState
}

interface State {
  readonly clusters: HashMap.HashMap<string, KnownCluster>
  readonly probes: HashMap.HashMap<string, RegisteredProbe>
  /** Filled as asked for; a state never changes. */
  readonly sets: Map<string, DesiredOfCluster>
}

export class Desired extends Context.Service<Desired, {
  readonly cluster: (name: string) => Effect.Effect<Option.Option<KnownCluster>>
  /** By name. */
  readonly clusters: Effect.Effect<ReadonlyArray<KnownCluster>>
  /** By name. */
  readonly probes: Effect.Effect<ReadonlyArray<RegisteredProbe>>
  /** What a cluster is to run; none when there is no such cluster. */
  readonly of: (cluster: string) => Effect.Effect<Option.Option<DesiredOfCluster>>
  /** Now, and after every change of a spec or a label. Changes that come fast may be told as one. */
  readonly changes: Stream.Stream<void>
}>()("kubeprober/master/Desired") {
  /** Ready when both kinds have been read once; what fails later is tried again. */
  static readonly layer: Layer.Layer<Desired, ResourcesError, Resources> = Layer.effect(
    Desired,
    Effect.gen(function*() {
      const resources = yield* Resources
      const state = yield* SubscriptionRef.make<State>({
        clusters: HashMap.empty(),
        probes: HashMap.empty(),
        sets: new Map()
      })
      /** Goes up when what clusters are to run may have changed, and not for every heartbeat written to a status. */
      const version = yield* SubscriptionRef.make(0)

      const follow = Effect.fnUntraced(function*<A extends KubeObject, Known>(
        resource: KubeResource<A>,
        read: (object: A) => Read<Known>,
        change: (state: State, how: (known: HashMap.HashMap<string, Known>) => HashMap.HashMap<string, Known>) => State,
        matters: (event: ReflectorEvent<A>, before: State) => boolean
      ) {
        const synced = yield* Deferred.make<void, ResourcesError>()
        yield* resources.reflect(resource).pipe(
          Stream.runForEach(Effect.fnUntraced(function*(event) {
            const before = yield* SubscriptionRef.get(state)
            const reads = (event._tag === "Synced" ? event.items : [event.object]).map(read)
            yield* SubscriptionRef.update(state, (current) => change(current, apply(event._tag, reads)))
            if (event._tag !== "Deleted") {
              yield* Effect.forEach(
                reads,
                ({ known, name }) =>
                  Result.isFailure(known)
                    ? Effect.logError(`${resource.kind} ${name} is left out, its spec is not valid: ${known.failure}`)
                    : Effect.void,
                { discard: true }
              )
            }
            if (matters(event, before)) yield* SubscriptionRef.update(version, (number) => number + 1)
            if (event._tag === "Synced") yield* Deferred.succeed(synced, undefined)
          })),
          Effect.tapError((error) => Deferred.fail(synced, error)),
          Effect.tapError((error) => Effect.logError(error.message)),
          Effect.retry(retries),
          Effect.forkScoped
        )
        return synced
      })

      const synced = yield* Effect.all([
        follow(
          Cluster,
          toCluster,
          (state, how) => ({ ...state, clusters: how(state.clusters), sets: new Map() }),
          (event, before) => event._tag !== "Modified" || clusterMatters(event.object, before)
        ),
        follow(
          UnreadProbe,
          toProbe,
          (state, how) => ({ ...state, probes: how(state.probes), sets: new Map() }),
          (event, before) => event._tag !== "Modified" || probeMatters(event.object, before)
        )
      ])
      yield* Effect.forEach(synced, (each) => Deferred.await(each), { discard: true })

      const current = SubscriptionRef.get(state)
      return Desired.of({
        cluster: (name) => Effect.map(current, ({ clusters }) => HashMap.get(clusters, name)),
        clusters: Effect.map(current, ({ clusters }) => sorted(HashMap.values(clusters))),
        probes: Effect.map(current, ({ probes }) => sorted(HashMap.values(probes))),
        of: (name) =>
          Effect.map(current, ({ clusters, probes, sets }) =>
            Option.map(HashMap.get(clusters, name), (cluster) => {
              const known = sets.get(name)
              if (known !== undefined) return known
              const desired = desiredSetOf(cluster, [...HashMap.values(probes)])
              sets.set(name, desired)
              return desired
            })),
        changes: Stream.map(SubscriptionRef.changes(version), () => undefined)
      })
    })
  )
}

/** The resources cannot be followed for now. */
const retries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.jittered
)

const sorted = <A extends { readonly name: string }>(items: Iterable<A>): ReadonlyArray<A> =>
  [...items].sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0)

/** An object as it is known, or why it cannot be: one of those must not hide the others. */
interface Read<Known> {
  readonly name: string
  readonly known: Result.Result<Known, string>
}

const clusterOf = ({ metadata, spec = {}, status = {} }: Cluster): KnownCluster => ({
  name: metadata.name ?? "",
  labels: metadata.labels ?? {},
  spec,
  status
})

const toCluster = (object: Cluster): Read<KnownCluster> => {
  const cluster = clusterOf(object)
  return { name: cluster.name, known: Result.succeed(cluster) }
}

const decodeSpec = Schema.decodeUnknownResult(ProbeSpec)

const toProbe = ({ metadata, spec }: UnreadProbe): Read<RegisteredProbe> => {
  const { generation = 0, labels = {}, name = "" } = metadata
  const decoded = spec === undefined ? Result.succeed<ProbeSpec>({}) : decodeSpec(spec)
  return {
    name,
    known: Result.mapBoth(decoded, {
      onSuccess: (spec) => ({ name, labels, generation, spec }),
      onFailure: ({ message }) => message
    })
  }
}

const apply =
  <Known>(how: ReflectorEvent<KubeObject>["_tag"], reads: ReadonlyArray<Read<Known>>) =>
  (before: HashMap.HashMap<string, Known>): HashMap.HashMap<string, Known> =>
    reads.reduce(
      (all, { known, name }) =>
        how === "Deleted" || Result.isFailure(known)
          ? HashMap.remove(all, name)
          : HashMap.set(all, name, known.success),
      how === "Synced" ? HashMap.empty<string, Known>() : before
    )

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

const clusterMatters = (object: Cluster, { clusters }: State): boolean => {
  const now = clusterOf(object)
  const before = Option.getOrUndefined(HashMap.get(clusters, now.name))
  return before === undefined || !same(before.labels, now.labels) || !same(before.spec, now.spec)
}

const probeMatters = ({ metadata: { generation = 0, labels = {}, name = "" } }: UnreadProbe, { probes }: State) => {
  const before = Option.getOrUndefined(HashMap.get(probes, name))
  return before === undefined || before.generation !== generation || !same(before.labels, labels)
}
