import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { type WatchFrame, reflect } from "../../src/infra/kube/http/Reflector.ts"
import type { ReflectorEvent } from "../../src/infra/kube/Kube.ts"
import { CredentialsUnavailable } from "../../src/infra/kube/KubeConnection.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import * as FaultServer from "./FaultServer.ts"

const object = (name: string, resourceVersion = "1") => ({ metadata: { name, resourceVersion } })
const list = (items: ReadonlyArray<string>, resourceVersion: string, more: object = {}) =>
  FaultServer.answer(200, { metadata: { resourceVersion, ...more }, items: items.map((name) => object(name)) })
const frame = (type: string, name: string, resourceVersion: string) => ({ type, object: object(name, resourceVersion) })
const bookmark = (resourceVersion: string) => ({ type: "BOOKMARK", object: { metadata: { resourceVersion } } })
const silent = FaultServer.watch([], "is silent")
const expired = { type: "ERROR", object: { kind: "Status", code: 410, reason: "Expired", message: "too old" } }

const told = (event: ReflectorEvent<ConfigMap>): string =>
  event._tag === "Synced"
    ? `Synced ${event.items.map((item) => item.metadata.name).join()}`
    : `${event._tag} ${event.object.metadata.name}`

/**
 * Reflects from a server that misbehaves as `script` says, until `count` events are there. Time is the test's: it is moved
 * on whenever nothing else happens, so that waiting costs none.
 */
const reflected = (script: ReadonlyArray<FaultServer.Answer>, count: number) =>
  Effect.gen(function*() {
    const server = yield* FaultServer.make
    server.script(script)
    const kube = yield* KubeHttp.make(server.connection)
    const reader = yield* kube.reflect(ConfigMap, { namespace: "n" }).pipe(
      Stream.map(told),
      Stream.take(count),
      Stream.runCollect,
      Effect.exit,
      Effect.forkScoped
    )
    let waited = 0
    while (reader.pollUnsafe() === undefined) {
      yield* realPause
      yield* TestClock.adjust("250 millis")
      waited += 250
      if (waited > 1_200_000) return yield* Effect.die(new Error(`nothing more after ${server.asked.length} requests`))
    }
    const exit = yield* Fiber.join(reader)
    return { exit, waited, asked: server.asked.map((url) => url.searchParams) }
  })

/** Lets sockets be read: their events come by the real event loop. */
const realPause = Effect.callback<void>((resume) => {
  setTimeout(() => resume(Effect.void), 2)
})

const eventsOf = Effect.fnUntraced(function*(script: ReadonlyArray<FaultServer.Answer>, count: number) {
  const { exit, ...rest } = yield* reflected(script, count)
  return { events: yield* exit, ...rest }
})

describe("a reflector", () => {
  it.effect("lists by pages, then watches from there with bookmarks and a time limit", () =>
    Effect.gen(function*() {
      const { asked, events } = yield* eventsOf([
        list(["a"], "100", { continue: "page-2" }),
        list(["b"], "100"),
        FaultServer.watch(
          [frame("ADDED", "c", "101"), frame("MODIFIED", "a", "102"), frame("DELETED", "b", "103")],
          "is silent"
        )
      ], 4)
      assert.deepStrictEqual(events, ["Synced a,b", "Added c", "Modified a", "Deleted b"])
      assert.strictEqual(asked[0]?.get("limit"), "500")
      assert.strictEqual(asked[1]?.get("continue"), "page-2")
      const watch = asked[2]
      assert.strictEqual(watch?.get("resourceVersion"), "100")
      assert.strictEqual(watch?.get("allowWatchBookmarks"), "true")
      assert.isAtLeast(Number(watch?.get("timeoutSeconds")), 240)
    }))

  it.effect("resumes after the last bookmark or event, without listing again", () =>
    Effect.gen(function*() {
      const { asked, events } = yield* eventsOf([
        list([], "100"),
        FaultServer.watch([frame("ADDED", "a", "101"), bookmark("150")], "ends"),
        FaultServer.watch([frame("ADDED", "b", "151")], "is cut"),
        FaultServer.watch([frame("ADDED", "c", "152")], "is silent")
      ], 4)
      assert.deepStrictEqual(events, ["Synced ", "Added a", "Added b", "Added c"])
      assert.deepStrictEqual(asked.slice(1).map((query) => query.get("resourceVersion")), ["100", "150", "151"])
    }))

  it.effect("drops a frame that was cut, and reads it again whole", () =>
    Effect.gen(function*() {
      const { events } = yield* eventsOf([
        list([], "100"),
        FaultServer.watch([frame("ADDED", "a", "101")], "is cut in a frame"),
        FaultServer.watch([frame("ADDED", "b", "102")], "is silent")
      ], 3)
      assert.deepStrictEqual(events, ["Synced ", "Added a", "Added b"])
    }))

  for (
    const [how, gone] of [
      ["in the stream", FaultServer.watch([expired], "ends")],
      ["as the answer", FaultServer.status(410, { reason: "Gone" })]
    ] as const
  ) {
    it.effect(`lists again when its version is too old, said ${how}`, () =>
      Effect.gen(function*() {
        const { events } = yield* eventsOf([list(["a"], "100"), gone, list(["b"], "200"), silent], 2)
        assert.deepStrictEqual(events, ["Synced a", "Synced b"])
      }))
  }

  it.effect("starts a list again when a later page has expired", () =>
    Effect.gen(function*() {
      const { asked, events } = yield* eventsOf([
        list(["a"], "100", { continue: "old" }),
        FaultServer.status(410, { reason: "Expired" }),
        list(["a"], "200", { continue: "new" }),
        list(["b"], "200"),
        silent
      ], 1)
      assert.deepStrictEqual(events, ["Synced a,b"])
      assert.deepStrictEqual(asked.slice(0, 4).map((query) => query.get("continue")), [null, "old", null, "new"])
    }))

  it.effect("outlives 503, 500, garbage answers, refused lists and cut connections", () =>
    Effect.gen(function*() {
      const { events } = yield* eventsOf([
        FaultServer.status(503),
        FaultServer.answer(502, "<html>Bad gateway</html>", { "content-type": "text/html" }),
        (response) => response.destroy(),
        list(["a"], "100"),
        FaultServer.status(500),
        (response) => response.destroy(),
        FaultServer.watch([{ type: "ERROR", object: { kind: "Status", code: 500, message: "etcd" } }], "ends"),
        FaultServer.watch([frame("ADDED", "b", "101")], "is silent")
      ], 2)
      assert.deepStrictEqual(events, ["Synced a", "Added b"])
    }))

  it.effect("waits as long as the server asks", () =>
    Effect.gen(function*() {
      const byHeader = yield* eventsOf(
        [FaultServer.status(429, {}, { "retry-after": "40" }), list(["a"], "1"), silent],
        1
      )
      assert.isAtLeast(byHeader.waited, 40_000)
      const byStatus = yield* eventsOf([
        FaultServer.status(503, { details: { retryAfterSeconds: 50 } }),
        list(["a"], "1"),
        silent
      ], 1)
      assert.isAtLeast(byStatus.waited, 50_000)
    }))

  it.effect("gives up a watch that says nothing beyond its own end", () =>
    Effect.gen(function*() {
      const { asked, events, waited } = yield* eventsOf([
        list([], "100"),
        silent,
        FaultServer.watch([frame("ADDED", "a", "101")], "is silent")
      ], 2)
      assert.deepStrictEqual(events, ["Synced ", "Added a"])
      const limit = Number(asked[1]?.get("timeoutSeconds")) * 1_000
      assert.isAtLeast(waited, limit)
      assert.isAtMost(waited, limit + 60_000)
    }))

  it.effect("fails at once with what waiting cannot mend", () =>
    Effect.gen(function*() {
      for (
        const [code, tag] of [[403, "Forbidden"], [401, "Unauthorized"], [404, "NotFound"]] as const
      ) {
        const { asked, exit } = yield* reflected([FaultServer.status(code, { message: `User "u" cannot list` })], 1)
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual((yield* Effect.flip(exit)).reason._tag, tag)
        assert.strictEqual(asked.length, 1)
      }
      const { exit } = yield* reflected([FaultServer.answer(200, { items: [{ metadata: 1 }] })], 1)
      assert.strictEqual((yield* Effect.flip(exit)).reason._tag, "Undecodable")
    }))

  it.effect("that was synced believes a refusal only when it lasts", () =>
    Effect.gen(function*() {
      const refusal = FaultServer.status(403, { message: `configmaps is forbidden: User "u" cannot list` })
      const starting = yield* eventsOf([list(["a"], "1"), refusal, refusal, list(["b"], "2"), silent], 2)
      assert.deepStrictEqual(starting.events, ["Synced a", "Synced b"])
      const { exit, waited } = yield* reflected([list(["a"], "1"), refusal], 2)
      assert.strictEqual((yield* Effect.flip(exit)).reason._tag, "Forbidden")
      // The last wait between two attempts may end half a minute late.
      assert.isAtLeast(waited, 60_000)
      assert.isAtMost(waited, 95_000)
    }))

  it.effect("that was synced waits for credentials to come back", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([list(["a"], "1"), FaultServer.watch([frame("ADDED", "b", "2")], "is silent")])
      let asked = 0
      // Gone for some minutes, from the second request to the twentieth.
      const identity = Effect.suspend(() =>
        ++asked > 1 && asked < 20
          ? Effect.fail(new CredentialsUnavailable({ cluster: "c", source: "exec plugin aws", detail: "it failed" }))
          : Effect.succeed({ tls: {} })
      )
      const kube = yield* KubeHttp.make({ ...server.connection, identity })
      const reader = yield* kube.reflect(ConfigMap, { namespace: "n" }).pipe(
        Stream.map(told),
        Stream.take(2),
        Stream.runCollect,
        Effect.forkScoped
      )
      while (reader.pollUnsafe() === undefined) {
        yield* realPause
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(yield* Fiber.join(reader), ["Synced a", "Added b"])
    }), 10_000)

  it.effect("fails rather than follow a part of a collection", () =>
    Effect.gen(function*() {
      const all = JSON.stringify({
        metadata: { resourceVersion: "1", continue: "more" },
        items: Array.from({ length: 100_000 }, () => ({ metadata: {} }))
      })
      const { exit } = yield* reflected([FaultServer.answer(200, all)], 1)
      assert.include((yield* Effect.flip(exit)).message, "more than 100000 objects")
    }), 30_000)

  it.effect("reports frames it cannot read when they keep coming", () =>
    Effect.gen(function*() {
      const once = yield* eventsOf([
        list(["a"], "1"),
        FaultServer.watch(["not json"], "ends"),
        list(["b"], "2"),
        silent
      ], 2)
      assert.deepStrictEqual(once.events, ["Synced a", "Synced b"])
      const { exit } = yield* reflected(
        [list(["a"], "1"), FaultServer.watch([{ type: "ADDED", object: { metadata: "?" } }], "ends")],
        99
      )
      assert.strictEqual((yield* Effect.flip(exit)).reason._tag, "Undecodable")
    }))

  it.effect("meets a server that ends every watch at once with more and more patience", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      server.script([list([], "1"), FaultServer.watch([frame("ADDED", "a", "2")], "ends")])
      const kube = yield* KubeHttp.make(server.connection)
      yield* kube.reflect(ConfigMap, { namespace: "n" }).pipe(Stream.runDrain, Effect.forkScoped)
      for (let second = 0; second < 600; second++) {
        yield* realPause
        yield* TestClock.adjust("1 second")
      }
      // Ten minutes at a mean wait of 15 s, when backed off.
      assert.isAtLeast(server.asked.length, 10)
      assert.isAtMost(server.asked.length, 100)
    }), 20_000)

  it.effect("stops reading while nobody takes its events", () =>
    Effect.gen(function*() {
      let produced = 0
      const source = {
        list: Effect.succeed({ items: [], resourceVersion: "1", remaining: 0 }),
        watch: () =>
          Stream.fromEffectRepeat(Effect.sync((): WatchFrame<ConfigMap> => ({
            _tag: "Added",
            object: { metadata: { resourceVersion: String(++produced) }, data: {} }
          })))
      }
      const gate = yield* Deferred.make<void>()
      yield* reflect(source).pipe(
        Stream.tap(() => Deferred.await(gate)),
        Stream.runDrain,
        Effect.forkScoped
      )
      for (let turn = 0; turn < 50; turn++) yield* realPause
      assert.isAtMost(produced, 200)
    }))
})
