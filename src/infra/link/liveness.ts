/**
 * Whether the peer is still there. Both ends of a link watch the other.
 */
import { Duration, Effect, Random } from "effect"
import { PeerSilent } from "./LinkError.ts"
import type { Mux } from "./Mux.ts"

/** A ping so often, or up to a tenth later: one timer a link, so that thousands do not fire together. */
const INTERVAL = Duration.seconds(3)

/** How finely silence is measured. */
const SLICE = Duration.millis(500)

/** A peer that says nothing for this long after a ping is gone: 9 to 9.3 s after it was last heard. */
export const MAX_SILENCE = Duration.seconds(6)

/**
 * Abandons the link when the peer is silent. Any byte counts as life, because a ping waits behind whatever a slow line
 * has still to carry. Silence is counted in slices rather than by the clock: after a pause of this process itself one
 * slice ends, what has arrived meanwhile is read, and nobody is found dead.
 */
export const watch = Effect.fnUntraced(function*(mux: Pick<Mux, "ping" | "received" | "abandon">) {
  const longest = Duration.toMillis(MAX_SILENCE) / Duration.toMillis(SLICE)
  while (true) {
    const share = yield* Random.nextBetween(1, 1.1)
    yield* Effect.sleep(Duration.times(INTERVAL, share))
    if (yield* Effect.raceFirst(Effect.as(mux.ping, false), silence(mux, longest))) {
      return yield* mux.abandon(new PeerSilent({ silence: MAX_SILENCE }))
    }
  }
})

/** True once `longest` slices in a row have passed without a byte. */
const silence = Effect.fnUntraced(function*(mux: Pick<Mux, "received">, longest: number) {
  let heard = yield* mux.received
  for (let slices = 0; slices < longest; slices++) {
    yield* Effect.sleep(SLICE)
    const now = yield* mux.received
    if (now !== heard) slices = -1
    heard = now
  }
  return true
})
