import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { type PromqlConfig, type QueryAnswer, judge, promql } from "../../src/probes/application/promql.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { eventually } from "../clusters/TestCluster.ts"
import { blind, faults, healthy } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

const vector = (...values: ReadonlyArray<readonly [name: string, value: string]>): QueryAnswer => ({
  status: "success",
  data: {
    resultType: "vector",
    result: values.map(([shop, value]) => ({ metric: { __name__: "errors", shop }, value: [0, value] }))
  }
})

const says = (
  answer: QueryAnswer,
  bounds: Partial<Parameters<typeof judge>[0]> = {}
) =>
  judge({ url: "http://prometheus", query: "errors", op: "<=", threshold: 10, dashboard: "", ...bounds })(answer)
    .findings.map(({ code, status, subject }) => `${status} ${code} ${subject?.name}`)

describe("judging a query's answer", () => {
  it("holds every series against its bounds and names those beyond", () => {
    assert.deepStrictEqual(says(vector(["a", "1"], ["b", "10"])), [])
    assert.deepStrictEqual(says(vector(["a", "1"], ["b", "11"])), ["ERROR METRIC_OUT_OF_BOUNDS errors{shop=\"b\"}"])
    assert.deepStrictEqual(says(vector(["a", "7"], ["b", "11"]), { warnThreshold: 5 }), [
      "ERROR METRIC_OUT_OF_BOUNDS errors{shop=\"b\"}",
      "WARN METRIC_NEAR_BOUND errors{shop=\"a\"}"
    ])
    assert.deepStrictEqual(says(vector(["a", "+Inf"])), ["ERROR METRIC_OUT_OF_BOUNDS errors{shop=\"a\"}"])
    const scalar: QueryAnswer = { status: "success", data: { resultType: "scalar", result: [0, "3"] } }
    assert.deepStrictEqual(says(scalar, { op: ">" }), ["ERROR METRIC_OUT_OF_BOUNDS errors"])
    for (const [op, good] of [["<", "9"], [">", "11"], [">=", "10"], ["==", "10"], ["!=", "9"]] as const) {
      assert.deepStrictEqual(says(vector(["a", good]), { op }), [])
    }
  })

  it("proves nothing by what is not there, not a number or not all", () => {
    assert.deepStrictEqual(says(vector()), ["UNKNOWN METRIC_NO_DATA errors"])
    assert.deepStrictEqual(says(vector(["a", "1"], ["b", "NaN"])), ["UNKNOWN METRIC_NO_DATA errors"])
    // As VictoriaMetrics' cluster version says it.
    assert.deepStrictEqual(says({ ...vector(["a", "1"]), isPartial: false }), says(vector(["a", "1"])))
    assert.deepStrictEqual(
      says({ ...vector(["a", "1"]), isPartial: true }),
      says({ ...vector(["a", "1"]), warnings: ["a store is down"] })
    )
    assert.deepStrictEqual(says({ ...vector(["a", "1"]), warnings: ["a store is down"] }), [
      "UNKNOWN METRIC_INCOMPLETE errors"
    ])
    assert.deepStrictEqual(says({ status: "success", data: { resultType: "matrix" } }), [
      "UNKNOWN QUERY_REFUSED errors"
    ])
  })

  it("lists a bounded number of series", () => {
    const many = vector(...Array.from({ length: 500 }, (_, index) => [`shop-${index}`, "99"] as const))
    const { findings } = judge({ url: "", query: "errors", op: "<=", threshold: 1, dashboard: "" })(many)
    assert.lengthOf(findings, 20)
    assert.include(findings[0]?.message, "480 more series")
  })
})

const make = Effect.gen(function*() {
  const nginx = yield* Application.nginx
  const { proxy, shop } = yield* Application.ports("proxy", "shop")
  const server = yield* Application.prometheus([`127.0.0.1:${shop}`])
  yield* nginx.file("users", "prober:{PLAIN}right\n")
  const serve = (metrics: string) =>
    nginx.serve(`
      server { listen 127.0.0.1:${shop}; location /metrics { ${metrics} } }
      server { listen 127.0.0.1:${proxy}; auth_basic metrics; auth_basic_user_file users;
        location / { proxy_pass ${server.url}; } }`)
  yield* serve("return 200 'shop_errors 3\\n';")
  return { server, serve, shop: `127.0.0.1:${shop}`, proxy: `http://127.0.0.1:${proxy}` }
})

class Metrics extends Context.Service<Metrics, Effect.Success<typeof make>>()("kubeprober/test/Metrics") {
  static readonly layer = Layer.effect(Metrics, make).pipe(Layer.provideMerge(NodeServices.layer))
}

const ask = (config: typeof PromqlConfig.Encoded, world?: ProbeWorld.ProbeWorld) =>
  Application.run(Probe.configure(promql, config), world)

const until = (config: typeof PromqlConfig.Encoded, verdict: string) =>
  eventually(ask(config), (report) => Application.verdict(report) === verdict, { every: "200 millis" })

describe("app.promql", () => {
  layer(Metrics.layer, { excludeTestServices: true, timeout: "60 seconds" })("on real servers", (it) => {
    it.effect(healthy(promql, "a real Prometheus that scrapes itself"), () =>
      Effect.gen(function*() {
        const { server: { url } } = yield* Metrics
        const report = yield* until({ url, query: "up{job=\"self\"}", op: ">=", threshold: 1 }, "PASS")
        assert.include(report.message, "all 1 values are >= 1")
        yield* until({ url: `${url}/`, query: "shop_errors", threshold: 5, warnThreshold: 4 }, "PASS")
        assert.strictEqual(Application.verdict(yield* Application.run(promql)), "INFO NOT_APPLICABLE")
      }))

    it.effect(
      faults(promql, "a scraped server breaks, and its errors rise", "METRIC_OUT_OF_BOUNDS", "METRIC_NEAR_BOUND"),
      () =>
        Effect.gen(function*() {
          const { serve, server: { url }, shop } = yield* Metrics
          const up = {
            url,
            query: "up{job=\"shop\"}",
            op: "==",
            threshold: 1,
            dashboard: "https://grafana/d/shop"
          } as const
          yield* until(up, "PASS")
          yield* serve("return 500;")
          const down = yield* until(up, "ERROR METRIC_OUT_OF_BOUNDS")
          assert.deepStrictEqual(down.findings[0]?.subject, {
            kind: "Series",
            name: `up{instance="${shop}", job="shop"}`
          })
          assert.deepInclude(down.findings[0]?.evidence, { value: 0, dashboard: "https://grafana/d/shop" })
          yield* serve("return 200 'shop_errors 9\\n';")
          yield* until(up, "PASS")
          const errors = { url, query: "shop_errors", threshold: 8 }
          yield* until(errors, "ERROR METRIC_OUT_OF_BOUNDS")
          yield* until({ ...errors, threshold: 20, warnThreshold: 8 }, "WARN METRIC_NEAR_BOUND")
          yield* serve("return 200 'shop_errors 3\\n';")
          yield* until(errors, "PASS")
        })
    )

    it.effect(blind(promql, "METRIC_NO_DATA", "no such series"), () =>
      Effect.gen(function*() {
        const { server: { url } } = yield* Metrics
        const report = yield* ask({ url, query: "no_such_metric", threshold: 1 })
        assert.strictEqual(Application.verdict(report), "UNKNOWN METRIC_NO_DATA")
      }))

    it.effect(blind(promql, "QUERY_REFUSED", "a query that is none, and one of ranges"), () =>
      Effect.gen(function*() {
        const { server: { url } } = yield* Metrics
        for (const query of ["sum(", "up[5m]"]) {
          const report = yield* ask({ url, query, threshold: 1 })
          assert.strictEqual(Application.verdict(report), "UNKNOWN QUERY_REFUSED", report.message)
        }
        assert.strictEqual(Application.verdict(yield* ask({ url, query: "up" })), "UNKNOWN INVALID_CONFIG")
      }))

    it.effect(blind(promql, "CREDENTIAL_REJECTED", "wrong credentials"), () =>
      Effect.gen(function*() {
        const { proxy } = yield* Metrics
        const credentials = yield* Application.credentials
        const config = { url: proxy, query: "up", threshold: 1, basic: "metrics" }
        yield* credentials.write("metrics", { username: "prober", password: "hunter22" })
        const report = yield* ask(config, credentials.world)
        assert.strictEqual(Application.verdict(report), "UNKNOWN CREDENTIAL_REJECTED")
        assert.notInclude(JSON.stringify(report), "hunter22")
        yield* credentials.write("metrics", { password: "right" })
        assert.strictEqual(Application.verdict(yield* ask(config, credentials.world)), "PASS")
      }))

    it.effect(
      blind(promql, "PROMETHEUS_UNREACHABLE", "something else answers, then Prometheus is killed"),
      () =>
        Effect.gen(function*() {
          const { server, shop } = yield* Metrics
          const config = { url: server.url, query: "up{job=\"self\"}", op: ">=", threshold: 1 } as const
          assert.strictEqual(
            Application.verdict(yield* ask({ ...config, url: `http://${shop}` })),
            "UNKNOWN PROMETHEUS_UNREACHABLE"
          )
          yield* until(config, "PASS")
          yield* server.kill
          yield* until(config, "UNKNOWN PROMETHEUS_UNREACHABLE")
        })
    )

    it.effect(
      ["NAME_UNRESOLVED", "NO_ROUTE", "ADDRESS_REFUSED"].reduce(
        (title, code) => blind(promql, code, title),
        "a name without an address, no route, and a cloud's metadata address"
      ),
      () =>
        Effect.gen(function*() {
          for (
            const [host, code] of [
              ["prometheus.invalid", "NAME_UNRESOLVED"],
              ["224.0.0.1", "NO_ROUTE"],
              ["169.254.169.254", "ADDRESS_REFUSED"]
            ] as const
          ) {
            const report = yield* ask({ url: `http://${host}:9090`, query: "up", threshold: 1 })
            assert.strictEqual(Application.verdict(report), `UNKNOWN ${code}`, report.message)
          }
        })
    )
  })
})
