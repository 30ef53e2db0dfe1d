import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Option, Redacted, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { parse } from "yaml"
import { makeShop } from "../../examples/scenario/server.ts"
import { Checks } from "../../src/domain/kinds/Probe.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import * as Cookies from "../../src/probes/application/cookies.ts"
import {
  type ScenarioConfig,
  StepSpec,
  fillStep,
  scenario,
  unknownName
} from "../../src/probes/application/scenario.ts"
import { redact } from "../../src/probes/application/secrets.ts"
import * as FromSpec from "../../src/probes/FromSpec.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Scenario from "../../src/probes/Scenario.ts"
import { eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

const PASSWORD = "open sesame & \"more\""

const bearer = { authorization: "Bearer {{token}}" }

const login: typeof StepSpec.Encoded = {
  name: "log in",
  request: { method: "POST", url: "/login", json: { user: "{{account.user}}", password: "{{account.password}}" } },
  capture: { token: { json: "$.token" } }
}
const order: typeof StepSpec.Encoded = {
  name: "order",
  request: { method: "POST", url: "/orders", headers: bearer, form: { item: "kubeprober {{run}}" } },
  expect: { status: [201] },
  capture: { order: { body: "\"id\":\"([^\"]+)\"" }, type: { header: "content-type" } }
}
const see: typeof StepSpec.Encoded = {
  name: "see the order",
  request: { url: "/orders/{{order}}", headers: bearer },
  expect: { json: [{ path: "$.item", equals: "kubeprober run-1" }] }
}
const cancel: typeof StepSpec.Encoded = {
  name: "cancel the order",
  request: { method: "DELETE", url: "/orders/{{order}}", headers: bearer }
}
const logout: typeof StepSpec.Encoded = {
  name: "log out",
  request: { method: "POST", url: "/logout", headers: bearer }
}

interface Written {
  readonly credentials: Readonly<Record<string, string>>
  readonly steps: ReadonlyArray<typeof StepSpec.Encoded>
  readonly finally: ReadonlyArray<typeof StepSpec.Encoded>
}

const written: Written = {
  credentials: { account: "shop-prober" },
  steps: [login, order, see],
  finally: [cancel, logout]
}

const unknown = (config: Written) =>
  unknownName({
    ...config,
    steps: config.steps.map((step) => Schema.decodeSync(StepSpec)(step)),
    finally: config.finally.map((step) => Schema.decodeSync(StepSpec)(step))
  })

describe("steps written in YAML", () => {
  it("use only what is known by then", () => {
    assert.isUndefined(unknown(written))
    assert.include(unknown({ ...written, steps: [login, see, order] }), "see the order\" uses {{order}}")
    assert.include(unknown({ ...written, credentials: {} }), "{{account.user}}")
  })

  it("put values where they belong, each as that place wants it", () => {
    const values = new Map<string, string | Redacted.Redacted<string>>([
      ["id", "a/b?c"],
      ["token", Redacted.make("secret")]
    ])
    const filled = fillStep({
      name: "x",
      request: {
        url: "/things/{{id}}",
        headers: { authorization: "Bearer {{ token }}" },
        json: { deep: [{ id: "{{id}}" }] }
      }
    }, values)
    assert.isTrue(Option.isSome(filled))
    if (Option.isNone(filled)) return
    assert.strictEqual(filled.value.url, "/things/a%2Fb%3Fc")
    assert.deepStrictEqual(filled.value.json, { deep: [{ id: "a/b?c" }] })
    const header = filled.value.headers?.["authorization"]
    assert.isTrue(Redacted.isRedacted(header) && Redacted.value(header) === "Bearer secret")
    assert.isTrue(Option.isNone(fillStep({ name: "x", request: { url: "/{{gone}}" } }, values)))
  })
})

describe("secrets in what is told", () => {
  it("are taken out in every form in which they may come back", () => {
    const secret = "pa\"ss & wörd+/="
    const texts = [
      secret,
      encodeURIComponent(secret),
      new URLSearchParams({ p: secret }).toString(),
      JSON.stringify({ p: secret }),
      Buffer.from(secret).toString("base64"),
      Buffer.from(secret).toString("base64url")
    ]
    for (const text of texts) {
      assert.include(redact([secret], `it was ${text}!`), "[redacted]")
      assert.notInclude(redact([secret], text), text.slice(4))
    }
    assert.strictEqual(redact(["abc", "abcdef"], "abcdef abc"), "[redacted] [redacted]")
  })
})

describe("cookies of a scenario", () => {
  const at = (text: string) => new URL(text)
  it("go back to whom they are for", () => {
    const jar = Cookies.make(() => Date.parse("2026-01-01T00:00:00Z"))
    jar.keep(at("https://shop.example.com/account/login"), [
      "session=1; Path=/; HttpOnly",
      "basket=2; Domain=example.com; Path=/cart",
      "strict=3; Secure; Path=/",
      "here=4",
      "foreign=5; Domain=example.org",
      "broad=6; Domain=com"
    ])
    assert.strictEqual(jar.of(at("https://shop.example.com/account/x")), "session=1; strict=3; here=4")
    assert.strictEqual(jar.of(at("http://shop.example.com/")), "session=1")
    assert.strictEqual(jar.of(at("https://www.example.com/cart/1")), "basket=2")
    assert.strictEqual(jar.of(at("https://www.example.com/carts")), "")
    jar.keep(at("https://shop.example.com/"), [
      "session=; Max-Age=0; Path=/",
      "strict=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"
    ])
    assert.strictEqual(jar.of(at("https://shop.example.com/account/x")), "here=4")
  })
})

/** The example's shop behind nginx with TLS: faults are nginx's, and what is left of a run is the shop's to tell. */
const make = Effect.gen(function*() {
  const shop = makeShop({ user: "prober", password: PASSWORD })
  const nginx = yield* Application.nginx
  const credentials = yield* Application.credentials
  const { backend, front } = yield* Application.ports("backend", "front")
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      shop.server.listen(backend, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        shop.server.close()
        shop.server.closeAllConnections()
      })
  )
  const authority = yield* Certificates.makeAuthority("shop-ca")
  const pair = yield* authority.issue({ commonName: "shop", ipAddresses: ["127.0.0.1"] })
  yield* nginx.file("site.crt", pair.cert)
  yield* nginx.file("site.key", pair.key)
  const serve = (locations = "") =>
    nginx.serve(`
      server { listen 127.0.0.1:${front} ssl; ssl_certificate site.crt; ssl_certificate_key site.key;
        ${locations}
        location / { proxy_pass http://127.0.0.1:${backend}; } }`)
  yield* serve()
  yield* credentials.write("shop-prober", { user: "prober", password: PASSWORD })
  return {
    ...shop,
    serve,
    backend: `http://127.0.0.1:${backend}`,
    options: { baseUrl: `https://127.0.0.1:${front}`, tls: { ca: authority.cert } },
    credentials
  }
})

class Shop extends Context.Service<Shop, Effect.Success<typeof make>>()("kubeprober/test/ScenarioShop") {
  static readonly layer = Layer.effect(Shop, make).pipe(Layer.provideMerge(NodeServices.layer))
}

/** The same scenario as a program. */
const program = (options: Scenario.SessionOptions) =>
  Scenario.make("test.shop", {
    proves: "a test",
    config: Probe.NoConfig,
    baseUrl: () => options.baseUrl,
    session: () => options,
    run: Effect.fnUntraced(function*(session: Scenario.Session) {
      const user = yield* session.credential({ credential: "shop-prober", key: "user" })
      const password = yield* session.credential({ credential: "shop-prober", key: "password" })
      const { token } = yield* session.step("log in", {
        method: "POST",
        url: "/login",
        json: { user, password },
        capture: { token: Scenario.json("$.token") }
      })
      const headers = { authorization: `Bearer ${token}` }
      yield* session.finally("log out", { method: "POST", url: "/logout", headers })
      const placed = yield* session.step("order", {
        method: "POST",
        url: "/orders",
        headers,
        form: { item: `kubeprober ${session.run}` },
        expect: { status: [201] },
        capture: { id: Scenario.body("\"id\":\"([^\"]+)\""), session: Scenario.cookie("session") }
      })
      yield* session.finally("cancel the order", { method: "DELETE", url: `/orders/${placed.id}`, headers })
      yield* session.step("see the order", { url: `/orders/${placed.id}`, headers })
    })
  })

type Form = "YAML" | "TypeScript"
const FORMS: ReadonlyArray<Form> = ["YAML", "TypeScript"]

const ask = Effect.fnUntraced(function*(form: Form, config: typeof ScenarioConfig.Encoded = {}) {
  const { credentials, options } = yield* Shop
  const { slow, timeout } = config
  const check = form === "YAML"
    ? Probe.configure(scenario, { ...written, ...options, ...config })
    : Probe.toCheck(program({
      ...options,
      ...(slow === undefined ? {} : { slow: Number.parseInt(slow, 10) }),
      ...(timeout === undefined ? {} : { timeout: Number.parseInt(timeout, 10) })
    }))
  return yield* Application.run(check, credentials.world)
})

const nothing = { sessions: 0, orders: 0 }

describe("app.scenario", () => {
  layer(Shop.layer, { excludeTestServices: true, timeout: "60 seconds" })("on real servers", (it) => {
    it.effect(
      healthy(scenario, "log in, order, see the order; then cancel it and log out, in both forms"),
      () =>
        Effect.gen(function*() {
          const { left } = yield* Shop
          for (const form of FORMS) {
            const report = yield* ask(form)
            assert.strictEqual(Application.verdict(report), "PASS", report.message)
            assert.match(report.message, /^3 steps in \d+ ms: log in \d+ ms, order \d+ ms, see the order \d+ ms$/)
            assert.deepStrictEqual(left(), nothing)
          }
          assert.strictEqual(Application.verdict(yield* Application.run(scenario)), "INFO NOT_APPLICABLE")
        })
    )

    it.effect(
      fault(scenario, "STEP_FAILED", "logging in breaks, then ordering; each is named, and the session ended"),
      () =>
        Effect.gen(function*() {
          const { left, serve } = yield* Shop
          for (const form of FORMS) {
            yield* serve("location = /login { return 502 'bad gateway'; }")
            const broken = yield* ask(form)
            assert.strictEqual(Application.verdict(broken), "ERROR STEP_FAILED")
            assert.deepStrictEqual(broken.findings[0]?.subject, { kind: "Step", name: "log in" })
            assert.include(broken.message, "answered 502 instead of 2xx")
            assert.strictEqual(broken.findings[0]?.evidence?.["body"], "bad gateway")
            // The login page of somebody else, say.
            yield* serve("location = /login { return 200 '<html>'; }")
            assert.include((yield* ask(form)).message, "the answer has no token (json $.token)")
            yield* serve("location = /orders { return 500 'your token is $http_authorization'; }")
            const middle = yield* ask(form)
            assert.deepStrictEqual(middle.findings.map(({ code, subject }) => [code, subject?.name]), [[
              "STEP_FAILED",
              "order"
            ]])
            assert.strictEqual(middle.findings[0]?.evidence?.["body"], "your token is Bearer [redacted]")
            assert.deepStrictEqual(left(), nothing)
            yield* serve()
            assert.strictEqual(Application.verdict(yield* ask(form)), "PASS")
          }
        })
    )

    it.effect(fault(scenario, "STEP_NOT_UNDONE", "logging out breaks"), () =>
      Effect.gen(function*() {
        const { serve } = yield* Shop
        for (const form of FORMS) {
          yield* serve("location = /logout { return 500; }")
          const report = yield* ask(form)
          assert.strictEqual(Application.verdict(report), "WARN STEP_NOT_UNDONE")
          assert.deepStrictEqual(report.findings.map(({ subject }) => subject), [{ kind: "Step", name: "log out" }])
          // The verdict on the steps is theirs alone.
          yield* serve("location = /logout { return 500; } location = /orders { return 500; }")
          const both = yield* ask(form)
          assert.deepStrictEqual(both.findings.map(({ code, subject }) => [code, subject?.name]), [
            ["STEP_FAILED", "order"],
            ["STEP_NOT_UNDONE", "log out"]
          ])
          yield* serve()
          assert.strictEqual(Application.verdict(yield* ask(form)), "PASS")
        }
      }))

    it.effect(
      fault(scenario, "SCENARIO_SLOW", "a backend that takes 400 ms for an order"),
      () =>
        Effect.gen(function*() {
          const { serve } = yield* Shop
          const slow = yield* Application.listener((socket) => {
            socket.once(
              "data",
              () =>
                setTimeout(() =>
                  socket.end(
                    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"id\":\"7\"}"
                  ), 400)
            )
          })
          yield* serve(
            `location = /orders { proxy_pass http://127.0.0.1:${slow}; } location = /orders/7 { return 200 '{"item":"kubeprober run-1"}'; }`
          )
          for (const form of FORMS) {
            const report = yield* ask(form, { slow: "300ms" })
            assert.strictEqual(Application.verdict(report), "WARN SCENARIO_SLOW", report.message)
            const [, took] = /order (\d+) ms/.exec(String(report.findings[0]?.evidence?.["steps"])) ?? []
            assert.isAbove(Number(took), 300)
          }
          yield* serve()
          assert.strictEqual(Application.verdict(yield* ask("YAML")), "PASS")
        })
    )

    it.effect(blind(scenario, "CREDENTIAL_REJECTED", "a wrong password"), () =>
      Effect.gen(function*() {
        const { credentials } = yield* Shop
        yield* credentials.write("shop-prober", { password: "not-the-password" })
        for (const form of FORMS) {
          const report = yield* ask(form)
          assert.strictEqual(Application.verdict(report), "UNKNOWN CREDENTIAL_REJECTED")
          assert.notInclude(JSON.stringify(report), "not-the-password")
          assert.deepStrictEqual(report.findings[0]?.subject, { kind: "Step", name: "log in" })
        }
        yield* credentials.write("shop-prober", { password: PASSWORD })
        assert.strictEqual(Application.verdict(yield* ask("YAML")), "PASS")
      }))

    it.effect(blind(scenario, "CREDENTIAL_MISSING", "an account that is not mounted"), () =>
      Effect.gen(function*() {
        const report = yield* ask("YAML", { credentials: { account: "nobody" } })
        assert.strictEqual(Application.verdict(report), "UNKNOWN CREDENTIAL_MISSING")
      }))

    it.effect(
      blind(
        scenario,
        "NO_ROUTE",
        blind(scenario, "ADDRESS_REFUSED", "a shop without a route, and one at a cloud's metadata address")
      ),
      () =>
        Effect.gen(function*() {
          for (const [host, code] of [["224.0.0.1", "NO_ROUTE"], ["169.254.169.254", "ADDRESS_REFUSED"]] as const) {
            const report = yield* ask("YAML", { baseUrl: `https://${host}` })
            assert.strictEqual(Application.verdict(report), `UNKNOWN ${code}`, report.message)
          }
        })
    )

    it.effect(
      blind(scenario, "NAME_UNRESOLVED", "a shop whose name does not resolve here"),
      () =>
        Effect.gen(function*() {
          assert.strictEqual(
            Application.verdict(yield* ask("YAML", { baseUrl: "https://shop.invalid" })),
            "UNKNOWN NAME_UNRESOLVED"
          )
          assert.strictEqual(
            Application.verdict(yield* ask("YAML", { steps: [see] })),
            "UNKNOWN INVALID_CONFIG"
          )
        })
    )

    it.effect(
      killed(scenario, "a run that is out of time, or ended from outside, cancels its order and logs out"),
      () =>
        Effect.gen(function*() {
          const { backend, credentials, left, options, serve } = yield* Shop
          let seeing = 0
          const silent = yield* Application.listener(() => seeing++)
          yield* serve(`location ~ ^/orders/. { if ($request_method = GET) { proxy_pass http://127.0.0.1:${silent}; }
            proxy_pass ${backend}; }`)
          const before = left()
          const checks = [
            Probe.configure(scenario, { ...written, ...options }),
            Probe.toCheck(program(options))
          ]
          for (const check of checks) {
            const short = { ...check, probe: Probe.timeout(check.probe, "2 seconds") }
            const late = yield* Application.run(short, credentials.world)
            assert.strictEqual(Application.verdict(late), "UNKNOWN TIMED_OUT")
            assert.deepStrictEqual(left(), before)
            const seen = seeing
            const fiber = yield* Effect.forkChild(Application.run(check, credentials.world))
            // The server has the order before the run knows its name; whoever looks at it knows.
            yield* eventually(Effect.sync(() => seeing), (count) => count > seen, { every: "20 millis" })
            assert.strictEqual(left().orders, before.orders + 1)
            yield* Fiber.interrupt(fiber)
            assert.deepStrictEqual(left(), before)
          }
          yield* serve()
        })
    )
  })
})

describe("the example", () => {
  layer(Shop.layer, { excludeTestServices: true, timeout: "60 seconds" })("on real servers", (it) => {
    it.effect("in YAML passes on the example's shop as it is written", () =>
      Effect.gen(function*() {
        const { backend, credentials, left } = yield* Shop
        const manifest = parse(yield* Effect.promise(() => readFile("examples/scenario/probe.yaml", "utf8")))
        const { spec: { checks } } = yield* Schema.decodeUnknownEffect(
          Schema.Struct({ spec: Schema.Struct({ checks: Checks }) })
        )(manifest)
        const [check] = checks
        const found = Option.getOrThrow(
          FromSpec.resolve({ ...check, with: { ...check.with, baseUrl: backend } }, [scenario])
        )
        const report = yield* Application.run(found, credentials.world)
        assert.strictEqual(Application.verdict(report), "PASS", report.message)
        assert.deepStrictEqual(left(), nothing)
      }))
  })
})

describe("probes together", () => {
  layer(Shop.layer, { excludeTestServices: true, timeout: "60 seconds" })("on real servers", (it) => {
    it.effect("Probe.all runs configured checks as one, and says what each finds", () =>
      Effect.gen(function*() {
        const { backend, credentials, options } = yield* Shop
        const { http } = yield* Effect.promise(() => import("../../src/probes/application/http.ts"))
        const shop = Probe.all("shop.everything", { layer: "application", proves: "The shop works." }, [
          Probe.configure(http, { url: `${backend}/orders/none`, retries: 0, expect: { status: [401] } }, {
            name: "door"
          }),
          Probe.configure(scenario, { ...written, ...options }, { name: "order" })
        ])
        assert.strictEqual(shop.writes, "middleware")
        const good = yield* Application.run(shop, credentials.world)
        assert.strictEqual(Application.verdict(good), "PASS", good.message)
        assert.include(good.message, "answered 401")
        assert.include(good.message, "3 steps")
        const bad = yield* Application.run(
          Probe.all("shop.everything", { layer: "application", proves: "The shop works." }, [
            Probe.configure(http, { url: `${backend}/`, retries: 0 }),
            Probe.make("shop.fine", {
              layer: "application",
              proves: "a test",
              writes: "nothing",
              needs: [],
              codes: {},
              config: Schema.Struct({}),
              timeout: "1 seconds",
              run: () => Effect.succeed(Outcome.make("fine"))
            })
          ]),
          credentials.world
        )
        assert.strictEqual(Application.verdict(bad), "ERROR STATUS_UNEXPECTED")
      }))
  })
})
