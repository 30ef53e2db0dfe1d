import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { KubeWaits } from "../../src/infra/kube/KubeWaits.ts"
import * as Stopwatch from "../../src/probes/Stopwatch.ts"

/** Keeps this process from doing anything else, as another busy part of it would. */
const hog = (millis: number) =>
  Effect.sync(() => {
    const until = performance.now() + millis
    while (performance.now() < until);
  })

describe("the stopwatch", () => {
  it.effect("tells what passed", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Stopwatch.timed(Effect.sleep("3 seconds")))
      yield* TestClock.adjust("3 seconds")
      const [took] = yield* Fiber.join(fiber)
      assert.strictEqual(Duration.toMillis(took), 3000)
    }))

  it.effect("leaves out what requests wait for ourselves, once, also for a stopwatch around it", () =>
    Effect.gen(function*() {
      const request = Effect.flatMap(
        KubeWaits,
        ({ during }) => Effect.andThen(during(Effect.sleep("2 seconds")), Effect.sleep("300 millis"))
      )
      const both = Effect.all([request, Effect.delay(request, "1 second")], { concurrency: 2 })
      const fiber = yield* Effect.forkChild(
        Stopwatch.timed(Stopwatch.timed(both).pipe(Effect.map(([took]) => Duration.toMillis(took))))
      )
      yield* TestClock.adjust("10 seconds")
      const [outer, inner] = yield* Fiber.join(fiber)
      // Together they wait from 0 to 3 s, and then one of them is under way for 0.3 s.
      assert.deepStrictEqual([Duration.toMillis(outer), inner], [300, 300])
    }))

  it.effect("ends what takes too long, and nothing while it waits for ourselves", () =>
    Effect.gen(function*() {
      const request = (wait: Duration.Input, took: Duration.Input) =>
        Stopwatch.within(Duration.seconds(1))(
          Effect.flatMap(KubeWaits, ({ during }) => Effect.andThen(during(Effect.sleep(wait)), Effect.sleep(took)))
        )
      const ends = Effect.fnUntraced(function*(wait: Duration.Input, took: Duration.Input) {
        const fiber = yield* Effect.forkChild(Effect.timed(request(wait, took)))
        yield* TestClock.adjust("20 seconds")
        const [passed, done] = yield* Fiber.join(fiber)
        return [Duration.toMillis(passed), Option.isSome(done)]
      })
      assert.deepStrictEqual(yield* ends(0, "900 millis"), [900, true])
      assert.deepStrictEqual(yield* ends("5 seconds", "900 millis"), [5900, true])
      assert.deepStrictEqual(yield* ends(0, "3 seconds"), [1000, false])
      assert.deepStrictEqual(yield* ends("5 seconds", "3 seconds"), [6000, false])
    }))

  it.effect("puts something else in the place of what takes too long", () =>
    Effect.gen(function*() {
      const answer = Effect.fnUntraced(function*(took: Duration.Input) {
        const fiber = yield* Effect.forkChild(
          Effect.as(Effect.sleep(took), "answer").pipe(
            Stopwatch.withinOrElse({ limit: Duration.seconds(1), orElse: () => Effect.succeed("silence" as const) })
          )
        )
        yield* TestClock.adjust("20 seconds")
        return yield* Fiber.join(fiber)
      })
      assert.strictEqual(yield* answer("900 millis"), "answer")
      assert.strictEqual(yield* answer("3 seconds"), "silence")
    }))

  it.live("leaves out the time in which we were too busy to read the answer", () =>
    Effect.gen(function*() {
      const answer = Effect.sleep("100 millis")
      const start = yield* Clock.currentTimeMillis
      const [took] = yield* Effect.delay(hog(600), "30 millis").pipe(
        Effect.forkChild,
        Effect.andThen(Stopwatch.timed(answer))
      )
      const passed = (yield* Clock.currentTimeMillis) - start
      assert.isAtLeast(passed, 600)
      assert.isBelow(Duration.toMillis(took), passed - 400)
    }))
})
