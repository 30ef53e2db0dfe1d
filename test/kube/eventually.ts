/** Waiting for what takes an unknown time, with a deadline. Needs the live clock. */
import { Effect, Schedule } from "effect"

/** Runs `check` until it gives something, at most for `seconds`; then the test fails with `what`. */
export const eventually = <A, E, R>(what: string, check: Effect.Effect<A | undefined | false, E, R>, seconds = 20) =>
  check.pipe(
    Effect.filterOrFail((found): found is A => found !== undefined && found !== false, () => "not yet" as const),
    Effect.retry({ while: (error) => error === "not yet", schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutOrElse({
      duration: `${seconds} seconds`,
      orElse: () => Effect.die(new Error(`${what}: not within ${seconds} s`))
    })
  )
