/**
 * What is known of a checker: its latest report and how it stands.
 *
 * States form a join-semilattice under {@link latest}: of two states of one checker the later run wins, by when the run
 * started and never by when the news arrived. So copies may be merged in any order, any number of times.
 */
import { Array, DateTime, Order } from "effect"
import { type Blame, type Code, type Report } from "./Report.ts"
import type { Standing } from "./Run.ts"
import * as Status from "./Status.ts"

/** One checker of one probe on one cluster. */
export interface CheckerState {
  readonly name: string
  /** The status to show; see {@link Standing}. */
  readonly status: Status.Status
  readonly code?: Code
  readonly blame?: Blame
  readonly message: string
  /** Start of the run that was reported. */
  readonly lastRun: DateTime.Utc
  readonly since: DateTime.Utc
  readonly consecutiveFailures: number
}

/** The state that follows from a report and how the checker stands after it. */
export const make = (report: Report, standing: Standing): CheckerState => ({
  name: report.checker,
  status: standing.status,
  ...(report.code === undefined ? {} : { code: report.code }),
  ...(report.blame === undefined ? {} : { blame: report.blame }),
  message: report.message,
  lastRun: report.startedAt,
  since: standing.since,
  consecutiveFailures: standing.consecutiveFailures
})

const text = (field: (state: CheckerState) => string): Order.Order<CheckerState> => Order.mapInput(Order.String, field)
const time = (field: (state: CheckerState) => DateTime.Utc): Order.Order<CheckerState> =>
  Order.mapInput(DateTime.Order, field)

/**
 * Earlier first. The run's start decides; the rest only makes the order total, so that two masters that hear of two
 * reports with one start agree, and they agree on the worse.
 */
export const order: Order.Order<CheckerState> = Order.combineAll([
  time(({ lastRun }) => lastRun),
  Order.mapInput(Status.order, ({ status }) => status),
  Order.mapInput(Order.Number, ({ consecutiveFailures }) => consecutiveFailures),
  Order.flip(time(({ since }) => since)),
  text(({ code }) => code ?? ""),
  text(({ blame }) => blame ?? ""),
  text(({ message }) => message),
  text(({ name }) => name)
])

/** The later of two states of one checker. */
export const latest = (a: CheckerState, b: CheckerState): CheckerState => order(a, b) >= 0 ? a : b

/** States of many checkers from many sources: the latest of each, by name. */
export const merge = (...sources: ReadonlyArray<ReadonlyArray<CheckerState>>): ReadonlyArray<CheckerState> => {
  const merged = new Map<string, CheckerState>()
  for (const state of sources.flat()) {
    const known = merged.get(state.name)
    merged.set(state.name, known === undefined ? state : latest(known, state))
  }
  return Array.sort(merged.values(), text(({ name }) => name))
}

const isFailure = (status: Status.Status): boolean => Status.isAtLeast(status, "WARN")

/**
 * How a checker stands after a report, given how it stood before.
 *
 * A failure (WARN or ERROR) shows as INFO until `failureThreshold` runs in a row have failed. A run that could not look
 * (UNKNOWN) shows at once and neither adds to the row nor ends it: it says nothing of the target.
 */
export const stand = (
  previous: CheckerState | undefined,
  report: Pick<Report, "status" | "startedAt">,
  failureThreshold = 1
): Standing => {
  const failures = previous?.consecutiveFailures ?? 0
  const consecutiveFailures = isFailure(report.status) ? failures + 1 : report.status === "UNKNOWN" ? failures : 0
  const status = isFailure(report.status) && consecutiveFailures < failureThreshold ? "INFO" : report.status
  return {
    status,
    since: previous?.status === status ? previous.since : report.startedAt,
    consecutiveFailures
  }
}

/**
 * Take in a report. A report of a run that started no later than the one known is history: it changes nothing here, so
 * a late or repeated delivery does no harm.
 */
export const observe = (
  previous: CheckerState | undefined,
  report: Report,
  failureThreshold = 1
): CheckerState =>
  previous !== undefined && DateTime.isLessThanOrEqualTo(report.startedAt, previous.lastRun)
    ? previous
    : make(report, stand(previous, report, failureThreshold))

/** What a set of checkers says together. */
export interface Summary {
  readonly status: Status.Status
  /** Of the worst checker, with its name. */
  readonly message: string
  /** `2/14`: how many show WARN or ERROR, of how many. */
  readonly failing: string
  /** The latest run of any of them. */
  readonly lastRun?: DateTime.Utc
}

/** Worst first, then by name. */
const worstFirst: Order.Order<CheckerState> = Order.combine(
  Order.flip(Order.mapInput(Status.order, ({ status }: CheckerState) => status)),
  text(({ name }) => name)
)

/** The verdict over many checkers. Without any it is UNKNOWN: nothing has been said yet. */
export const summarize = (states: ReadonlyArray<CheckerState>): Summary => {
  const sorted = Array.sort(states, worstFirst)
  const [worst] = sorted
  if (worst === undefined) return { status: "UNKNOWN", message: "no checker has reported yet", failing: "0/0" }
  const failing = states.filter(({ status }) => isFailure(status)).length
  return {
    status: worst.status,
    message: worst.status === "PASS" ? "" : `${worst.name}: ${worst.message}`,
    failing: `${failing}/${states.length}`,
    lastRun: states.reduce((last, { lastRun }) => DateTime.max(last, lastRun), worst.lastRun)
  }
}
