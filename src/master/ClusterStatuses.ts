/**
 * What is known of each cluster, as its Cluster's status: put together from links, heartbeats and results, and written so
 * that a fleet of thousands does not wear out an API server.
 */
import { Context, DateTime, Effect, Equal, Layer, Option, Ref, Schedule, Schema, Stream } from "effect"
import { ClusterState, carriesCredentials } from "../domain/kinds/Cluster.ts"
import type { Condition } from "../domain/kinds/Condition.ts"
import { Cluster } from "../infra/kube/resources/kubeprober.ts"
import { LinkEvent, Links } from "../infra/link/Links.ts"
import { Desired, type KnownCluster } from "./Desired.ts"
import { FleetState } from "./FleetState.ts"
import { type Heard, Heartbeats } from "./Heartbeats.ts"
import { Resources } from "./Resources.ts"

export class ClusterStatuses extends Context.Service<ClusterStatuses, {
  /** The status as it is now, whether or not it was written. */
  readonly of: (cluster: KnownCluster) => Effect.Effect<ClusterState>
  /** Lets another cluster take the name: forgets which one had it. */
  readonly unbind: (cluster: string) => Effect.Effect<void>
  /** Writes the status of a cluster now. */
  readonly write: (cluster: string) => Effect.Effect<void>
}>()("kubeprober/master/ClusterStatuses") {
  static readonly layer = Layer.effect(ClusterStatuses, Effect.suspend(() => make))
}

/** News that can wait are written so often at most. */
const FLUSH = "30 seconds"

const encode = Schema.encodeEffect(ClusterState)

const make = Effect.gen(function*() {
  const desired = yield* Desired
  const fleet = yield* FleetState
  const heartbeats = yield* Heartbeats
  const links = yield* Links
  const resources = yield* Resources
  const unbound = yield* Ref.make<ReadonlySet<string>>(new Set())
  const waiting = new Set<string>()

  const of = Effect.fnUntraced(function*(cluster: KnownCluster): Effect.fn.Return<ClusterState> {
    const now = yield* DateTime.now
    const link = Option.getOrUndefined(yield* Effect.option(links.find(cluster.name)))
    const heard = Option.getOrUndefined(yield* heartbeats.of(cluster.name))
    const row = Option.getOrUndefined(yield* fleet.row(cluster.name))
    const set = Option.getOrUndefined(yield* desired.of(cluster.name))
    const isUnbound = (yield* Ref.get(unbound)).has(cluster.name)
    const { clusterUid, ...before } = cluster.status
    const bound = heard?.clusterUid ?? (isUnbound ? undefined : clusterUid)
    const wasConnected = before.link?.state === "Connected"
    return {
      ...before,
      ...(bound === undefined ? {} : { clusterUid: bound }),
      ...(heard === undefined ? {} : heardState(heard)),
      ...(link === undefined
        ? before.link === undefined
          ? {}
          : { link: { state: "Disconnected" as const, since: wasConnected ? now : before.link.since } }
        : { epoch: link.epoch, link: { state: "Connected" as const, since: link.since } }),
      attachedProbes: (set?.set.probes ?? []).map(({ name }) => name),
      checkers: `${row?.cells.length ?? 0}/${row?.cells.filter(({ status }) => status === "ERROR").length ?? 0}`,
      conditions: conditionsOf(cluster, heard, now)
    }
  })

  const write = Effect.fn("ClusterStatuses.write")(function*(name: string) {
    waiting.delete(name)
    const cluster = yield* desired.cluster(name)
    if (Option.isNone(cluster)) return
    const state = yield* of(cluster.value)
    if (Equal.equals(state, cluster.value.status)) return
    const status = yield* Effect.orDie(encode(state))
    yield* resources.applyStatus(Cluster, name, status).pipe(
      Effect.catch((error) => {
        waiting.add(name)
        return Effect.logWarning(error.message)
      })
    )
  })

  const linkEvents = yield* links.events
  const heard = yield* heartbeats.events
  const changes = yield* fleet.transitions({})

  yield* linkEvents.pipe(
    Stream.runForEach((event) =>
      LinkEvent.$match(event, { Opened: ({ link }) => write(link.cluster), Ended: ({ link }) => write(link.cluster) })
    ),
    Effect.forkScoped
  )
  const later = (name: string) => Effect.sync(() => void waiting.add(name))
  yield* Effect.forkScoped(Stream.runForEach(heard, later))
  yield* Effect.forkScoped(Stream.runForEach(changes, ({ cluster }) => later(cluster)))
  const all = Effect.flatMap(desired.clusters, (clusters) => Effect.forEach(clusters, ({ name }) => later(name)))
  yield* Effect.forkScoped(Stream.runForEach(desired.changes, () => all))
  yield* Effect.sync(() => [...waiting]).pipe(
    Effect.flatMap((names) => Effect.forEach(names, write, { concurrency: 8, discard: true })),
    Effect.repeat(Schedule.jittered(Schedule.spaced(FLUSH))),
    Effect.forkScoped
  )

  return ClusterStatuses.of({
    of,
    write,
    unbind: (cluster) =>
      Effect.gen(function*() {
        yield* Ref.update(unbound, (names) => new Set([...names, cluster]))
        yield* heartbeats.forget(cluster)
        yield* write(cluster)
      })
  })
})

/** As the original writes it: seconds, without a zone. */
const originalTime = (time: DateTime.Utc): string => DateTime.formatIso(time).slice(0, 19).replace("T", " ")

const heardState = (heard: Heard): Partial<ClusterState> => ({
  epoch: heard.epoch,
  heartbeat: heard.at,
  heartBeatTimeStamp: originalTime(heard.at),
  versions: heard.versions,
  ...(heard.nodeCount === undefined ? {} : { nodeCount: heard.nodeCount }),
  ...(heard.facts === undefined ? {} : { facts: heard.facts })
})

/** The names of what is wrong with a Cluster; none of it stops its probes. */
const conditionsOf = (
  { spec, status }: KnownCluster,
  heard: Heard | undefined,
  now: DateTime.Utc
): ReadonlyArray<Condition> => {
  const refused = heard?.refused ?? []
  const wanted: ReadonlyArray<Omit<Condition, "lastTransitionTime">> = [
    ...carriesCredentials(spec)
      ? [{
        type: "CredentialsIgnored",
        status: "True" as const,
        reason: "NotUsed",
        message: "spec.clusterConfig carries credentials, which are never used; take them out of the manifest"
      }]
      : [],
    ...refused.length === 0
      ? []
      : [{
        type: "ProbesRefused",
        status: "True" as const,
        reason: "NotRunnable",
        message: refused.map(({ probe, reason }) => `${probe.name}: ${reason}`).join("; ").slice(0, 1024)
      }]
  ]
  return wanted.map((condition) => {
    const before = status.conditions?.find(({ type }) => type === condition.type)
    return { ...condition, lastTransitionTime: before?.status === condition.status ? before.lastTransitionTime : now }
  })
}
