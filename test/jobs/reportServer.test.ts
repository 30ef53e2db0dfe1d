import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Redacted, Schema } from "effect"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { connect } from "node:net"
import { ReportServer, readReport } from "../../src/agent/jobs/ReportServer.ts"

const checker = { name: "c", status: "error", message: "m", lastRun: "2021-07-01T02:10:07Z" }
const body = (checkers: ReadonlyArray<object> = [checker], probe = "p") =>
  JSON.stringify({ probeName: probe, probeNamespace: "kubeprober", name: "", checkers })

const server = ReportServer.layer({ host: "127.0.0.1", port: 0 })

const post = Effect.fnUntraced(function*(text: string, token?: string, path = "/probe-status") {
  const { port } = yield* ReportServer
  const response = yield* Effect.promise(() =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      body: text,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` }
    })
  )
  return { status: response.status, text: yield* Effect.promise(() => response.text()) }
})

/** Done when the next `count` requests have arrived. */
const arrived = (count: number) =>
  Effect.map(Effect.context(), (context) => {
    const all = Deferred.makeUnsafe<void>()
    let left = count
    const onRequest = () => {
      left--
      if (left > 0) return
      unsubscribe("http.server.request.start", onRequest)
      // Told before the server is, and in the same turn.
      setImmediate(() => Effect.runSyncWith(context)(Deferred.succeed(all, undefined)))
    }
    subscribe("http.server.request.start", onRequest)
    return Deferred.await(all)
  })

const opened = Effect.fnUntraced(function*(token: string, probe = "p") {
  return yield* (yield* ReportServer).open({ namespace: "kubeprober", probe, token: Redacted.make(token) })
})

describe("reports of probers", () => {
  it.live("are taken in the original's format, merged by checker, the last word of each", () =>
    Effect.gen(function*() {
      const inbox = yield* opened("t1")
      yield* inbox.addresses(["127.0.0.1"])
      assert.strictEqual((yield* post(body())).status, 200)
      assert.strictEqual((yield* post(body([{ name: "d", status: "Pass" }]))).status, 200)
      assert.strictEqual((yield* post(body([{ name: "c", status: "WARN", message: "n" }]), "t1")).status, 200)
      assert.deepStrictEqual([...yield* inbox.close], [
        ["c", { status: "WARN", message: "n" }],
        ["d", { status: "PASS", message: "" }]
      ])
    }).pipe(Effect.scoped, Effect.provide(server)))

  it.live("that are forged are refused", () =>
    Effect.gen(function*() {
      const inbox = yield* opened("t1")
      const other = yield* opened("t2", "other")
      yield* inbox.addresses(["10.1.2.3"])
      yield* other.addresses(["127.0.0.1"])
      const wrongToken = yield* post(body(), "guess")
      assert.deepStrictEqual([wrongToken.status, wrongToken.text], [401, "the token is not that of an open run\n"])
      assert.strictEqual((yield* post(body(), "")).status, 401)
      assert.strictEqual((yield* post(body(), "t2")).status, 403, "a token of another Probe's run")
      const otherPod = yield* post(body())
      assert.strictEqual(otherPod.status, 403)
      assert.match(otherPod.text, /127\.0\.0\.1 is not the pod of a run of Probe kubeprober\/p/)
      assert.strictEqual((yield* post(body([checker], "nobody"))).status, 403)
      assert.strictEqual((yield* inbox.close).size, 0)
      assert.strictEqual((yield* post(body(), "t1")).status, 401, "after the window")
    }).pipe(Effect.scoped, Effect.provide(server)))

  it.live("wait for the address of a pod that is faster than its kubelet", () =>
    Effect.gen(function*() {
      const inbox = yield* opened("t1")
      const both = yield* arrived(2)
      const early = yield* Effect.forkChild(post(body()))
      const late = yield* Effect.forkChild(post(body([{ name: "d", status: "INFO" }])))
      yield* both
      assert.strictEqual((yield* inbox.said).size, 0)
      yield* inbox.addresses(["::ffff:127.0.0.1"])
      assert.strictEqual((yield* inbox.close).size, 2, "closing waits for what it let in")
      assert.strictEqual((yield* Fiber.join(early)).status, 200)
      assert.strictEqual((yield* Fiber.join(late)).status, 200)
    }).pipe(Effect.scoped, Effect.provide(server)))

  it.live("from nowhere are refused when the run ends without a pod", () =>
    Effect.gen(function*() {
      const inbox = yield* opened("t1")
      const one = yield* arrived(1)
      const early = yield* Effect.forkChild(post(body()))
      yield* one
      assert.strictEqual((yield* inbox.close).size, 0)
      assert.strictEqual((yield* Fiber.join(early)).status, 403)
    }).pipe(Effect.scoped, Effect.provide(server)))

  it.live("that cannot be read are answered with the reason", () =>
    Effect.gen(function*() {
      const inbox = yield* opened("t1")
      const banana = yield* post(body([{ name: "c", status: "BANANA" }]), "t1")
      assert.deepStrictEqual([banana.status, banana.text], [
        400,
        "checker \"c\" has the status \"BANANA\"; it is one of PASS, INFO, UNKNOWN, WARN, ERROR\n"
      ])
      for (const text of ["", "{", "[]", body([]), body([{ status: "PASS" }]), "{\"probeName\":\"p\"}"]) {
        assert.strictEqual((yield* post(text, "t1")).status, 400, text)
      }
      const many = (prefix: string) =>
        body(Array.from({ length: 300 }, (_, index) => ({ name: `${prefix}${index}`, status: "PASS" })))
      assert.strictEqual((yield* post(many("a"), "t1")).status, 200)
      assert.strictEqual((yield* post(many("b"), "t1")).status, 413)
      assert.strictEqual((yield* post(body([{ ...checker, message: "x".repeat(1 << 20) }]), "t1")).status, 413)
      assert.strictEqual((yield* post(body(), "t1", "/collect")).status, 404)
      assert.strictEqual((yield* inbox.said).size, 300)
      const { port } = yield* ReportServer
      const health = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/healthz`))
      assert.strictEqual(health.status, 200)
    }).pipe(Effect.scoped, Effect.provide(server)))

  it.live("that trickle in are cut off", () =>
    Effect.gen(function*() {
      const { port } = yield* ReportServer
      const answer = yield* Effect.callback<string>((resume) => {
        let text = ""
        const socket = connect(port, "127.0.0.1", () => {
          socket.write("POST /probe-status HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        })
        socket.on("data", (chunk) => text += String(chunk)).on("close", () => resume(Effect.succeed(text)))
      }).pipe(Effect.timeout("20 seconds"))
      assert.match(answer, /^HTTP\/1\.1 408 /)
    }).pipe(Effect.provide(server)), 30_000)

  it.effect.prop(
    "of any text are read or refused, never a defect",
    { text: Schema.String, json: Schema.Json },
    ({ json, text }) => Effect.andThen(Effect.ignore(readReport(text)), Effect.ignore(readReport(JSON.stringify(json))))
  )
})
