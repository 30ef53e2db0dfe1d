/**
 * How much a result still says. Silence is never shown as PASS.
 */
import { DateTime, Duration, Schema } from "effect"
import { type RunSchedule, staleAt } from "./Policy.ts"
import * as Status from "./Status.ts"

/**
 * `fresh`, `stale` (older than twice the interval, or never run) or `unreachable` (no link to the cluster, so nothing
 * newer can arrive whatever the age).
 */
export const Freshness = Schema.Literals(["fresh", "stale", "unreachable"])
export type Freshness = typeof Freshness.Type

/** How far the clocks of an agent and a master may be apart. */
const CLOCK_TOLERANCE = Duration.minutes(5)

/** Freshness of the last result. `lastRun` is when the run started, absent when there was none. */
export const freshness = (options: {
  readonly schedule: RunSchedule
  readonly lastRun?: DateTime.Utc | undefined
  readonly linked: boolean
  readonly now: DateTime.Utc
}): Freshness => {
  if (!options.linked) return "unreachable"
  if (options.lastRun === undefined) return "stale"
  // Of a clock that is or was wrong: nobody knows how old it is, and it must not stay fresh until its date has come.
  if (DateTime.isGreaterThan(options.lastRun, DateTime.addDuration(options.now, CLOCK_TOLERANCE))) return "stale"
  const limit = staleAt(options.schedule, options.lastRun)
  return limit !== undefined && DateTime.isGreaterThan(options.now, limit) ? "stale" : "fresh"
}

/**
 * The status to show: what was said, unless that can no longer be vouched for. Then PASS and INFO become UNKNOWN,
 * while WARN and ERROR stay: a fault that was seen is there until a run says otherwise.
 */
export const shown = (status: Status.Status, freshness: Freshness): Status.Status =>
  freshness === "fresh" ? status : Status.worse(status, "UNKNOWN")
