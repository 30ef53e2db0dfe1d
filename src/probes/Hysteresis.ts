/**
 * Limits that do not flicker: what was red beyond a limit is green again only when it is clear of it by a tenth.
 *
 * Use it for numbers that wander, such as latencies and percentages; not for ages, which only grow, or counts of things
 * that are broken, of which one is one too many. Nor where one code is said of several numbers of one object, such as its
 * file systems: what stands does not tell of which, and another one near the limit would never turn green.
 *
 * ```ts
 * const limits = yield* Hysteresis.limits
 * if (limits.exceeds(percent, 85, { code: codes.NEARLY_FULL, subject })) ...
 * ```
 */
import { Duration, Effect } from "effect"
import { type Subject, keyOf } from "../domain/Report.ts"
import { RunContext } from "./RunContext.ts"

/** A value that was beyond its limit is clear of it at nine tenths, or at a limit's inverse of that. */
export const MARGIN = 0.9

/** What would be said of a value beyond its limit: whether that stands already decides where the limit is. */
export interface Said {
  readonly code: { readonly code: string }
  readonly subject?: Subject | undefined
}

/** Limits, given what stands. Both values in one unit. */
export interface Limits {
  /** Above `limit`; while that stands, at or above nine tenths of it. */
  readonly exceeds: (value: number, limit: number, said: Said) => boolean
  /** At or above `limit`; while that stands, at or above nine tenths of it. */
  readonly reaches: (value: number, limit: number, said: Said) => boolean
  /** Below `limit`; while that stands, at or below ten ninths of it. */
  readonly fallsBelow: (value: number, limit: number, said: Said) => boolean
  /** {@link exceeds} for times. */
  readonly takesLonger: (took: Duration.Duration, limit: Duration.Duration, said: Said) => boolean
}

/** For pure judges: `standing` as `RunContext` has it. A value that is no number is beyond no limit. */
export const make = (standing: ReadonlySet<string> = new Set()): Limits => {
  const stands = ({ code: { code }, subject }: Said): boolean =>
    standing.has(keyOf({ code, ...(subject === undefined ? {} : { subject }) }))
  const exceeds: Limits["exceeds"] = (value, limit, said) =>
    value > limit || (stands(said) && value >= limit * MARGIN && limit > 0)
  return {
    exceeds,
    reaches: (value, limit, said) => value >= limit || exceeds(value, limit, said),
    fallsBelow: (value, limit, said) => value < limit || (stands(said) && value <= limit / MARGIN && limit > 0),
    takesLonger: (took, limit, said) => exceeds(Duration.toMillis(took), Duration.toMillis(limit), said)
  }
}

/** A limit in a message, which must explain why a value that is not beyond it is red. */
export const text = (limit: string, isBeyond: boolean): string =>
  isBeyond ? `limit ${limit}` : `limit ${limit}, and green again when clear of it by a tenth`

/** Where nothing stands. */
export const strict: Limits = make()

/** Of this run of this checker. */
export const limits: Effect.Effect<Limits, never, RunContext> = Effect.map(
  RunContext,
  ({ standing }) => make(standing)
)
