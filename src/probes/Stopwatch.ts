/**
 * How long something took, less the time in which we were late ourselves.
 *
 * A prober on a busy machine would otherwise call a quick server slow. While the effect runs, a ticker measures by how
 * much our own timers come too late; that is time in which an answer may have been waiting for us to read it.
 */
import { Clock, Duration, Effect, Fiber } from "effect"

const TICK = Duration.millis(20)

/** As `Effect.timed`, without our own delays. Never negative. */
export const timed = Effect.fnUntraced(
  function*<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.fn.Return<readonly [Duration.Duration, A], E, R> {
    let late = 0
    let started = yield* Clock.currentTimeMillis
    const measure = Effect.map(Clock.currentTimeMillis, (now) => {
      late += Math.max(0, now - started - Duration.toMillis(TICK))
      started = now
    })
    const ticker = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep(TICK), measure)))
    const [took, value] = yield* Effect.timed(effect).pipe(Effect.ensuring(Fiber.interrupt(ticker)))
    // The tick under way is late too, when both became due while we were busy.
    yield* measure
    return [Duration.millis(Math.max(0, Duration.toMillis(took) - late)), value]
  }
)
