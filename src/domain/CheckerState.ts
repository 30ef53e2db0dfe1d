/**
 * What is known of a checker: its latest report and how it stands.
 *
 * States form a join-semilattice under {@link latest}: of two states of one checker the later run wins, by when the run
 * started and never by when the news arrived. So copies may be merged in any order, any number of times.
 */
import { Array, DateTime, Duration, Order, Schema } from "effect"
import * as Rule from "./crd/Rule.ts"
import * as Flapping from "./Flapping.ts"
import { type Blame, type Code, type Finding, MAX_FINDINGS, type Report, cleanMessage, keyOf } from "./Report.ts"
import type { Standing } from "./Run.ts"
import * as Status from "./Status.ts"

/** The code of a fault that was seen once, while the second look could not look. Its evidence names the fault's code. */
export const CONFIRMATION_FAILED = "CONFIRMATION_FAILED"

/** What the next report of a checker is judged by. Whoever runs the checker keeps it; it does not travel. */
export const Memory = Schema.Struct({
  standing: Schema.optionalKey(
    Schema.Array(Schema.String).check(Schema.isMaxLength(MAX_FINDINGS)).pipe(Rule.described(
      "What stands WARN or ERROR: codes, each with its object. It needs no second look to be reported again."
    ))
  ),
  turns: Schema.optionalKey(
    Schema.Array(Flapping.Turn).check(Schema.isMaxLength(Flapping.MAX_TURNS)).pipe(Rule.described(
      "Recent runs in which the verdict turned between good and bad."
    ))
  ),
  episode: Schema.optionalKey(Flapping.Episode.pipe(Rule.described(
    "Since when and how often the verdict has gone between good and bad; present while the checker flaps."
  ))),
  verdict: Schema.optionalKey(
    Schema.Literals(["good", "bad"]).pipe(Rule.described(
      "The last verdict, when the status shown does not tell it."
    ))
  )
})
export type Memory = typeof Memory.Type

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
  /** Known where the checker runs. */
  readonly memory?: Memory
}

/** The state that follows from a report and how the checker stands after it. */
export const make = (report: Report, standing: Standing): CheckerState => ({
  name: report.checker,
  status: standing.status,
  ...(standing.flapping !== undefined
    ? {
      code: Flapping.FLAPPING,
      blame: "target",
      message: cleanMessage(Flapping.describe(standing.flapping, report))
    }
    : {
      ...(report.code === undefined ? {} : { code: report.code }),
      ...(report.blame === undefined ? {} : { blame: report.blame }),
      message: report.message
    }),
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
  text(({ name }) => name),
  text(({ memory }) => memory === undefined ? "" : JSON.stringify(memory))
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

/** A run that saw nothing at all, rather than one that saw all but some objects. */
const isBlind = ({ findings }: Pick<Report, "findings">): boolean =>
  findings.length === 1 && findings.every(({ status, subject }) => status === "UNKNOWN" && subject === undefined)

/** What a finding makes stand: a fault, or one that was seen and could not be looked at again. */
const standingOf = ({ code, evidence, status, subject }: Finding): ReadonlyArray<string> => {
  if (isFailure(status)) return [keyOf({ code, ...(subject === undefined ? {} : { subject }) })]
  const unconfirmed = code === CONFIRMATION_FAILED ? evidence?.["code"] : undefined
  return typeof unconfirmed === "string"
    ? [keyOf({ code: unconfirmed, ...(subject === undefined ? {} : { subject }) })]
    : []
}

const standingAfter = (previous: CheckerState | undefined, report: Pick<Report, "findings">): ReadonlyArray<string> => {
  const seen = report.findings.flatMap(standingOf)
  const before = isBlind(report) ? previous?.memory?.standing ?? [] : []
  return [...new Set([...seen, ...before])].slice(0, MAX_FINDINGS)
}

const turnsOf = (previous: CheckerState | undefined): Flapping.Turns =>
  previous === undefined ? Flapping.unknown : {
    turns: previous.memory?.turns ?? [],
    episode: previous.memory?.episode,
    verdict: previous.memory?.verdict ?? Flapping.verdictOf(previous.status)
  }

type Judged = Pick<Report, "status" | "startedAt"> & Partial<Pick<Report, "code" | "findings">>

const after = (
  previous: CheckerState | undefined,
  report: Judged,
  failureThreshold: number
): { readonly standing: Standing; readonly memory: Memory | undefined } => {
  const failures = previous?.consecutiveFailures ?? 0
  const consecutiveFailures = isFailure(report.status) ? failures + 1 : report.status === "UNKNOWN" ? failures : 0
  const judged = isFailure(report.status) && consecutiveFailures < failureThreshold ? "INFO" : report.status
  const { episode, turns, verdict } = Flapping.follow(turnsOf(previous), { ...report, status: judged })
  const flapping = judged === "UNKNOWN" ? undefined : episode
  const status = flapping === undefined ? judged : "WARN"
  const standing = standingAfter(previous, { findings: report.findings ?? [] })
  const memory: Memory = {
    ...(standing.length === 0 ? {} : { standing }),
    ...(turns.length === 0 ? {} : { turns }),
    ...(episode === undefined ? {} : { episode }),
    ...(verdict === undefined || verdict === Flapping.verdictOf(status) ? {} : { verdict })
  }
  return {
    standing: {
      status,
      since: previous?.status === status ? previous.since : report.startedAt,
      consecutiveFailures,
      ...(flapping === undefined ? {} : { flapping })
    },
    memory: Object.keys(memory).length === 0 ? undefined : memory
  }
}

/**
 * How a checker stands after a report, given how it stood before.
 *
 * A failure (WARN or ERROR) shows as INFO until `failureThreshold` runs in a row have failed. A run that could not look
 * (UNKNOWN) shows at once and neither adds to the row nor ends it: it says nothing of the target. What then goes between
 * good and bad too often shows as WARN, whatever a single run said (see `Flapping`).
 */
export const stand = (previous: CheckerState | undefined, report: Judged, failureThreshold = 1): Standing =>
  after(previous, report, failureThreshold).standing

/**
 * Take in a report. A report of a run that started no later than the one known is history: it changes nothing here, so
 * a late or repeated delivery does no harm.
 */
export const observe = (
  previous: CheckerState | undefined,
  report: Report,
  failureThreshold = 1
): CheckerState => {
  if (previous !== undefined && DateTime.isLessThanOrEqualTo(report.startedAt, previous.lastRun)) return previous
  const { memory, standing } = after(previous, report, failureThreshold)
  return { ...make(report, standing), ...(memory === undefined ? {} : { memory }) }
}

/**
 * A state as it can be followed by a run that started at `startedAt`. A date that lies ahead of the clock is of a clock
 * that was set back since: the run was before this one, and nothing of it may wait until its date has come.
 */
export const recalled = (state: CheckerState, startedAt: DateTime.Utc, now: DateTime.Utc): CheckerState => {
  if (DateTime.isLessThanOrEqualTo(state.lastRun, now)) return state
  const last = DateTime.subtractDuration(startedAt, Duration.millis(1))
  const past = (time: DateTime.Utc) => DateTime.min(time, last)
  const { memory } = state
  return {
    ...state,
    lastRun: last,
    since: past(state.since),
    ...(memory === undefined ? {} : {
      memory: {
        ...memory,
        ...(memory.turns === undefined ? {} : { turns: memory.turns.map((turn) => ({ ...turn, at: past(turn.at) })) }),
        ...(memory.episode === undefined ? {} : { episode: { ...memory.episode, since: past(memory.episode.since) } })
      }
    })
  }
}

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
