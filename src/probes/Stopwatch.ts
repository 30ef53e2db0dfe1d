/**
 * How long something took, less the time in which we were late ourselves or kept it waiting.
 *
 * A prober on a busy machine would otherwise call a quick server slow. While the effect runs, a ticker measures by how
 * much our own timers come too late; that is time in which an answer may have been waiting for us to read it. Waits of
 * Kubernetes requests for the prober's budget or for a turn at its connections are told by the client.
 */
import { Clock, Duration, Effect, Fiber, Option } from "effect"
import { KubeWaits, type Waits } from "../infra/kube/KubeWaits.ts"

const TICK = Duration.millis(20)

/** Collects what requests wait for ourselves, as listeners further out do too. `late`: what is left out already. */
const listen = Effect.fnUntraced(function*(late: () => number) {
  const outer = yield* KubeWaits
  let waiting = 0
  let waited = 0
  let since = { now: 0, late: 0 }
  const until = (now: number) => waiting === 0 ? 0 : Math.max(0, now - since.now - (late() - since.late))
  const waits: Waits = {
    // Several requests that wait at a time wait once.
    during: (wait) =>
      Effect.acquireUseRelease(
        Effect.map(Clock.currentTimeMillis, (now) => {
          if (waiting === 0) since = { now, late: late() }
          waiting++
        }),
        () => outer.during(wait),
        () =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            if (waiting === 1) waited += until(now)
            waiting--
          })
      )
  }
  /** Milliseconds until now. */
  return { waits, waited: Effect.map(Clock.currentTimeMillis, (now) => waited + until(now)) }
})

/** As `Effect.timed`, without our own delays and waits. Never negative. */
export const timed = Effect.fnUntraced(
  function*<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.fn.Return<readonly [Duration.Duration, A], E, R> {
    let late = 0
    let started = yield* Clock.currentTimeMillis
    const measure = Effect.map(Clock.currentTimeMillis, (now) => {
      late += Math.max(0, now - started - Duration.toMillis(TICK))
      started = now
    })
    const { waited, waits } = yield* listen(() => late)
    const ticker = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep(TICK), measure)))
    const [took, value] = yield* Effect.timed(Effect.provideService(effect, KubeWaits, waits)).pipe(
      Effect.ensuring(Fiber.interrupt(ticker))
    )
    // The tick under way is late too, when both became due while we were busy.
    yield* measure
    return [Duration.millis(Math.max(0, Duration.toMillis(took) - late - (yield* waited))), value]
  }
)

/** As `Effect.timeoutOption`, of which our own waits take nothing: none is then the server's silence, and not ours. */
export const within = (limit: Duration.Duration) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { waited, waits } = yield* listen(() => 0)
    const started = yield* Clock.currentTimeMillis
    const left = Effect.gen(function*() {
      const passed = (yield* Clock.currentTimeMillis) - started - (yield* waited)
      return Duration.toMillis(limit) - passed
    })
    const over = Effect.repeat(
      Effect.flatMap(left, (millis) => Effect.sleep(Math.max(millis, Duration.toMillis(TICK)))),
      { until: () => Effect.map(left, (millis) => millis <= 0) }
    )
    return yield* Effect.raceFirst(
      Effect.asSome(Effect.provideService(effect, KubeWaits, waits)),
      Effect.as(over, Option.none<A>())
    )
  })

/** As `Effect.timeoutOrElse`, of which our own waits take nothing. */
export const withinOrElse = <B, E2, R2>(
  { limit, orElse }: { readonly limit: Duration.Duration; readonly orElse: () => Effect.Effect<B, E2, R2> }
) =>
<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A | B, E | E2, R | R2> =>
  Effect.flatMap(
    within(limit)(effect),
    Option.match({
      onNone: orElse,
      onSome: (value: A): Effect.Effect<A | B, E2, R2> => Effect.succeed(value)
    })
  )
