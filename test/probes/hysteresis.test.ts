import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { keyOf } from "../../src/domain/Report.ts"
import * as Hysteresis from "../../src/probes/Hysteresis.ts"
import { RunContext } from "../../src/probes/RunContext.ts"

const code = { code: "FULL" }
const subject = { kind: "Node", name: "a" }
const said = { code, subject }
const standing = new Set([keyOf({ code: "FULL", subject })])

const Positive = Schema.Finite.check(Schema.isBetween({ minimum: 0.001, maximum: 1_000_000 }))
const Values = Schema.Array(Positive).check(Schema.isMaxLength(20))

/** As run after run would say it. */
const follow = (values: ReadonlyArray<number>, beyond: (limits: Hysteresis.Limits, value: number) => boolean) => {
  let red = false
  return values.map((value) => red = beyond(Hysteresis.make(red ? standing : undefined), value))
}

describe("a limit", () => {
  it("is where it is said to be until something stands, and a tenth away from then on", () => {
    const values = [85, 86, 85, 77, 76, 76.5, 84, 85, 85.1]
    assert.deepStrictEqual(
      follow(values, (limits, value) => limits.exceeds(value, 85, said)),
      [false, true, true, true, false, false, false, false, true]
    )
    assert.deepStrictEqual(
      follow([15, 14, 15, 16, 17, 15], (limits, value) => limits.fallsBelow(value, 15, said)),
      [false, true, true, true, false, false]
    )
  })

  it("stands for one code and one object alone", () => {
    const limits = Hysteresis.make(standing)
    assert.isTrue(limits.exceeds(80, 85, said))
    assert.isFalse(limits.exceeds(80, 85, { code }))
    assert.isFalse(limits.exceeds(80, 85, { code, subject: { ...subject, name: "b" } }))
    assert.isFalse(limits.exceeds(80, 85, { code: { code: "OTHER" }, subject }))
  })

  it("of nothing is exceeded by something, and by nothing else", () => {
    assert.isTrue(Hysteresis.make(standing).exceeds(1, 0, said))
    assert.isFalse(Hysteresis.make(standing).exceeds(0, 0, said))
    assert.isFalse(Hysteresis.make(standing).exceeds(Number.NaN, 1, said))
    assert.isFalse(Hysteresis.make(standing).fallsBelow(0, 0, said))
  })

  it.effect("comes from the run", () =>
    Effect.gen(function*() {
      const limits = yield* Hysteresis.limits
      assert.isTrue(limits.takesLonger(Duration.millis(950), Duration.seconds(1), said))
      assert.isFalse(limits.takesLonger(Duration.millis(850), Duration.seconds(1), said))
    }).pipe(Effect.provideService(RunContext, {
      runId: "r",
      probeNamespace: "p",
      expiresAt: DateTime.makeUnsafe(0),
      standing
    })))

  it.effect.prop(
    "never says less than the plain comparison, and more only within a tenth of what stands",
    { values: Values, limit: Positive },
    ({ limit, values }) =>
      Effect.sync(() => {
        follow(values, (limits, value) => limits.exceeds(value, limit, said)).forEach((red, index) => {
          const value = values[index] ?? 0
          if (value > limit) assert.isTrue(red)
          if (value < limit * Hysteresis.MARGIN) assert.isFalse(red)
        })
        follow(values, (limits, value) => limits.fallsBelow(value, limit, said)).forEach((red, index) => {
          const value = values[index] ?? 0
          if (value < limit) assert.isTrue(red)
          if (value > limit / Hysteresis.MARGIN) assert.isFalse(red)
        })
      })
  )

  it.effect.prop(
    "is crossed once by a value that wavers within the tenth",
    { values: Values, limit: Positive },
    ({ limit, values }) =>
      Effect.sync(() => {
        const wavering = values.map((value) => limit * (0.9 + 0.1 * (value / 1_000_000)))
        const reds = follow([limit * 2, ...wavering], (limits, value) => limits.exceeds(value, limit, said))
        assert.isTrue(reds.every((red) => red))
      })
  )
})
