/**
 * Retry schedules for probes. Only transient checker faults are retried (no answer, 429, 5xx); a fault of the target
 * is a result, not a reason to ask again.
 */
import { type Duration, Schedule } from "effect"

/** This many further tries, the first after 0.5 s and each after twice the pause before, jittered. */
export const times = (times: number): Schedule.Schedule<Duration.Duration, unknown> =>
  Schedule.exponential("500 millis").pipe(Schedule.jittered, Schedule.upTo({ times }))

/** For reads: three tries in all. The jitter keeps many agents from knocking together. */
export const read: Schedule.Schedule<Duration.Duration, unknown> = times(2)

/** For writes, which are sent once and then read back. */
export const none: Schedule.Schedule<number, unknown> = Schedule.recurs(0)

/** What a schedule does, for people. One that is not from here is the probe's own. */
export const inWords = (schedule: Schedule.Schedule<unknown, unknown>): string =>
  schedule === read
    ? "up to 2 more tries when the API server gives no answer, or one that will pass"
    : schedule === none
    ? "none"
    : "of the probe's own"
