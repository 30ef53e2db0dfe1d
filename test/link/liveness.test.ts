import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Queue, Ref } from "effect"
import { TestClock } from "effect/testing"
import type { CloseReason } from "../../src/infra/link/LinkError.ts"
import { watch } from "../../src/infra/link/liveness.ts"
import { eventually, invite, startAgent, startMaster, withState } from "./fixture.ts"
import { startProxy } from "./proxy.ts"

/** A peer whose answers and bytes are the test's to give. */
const peer = Effect.gen(function*() {
  const pings = yield* Queue.unbounded<void>()
  const received = yield* Ref.make(0)
  const answering = yield* Ref.make(true)
  const abandoned = yield* Queue.unbounded<CloseReason>()
  const mux = {
    ping: Effect.andThen(
      Queue.offer(pings, undefined),
      Effect.flatMap(Ref.get(answering), (answers) => answers ? Effect.void : Effect.never)
    ),
    received: Ref.get(received),
    abandon: (reason: CloseReason) => Effect.asVoid(Queue.offer(abandoned, reason))
  }
  const watching = yield* Effect.forkChild(watch(mux))
  return { mux, pings, received, answering, abandoned, watching }
})

describe("liveness", () => {
  it.effect("pings every 3 s or so, and finds nobody dead who answers", () =>
    Effect.gen(function*() {
      const { pings, watching } = yield* peer
      for (let second = 0; second < 600; second++) yield* TestClock.adjust("1 second")
      const count = yield* Queue.size(pings)
      assert.isTrue(count >= 150 && count <= 220, `${count} pings in 10 minutes`)
      assert.isUndefined(watching.pollUnsafe())
    }))

  it.effect("finds a silent peer dead 9 to 10 s after it was last heard", () =>
    Effect.gen(function*() {
      const { abandoned, answering, pings } = yield* peer
      while ((yield* Queue.size(pings)) === 0) yield* TestClock.adjust("10 millis")
      const heard = yield* Clock.currentTimeMillis
      yield* Ref.set(answering, false)
      while ((yield* Queue.size(abandoned)) === 0) yield* TestClock.adjust("10 millis")
      const silence = (yield* Clock.currentTimeMillis) - heard
      assert.isTrue(silence >= 9000 && silence <= 10_000, `${silence} ms`)
      assert.strictEqual((yield* Queue.take(abandoned))._tag, "PeerSilent")
    }))

  it.effect("takes any byte for life while a ping waits its turn", () =>
    Effect.gen(function*() {
      const { abandoned, answering, received } = yield* peer
      yield* Ref.set(answering, false)
      for (let second = 0; second < 120; second++) {
        yield* Ref.update(received, (bytes) => bytes + 1)
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(yield* Queue.size(abandoned), 0)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Queue.size(abandoned), 1)
    }))

  it.live("notices at both ends a connection through which nothing passes any more", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const proxy = yield* startProxy(master.port)
      const { client } = yield* startAgent({ port: proxy.port, token: yield* invite("staging") })
      const session = yield* client.session
      const link = yield* eventually(master.links.find("staging"))
      const inFlight = yield* Effect.forkScoped(Effect.flip(link.control.cancel({ run: "run-1" })))
      yield* link.control.describe()
      const timed = Effect.gen(function*() {
        const before = yield* Clock.currentTimeMillis
        const closed = yield* Effect.all([Effect.flip(link.closed), Effect.flip(session.closed)], { concurrency: 2 })
        return { reasons: closed.map(({ reason }) => reason._tag), took: (yield* Clock.currentTimeMillis) - before }
      })
      yield* proxy.stall
      const { reasons, took } = yield* timed
      assert.deepStrictEqual(reasons, ["PeerSilent", "PeerSilent"])
      // 9 to 10 s by the clock of the test above; here there is a machine that may be busy.
      assert.isAtMost(took, Duration.toMillis("20 seconds"))
      assert.strictEqual((yield* Fiber.join(inFlight))._tag, "LinkClosed")
      // Once the network is back, so is the link.
      yield* proxy.resume
      const again = yield* eventually(master.links.find("staging"))
      assert.strictEqual((yield* again.control.describe()).versions.agent, "agent")
    })))
})
