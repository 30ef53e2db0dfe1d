/**
 * What is shown of the fleet now: the latest state of every checker of every cluster, as far as it can be vouched for.
 */
import { Context, DateTime, Effect, Layer, Option, PubSub, Schedule, type Scope, Stream } from "effect"
import { matches } from "../domain/ClusterSelector.ts"
import type { RefusedProbe } from "../domain/rpc/Control.ts"
import type { Cell, FleetFilter, MatrixRow, Transition } from "../domain/rpc/Fleet.ts"
import * as Status from "../domain/Status.ts"
import { LinkEvent, Links } from "../infra/link/Links.ts"
import { Desired, type KnownCluster } from "./Desired.ts"
import { type Shown, cellsOf, isSameShow, isWanted, keyOf } from "./fleet/shown.ts"
import { Heartbeats } from "./Heartbeats.ts"
import { type CellState, History, type HistoryError, type Recorded } from "./History.ts"

export class FleetState extends Context.Service<FleetState, {
  /** Rows of the clusters that fit, by name, from the one after `after` on, at most `limit`. */
  readonly rows: (options: {
    readonly filter: FleetFilter
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<MatrixRow>>
  readonly row: (cluster: string) => Effect.Effect<Option.Option<MatrixRow>>
  /** Changes of what is shown, from the moment the effect has run: news, staleness, lost and regained links. */
  readonly transitions: (filter: FleetFilter) => Effect.Effect<Stream.Stream<Transition>, never, Scope.Scope>
  /** Take in what was recorded of a cluster. */
  readonly observe: (cluster: string, recorded: ReadonlyArray<Recorded>) => Effect.Effect<void>
  /** Forget a cluster that was removed. */
  readonly forget: (cluster: string) => Effect.Effect<void>
}>()("kubeprober/master/FleetState") {
  static readonly layer: Layer.Layer<FleetState, HistoryError, Desired | Heartbeats | History | Links> = Layer.effect(
    FleetState,
    Effect.suspend(() => make)
  )
}

/** Transitions a slow listener may lag behind before it misses the oldest; what is true now is in the rows. */
const TRANSITIONS = 8192

/** How finely staleness is told. A pass looks at one number a cluster. */
const STALENESS = "1 second"

interface Entry {
  /** The latest of every checker that has reported, wanted or not. */
  readonly known: Map<string, CellState>
  /** As last shown. */
  shown: ReadonlyMap<string, Cell>
  /** What the agent had refused then. */
  refused: ReadonlyArray<RefusedProbe>
  /** When something shown as fresh stops being so, in milliseconds since the epoch. */
  staleAt: number
}

const make = Effect.gen(function*() {
  const desired = yield* Desired
  const history = yield* History
  const links = yield* Links
  const heartbeats = yield* Heartbeats

  const entries = new Map<string, Entry>()
  const transitions = yield* PubSub.sliding<{ readonly change: Transition; readonly cluster: KnownCluster }>(
    TRANSITIONS
  )
  const entryOf = (cluster: string): Entry => {
    const known = entries.get(cluster) ?? { known: new Map(), shown: new Map(), refused: [], staleAt: Infinity }
    entries.set(cluster, known)
    return known
  }

  /** Since when; nothing without a link. */
  const linkedSince = (cluster: string) =>
    Effect.map(Effect.option(links.find(cluster)), (link) => Option.getOrUndefined(link)?.since)

  const refusedBy = (cluster: string) =>
    Effect.map(
      heartbeats.of(cluster),
      Option.match({ onNone: (): ReadonlyArray<RefusedProbe> => [], onSome: ({ refused }) => refused })
    )

  const look = Effect.fnUntraced(function*(cluster: string) {
    const set = yield* desired.of(cluster)
    if (Option.isNone(set)) return undefined
    const since = yield* linkedSince(cluster)
    const linked = since !== undefined
    const now = yield* DateTime.now
    const { known } = entryOf(cluster)
    const refused = yield* refusedBy(cluster)
    return {
      linked,
      since,
      now,
      refused,
      cells: cellsOf({ probes: set.value.set.probes, known, refused, linked, now })
    }
  })

  /** Looks again, and tells what is shown differently. */
  const refresh = Effect.fnUntraced(function*(cluster: string, options?: { readonly silent: boolean }) {
    const seen = yield* look(cluster)
    const of = yield* desired.cluster(cluster)
    if (seen === undefined || Option.isNone(of)) return
    const entry = entryOf(cluster)
    const before = entry.shown
    entry.refused = seen.refused
    entry.shown = new Map(seen.cells.map(({ cell }) => [keyOf(cell), cell]))
    entry.staleAt = seen.cells.reduce(
      (soonest, { until }) => until === undefined ? soonest : Math.min(soonest, DateTime.toEpochMillis(until)),
      Infinity
    )
    if (options?.silent === true) return
    yield* Effect.forEach(seen.cells, ({ cell }) => {
      const previous = before.get(keyOf(cell))
      return isSameShow(previous, cell)
        ? Effect.void
        : PubSub.publish(transitions, { cluster: of.value, change: changeOf(cluster, previous, cell, seen.now) })
    }, { discard: true })
  })

  const observe = Effect.fnUntraced(function*(cluster: string, recorded: ReadonlyArray<Recorded>) {
    const set = yield* desired.of(cluster)
    if (Option.isNone(set)) return
    const { known } = entryOf(cluster)
    for (const { cell, isLatest } of recorded) {
      // What nobody asked for, such as a Probe that was just deleted, is history only.
      if (isLatest && isWanted(set.value.set.probes, cell)) known.set(keyOf(cell), cell)
    }
    yield* refresh(cluster)
  })

  /** What no Probe asks for any more goes from memory and from the history. */
  const forgetUnwanted = Effect.fnUntraced(function*(cluster: string) {
    const set = yield* desired.of(cluster)
    if (Option.isNone(set)) return
    const { known } = entryOf(cluster)
    const gone = [...known].filter(([, cell]) => !isWanted(set.value.set.probes, cell))
    if (gone.length === 0) return
    for (const [key] of gone) known.delete(key)
    yield* history.forget(cluster, (cell) => isWanted(set.value.set.probes, cell)).pipe(
      Effect.catch((error) => Effect.logWarning(error.message))
    )
  })

  // Subscribed before anything is read, so that nothing is missed in between.
  const linkEvents = yield* links.events
  const heard = yield* heartbeats.events
  for (const cell of yield* history.latest()) entryOf(cell.cluster).known.set(keyOf(cell), cell)
  const names = Effect.map(desired.clusters, (clusters) => clusters.map(({ name }) => name))
  yield* Effect.forEach(yield* names, (name) => refresh(name, { silent: true }), { discard: true })

  yield* linkEvents.pipe(
    Stream.runForEach((event) =>
      LinkEvent.$match(event, {
        Opened: ({ link }) => guarded(link.cluster, refresh(link.cluster)),
        Ended: ({ link }) => guarded(link.cluster, refresh(link.cluster))
      })
    ),
    Effect.forkScoped
  )
  yield* heard.pipe(
    Stream.runForEach((cluster) =>
      Effect.flatMap(refusedBy(cluster), (refused) => {
        const before = entryOf(cluster).refused
        return refused === before || (refused.length === 0 && before.length === 0)
          ? Effect.void
          : guarded(cluster, refresh(cluster))
      })
    ),
    Effect.forkScoped
  )
  yield* desired.changes.pipe(
    Stream.runForEach(() =>
      Effect.flatMap(
        names,
        (all) =>
          Effect.forEach(all, (name) => guarded(name, Effect.andThen(forgetUnwanted(name), refresh(name))), {
            discard: true
          })
      )
    ),
    Effect.forkScoped
  )
  yield* Effect.gen(function*() {
    const now = DateTime.toEpochMillis(yield* DateTime.now)
    const due = [...entries].filter(([, { staleAt }]) => staleAt < now).map(([name]) => name)
    yield* Effect.forEach(due, (name) => guarded(name, refresh(name)), { discard: true })
  }).pipe(Effect.repeat(Schedule.spaced(STALENESS)), Effect.forkScoped)

  const rowOf = Effect.fnUntraced(function*(cluster: string, filter: FleetFilter) {
    const seen = yield* look(cluster)
    if (seen === undefined) return Option.none<MatrixRow>()
    const cells = seen.cells.filter(({ cell }) => fits(filter, cell))
    if (cells.length === 0 && asksForCells(filter)) return Option.none<MatrixRow>()
    return Option.some<MatrixRow>({
      cluster,
      status: statusOf(cells),
      linked: seen.linked,
      ...(seen.since === undefined ? {} : { linkedSince: seen.since }),
      cells: cells.map(({ cell }) => cell)
    })
  })

  return FleetState.of({
    observe,
    forget: (cluster) => Effect.sync(() => void entries.delete(cluster)),
    row: (cluster) => rowOf(cluster, {}),
    rows: Effect.fnUntraced(function*({ after, filter, limit }) {
      const rows: Array<MatrixRow> = []
      for (const cluster of yield* desired.clusters) {
        if (rows.length >= limit) break
        if ((after !== undefined && cluster.name <= after) || !selects(filter, cluster)) continue
        const row = yield* rowOf(cluster.name, filter)
        if (Option.isSome(row)) rows.push(row.value)
      }
      return rows
    }),
    transitions: Effect.fnUntraced(function*(filter) {
      const subscription = yield* PubSub.subscribe(transitions)
      return Stream.fromSubscription(subscription).pipe(
        Stream.filter(({ change, cluster }) =>
          selects(filter, cluster) && fitsProbe(filter, change) &&
          (filter.atLeast === undefined || Status.isAtLeast(change.to, filter.atLeast) ||
            (change.from !== undefined && Status.isAtLeast(change.from, filter.atLeast)))
        ),
        Stream.map(({ change }) => change)
      )
    })
  })
})

/** What breaks for one cluster must not keep the others from being shown as they are. */
const guarded = (cluster: string, effect: Effect.Effect<void>) =>
  Effect.catchCause(
    effect,
    (cause) => Effect.logError(`what is shown of cluster ${cluster} could not be brought up to date`, cause)
  )

const changeOf = (cluster: string, before: Cell | undefined, cell: Cell, at: DateTime.Utc): Transition => ({
  cluster,
  probe: cell.probe,
  checker: cell.checker,
  layer: cell.layer,
  ...(before === undefined ? {} : { from: before.status }),
  to: cell.status,
  freshness: cell.freshness,
  ...(cell.code === undefined ? {} : { code: cell.code }),
  message: cell.message,
  at
})

/** Nothing to run is nothing known: an empty plan must not read as PASS. */
const statusOf = (cells: ReadonlyArray<Shown>): Status.Status => {
  const counted = cells.filter(({ shadow }) => !shadow)
  return counted.length === 0 ? "UNKNOWN" : Status.worst(counted.map(({ cell }) => cell.status))
}

/** Whether a filter means a cluster. */
export const selects = (
  filter: Pick<FleetFilter, "clusters" | "clusterSelector">,
  { labels, name }: Pick<KnownCluster, "labels" | "name">
): boolean =>
  (filter.clusters === undefined || filter.clusters.includes(name)) &&
  (filter.clusterSelector === undefined || matches(filter.clusterSelector, labels))

const fitsProbe = (filter: FleetFilter, { layer, probe }: Pick<Cell, "layer" | "probe">): boolean =>
  (filter.layers === undefined || filter.layers.includes(layer)) &&
  (filter.probes === undefined || filter.probes.includes(probe.name))

const fits = (filter: FleetFilter, cell: Cell): boolean =>
  fitsProbe(filter, cell) && (filter.atLeast === undefined || Status.isAtLeast(cell.status, filter.atLeast))

const asksForCells = ({ atLeast, layers, probes }: FleetFilter): boolean =>
  atLeast !== undefined || layers !== undefined || probes !== undefined
