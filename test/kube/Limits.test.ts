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
    }), 30_000)

  it.effect("are sent at once where they must be", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([...Array.from({ length: 16 }, () => hangs), FaultServer.answer(200, "ok")])
      const kube = yield* KubeHttp.make(server.connection)
      yield* Effect.forEach(Array.from({ length: 16 }), () => Effect.forkScoped(kube.get(ConfigMap, ref)))
      yield* until(() => server.asked.length === 16)
      assert.strictEqual((yield* kube.raw("/livez", { atOnce: true })).body, "ok")
    }), 30_000)

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
      // Of a wait of a second.
      assert.isAtLeast(Duration.toMillis(passed) - Duration.toMillis(took), 900)
    }), 30_000)

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
    }), 30_000)
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
    }), 30_000)
})

describe("a list that does not end", () => {
  const page = (token: string, names: ReadonlyArray<string>) =>
    FaultServer.answer(200, {
      metadata: { resourceVersion: "1", continue: token },
      items: names.map((name) => ({ metadata: { name, namespace: "default" } }))
    })
  const listed = Effect.fnUntraced(function*(script: ReadonlyArray<FaultServer.Answer>, maximum?: number) {
    const server = yield* FaultServer.make
    server.script(script)
    const kube = yield* KubeHttp.make(server.connection, { pageSize: 2 })
    return { kube: kube.list(ConfigMap, { maximum }), asked: server.asked }
  })

  it.effect("fails when a page continues where it began", () =>
    Effect.gen(function*() {
      const { asked, kube } = yield* listed([page("a", ["x"])])
      assert.include((yield* Effect.flip(kube)).message, "continues where it began")
      assert.lengthOf(asked, 2)
    }))

  it.effect("fails when page after page is empty", () =>
    Effect.gen(function*() {
      const { asked, kube } = yield* listed(Array.from({ length: 100 }, (_, number) => page(`${number}`, [])))
      assert.include((yield* Effect.flip(kube)).message, "16 pages in a row are empty")
      assert.lengthOf(asked, 16)
    }))

  it.effect("fails when pages hold next to nothing", () =>
    Effect.gen(function*() {
      const { asked, kube } = yield* listed(
        Array.from({ length: 100 }, (_, number) => page(`${number}`, number % 16 === 0 ? ["x"] : [])),
        4
      )
      assert.include((yield* Effect.flip(kube)).message, "32 pages have 2 objects")
      assert.lengthOf(asked, 32)
    }))

  it.effect("is none when some pages are empty or short", () =>
    Effect.gen(function*() {
      const { kube } = yield* listed([
        page("1", []),
        page("2", ["a"]),
        ...Array.from({ length: 15 }, (_, number) => page(`${number + 3}`, [])),
        page("18", ["b", "c"]),
        page("", [])
      ])
      assert.deepStrictEqual((yield* kube).items.map(({ metadata }) => metadata.name), ["a", "b", "c"])
    }))
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
