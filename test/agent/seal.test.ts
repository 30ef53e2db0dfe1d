import { assert, describe, it } from "@effect/vitest"
import { Equal, Redacted, Result, Schema } from "effect"
import { randomBytes } from "node:crypto"
import { MAX_MESSAGE_BYTES, open, seal } from "../../src/agent/workers/seal.ts"

const token = Redacted.make("the token of one run")
const Outputs = Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Boolean, Schema.Null]))
  .check(Schema.isMaxProperties(8))

describe("the seal of a worker's result", () => {
  it.prop("gives back what was sealed, or says that it is too large", { output: Outputs }, ({ output }) => {
    const opened = open(token, "pod-1", seal(token, "pod-1", { ok: true, output }))
    assert.isTrue(Result.isSuccess(opened))
    const result = Result.getOrThrow(opened)
    if (result.ok) assert.strictEqual(JSON.stringify(result.output), JSON.stringify(output))
    else assert.match(result.error, /holds 4096/)
  })

  it.prop(
    "is of one run and one pod",
    { output: Outputs, other: Schema.NonEmptyString, pod: Schema.String },
    ({ other, output, pod }) => {
      const message = seal(token, "pod-1", { ok: true, output })
      if (other !== Redacted.value(token)) {
        assert.deepStrictEqual(open(Redacted.make(other), "pod-1", message), Result.fail("forged"))
      }
      if (pod !== "pod-1") assert.deepStrictEqual(open(token, pod, message), Result.fail("forged"))
    }
  )

  it.prop("opens nothing else", { message: Schema.String }, ({ message }) => {
    assert.isTrue(Result.isFailure(open(token, "pod-1", message)))
  })

  it("is broken by a change of any character", () => {
    const message = seal(token, "pod-1", { ok: true, output: { p99: 12.5 } })
    const whole = open(token, "pod-1", message)
    for (let at = 0; at < message.length; at++) {
      const changed = `${message.slice(0, at)}${message[at] === "A" ? "B" : "A"}${message.slice(at + 1)}`
      const opened = open(token, "pod-1", changed)
      // The last character of base64url has bits that mean nothing.
      assert.isTrue(Result.isFailure(opened) || Equal.equals(opened, whole), `character ${at}`)
    }
  })

  it("fits a termination message, whatever the result", () => {
    const message = seal(token, "pod-1", { ok: true, output: randomBytes(8192).toString("base64") })
    assert.isAtMost(Buffer.byteLength(message), MAX_MESSAGE_BYTES)
    const result = Result.getOrThrow(open(token, "pod-1", message))
    assert.isFalse(result.ok)
  })
})
