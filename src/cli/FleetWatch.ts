/** The fleet on a screen, for as long as one looks: a table drawn in place on a terminal, else a line for each change. */
import { DateTime, Effect, Ref, Schedule, Stream } from "effect"
import type { FleetClient } from "../client/FleetClient.ts"
import type { FleetFilter, MatrixRow } from "../domain/rpc/Fleet.ts"
import { allPages } from "./MasterSession.ts"
import * as FleetTable from "./output/FleetTable.ts"
import * as LiveLines from "./output/LiveLines.ts"
import { Screen, print } from "./Screen.ts"

/** While watching, what is shown is asked for again at least so often: a master that restarts tells nothing. */
const REFRESH = "5 seconds"

/** How long a first table waits for first results. */
const SETTLE = "30 seconds"

/** All rows that fit. */
export const rows = (fleet: FleetClient["Service"], filter: FleetFilter) =>
  allPages((after) => Effect.map(fleet.matrix({ filter, ...after }), ({ next, rows }) => ({ items: rows, next })))

/** How the table is drawn on this screen now. */
export const tableOptions = Effect.fnUntraced(function*(wide: boolean): Effect.fn.Return<
  FleetTable.FleetTableOptions,
  never,
  Screen
> {
  const { style, width } = (yield* Screen).out
  return { style, wide, width: yield* width, now: yield* DateTime.now }
})

export const printTable = Effect.fnUntraced(function*(
  found: ReadonlyArray<MatrixRow>,
  wide: boolean,
  details?: FleetTable.Details
) {
  yield* print(FleetTable.render(found, { ...yield* tableOptions(wide), details }))
})

/** Draws until it is interrupted, or the master is gone; the last table stays, whole. */
const live = Effect.fnUntraced(function*(
  fleet: FleetClient["Service"],
  filter: FleetFilter,
  { fresh, wide }: { readonly wide: boolean; readonly fresh?: boolean }
) {
  const screen = yield* Screen
  const startedAt = fresh === true ? yield* DateTime.now : undefined
  const latest = yield* Ref.make<ReadonlyArray<MatrixRow>>(yield* rows(fleet, filter))
  const drawn = (height?: number) =>
    Effect.gen(function*() {
      const options = { ...yield* tableOptions(wide), startedAt }
      const found = yield* Ref.get(latest)
      return height === undefined ? FleetTable.render(found, options) : FleetTable.frame(found, { ...options, height })
    }).pipe(Effect.provideService(Screen, screen))
  yield* LiveLines.make(screen.out, ({ height }) => drawn(height), drawn())
  const refresh = Effect.flatMap(rows(fleet, filter), (found) => Ref.set(latest, found))
  const changes = fleet.transitions({ filter }).pipe(
    Stream.debounce("100 millis"),
    Stream.runForEach(() => refresh)
  )
  yield* Effect.raceFirst(changes, Effect.repeat(refresh, Schedule.spaced(REFRESH)))
}, Effect.scoped)

/** One line for each change from now on. */
const lines = (fleet: FleetClient["Service"], filter: FleetFilter) =>
  Effect.flatMap(Screen, ({ out }) =>
    fleet.transitions({ filter }).pipe(
      Stream.runForEach((change) => print([FleetTable.transition(change, out.style)]))
    ))

/** A first look that waits for every checker to have said something, but not for ever: a cluster may not answer. */
const settled = (fleet: FleetClient["Service"], filter: FleetFilter) =>
  rows(fleet, filter).pipe(
    Effect.repeat({
      schedule: Schedule.max([Schedule.spaced("250 millis"), Schedule.during(SETTLE)]),
      until: (found) => found.every((row) => row.cells.every(({ lastRun }) => lastRun !== undefined))
    })
  )

/**
 * Ends only when the master does.
 *
 * @param fresh the fleet has just been started: without a terminal, the table waits for its first results
 */
export const watch = Effect.fnUntraced(function*(
  fleet: FleetClient["Service"],
  filter: FleetFilter,
  options: { readonly wide: boolean; readonly fresh?: boolean }
) {
  const { out } = yield* Screen
  if (out.isTerminal) return yield* live(fleet, filter, options)
  if (options.fresh === true) yield* settled(fleet, filter)
  yield* printTable(yield* rows(fleet, filter), options.wide)
  return yield* lines(fleet, filter)
})
