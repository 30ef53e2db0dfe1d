/**
 * Broken told apart from flapping: a checker whose verdict turns between good and bad again and again is one fault that
 * comes and goes, not many that were mended.
 *
 * More than {@link MOST_TURNS} turns within {@link WINDOW} make it flapping; it is no longer when {@link QUIET} has passed without
 * another. Good is PASS or INFO, bad is WARN or ERROR; UNKNOWN says nothing of the target and is neither.
 */
import { DateTime, Duration, Schema } from "effect"
import * as Rule from "./crd/Rule.ts"
import { Code, type Report } from "./Report.ts"
import * as Status from "./Status.ts"
import { Timestamp } from "./Timestamp.ts"

/** The code under which a flapping checker is shown. */
export const FLAPPING = "FLAPPING"

/** Two faults that were mended make four turns; a third within half an hour is no coincidence. */
export const MOST_TURNS = 4
export const WINDOW = Duration.minutes(30)

/**
 * So long it keeps its verdict before that is shown again. A fault that has come to stay is shown as one no later than
 * this, and an interval of five minutes still gives two runs to tell by.
 */
export const QUIET = Duration.minutes(10)

/** The most turns remembered one by one. */
export const MAX_TURNS = 16

/** A run whose verdict was good where the one before was bad, or the other way round. */
export const Turn = Schema.Struct({
  at: Timestamp.pipe(Rule.described("When the run started.")),
  status: Status.Status.pipe(Rule.described("What the verdict turned to.")),
  code: Schema.optionalKey(Code.pipe(Rule.described("The code of that.")))
})
export type Turn = typeof Turn.Type

/** Turns that belong together. */
export const Episode = Schema.Struct({
  since: Timestamp.pipe(Rule.described("When the first of these turns was.")),
  turns: Schema.Natural.pipe(Rule.described("How many there were.")),
  worst: Status.Status.pipe(Rule.described("The worst that the verdict turned to.")),
  code: Schema.optionalKey(Code.pipe(Rule.described("The code of that.")))
})
export type Episode = typeof Episode.Type

/** What is remembered of one checker. */
export interface Turns {
  /** Oldest first, at most {@link MAX_TURNS}. The last one is kept however old it is. */
  readonly turns: ReadonlyArray<Turn>
  /** While it flaps. */
  readonly episode?: Episode | undefined
  /** The last verdict; absent when there was none yet. */
  readonly verdict?: "good" | "bad" | undefined
}

/** Nothing was said yet. */
export const unknown: Turns = { turns: [] }

/** Whether a status is bad, good or says nothing. */
export const verdictOf = (status: Status.Status): "good" | "bad" | undefined =>
  status === "UNKNOWN" ? undefined : Status.isAtLeast(status, "WARN") ? "bad" : "good"

const within = (duration: Duration.Duration, since: DateTime.Utc, now: DateTime.Utc): boolean =>
  DateTime.isLessThanOrEqualTo(now, DateTime.addDuration(since, duration))

const worstOf = (turns: ReadonlyArray<Pick<Turn, "status" | "code">>) =>
  turns.reduce((worst, turn) => Status.order(turn.status, worst.status) > 0 ? turn : worst)

const begin = (turns: ReadonlyArray<Turn>): Episode | undefined => {
  const [first, ...rest] = turns
  if (first === undefined || turns.length <= MOST_TURNS) return undefined
  const { code, status } = worstOf([first, ...rest])
  return { since: first.at, turns: turns.length, worst: status, ...(code === undefined ? {} : { code }) }
}

const goOn = (episode: Episode, turn: Turn): Episode => {
  const { code, status } = worstOf([{ status: episode.worst, ...codeOf(episode) }, turn])
  return { since: episode.since, turns: episode.turns + 1, worst: status, ...(code === undefined ? {} : { code }) }
}

const codeOf = ({ code }: { readonly code?: string | undefined }) => code === undefined ? {} : { code }

/** What is remembered after another run. A run that could not look changes nothing but what time has ended. */
export const follow = (before: Turns, run: Pick<Report, "status" | "code" | "startedAt">): Turns => {
  const { startedAt: at, status } = run
  const verdict = verdictOf(status) ?? before.verdict
  const turn: Turn | undefined = before.verdict !== undefined && verdict !== before.verdict
    ? { at, status, ...codeOf(run) }
    : undefined
  const remembered = before.turns.filter((old, index) =>
    within(WINDOW, old.at, at) || (turn === undefined && index === before.turns.length - 1)
  )
  const turns = turn === undefined ? remembered : [...remembered, turn].slice(-MAX_TURNS)
  const last = turns.at(-1)
  const goes = before.episode !== undefined &&
    (turn !== undefined || (last !== undefined && within(QUIET, last.at, at)))
  const episode = goes && before.episode !== undefined
    ? (turn === undefined ? before.episode : goOn(before.episode, turn))
    : turn === undefined
    ? undefined
    : begin(turns)
  return {
    turns,
    ...(episode === undefined ? {} : { episode }),
    ...(verdict === undefined ? {} : { verdict })
  }
}

/** To the second, which is as exact as people compare it with their logs. */
const timeText = (at: DateTime.Utc): string =>
  `${DateTime.formatIso(at).slice(0, "2026-01-01T12:00:00".length).replace("T", " ")} UTC`

/** For people: how often, since when, what the worst was, when it ends, and what the last run said. */
export const describe = (episode: Episode, report: Pick<Report, "status" | "code" | "message">): string =>
  `went between good and bad ${episode.turns} times since ${timeText(episode.since)}, at worst ` +
  `${episode.worst}${episode.code === undefined ? "" : ` ${episode.code}`}; ends after ${
    Duration.format(QUIET)
  } without another change; the last run said ${report.status}${
    report.code === undefined ? "" : ` ${report.code}`
  }: ${report.message}`
