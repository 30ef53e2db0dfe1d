import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Status, isAtLeast, order, worse, worst } from "../../src/domain/Status.ts"

const three = { a: Status, b: Status, c: Status }

describe("statuses", () => {
  it.effect.prop("form a join-semilattice", three, ({ a, b, c }) =>
    Effect.sync(() => {
      assert.strictEqual(worse(worse(a, b), c), worse(a, worse(b, c)), "associative")
      assert.strictEqual(worse(a, b), worse(b, a), "commutative")
      assert.strictEqual(worse(a, a), a, "idempotent")
      assert.strictEqual(worse(a, "PASS"), a, "PASS is the identity")
      assert.strictEqual(worst([a, b, c]), worse(worse(a, b), c), "worst folds")
    }))

  it.effect.prop("are ordered as they merge", three, ({ a, b }) =>
    Effect.sync(() => {
      assert.strictEqual(order(a, b) >= 0, worse(a, b) === a)
      assert.strictEqual(isAtLeast(a, b), order(a, b) >= 0)
    }))

  it("are ordered as in the original", () => {
    const shuffled: Array<Status> = ["ERROR", "INFO", "WARN", "PASS", "UNKNOWN"]
    assert.deepStrictEqual(shuffled.sort(order), ["PASS", "INFO", "UNKNOWN", "WARN", "ERROR"])
  })

  it("of nothing is PASS, because nothing was found wrong", () => {
    assert.strictEqual(worst([]), "PASS")
  })
})
