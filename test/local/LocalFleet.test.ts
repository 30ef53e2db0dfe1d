import { assert, layer } from "@effect/vitest"
import { Effect, Option } from "effect"
import { LocalBinaries } from "../../src/local/binaries/LocalBinaries.ts"
import { LocalFleet } from "../../src/local/LocalFleet.ts"
import * as Command from "../../src/local/process/Command.ts"
import * as Machine from "./Machine.ts"
import { Sandbox } from "./Sandbox.ts"

layer(Sandbox.layer(), { excludeTestServices: true })("detached clusters", (it) => {
  it.effect("come up, are told of, can be used, and go down without a trace", () =>
    Effect.gen(function*() {
      const fleet = yield* LocalFleet
      const { state } = yield* Sandbox
      const clusters = [`${state}/detached`]
      assert.deepStrictEqual(yield* fleet.status, [])
      const before = yield* Machine.snapshot(state, clusters)

      const stages: Array<string> = []
      const up = yield* fleet.up({
        name: "detached",
        onProgress: (event) =>
          Effect.sync(() => {
            if (event._tag === "Reached") stages.push(event.stage)
          })
      })
      assert.deepStrictEqual(stages, ["binaries", "control plane"])
      assert.notStrictEqual(up.pid, process.pid)
      assert.deepStrictEqual(yield* fleet.status, [up])

      const { context } = Option.getOrThrow(up.ready)
      const { kubectl: { path } } = yield* (yield* LocalBinaries).resolve(["kubectl"])
      const namespaces = Command.run([
        path,
        `--kubeconfig=${fleet.kubeconfigPath}`,
        `--context=${context}`,
        "get",
        "namespaces"
      ])
      assert.include(yield* namespaces, "kube-system")

      const again = yield* Effect.flip(fleet.up({ name: "detached" }))
      assert.strictEqual(again._tag, "ClusterExists")

      yield* fleet.down("detached")
      assert.deepStrictEqual(yield* fleet.status, [])
      assert.deepStrictEqual(yield* Machine.difference(before, state, clusters), [])
      const gone = yield* Effect.flip(fleet.down("detached"))
      assert.strictEqual(gone._tag, "ClusterNotFound")
    }), 120_000)

  it.effect("that cannot come up say why", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip((yield* LocalFleet).up({ name: "Not A Name" }))
      assert.strictEqual(error._tag, "SupervisorFailed")
      assert.include(error.message, "lower-case letters")
    }), 60_000)

  it.effect("that are not waited for go down again", () =>
    Effect.gen(function*() {
      const fleet = yield* LocalFleet
      const { state } = yield* Sandbox
      const before = yield* Machine.snapshot(state, [`${state}/abandoned`])
      const up = fleet.up({ name: "abandoned" })
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(up, "3 seconds")))
      assert.deepStrictEqual(yield* Machine.difference(before, state, [`${state}/abandoned`]), [])
    }), 60_000)
})
