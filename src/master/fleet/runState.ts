/** What a ProbeRun says of its run, from what happens in it. */
import { Array, Order } from "effect"
import { counted } from "../../domain/counted.ts"
import { MAX_RESULTS, type ProbeRunState } from "../../domain/kinds/ProbeRun.ts"
import type { FleetRunEvent } from "../../domain/rpc/Fleet.ts"
import type { RunId } from "../../domain/Run.ts"
import * as Status from "../../domain/Status.ts"

type Result = NonNullable<ProbeRunState["results"]>[number]

/** A run so far. Holds the worst results only, however many there are. */
export interface Tally {
  readonly run: RunId | undefined
  readonly selected: ReadonlyArray<string>
  readonly finished: number
  readonly unreachable: number
  /** Clusters whose run was cut short by its deadline. */
  readonly late: number
  /** Clusters that have said something. */
  readonly heard: ReadonlySet<string>
  readonly results: ReadonlyArray<Result>
  readonly count: number
}

export const empty: Tally = {
  run: undefined,
  selected: [],
  finished: 0,
  unreachable: 0,
  late: 0,
  heard: new Set(),
  results: [],
  count: 0
}

const worstFirst: Order.Order<Result> = Order.combineAll([
  Order.flip(Order.mapInput(Status.order, ({ status }: Result) => status)),
  Order.mapInput(Order.String, ({ cluster }: Result) => cluster),
  Order.mapInput(Order.String, ({ checker }: Result) => checker ?? "")
])

const add = (tally: Tally, result: Result): Tally => {
  const last = tally.results.at(-1)
  const isLeftOut = tally.results.length >= MAX_RESULTS && last !== undefined && worstFirst(last, result) <= 0
  return {
    ...tally,
    heard: tally.heard.has(result.cluster) ? tally.heard : new Set([...tally.heard, result.cluster]),
    results: isLeftOut ? tally.results : Array.sort([...tally.results, result], worstFirst).slice(0, MAX_RESULTS),
    count: tally.count + 1
  }
}

const SILENT = "it ended without a report of any checker"

/** A cluster that did not answer in full is UNKNOWN, whatever its checkers said before. */
export const next = (tally: Tally, event: FleetRunEvent): Tally => {
  switch (event._tag) {
    case "Started":
      return { ...tally, run: event.run, selected: event.clusters }
    case "Reported": {
      const { checker, code, message, status } = event.record.report
      return add(tally, { cluster: event.cluster, checker, status, ...(code === undefined ? {} : { code }), message })
    }
    case "Ended": {
      const { cluster, message = SILENT, outcome } = event
      const unknown: Result = { cluster, status: "UNKNOWN", message }
      switch (outcome) {
        case "finished": {
          const finished = { ...tally, finished: tally.finished + 1 }
          return tally.heard.has(cluster) ? finished : add(finished, unknown)
        }
        case "timed-out":
          return add({ ...tally, unreachable: tally.unreachable + 1, late: tally.late + 1 }, unknown)
        case "unreachable":
          return add({ ...tally, unreachable: tally.unreachable + 1 }, unknown)
        case "refused":
          return add(tally, unknown)
      }
    }
  }
}

/** The counts and results as the resource has them. */
export const stateOf = (tally: Tally): ProbeRunState => {
  const { count, finished, results, run, selected, unreachable } = tally
  return {
    ...(run === undefined ? {} : { run }),
    clusters: { selected: selected.length, finished, unreachable },
    results,
    ...(count > results.length ? { omitted: count - results.length } : {})
  }
}

/** The verdict: no result is no PASS. */
export const verdictOf = ({ late, results }: Tally): Pick<ProbeRunState, "status" | "message"> => {
  const [worst] = results
  if (worst === undefined) return { status: "UNKNOWN", message: "no cluster has reported anything" }
  const { checker, cluster, message = "", status } = worst
  const cut = late === 0 ? "" : ` (the deadline cut the run short on ${counted(late, "cluster")})`
  return { status, message: `${cluster}${checker === undefined ? "" : ` ${checker}`}: ${message}${cut}` }
}
