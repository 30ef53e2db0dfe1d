/**
 * When a check runs because something changed: soon, once for changes that come together, and never more often than its
 * spacing allows. The last change is never lost: it is followed by a run that starts after it.
 *
 * Pure; times are milliseconds of any one clock that does not go backwards.
 */

/** After the last of several changes so much (ms) passes without another: controllers write an object in several steps. */
export const QUIET = 100

/** Yet the first of them waits no longer than this (ms). */
export const LONGEST = 300

/** So many runs may follow each other at once... */
export const BURST = 3

/** ...and then one in so much time (ms): what changes all the time is polled, not followed. */
export const SPACING = 10_000

export interface Debounce {
  /** Runs that may start now, fractions included, as of `at`. */
  readonly tokens: number
  readonly at: number
  /** The first and the last change that no run has started after. */
  readonly pending: { readonly first: number; readonly last: number } | undefined
}

export const initial: Debounce = { tokens: BURST, at: -Infinity, pending: undefined }

const tokensAt = ({ at, tokens }: Debounce, now: number): number => Math.min(BURST, tokens + (now - at) / SPACING)

/** Something changed. */
export const changed = (state: Debounce, now: number): Debounce => ({
  ...state,
  pending: { first: state.pending?.first ?? now, last: now }
})

/** When a run is due, or never. It may lie in the past. */
export const dueAt = (state: Debounce): number | undefined => {
  if (state.pending === undefined) return undefined
  const { first, last } = state.pending
  const settled = Math.min(last + QUIET, first + LONGEST)
  return state.tokens >= 1 ? settled : Math.max(settled, state.at + Math.ceil((1 - state.tokens) * SPACING))
}

/** A run for what changed starts. Its reads come after every change so far. */
export const started = (state: Debounce, now: number): Debounce => ({
  tokens: tokensAt(state, now) - 1,
  at: now,
  pending: undefined
})

/** A run for another reason starts: it sees every change so far, and costs nothing. */
export const covered = (state: Debounce): Debounce => ({ ...state, pending: undefined })
