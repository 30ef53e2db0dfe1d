import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, Option, Scope, Stream } from "effect"
import { readdirSync } from "node:fs"
import type { ServerHttp2Stream } from "node:http2"
import type { Readable } from "node:stream"
import { Draining } from "../../src/infra/link/LinkError.ts"
import type { Link } from "../../src/infra/link/Links.ts"
import { Membership } from "../../src/infra/link/Membership.ts"
import * as Mux from "../../src/infra/link/Mux.ts"
import { Transport } from "../../src/infra/link/Transport.ts"
import * as WebSocketTransport from "../../src/infra/link/WebSocketTransport.ts"
import { certify, earlier } from "./certificates.ts"
import {
  AT_ONCE,
  eventually,
  failureOf,
  invite,
  linked,
  newIdentity,
  startAgent,
  startMaster,
  until,
  withState
} from "./fixture.ts"
import { startProxy } from "./proxy.ts"

const delivery = (seq: number) => ({ epoch: 1, seq, records: [] })
const run = "run-1"
const registration = { clusterUid: "u", boot: "b", versions: {}, capabilities: [] }

/** The reason the exit failed with; anything else than a typed failure fails the test. */
const failureIn = <A, E>(exit: Exit.Exit<A, E>): E => Option.getOrThrow(Exit.findErrorOption(exit))

/** One of each kind of call that never ends by itself. */
const callsInFlight = Effect.fnUntraced(function*(
  link: Link,
  uplink: { readonly register: (payload: typeof registration) => Effect.Effect<unknown, unknown> }
) {
  const target = { _tag: "Probe", probe: { namespace: "a", name: "b" } } as const
  const calls: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
    link.control.cancel({ run }),
    Stream.runDrain(link.control.runNow({ run, timeout: Duration.seconds(1), target })),
    uplink.register(registration)
  ]
  const fibers = yield* Effect.forEach(calls, (call) => Effect.forkScoped(Effect.exit(call)))
  // A call behind them on each stream has been answered, so they have arrived.
  yield* link.control.describe()
  return { failures: Effect.map(Effect.forEach(fibers, Fiber.join), (exits) => exits.map(failureIn)) }
})

const assertAllClosed = (failures: ReadonlyArray<unknown>) =>
  assert.deepStrictEqual(failures.map((failure) => (failure as { readonly _tag: string })._tag), [
    "LinkClosed",
    "LinkClosed",
    "LinkClosed"
  ])

describe("calls over a link", () => {
  it.live("go both ways on one connection", () =>
    withState(Effect.gen(function*() {
      const { link, session } = yield* linked("staging", { name: "one" })
      assert.strictEqual((yield* link.control.describe()).versions.agent, "one")
      const numbers = Array.from({ length: 500 }, (_, n) => n + 1)
      const both = yield* Effect.forEach(
        numbers,
        (n) => Effect.all([session.uplink.deliver(delivery(n)), link.control.describe()], { concurrency: 2 }),
        { concurrency: 100 }
      )
      assert.deepStrictEqual(both.map(([{ seq }]) => seq), numbers)
    })))

  it.live("outlive the bug that one of them runs into", () =>
    withState(Effect.gen(function*() {
      const { link } = yield* linked("staging")
      const waiting = yield* Effect.forkScoped(link.control.cancel({ run }))
      const desired = { probes: [], extraInfo: {} }
      const bug = yield* Effect.exit(link.control.applyProbes({ hash: "0".repeat(64), desired }))
      assert.isTrue(Exit.hasDies(bug))
      assert.strictEqual((yield* link.control.describe()).versions.agent, "agent")
      assert.isUndefined(waiting.pollUnsafe())
    })))

  it.live("fail with LinkClosed at both ends when the connection breaks, and so do later ones", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const proxy = yield* startProxy(master.port)
      const { client } = yield* startAgent({ port: proxy.port, token: yield* invite("staging") })
      const session = yield* client.session
      const link = yield* eventually(master.links.find("staging"))
      const { failures } = yield* callsInFlight(link, session.uplink)
      yield* proxy.cut
      assertAllClosed(yield* failures)
      const late = yield* Effect.flip(link.control.describe())
      assert.match(late.message, /the link with staging has ended: .*; it comes back by itself/)
      assert.strictEqual((yield* Effect.flip(session.uplink.deliver(delivery(1))))._tag, "LinkClosed")
      // And it does come back.
      const again = yield* eventually(
        Effect.filterOrFail(master.links.find("staging"), ({ epoch }) => epoch === 2, () => "the old link")
      )
      assert.strictEqual((yield* again.control.describe()).versions.agent, "agent")
    })))

  it.live("fail with LinkClosed, not by interruption, when the agent or the master stops in good order", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const outer = yield* Effect.scope
      const { failures } = yield* Effect.scoped(Effect.gen(function*() {
        const { client } = yield* startAgent({ port: master.port, token: yield* invite("staging") })
        const link = yield* Effect.andThen(client.session, eventually(master.links.find("staging")))
        return yield* Scope.provide(callsInFlight(link, (yield* client.session).uplink), outer)
      }))
      assertAllClosed(yield* failures)

      const token = yield* invite("production")
      const { agent, stopped } = yield* Effect.scoped(Effect.gen(function*() {
        const second = yield* startMaster()
        const agent = yield* Scope.provide(startAgent({ port: second.port, token }), outer)
        const session = yield* agent.client.session
        const link = yield* eventually(second.links.find("production"))
        return { agent, stopped: yield* Scope.provide(callsInFlight(link, session.uplink), outer) }
      }))
      assertAllClosed(yield* stopped.failures)
      const told = yield* failureOf(agent.client)
      assert.isTrue(told._tag === "LinkClosed" && told.reason._tag === "PeerLeft")
      assert.match(told.message, /the peer is shutting down/)
    })))
})

describe("the newest link of a cluster", () => {
  it.live("takes over at once, and the older is told", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const proxy = yield* startProxy(master.port)
      const first = yield* startAgent({ port: proxy.port, token: yield* invite("staging") })
      const session = yield* first.client.session
      const link = yield* eventually(master.links.find("staging"))
      const { failures } = yield* callsInFlight(link, session.uplink)
      const told = yield* Effect.forkScoped(failureOf(first.client))
      // The older one dials again as soon as it is told, and would take over in turn.
      yield* proxy.refuse
      const second = yield* startAgent({ port: master.port, identity: first.identity, name: "second" })
      yield* second.client.session
      const holder = yield* eventually(
        Effect.filterOrFail(master.links.find("staging"), ({ epoch }) => epoch === 2, () => "the old link")
      )
      assert.strictEqual((yield* holder.control.describe()).versions.agent, "second")
      assertAllClosed(yield* failures)
      const { reason } = yield* Effect.flip(link.closed)
      assert.strictEqual(reason._tag === "Left" && reason.farewell._tag, "Superseded")
      assert.match((yield* Fiber.join(told)).message, /link 1 was superseded by link 2/)
    })))

  it.live("does not wait for an older one whose peer is no longer there", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const proxy = yield* startProxy(master.port)
      const first = yield* startAgent({ port: proxy.port, token: yield* invite("staging") })
      yield* first.client.session
      yield* proxy.stall
      const before = yield* Clock.currentTimeMillis
      const second = yield* startAgent({ port: master.port, identity: first.identity, name: "second" })
      yield* second.client.session
      const holder = yield* eventually(
        Effect.filterOrFail(master.links.find("staging"), ({ epoch }) => epoch === 2, () => "the old link")
      )
      assert.strictEqual((yield* holder.control.describe()).versions.agent, "second")
      assert.isBelow((yield* Clock.currentTimeMillis) - before, AT_ONCE)
    })))
})

describe("a certificate", () => {
  it.live("is renewed over the link without a call being lost", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const member = yield* (yield* Membership).add("staging")
      const identity = yield* newIdentity
      // Two thirds of its life are over: it is renewed as soon as there is a link.
      const old = yield* earlier("18 hours", certify(identity, member))
      const { client } = yield* startAgent({ port: master.port, identity })
      const session = yield* client.session
      const link = yield* eventually(master.links.find("staging"))
      const waiting = yield* Effect.forkScoped(Effect.exit(link.control.cancel({ run })))
      let calls = 0
      const calling = yield* Effect.forkScoped(
        session.uplink.deliver(delivery(1)).pipe(Effect.tap(() => Effect.sync(() => calls++)), Effect.forever)
      )
      const renewed = Effect.map(identity.current, (now) => Option.getOrThrow(now).notAfter > old.notAfter)
      yield* until("renewed", renewed)
      const then = calls
      yield* until("calls go on", Effect.sync(() => calls > then + 100))
      assert.isUndefined(calling.pollUnsafe())
      assert.isUndefined(waiting.pollUnsafe())
      assert.strictEqual((yield* master.links.find("staging")).epoch, 1)
      // The old one is not used again.
      assert.notStrictEqual(
        Option.getOrThrow(yield* identity.current).credential.certificate,
        old.credential.certificate
      )
    })))

  it.live("that is renewed keeps its link beyond the end of the first; one that is not ends it", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const membership = yield* Membership
      const almostOver = Effect.fnUntraced(function*(cluster: string) {
        const identity = yield* newIdentity
        return { identity, old: yield* earlier("86390 seconds", certify(identity, yield* membership.add(cluster))) }
      })
      const renewing = yield* almostOver("renewing")
      const { client } = yield* startAgent({ port: master.port, identity: renewing.identity })
      yield* client.session

      const careless = yield* almostOver("careless")
      const transport = Context.get(yield* Layer.build(WebSocketTransport.layer), Transport)
      const connection = yield* transport.dial(new URL(`https://127.0.0.1:${master.port}`), careless.old.credential)
      const mux = yield* Effect.provide(Mux.serve(connection, "master"), Mux.StreamHandler.layerNone)
      const { reason } = yield* Effect.flip(mux.closed)
      assert.isTrue(reason._tag === "PeerLeft" && reason.farewell._tag === "CertificateExpired")
      assert.strictEqual((yield* master.links.find("renewing")).epoch, 1)
    })))
})

/** Reads the whole body and counts it. */
const drain = (stream: Readable) =>
  Effect.callback<number>((resume) => {
    let size = 0
    stream.on("data", (chunk: Buffer) => (size += chunk.length))
    stream.on("close", () => resume(Effect.succeed(size)))
  })

const BIG = 8 << 20

/** `/big` writes 8 MiB as fast as it may, `/small` a word, `/mute` nothing; `written` is what `/big` got rid of. */
const server = () => {
  const written = { bytes: 0, ended: 0 }
  const chunk = Buffer.alloc(64 << 10, 1)
  const writeAll = (stream: ServerHttp2Stream) =>
    Effect.callback<void>((resume) => {
      let left = BIG
      const write = () => {
        while (left > 0) {
          left -= chunk.length
          written.bytes += chunk.length
          if (!stream.write(chunk)) return void stream.once("drain", write)
        }
        stream.end(() => resume(Effect.void))
      }
      write()
    })
  const handler: Mux.StreamHandler["Service"] = {
    handle: (stream, headers) =>
      Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sync(() => written.ended++))
        if (headers[":path"] === "/mute") return yield* Effect.never
        if (headers[":path"] === "/bug") return yield* Effect.die(new Error("a bug in the handler"))
        stream.respond({ ":status": 200 })
        if (headers[":path"] === "/big") return yield* writeAll(stream)
        stream.end("small")
      })
  }
  return { written, handler }
}

const get = Effect.fnUntraced(function*(link: Link, path: string) {
  const exchange = yield* link.request({ ":method": "GET", ":path": path })
  exchange.stream.end()
  return exchange
})

const small = (link: Link) =>
  Effect.scoped(Effect.gen(function*() {
    const { response, stream } = yield* get(link, "/small")
    yield* response
    return yield* drain(stream)
  }))

describe("requests over a link", () => {
  it.live("that nobody reads hold a bounded amount, and delay no other", () =>
    withState(Effect.gen(function*() {
      const { handler, written } = server()
      const { link } = yield* linked("staging", { streams: handler })
      const stalled = yield* Effect.replicateEffect(get(link, "/big"), 8)
      yield* Effect.forEach(stalled, ({ response }) => response)
      for (let n = 0; n < 200; n++) {
        assert.strictEqual(yield* small(link), "small".length)
        yield* link.control.describe()
      }
      // What is in flight: the stream's window, and what the buffers on the way take.
      assert.isBelow(written.bytes / stalled.length, 2 * Mux.STREAM_WINDOW)
      const sizes = yield* Effect.forEach(stalled, ({ stream }) => drain(stream), { concurrency: "unbounded" })
      assert.deepStrictEqual(sizes, stalled.map(() => BIG))
    })))

  it.live("are answered 501 where nobody handles them, reset where the handler fails, ended where the link ends", () =>
    withState(Effect.gen(function*() {
      const none = yield* linked("none")
      assert.strictEqual((yield* (yield* get(none.link, "/version")).response)[":status"], 501)
      const { link, master } = yield* linked("some", { streams: server().handler })
      const reset = yield* Effect.flip((yield* get(link, "/bug")).response)
      assert.strictEqual(reset._tag, "StreamReset")
      assert.match(reset.message, /\/bug was reset by the agent/)
      const muted = yield* get(link, "/mute")
      const waiting = yield* Effect.forkScoped(Effect.flip(muted.response))
      yield* small(link)
      yield* link.close(new Draining({ retryAfter: Duration.seconds(1) }))
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "LinkClosed")
      assert.strictEqual((yield* Effect.flip(get(link, "/small")))._tag, "LinkClosed")
      yield* until("no link", Effect.map(master.links.size, (size) => size === 0))
    })))

  it.live("leave nothing behind: 1,000 of them, half cancelled, then the link itself", () =>
    Effect.gen(function*() {
      const files = () => readdirSync("/proc/self/fd").length
      const before = files()
      const { handler, written } = server()
      yield* withState(Effect.gen(function*() {
        const { link, session } = yield* linked("staging", { streams: handler })
        yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, n) => n),
          (n) =>
            n % 2 === 0
              ? Effect.asVoid(small(link))
              : Effect.asVoid(Effect.scoped(get(link, n % 4 === 1 ? "/mute" : "/big"))),
          { concurrency: 100 }
        )
        yield* until("only RPC at the master", Effect.map(link.streams, (streams) => streams === 2))
        yield* until("only RPC at the agent", Effect.map(session.streams, (streams) => streams === 2))
        yield* until("every handler ended", Effect.sync(() => written.ended === 1000))
      }))
      yield* until(`files back to ${before}`, Effect.sync(() => files() <= before))
    }))
})
