import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import * as Stopwatch from "../../src/probes/Stopwatch.ts"
import * as FaultServer from "./FaultServer.ts"

const ref = { name: "a", namespace: "n" }
const hangs: FaultServer.Answer = () => {}

/** Lets sockets be read, whatever the test's clock says. */
const realPause = Effect.callback<void>((resume) => {
  setTimeout(() => resume(Effect.void), 2)
})

/** Polls by the real event loop; a condition that never holds ends with the test's own time. */
const until = Effect.fnUntraced(function*(condition: () => boolean) {
  while (!condition()) yield* realPause
})

describe("requests behind hung ones", () => {
  it.effect("fail when their own time is over, not when their turn comes", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([hangs])
      const kube = yield* KubeHttp.make(server.connection, { timeout: "10 seconds" })
      const readers = yield* Effect.forEach(
        Array.from({ length: 40 }),
        () => Effect.forkScoped(Effect.flip(kube.get(ConfigMap, ref)))
      )
      yield* until(() => server.asked.length === 16)
      yield* TestClock.adjust("10 seconds")
      for (const reader of readers) {
        yield* until(() => reader.pollUnsafe() !== undefined)
        const { reason } = yield* Fiber.join(reader)
        assert.strictEqual(reason._tag === "Unreachable" && reason.kind, "timeout")
      }
    }), 5_000)

  it.effect("are sent at once where they must be", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([...Array.from({ length: 16 }, () => hangs), FaultServer.answer(200, "ok")])
      const kube = yield* KubeHttp.make(server.connection)
      yield* Effect.forEach(Array.from({ length: 16 }), () => Effect.forkScoped(kube.get(ConfigMap, ref)))
      yield* until(() => server.asked.length === 16)
      assert.strictEqual((yield* kube.raw("/livez", { atOnce: true })).body, "ok")
    }), 5_000)

  it.live("are not taken for slow by a stopwatch", () =>
    Effect.gen(function*() {
      const held: Array<Parameters<FaultServer.Answer>[0]> = []
      const server = yield* FaultServer.make
      const good = FaultServer.answer(200, { metadata: ref })
      server.script([...Array.from({ length: 16 }, () => (response: typeof held[number]) => held.push(response)), good])
      const kube = yield* KubeHttp.make(server.connection)
      yield* Effect.forEach(Array.from({ length: 16 }), () => Effect.forkScoped(kube.get(ConfigMap, ref)))
      yield* until(() => server.asked.length === 16)
      const timed = yield* Effect.forkScoped(Effect.timed(Stopwatch.timed(kube.get(ConfigMap, ref))))
      yield* Effect.sleep("1 second")
      for (const response of held) good(response)
      const [passed, [took]] = yield* Fiber.join(timed)
      assert.isAtLeast(Duration.toMillis(passed), 900)
      assert.isBelow(Duration.toMillis(took), 500)
    }), 5_000)

  it.effect("to another replica are sent at once", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([hangs])
      const replica = yield* FaultServer.make
      replica.script([FaultServer.answer(200, "ok")])
      const kube = yield* KubeHttp.make(server.connection)
      yield* Effect.forEach(Array.from({ length: 16 }), () => Effect.forkScoped(kube.get(ConfigMap, ref)))
      yield* until(() => server.asked.length === 16)
      assert.strictEqual((yield* kube.raw("/readyz", { server: replica.connection.server })).body, "ok")
    }), 5_000)
})

describe("streams", () => {
  it.effect("beyond those there may be fail soon, and say why", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([FaultServer.watch([], "is silent")])
      const kube = yield* KubeHttp.make(server.connection)
      const watch = Stream.runDrain(kube.watch(ConfigMap, { namespace: "n", resourceVersion: "1" }))
      yield* Effect.forEach(Array.from({ length: 48 }), () => Effect.forkScoped(watch))
      yield* until(() => server.asked.length === 48)
      const surplus = yield* Effect.forkScoped(Effect.flip(watch))
      yield* TestClock.adjust("10 seconds")
      yield* until(() => surplus.pollUnsafe() !== undefined)
      assert.include((yield* Fiber.join(surplus)).message, "too many streams")
    }), 5_000)
})

describe("a list cut at its maximum", () => {
  it.effect("says so although the server does not count what is left", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([FaultServer.answer(200, {
        metadata: { resourceVersion: "1", continue: "more" },
        items: [{ metadata: ref }]
      })])
      const kube = yield* KubeHttp.make(server.connection)
      assert.strictEqual((yield* kube.list(ConfigMap, { labelSelector: "a=b", maximum: 1 })).remaining, 1)
    }))
})
