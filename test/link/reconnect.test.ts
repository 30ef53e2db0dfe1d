import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { release, takeOver } from "../../src/infra/link/epoch.ts"
import * as Reconnect from "../../src/infra/link/reconnect.ts"
import { joined } from "../../src/infra/link/WebSocketTransport.ts"

const Ending = Schema.Struct({
  linkedFor: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 })),
  refused: Schema.Boolean
})
const ended = ({ linkedFor, refused }: typeof Ending.Type) => ({ linkedFor: Duration.millis(linkedFor), refused })
const dropped = { linkedFor: Duration.zero, refused: false }
const held = { linkedFor: Duration.seconds(30), refused: false }

/** The ceilings of a row of attempts. */
const ceilings = (endings: ReadonlyArray<Reconnect.Ending>) => {
  let attempts = Reconnect.fresh
  return endings.map((ending) => {
    const [after, ceiling] = Reconnect.next(attempts, ending)
    attempts = after
    return ceiling
  })
}

describe("dialling again", () => {
  it("is at once the first time, then within ceilings that double up to 30 s", () => {
    assert.deepStrictEqual(ceilings(Array.from({ length: 10 }, () => dropped)), [
      0,
      500,
      1000,
      2000,
      4000,
      8000,
      16_000,
      30_000,
      30_000,
      30_000
    ])
  })

  it("starts over after a link that held for 30 s, and after no shorter one", () => {
    const shorter = { linkedFor: Duration.millis(29_999), refused: false }
    assert.deepStrictEqual(ceilings([dropped, dropped, dropped, held, dropped]), [0, 500, 1000, 0, 500])
    assert.deepStrictEqual(ceilings([dropped, dropped, dropped, shorter]), [0, 500, 1000, 2000])
  })

  it("is never at once after a refusal", () => {
    assert.deepStrictEqual(ceilings([{ ...dropped, refused: true }, { ...held, refused: true }]), [500, 500])
  })

  it.effect.prop(
    "never waits longer than 30 s of its own, and never twice in a row not at all",
    { endings: Schema.Array(Ending) },
    ({ endings }) =>
      Effect.gen(function*() {
        const all = ceilings(endings.map(ended))
        assert.isTrue(all.every((ceiling) => ceiling >= 0 && ceiling <= 30_000))
        for (const [n, ceiling] of all.entries()) {
          const before = endings[n]?.linkedFor ?? 0
          if (n > 0 && ceiling === 0) assert.isAtLeast(before, 30_000)
        }
      })
  )

  it.effect("is spread over the whole time, and not before the peer allows it", () =>
    Effect.gen(function*() {
      const waits = yield* Effect.replicateEffect(Reconnect.delay(30_000), 500)
      const millis = waits.map(Duration.toMillis)
      assert.isBelow(Math.min(...millis), 3000)
      assert.isAbove(Math.max(...millis), 27_000)
      const asked = yield* Effect.replicateEffect(Reconnect.delay(0, Duration.seconds(10)), 500)
      assert.isTrue(asked.every((wait) => Duration.isGreaterThanOrEqualTo(wait, Duration.seconds(10))))
      assert.isAbove(new Set(asked.map(Duration.toMillis)).size, 100)
    }))
})

describe("epochs", () => {
  const Step = Schema.Struct({
    arrives: Schema.Boolean,
    epoch: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 }))
  })

  it.effect.prop(
    "the holder is always the newest that has come and not gone since; all others are told once",
    { steps: Schema.Array(Step) },
    ({ steps }) =>
      Effect.gen(function*() {
        let holder: { readonly epoch: number } | undefined
        let newest = 0
        const seen = new Set<number>()
        const told: Array<number> = []
        for (const { arrives, epoch } of steps) {
          if (arrives && !seen.has(epoch)) {
            seen.add(epoch)
            const before = holder?.epoch
            const after = takeOver(holder, { epoch })
            holder = after.holder
            newest = before === undefined ? epoch : Math.max(before, epoch)
            if (after.superseded !== undefined) told.push(after.superseded.epoch)
            assert.strictEqual(holder.epoch, newest)
          } else if (!arrives) {
            const before = holder
            holder = release(holder, { epoch })
            assert.strictEqual(holder, before?.epoch === epoch ? undefined : before)
          }
        }
        assert.strictEqual(new Set(told).size, told.length)
        assert.isFalse(holder !== undefined && told.includes(holder.epoch))
      })
  )
})

describe("messages", () => {
  const Sizes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 400_000 })))

  it.effect.prop(
    "carry the same bytes in the same order, in as few messages as their limit allows",
    { sizes: Sizes },
    ({ sizes }) =>
      Effect.gen(function*() {
        const chunks = sizes.map((size, n) => Buffer.alloc(size, n + 1))
        const messages = joined(chunks)
        assert.isTrue(Buffer.concat(messages).equals(Buffer.concat(chunks)))
        assert.isTrue(messages.every(({ length }) => length <= 256 << 10))
        for (const [n, message] of messages.entries()) {
          const next = messages[n + 1]
          if (next !== undefined) assert.isAbove(message.length + next.length, 256 << 10)
        }
      })
  )
})
