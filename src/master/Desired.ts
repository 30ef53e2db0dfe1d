/**
 * The fleet as it is wished for: Clusters and Probes, followed in memory, and what follows from them for each cluster.
 */
import { Context, Deferred, Effect, HashMap, Layer, Option, Schedule, Stream, SubscriptionRef } from "effect"
import type { ClusterState } from "../domain/kinds/Cluster.ts"
import type { ReflectorEvent } from "../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import { Cluster, Probe } from "../infra/kube/resources/kubeprober.ts"
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
        read: (object: A) => readonly [string, Known],
        change: (state: State, how: (known: HashMap.HashMap<string, Known>) => HashMap.HashMap<string, Known>) => State,
        matters: (event: ReflectorEvent<A>, before: State) => boolean
      ) {
        const synced = yield* Deferred.make<void, ResourcesError>()
        yield* resources.reflect(resource).pipe(
          Stream.runForEach(Effect.fnUntraced(function*(event) {
            const before = yield* SubscriptionRef.get(state)
            yield* SubscriptionRef.update(state, (current) => change(current, apply(event, read)))
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
          Probe,
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

const toCluster = ({ metadata, spec = {}, status = {} }: Cluster): readonly [string, KnownCluster] => {
  const name = metadata.name ?? ""
  return [name, { name, labels: metadata.labels ?? {}, spec, status }]
}

const toProbe = ({ metadata, spec = {} }: Probe): readonly [string, RegisteredProbe] => {
  const name = metadata.name ?? ""
  return [name, { name, labels: metadata.labels ?? {}, generation: metadata.generation ?? 0, spec }]
}

const apply = <A extends KubeObject, Known>(
  event: ReflectorEvent<A>,
  read: (object: A) => readonly [string, Known]
) =>
(known: HashMap.HashMap<string, Known>): HashMap.HashMap<string, Known> => {
  switch (event._tag) {
    case "Synced":
      return HashMap.fromIterable(event.items.map(read))
    case "Added":
    case "Modified": {
      const [name, value] = read(event.object)
      return HashMap.set(known, name, value)
    }
    case "Deleted":
      return HashMap.remove(known, event.object.metadata.name ?? "")
  }
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

const clusterMatters = (object: Cluster, { clusters }: State): boolean => {
  const [name, now] = toCluster(object)
  const before = Option.getOrUndefined(HashMap.get(clusters, name))
  return before === undefined || !same(before.labels, now.labels) || !same(before.spec, now.spec)
}

const probeMatters = (object: Probe, { probes }: State): boolean => {
  const [name, now] = toProbe(object)
  const before = Option.getOrUndefined(HashMap.get(probes, name))
  return before === undefined || before.generation !== now.generation || !same(before.labels, now.labels)
}
