import { assert, layer } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, Redacted, References, Scope } from "effect"
import { randomBytes } from "node:crypto"
import { Unauthenticated } from "../../src/domain/rpc/Fleet.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Draining } from "../../src/infra/link/LinkError.ts"
import { Links } from "../../src/infra/link/Links.ts"
import { ADMIN_GROUP, Authentication, type Caller } from "../../src/master/api/Authentication.ts"
import { Authorization } from "../../src/master/api/Authorization.ts"
import { Registry } from "../../src/master/Registry.ts"
import { until } from "../link/fixture.ts"
import { apiWith } from "../master/api/apiFixture.ts"
import * as FakeApiServer from "./FakeApiServer.ts"
import { type Asked, ask, front, link } from "./fixture.ts"

const callers: Readonly<Record<string, Caller>> = {
  "token-of-zoe": { user: "zoë@example.org", groups: [ADMIN_GROUP, "system:masters", "a, b"] },
  "token-of-eve": { user: "eve", groups: [] }
}

/** Fake: knows callers by their tokens, so that they may be called anything. */
const authentication = Layer.succeed(Authentication, {
  authenticate: (token) => {
    const caller = token === undefined ? undefined : callers[Redacted.value(token)]
    return caller === undefined ? Effect.fail(new Unauthenticated({ detail: "unknown" })) : Effect.succeed(caller)
  }
})

/** What the master said, as JSON. */
const logged: Array<string> = []

const master = apiWith(Layer.merge(authentication, Authorization.layerAdmin)).pipe(
  Layer.provideMerge(Logger.layer([Logger.make(({ fiber, message }) => {
    logged.push(JSON.stringify([message, fiber.getRef(References.CurrentLogAnnotations)]))
  })]))
)

const isOfAudited = (line: string): boolean => line.includes("kube access") && line.includes("audited")

const connectionTo = (server: string): KubeConnection.KubeConnection =>
  KubeConnection.make({
    cluster: "c1",
    server,
    headers: { "impersonate-user": "of-the-kubeconfig" },
    identity: { tls: {}, authorization: Redacted.make("Bearer of-the-agent") }
  })

const zoe = { authorization: "Bearer token-of-zoe" }

/** A cluster `name` behind the fake, and how to ask it through the master. */
const clusterOf = Effect.fnUntraced(function*(name: string, answer: Parameters<typeof FakeApiServer.start>[0]) {
  const upstream = yield* FakeApiServer.start(answer)
  const agent = yield* link(name, connectionTo(upstream.url))
  const at = yield* front
  const get = (path: string, options: Partial<Asked> = {}) =>
    ask({ ...at, path: `/clusters/${name}${path}`, headers: zoe, ...options })
  return { upstream, agent, at, get }
})

const messageOf = (body: string): string => {
  const status = JSON.parse(body)
  assert.deepInclude(status, { kind: "Status", status: "Failure" })
  return status.message
}

layer(master, { excludeTestServices: true, timeout: "30 seconds" })("kube access", (it) => {
  it.effect("passes on the agent's credentials and the caller's name, and no header that could be another's", () =>
    Effect.gen(function*() {
      const { get, upstream } = yield* clusterOf("headers", (_, response) => {
        response.writeHead(200, {
          "content-type": "application/json",
          "audit-id": "7",
          "set-cookie": "a=b",
          "www-authenticate": "Basic",
          "x-custom": "1"
        })
        response.end("{}")
      })
      const answer = yield* get("/api/v1/pods?limit=5", {
        headers: {
          ...zoe,
          accept: "application/json",
          cookie: "a=b",
          connection: "x-dropped",
          "x-dropped": "1",
          forwarded: "for=1.2.3.4",
          "x-forwarded-for": "1.2.3.4",
          "x-remote-user": "root",
          "x-remote-group": "system:masters",
          "impersonate-user": "root",
          "impersonate-group": ["system:masters", "x"],
          "impersonate-uid": "0",
          "impersonate-extra-scopes": "all",
          "kubeprober-caller": "eyJ1c2VyIjoicm9vdCIsImdyb3VwcyI6W119",
          "proxy-authorization": "Basic x"
        }
      })
      assert.deepStrictEqual([answer.status, answer.body, answer.isWhole], [200, "{}", true])
      assert.deepInclude(answer.headers, { "content-type": "application/json", "audit-id": "7" })
      for (const name of ["set-cookie", "www-authenticate", "x-custom", "kubeprober-whole"]) {
        assert.notProperty(answer.headers, name)
      }
      const [recorded] = upstream.recorded
      assert.deepInclude(recorded, { method: "GET", url: "/api/v1/pods?limit=5" })
      const bytes = (name: string) => Buffer.from(`kubeprober:${name}`, "utf8").toString("latin1")
      assert.sameDeepMembers(
        (recorded?.headers ?? []).filter(([name]) => name !== "host" && name !== "connection"),
        [
          ["accept", "application/json"],
          ["authorization", "Bearer of-the-agent"],
          ["impersonate-user", bytes("zoë@example.org")],
          ["impersonate-group", `kubeprober:${ADMIN_GROUP}`],
          ["impersonate-group", "kubeprober:system:masters"],
          ["impersonate-group", "kubeprober:a, b"]
        ]
      )
    }))

  it.effect("refuses what is no reading, and paths with two meanings, before they reach the cluster", () =>
    Effect.gen(function*() {
      const { at, get, upstream } = yield* clusterOf("refusals", (_, response) => void response.end("reached"))
      const refusals: ReadonlyArray<readonly [status: number, path: string, options?: Partial<Asked>]> = [
        [403, "/api/v1/namespaces/a/pods/p/exec?command=sh&stdin=true"],
        [403, "/api/v1/namespaces/a/pods/p/exec?command=sh", { method: "POST" }],
        [403, "/api/v1/namespaces/a/pods/p/portforward"],
        [403, "/api/v1/nodes/n/proxy/"],
        [403, "/api/v1/namespaces/a/pods", { headers: { ...zoe, connection: "Upgrade", upgrade: "websocket" } }],
        [403, "/api/v1/namespaces/a/pods", { headers: { ...zoe, connection: "Upgrade", upgrade: "SPDY/3.1" } }],
        [405, "/api/v1/namespaces/a/pods/p", { method: "DELETE" }],
        [405, "/api/v1/namespaces/a/pods/p", { method: "PATCH", body: "{}" }],
        [403, "/api/v1/namespaces/a/pods", { method: "POST", body: "{}" }],
        [400, "/../b/api"],
        [400, "/..%2fb/api"],
        [400, "/%2e%2e/b/api"],
        [400, "//api"],
        [400, "/api//v1"],
        [400, "/api/v1/../../../v1/rpc"],
        [400, ""]
      ]
      for (const [status, path, options] of refusals) {
        const answer = yield* get(path, options)
        // `exec` is refused by name, whatever comes with it; a trailing slash could be read in two ways.
        assert.include([status, path.endsWith("/") ? 400 : status], answer.status, path)
        assert.isNotEmpty(messageOf(answer.body))
      }
      for (
        const path of ["/clusters/a/../refusals/api", "/clusters//api", "/clusters/A/api", "/clusters/a%2frefusals/api"]
      ) {
        assert.strictEqual((yield* ask({ ...at, path, headers: zoe })).status, 400, path)
      }
      assert.deepStrictEqual(upstream.recorded, [])
    }))

  it.effect("says why there is no answer, so that kubectl prints it", () =>
    Effect.gen(function*() {
      const { at, get } = yield* clusterOf("reasons", (_, response) => void response.end("{}"))
      const nobody = yield* get("/api", { headers: {} })
      assert.deepStrictEqual([nobody.status, nobody.headers["www-authenticate"]], [401, "Bearer"])
      assert.strictEqual((yield* get("/api", { headers: { authorization: "Bearer other" } })).status, 401)
      assert.strictEqual((yield* get("/api", { headers: { authorization: "Basic eDp5" } })).status, 401)

      const eve = { authorization: "Bearer token-of-eve" }
      const forbidden = yield* get("/api/v1/pods", { headers: eve })
      assert.strictEqual(forbidden.status, 403)
      assert.include(messageOf(forbidden.body), "eve may not list clusters/proxy reasons")
      // Who may do nothing learns nothing either.
      assert.strictEqual((yield* ask({ ...at, path: "/clusters/none/api", headers: eve })).status, 403)

      const none = yield* ask({ ...at, path: "/clusters/none/api", headers: zoe })
      assert.strictEqual(none.status, 404)
      assert.include(messageOf(none.body), "no cluster none")

      yield* (yield* Registry).add("away", {})
      const away = yield* ask({ ...at, path: "/clusters/away/api", headers: zoe })
      assert.strictEqual(away.status, 503)
      assert.include(messageOf(away.body), "no link to cluster away")
    }))

  it.effect("answers 503 when the agent cannot reach its API server, or is refused by it", () =>
    Effect.gen(function*() {
      const at = yield* front
      yield* link("dead", connectionTo("http://127.0.0.1:1"))
      const dead = yield* ask({ ...at, path: "/clusters/dead/api", headers: zoe })
      assert.strictEqual(dead.status, 503)
      assert.include(messageOf(dead.body), "cannot reach the API server")

      const { get } = yield* clusterOf("refused", (_, response) => void response.writeHead(401).end("{}"))
      const refused = yield* get("/api")
      assert.strictEqual(refused.status, 503)
      assert.include(messageOf(refused.body), "refuses the agent's own credentials")
    }))

  it.effect("renews the agent's credentials once when they are refused", () =>
    Effect.gen(function*() {
      const upstream = yield* FakeApiServer.start((request, response) => {
        response.writeHead(request.headers.authorization === "Bearer new" ? 200 : 401).end("{}")
      })
      let token = "old"
      yield* link("renewed", {
        ...connectionTo(upstream.url),
        identity: Effect.sync(() => ({ tls: {}, authorization: Redacted.make(`Bearer ${token}`) })),
        refresh: Effect.sync(() => token = "new")
      })
      const at = yield* front
      const path = "/clusters/renewed/apis/authentication.k8s.io/v1/selfsubjectreviews"
      const answer = yield* ask({ ...at, path, headers: zoe, method: "POST", body: "{}" })
      assert.strictEqual(answer.status, 200)
      assert.lengthOf(upstream.recorded, 2)
    }))

  it.effect("sends a watch as it comes, and ends it at the API server when the caller has gone", () =>
    Effect.gen(function*() {
      const { get, upstream } = yield* clusterOf("watch", (_, response) => {
        response.writeHead(200, { "content-type": "application/json" })
        let count = 0
        const tick = setInterval(() => response.write(`{"n":${++count}}\n`), 10)
        response.on("close", () => clearInterval(tick))
      })
      const answer = yield* get("/api/v1/pods?watch=true", { onData: (text) => text.includes(`{"n":3}`) })
      assert.isTrue(answer.body.startsWith(`{"n":1}\n`))
      assert.isFalse(answer.isWhole)
      yield* until("the watch ended upstream", Effect.sync(() => upstream.aborted() === 1))
      const links = yield* Links
      const { streams } = yield* links.find("watch")
      // The RPC streams alone.
      yield* until("the stream is gone from the link", Effect.map(streams, (count) => count === 2))
    }))

  it.effect("answers a watch before it has anything to say", () =>
    Effect.gen(function*() {
      let upstreamResponse: { readonly end: (text: string) => unknown } | undefined
      const { get } = yield* clusterOf("quiet", (_, response) => {
        response.writeHead(200, { "content-type": "application/json" }).flushHeaders()
        upstreamResponse = response
      })
      const fiber = yield* Effect.forkScoped(get("/api/v1/pods?watch=true"))
      yield* until("it is open", Effect.sync(() => upstreamResponse !== undefined))
      upstreamResponse?.end("late")
      const answer = yield* Fiber.join(fiber)
      assert.deepStrictEqual([answer.body, answer.isWhole], ["late", true])
    }))

  it.effect("never passes half an answer for a whole one", () =>
    Effect.gen(function*() {
      const half = "x".repeat(100_000)
      const upstream = yield* FakeApiServer.start((request, response) => {
        response.writeHead(200, { "content-type": "text/plain" })
        response.write(half, () => {
          if (request.url?.includes("broken") === true) response.destroy()
        })
      })
      const agent = yield* Scope.make()
      yield* Scope.provide(link("half", connectionTo(upstream.url)), agent)
      const at = yield* front
      const get = (path: string, hasAll: () => void) =>
        ask({
          ...at,
          path: `/clusters/half${path}`,
          headers: zoe,
          onData: (text) => {
            if (text.length === half.length) hasAll()
            return false
          }
        })

      assert.isFalse((yield* get("/api/v1/pods?broken=1", () => {})).isWhole)
      const { close } = yield* (yield* Links).find("half")
      const ends: Readonly<Record<string, Effect.Effect<void>>> = {
        "the master ends the link": close(new Draining({ retryAfter: Duration.zero })),
        "the agent is gone": Scope.close(agent, Exit.void)
      }
      for (const [how, end] of Object.entries(ends)) {
        const all = yield* Deferred.make<void>()
        yield* until("it is linked", Effect.isSuccess((yield* Links).find("half")))
        const asked = yield* Effect.forkScoped(get("/api/v1/pods", () => Deferred.doneUnsafe(all, Exit.void)))
        yield* Deferred.await(all)
        yield* end
        const cut = yield* Fiber.join(asked)
        assert.deepStrictEqual([cut.body.length, cut.isWhole], [half.length, false], how)
      }
    }))

  it.effect("carries large answers whole, and holds little of one that nobody reads", () =>
    Effect.gen(function*() {
      const block = randomBytes(1 << 16).toString("hex")
      let written = 0
      const { at, get } = yield* clusterOf("large", (request, response) => {
        response.writeHead(200, { "content-type": "text/plain" })
        const total = request.url?.includes("endless") === true ? Infinity : 400
        const more = (): void => {
          while (written < total) {
            written += 1
            if (!response.write(block)) return void response.once("drain", more)
          }
          response.end()
        }
        more()
      })
      const whole = yield* get("/api/v1/pods")
      assert.deepStrictEqual([whole.body.length, whole.isWhole], [400 * block.length, true])

      written = 0
      const unread = yield* Effect.forkScoped(
        ask({ ...at, path: "/clusters/large/api/v1/pods?endless=1", headers: zoe, isPaused: true })
      )
      yield* until("it began", Effect.sync(() => written > 0))
      let before = -1
      yield* until(
        "it stalls",
        Effect.suspend(() => {
          const stalled = written === before
          before = written
          return Effect.delay(Effect.succeed(stalled), "300 millis")
        })
      )
      // Of all buffers on the way: two TLS sockets, two windows of HTTP/2, the kernel's.
      assert.isBelow(written * block.length, 32 << 20)
      // And others are not held up by it.
      assert.strictEqual((yield* get("/api/v1/nodes?x=1", { onData: () => true })).status, 200)
      yield* Fiber.interrupt(unread)
    }))

  it.effect("leaves one line in the log, without the query", () =>
    Effect.gen(function*() {
      const { get } = yield* clusterOf("audited", (_, response) => void response.end("{}"))
      yield* get("/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dhidden")
      yield* until(
        "it is logged",
        Effect.sync(() => logged.some(isOfAudited))
      )
      const line = logged.find(isOfAudited) ?? ""
      for (
        const part of [`"user":"zoë@example.org"`, `"cluster":"audited"`, `"verb":"list"`, `"status":200`, `"bytes":2`]
      ) {
        assert.include(line, part)
      }
      assert.include(line, "/api/v1/namespaces/a/secrets")
      assert.notInclude(line, "hidden")
      assert.notInclude(line, "token-of-zoe")
    }))
})
