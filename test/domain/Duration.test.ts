import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Equal, Result, Schema } from "effect"
import { DurationString, atLeast, format, isExpressible, parse } from "../../src/domain/Duration.ts"

const millis = (text: string) => Result.map(parse(text), Duration.toMillis)

describe("a duration", () => {
  it("is read as Go reads it", () => {
    for (
      const [text, expected] of [
        ["0s", 0],
        ["250ms", 250],
        ["90s", 90_000],
        ["5m", 300_000],
        ["1h30m", 5_400_000],
        ["1.5h", 5_400_000],
        ["0.001s", 1],
        ["30s1m1s", 91_000],
        ["2562047h", 9_223_369_200_000]
      ] as const
    ) {
      assert.deepStrictEqual(millis(text), Result.succeed(expected), text)
    }
  })

  it("is refused with the input, the fault and an example", () => {
    for (
      const [text, fault] of [
        ["5 minutes", "is not a duration"],
        ["", "is not a duration"],
        ["90", "is not a duration"],
        ["-5s", "is not a duration"],
        ["5d", "is not a duration"],
        ["1s\n", "is not a duration"],
        ["0.5ms", "is finer than a millisecond"],
        ["2562048h", "is longer than 292 years"]
      ] as const
    ) {
      assert.deepStrictEqual(
        parse(text),
        Result.fail(`${JSON.stringify(text)} ${fault}; write it like "90s", "1h30m" or "250ms"`),
        text
      )
    }
  })

  it("too long to be one is refused without being repeated in full", () => {
    const failure = parse("1s".repeat(100_000))
    assert.isTrue(Result.isFailure(failure) && failure.failure.length < 200)
  })

  it("is written with the largest units first", () => {
    assert.deepStrictEqual(
      [0, 1, 1000, 90_000, 5_400_000, 3_600_000, 3_661_001].map((ms) => format(Duration.millis(ms))),
      ["0s", "1ms", "1s", "1m30s", "1h30m", "1h", "1h1m1s1ms"]
    )
  })

  it("has no text when it is infinite, negative or finer than a millisecond", () => {
    for (const odd of [Duration.infinity, Duration.negativeInfinity, Duration.millis(-1), Duration.nanos(1n)]) {
      assert.isFalse(isExpressible(odd))
    }
  })

  it.effect.prop(
    "survives being written and read",
    { duration: DurationString },
    ({ duration }) =>
      Effect.gen(function*() {
        const text = yield* Schema.encodeEffect(DurationString)(duration)
        assert.isTrue(Equal.equals(yield* Schema.decodeEffect(DurationString)(text), duration))
        assert.strictEqual(format(duration), text)
      })
  )

  it.effect.prop(
    "is canonical once written",
    {
      parts: Schema.NonEmptyArray(
        Schema.Struct({
          value: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9999 })),
          unit: Schema.Literals(["h", "m", "s", "ms"])
        })
      ).check(Schema.isMaxLength(4))
    },
    ({ parts }) =>
      Effect.gen(function*() {
        const text = parts.map(({ unit, value }) => `${value}${unit}`).join("")
        const written = yield* Effect.fromResult(Result.map(parse(text), format))
        assert.deepStrictEqual(Result.map(parse(written), format), Result.succeed(written))
        assert.deepStrictEqual(millis(written), millis(text))
      })
  )

  it.effect("in a manifest fails with the whole sentence", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        Schema.decodeEffect(Schema.Struct({ timeout: DurationString }))({
          timeout: "5 minutes"
        })
      )
      assert.include(error.message, "\"5 minutes\" is not a duration; write it like \"90s\", \"1h30m\" or \"250ms\"")
      assert.include(error.message, "timeout")
    }))

  it.effect("can have a least", () =>
    Effect.gen(function*() {
      const Interval = atLeast("1 second", "anything finer is watched")
      const error = yield* Effect.flip(Schema.decodeEffect(Interval)("999ms"))
      assert.include(error.message, "at least 1s: anything finer is watched")
      assert.isTrue(Equal.equals(yield* Schema.decodeEffect(Interval)("1s"), Duration.seconds(1)))
    }))
})
