/**
 * When to dial again: once at once, then after a random time up to a ceiling that doubles (full jitter), from 0.5 to
 * 30 s. A link that held for 30 s starts over; one that broke sooner does not, or a peer that accepts and drops would be
 * dialled without pause.
 */
import { Duration, Effect, Random } from "effect"

/** Attempts since the last link that held. */
export interface Attempts {
  readonly failed: number
}

export const fresh: Attempts = { failed: 0 }

const FIRST_CEILING = 500
const LAST_CEILING = 30_000
const HEALTHY = Duration.seconds(30)

/** How an attempt ended. */
export interface Ending {
  /** How long there was a link. */
  readonly linkedFor: Duration.Duration
  /** Wait at least this long: the peer said so. */
  readonly notBefore?: Duration.Duration | undefined
  /** Do not try at once: the cause will not be gone by then. */
  readonly refused: boolean
}

/** What is known after an attempt, and the longest to wait before the next, in milliseconds. */
export const next = (attempts: Attempts, ending: Ending): readonly [attempts: Attempts, ceiling: number] => {
  const before = Duration.isGreaterThanOrEqualTo(ending.linkedFor, HEALTHY) ? 0 : attempts.failed
  const failed = Math.min(before + 1, 10)
  if (before === 0 && !ending.refused) return [{ failed }, 0]
  return [{ failed }, Math.min(LAST_CEILING, FIRST_CEILING * 2 ** Math.max(0, before - (ending.refused ? 0 : 1)))]
}

/** A time up to the ceiling, and as much again after what the peer asked for: those it sends away come back spread. */
export const delay = Effect.fnUntraced(function*(ceiling: number, notBefore: Duration.Duration = Duration.zero) {
  const jitter = yield* Random.nextBetween(0, Math.max(ceiling, Duration.toMillis(notBefore) / 2))
  return Duration.sum(notBefore, Duration.millis(Math.round(jitter)))
})
