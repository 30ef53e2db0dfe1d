import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { LocalStore } from "../../src/local/LocalStore.ts"
import * as Machine from "./Machine.ts"
import { Sandbox } from "./Sandbox.ts"

layer(Sandbox.layer(), { excludeTestServices: true })("a cluster that does not come up", (it) => {
  it.effect("is gone when that is told, and its name is free in the same scope", () =>
    Effect.gen(function*() {
      const { state } = yield* Sandbox
      const { claim, list } = yield* LocalStore
      assert.deepStrictEqual(yield* list, [])
      const before = yield* Machine.snapshot(state, [`${state}/failing`])
      const error = yield* Effect.flip(
        LocalCluster.make({ name: "failing", extraFlags: { "kube-apiserver": ["--no-such-flag"] } })
      )
      assert.strictEqual(error._tag, "ComponentExited")
      assert.include(error.message, "no-such-flag")
      assert.deepStrictEqual(yield* Machine.difference(before, state, [`${state}/failing`]), [])
      yield* claim("failing")
    }).pipe(Effect.scoped), 60_000)
})
