/** How long answers take, asked of a real server on this machine. */
import { assert, describe, it } from "@effect/vitest"
import * as packet from "dns-packet"
import { Duration, Effect } from "effect"
import { createSocket } from "node:dgram"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import { Dns } from "../../src/infra/net/Dns.ts"
import { dnsLookups } from "../../src/probes/workers/tasks/dnsLookups.ts"

/** A server that knows addresses of IPv6 alone, as in a cluster of IPv6. */
const server6 = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const socket = createSocket("udp4")
    socket.on("message", (message, { address, port }) => {
      const { id, questions = [] } = packet.decode(message)
      const answers = questions.flatMap(({ name, type }): Array<packet.Answer> =>
        type === "AAAA" ? [{ type, name, data: "2001:db8::1" }] : []
      )
      socket.send(packet.encode({ type: "response", id: id ?? 0, questions, answers }), port, address)
    })
    socket.bind(
      0,
      "127.0.0.1",
      () => resume(Effect.succeed({ port: socket.address().port, close: () => socket.close() }))
    )
  }),
  ({ close }) => Effect.sync(close)
)

/** A server that answers each question after as many milliseconds as `late` says, or never; and how many it was asked. */
const server = (late: (question: number) => number | undefined) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void; readonly asked: () => number }>((resume) => {
      const socket = createSocket("udp4")
      let asked = 0
      socket.on("message", (message, { address, port }) => {
        const { id, questions = [] } = packet.decode(message)
        const answer = packet.encode({
          type: "response",
          id: id ?? 0,
          questions,
          answers: questions.map(({ name }) => ({ type: "A", name, data: "192.0.2.1" }))
        })
        const after = late(asked++)
        if (after !== undefined) setTimeout(() => socket.send(answer, port, address), after)
      })
      socket.bind(0, "127.0.0.1", () =>
        resume(Effect.succeed({
          port: socket.address().port,
          close: () => socket.close(),
          asked: () => asked
        })))
    }),
    ({ close }) => Effect.sync(close)
  )

const timed = (port: number) =>
  Effect.map(
    dnsLookups.run({
      lookups: [{
        id: "timed",
        name: "example.test",
        server: "127.0.0.1",
        port,
        protocol: "udp",
        wanted: "address",
        timed: 20
      }],
      tries: 3,
      timeoutMillis: 1000
    }),
    ({ looked: [one] }) => one
  )

describe("names of a cluster of IPv6", () => {
  it.live("are asked for by the type that has them", () =>
    Effect.gen(function*() {
      const { port } = yield* server6
      const base = {
        name: "kubernetes.default",
        server: "127.0.0.1",
        port,
        protocol: "udp",
        wanted: "address"
      } as const
      const { looked } = yield* dnsLookups.run({
        lookups: [{ ...base, id: "A" }, { ...base, id: "AAAA", type: "AAAA" }],
        tries: 2,
        timeoutMillis: 1000
      })
      assert.deepStrictEqual(looked.map(({ good, id, why }) => [id, good, why]), [
        ["A", 0, "answered NOERROR without an address"],
        ["AAAA", 2, undefined]
      ])
    }).pipe(Effect.provide(LocalWorld.context), Effect.scoped))

  it.effect("are resolved where a program's resolver gets an address of either family", () =>
    Effect.gen(function*() {
      const { looked } = yield* dnsLookups.run({
        lookups: [{ id: "pod", name: "kubernetes.default", port: 53, protocol: "udp", type: "A", wanted: "address" }],
        tries: 1,
        timeoutMillis: 1000
      })
      assert.deepInclude(looked[0], { id: "pod", good: 1 })
    }).pipe(
      Effect.provideService(Dns, {
        ask: () => Effect.die("no server is named"),
        system: () => Effect.succeed({ addresses: ["2001:db8::1"], took: Duration.zero }),
        resolver: Effect.succeed({ servers: [], search: [] })
      }),
      Effect.provide(LocalWorld.context)
    ))
})

describe("timing answers", () => {
  it.live("takes many, of which a late one is not the rule", () =>
    Effect.gen(function*() {
      const { asked, port } = yield* server((question) => question === 7 ? 500 : 0)
      const one = yield* timed(port)
      assert.deepInclude(one, { id: "timed", good: 20, tries: 20 })
      assert.strictEqual(asked(), 20)
      assert.isBelow(one?.p95Millis ?? Infinity, 400)
    }).pipe(Effect.provide(LocalWorld.context), Effect.scoped))

  it.live("tells late answers that are usual", () =>
    Effect.gen(function*() {
      const { port } = yield* server((question) => question % 3 === 0 ? 0 : 200)
      const one = yield* timed(port)
      assert.isAbove(one?.p50Millis ?? 0, 150)
      assert.isAbove(one?.p95Millis ?? 0, 150)
    }).pipe(Effect.provide(LocalWorld.context), Effect.scoped))

  it.live("stops at the second question that nobody answers", () =>
    Effect.gen(function*() {
      const { asked, port } = yield* server(() => undefined)
      assert.deepInclude(yield* timed(port), { good: 0, tries: 2 })
      assert.strictEqual(asked(), 2)
    }).pipe(Effect.provide(LocalWorld.context), Effect.scoped))
})
