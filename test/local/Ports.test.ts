import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Ports from "../../src/local/Ports.ts"

describe("free ports", () => {
  it.live("are all different", () =>
    Effect.gen(function*() {
      const ports = yield* Ports.free("127.0.0.1", ["a", "b", "c"])
      assert.strictEqual(new Set(Object.values(ports)).size, 3)
    }))

  it.live("of an address that this machine does not have fail with it", () =>
    Effect.gen(function*() {
      // TEST-NET-1 of RFC 5737, which no machine has.
      const error = yield* Effect.flip(Ports.free("192.0.2.1", ["a"]))
      assert.strictEqual(error._tag, "NoFreePort")
      assert.include(error.message, "192.0.2.1")
    }))
})
