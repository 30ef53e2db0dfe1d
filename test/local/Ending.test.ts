import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { LocalStore } from "../../src/local/LocalStore.ts"
import * as Machine from "./Machine.ts"
import * as Process from "./Process.ts"
import { Sandbox } from "./Sandbox.ts"

/** Looks at the machine before and after: the test runs in between, with one cluster of the given name. */
const leavesNothing = <E, R>(name: string, test: Effect.Effect<void, E, R>) =>
  Effect.gen(function*() {
    const { state } = yield* Sandbox
    // What the state folder itself consists of is there from the first use on.
    yield* (yield* LocalStore).list
    const clusters = [`${state}/${name}`]
    const before = yield* Machine.snapshot(state, clusters)
    yield* Effect.scoped(test)
    assert.deepStrictEqual(yield* Machine.difference(before, state, clusters), [])
  }).pipe(Effect.provide(Sandbox.layer()))

const owner = Effect.fnUntraced(function*(name: string, nodes: number) {
  return yield* Process.start("owner", [name, String(nodes)], (yield* Sandbox).environment)
})

/** What starting anything else does first. */
const nextStart = Effect.gen(function*() {
  assert.deepStrictEqual(yield* (yield* LocalStore).list, [])
})

describe("nothing of a cluster is left", () => {
  it.live(
    "when its scope closes",
    () => leavesNothing("ending-scope", LocalCluster.make({ name: "ending-scope", nodes: 1 })),
    120_000
  )

  it.live("after Ctrl-C while nodes boot", () =>
    leavesNothing(
      "ending-ctrl-c",
      Effect.gen(function*() {
        const process = yield* owner("ending-ctrl-c", 2)
        yield* process.line((line) => line === "network")
        yield* process.end("SIGINT")
      })
    ), 120_000)

  it.live("after kill -9 of its owner, and the next start", () =>
    leavesNothing(
      "ending-kill",
      Effect.gen(function*() {
        const process = yield* owner("ending-kill", 2)
        yield* process.line((line) => line === "ready")
        yield* process.end("SIGKILL")
        yield* nextStart
      })
    ), 120_000)

  for (const stage of ["binaries", "network", "control plane"]) {
    it.live(
      `after kill -9 of its owner beyond "${stage}", and the next start`,
      () =>
        leavesNothing(
          "ending-kill-early",
          Effect.gen(function*() {
            const process = yield* owner("ending-kill-early", 1)
            yield* process.line((line) => line === stage)
            yield* process.end("SIGKILL")
            yield* nextStart
          })
        ),
      120_000
    )
  }
})
