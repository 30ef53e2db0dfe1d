/**
 * How long something took, less the time in which we were late ourselves or kept it waiting.
 *
 * A prober on a busy machine would otherwise call a quick server slow. While the effect runs, a ticker measures by how
 * much our own timers come too late; that is time in which an answer may have been waiting for us to read it. Waits of
 * Kubernetes requests for the prober's budget or for a turn at its connections are told by the client.
 */
import { Clock, Duration, Effect, Fiber } from "effect"
import { KubeWaits, type Waits } from "../infra/kube/KubeWaits.ts"

const TICK = Duration.millis(20)

/** As `Effect.timed`, without our own delays and waits. Never negative. */
export const timed = Effect.fnUntraced(
  function*<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.fn.Return<readonly [Duration.Duration, A], E, R> {
    let late = 0
    let started = yield* Clock.currentTimeMillis
    const measure = Effect.map(Clock.currentTimeMillis, (now) => {
      late += Math.max(0, now - started - Duration.toMillis(TICK))
      started = now
    })
    const outer = yield* KubeWaits
    let waiting = 0
    let waited = 0
    let since = { now: 0, late: 0 }
    // Several requests that wait at a time wait once.
    const begin = Effect.map(Clock.currentTimeMillis, (now) => {
      if (waiting++ === 0) since = { now, late }
    })
    const end = Effect.map(Clock.currentTimeMillis, (now) => {
      if (--waiting === 0) waited += Math.max(0, now - since.now - (late - since.late))
    })
    const waits: Waits = {
      during: (wait) => Effect.acquireUseRelease(begin, () => outer.during(wait), () => end)
    }
    const ticker = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep(TICK), measure)))
    const [took, value] = yield* Effect.timed(Effect.provideService(effect, KubeWaits, waits)).pipe(
      Effect.ensuring(Fiber.interrupt(ticker))
    )
    // The tick under way is late too, when both became due while we were busy.
    yield* measure
    return [Duration.millis(Math.max(0, Duration.toMillis(took) - late - waited)), value]
  }
)
