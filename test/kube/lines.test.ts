import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { lines } from "../../src/infra/kube/http/lines.ts"

const Line = Schema.String.check(Schema.isPattern(/^[^\r\n\uFEFF\uD800-\uDFFF]*$/u), Schema.isMaxLength(40))

describe("lines", () => {
  it.effect.prop(
    "come whole however the bytes are cut",
    [
      Schema.Array(Line),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 })),
      Schema.Literals(["\n", "\r\n"])
    ],
    ([texts, size, end]) =>
      Effect.gen(function*() {
        const bytes = Buffer.from(texts.map((text) => text + end).join(""))
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
          bytes.subarray(index * size, (index + 1) * size))
        const read = yield* Stream.fromIterable(chunks).pipe(lines({ maximum: 100 }), Stream.runCollect)
        assert.deepStrictEqual(read, texts)
      })
  )

  it.effect("that are too long come in parts", () =>
    Effect.gen(function*() {
      const parts = ["a".repeat(12), "aaa\nbb", "b".repeat(20)].map((text) => Buffer.from(text))
      const read = yield* Stream.fromIterable(parts).pipe(lines({ maximum: 10 }), Stream.runCollect)
      assert.strictEqual(read.join(""), "a".repeat(15) + "b".repeat(22))
      assert.isTrue(read.every((line) => line.length <= 10))
      assert.include(read, "aaaaa")
    }))

  it.effect("without an end count only where they may", () =>
    Effect.gen(function*() {
      const text = Stream.make(Buffer.from("a\nb"))
      assert.deepStrictEqual(yield* text.pipe(lines({ maximum: 10 }), Stream.runCollect), ["a", "b"])
      assert.deepStrictEqual(yield* text.pipe(lines({ maximum: 10, terminated: true }), Stream.runCollect), ["a"])
    }))
})
