import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import {
  ApiDeprecationsConfig,
  apiDeprecations,
  judgeRequested,
  requestedOf,
  samplesOf
} from "../../src/probes/kubernetes/apiDeprecations.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"
import { againstClient } from "./againstClient.ts"

const config = Schema.decodeSync(ApiDeprecationsConfig)({})

const METRICS = `# TYPE apiserver_request_total counter
apiserver_request_total{code="200",group="flow.k8s.io",resource="flows",verb="LIST",version="v1beta3"} 3
apiserver_request_total{code="200",group="flow.k8s.io",resource="flows",verb="WATCH",version="v1beta3"} 4
apiserver_request_total{code="200",group="",resource="pods",verb="WATCH",version="v1"} 1e+06
not_apiserver_requested_deprecated_apis{group="no",resource="no",version="no"} 1
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="flow.k8s.io",removed_release="1.36",resource="flows",subresource="",version="v1beta3"} 1
apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="old.k8s.io",removed_release="1.30",resource="olds",subresource="",version="v1"} 0`

describe("reading what was requested", () => {
  it("reads samples with any characters in their labels", () =>
    assert.deepStrictEqual(
      samplesOf("a{b=\"}\\\"\",c=\"1,2\"} 7 1700000000\na{b=\"x\"} +Inf\nxa{b=\"no\"} 1", "a"),
      [[{ b: "}\\\"", c: "1,2" }, 7], [{ b: "x" }, NaN]]
    ))

  it("reads a line of anything in time proportional to it, and none that is no sample's length", () => {
    assert.deepStrictEqual(samplesOf(`a{${"b".repeat(60_000)}} 1\n`, "a"), [[{}, 1]])
    assert.deepStrictEqual(samplesOf(`a{${"b".repeat(1_000_000)}} 1\na{c="d"} 2`, "a"), [[{ c: "d" }, 2]])
  }, 5_000)

  it("takes requests and removals from an API server's metrics", () =>
    assert.deepStrictEqual(requestedOf(METRICS), [
      { group: "flow.k8s.io", version: "v1beta3", resource: "flows", removed: "1.36", requests: 7 },
      { group: "", version: "v1", resource: "endpoints", removed: undefined, requests: 0 }
    ]))

  it("does not take other metrics for those of an API server that was asked for nothing deprecated", () => {
    assert.isUndefined(requestedOf("up{} 1\n"))
    assert.isUndefined(requestedOf(""))
  })

  it("goes by the release that removes an API", () => {
    const says = (removed: string | undefined, release: string, ignore: ReadonlyArray<string> = []) =>
      judgeRequested({ ...config, ignore }, release, [])({
        group: "flow.k8s.io",
        version: "v1beta3",
        resource: "flows",
        removed,
        requests: 7
      })?.status
    assert.strictEqual(says("1.36", "1.35"), "ERROR")
    assert.strictEqual(says("1.35", "1.35"), "ERROR")
    assert.strictEqual(says("1.37", "1.35"), "WARN")
    assert.strictEqual(says("2.0", "1.35"), "WARN")
    assert.isUndefined(says(undefined, "1.35"))
    assert.isUndefined(says("1.36", "1.35", ["flows.v1beta3.flow.k8s.io"]))
  })
})

describe("reading several API servers", () => {
  const BALANCER = "api.test"
  const quiet = "apiserver_request_total{group=\"\",resource=\"pods\",version=\"v1\"} 9\n"

  /** The codes and the summary where each of these hosts has these metrics, and two addresses are known. */
  const verdictOf = Effect.fnUntraced(function*(hosts: Readonly<Record<string, string>>, canListThem = true) {
    const json = (url: URL): object | undefined => {
      if (url.pathname === "/version") return { major: "1", minor: "35" }
      if (url.pathname.endsWith("/customresourcedefinitions")) return { metadata: {}, items: [] }
      return canListThem && url.pathname.endsWith("/endpointslices/kubernetes")
        ? {
          metadata: { name: "kubernetes" },
          addressType: "IPv4",
          endpoints: [{ addresses: ["10.0.0.1"] }, { addresses: ["10.0.0.2"] }],
          ports: [{ name: "https", port: 443 }]
        }
        : undefined
    }
    const client = HttpClient.make((request, url) =>
      Effect.sync(() => {
        const body = json(url)
        const metrics = url.pathname === "/metrics" ? hosts[url.hostname] : undefined
        return HttpClientResponse.fromWeb(
          request,
          metrics !== undefined
            ? new Response(metrics)
            : body === undefined
            ? new Response("no", { status: 403 })
            : Response.json(body)
        )
      })
    )
    const { findings, summary } = yield* againstClient(apiDeprecations, client, { server: `https://${BALANCER}` })
    return { told: findings.map(({ code, message }) => `${code}: ${message}`), summary }
  })

  it.effect("knows what was requested of each, whichever the balancer asks", () =>
    Effect.gen(function*() {
      for (const balanced of [METRICS, quiet]) {
        const { told } = yield* verdictOf({ [BALANCER]: balanced, "10.0.0.1": METRICS, "10.0.0.2": METRICS })
        assert.lengthOf(told, 1)
        assert.match(told[0] ?? "", /^DEPRECATED_API_REMOVED_SOON: flow.k8s.io\/v1beta3 flows .* 14 times$/)
        const { told: ofOne } = yield* verdictOf({ [BALANCER]: balanced, "10.0.0.1": quiet, "10.0.0.2": METRICS })
        assert.match(ofOne.join(), /^DEPRECATED_API_REMOVED_SOON: .* 7 times$/)
      }
      const { summary, told } = yield* verdictOf({ [BALANCER]: quiet, "10.0.0.1": quiet, "10.0.0.2": quiet })
      assert.deepStrictEqual(told, [])
      assert.include(summary, "these 2 API servers")
    }))

  it.effect("says how many it could read, and then never that nothing was requested", () =>
    Effect.gen(function*() {
      const half = yield* verdictOf({ [BALANCER]: quiet, "10.0.0.1": quiet })
      assert.deepStrictEqual(half.told, [
        "API_SERVERS_NOT_READ: 1 of 2 API servers told what was requested of them"
      ])
      const none = yield* verdictOf({ [BALANCER]: METRICS })
      assert.match(none.told.join(), /^DEPRECATED_API_REMOVED_SOON: .*,API_SERVERS_NOT_READ: 1 of 2 /)
      const unknown = yield* verdictOf({ [BALANCER]: quiet }, false)
      assert.match(unknown.told.join(), /^API_SERVERS_NOT_READ: 1 API server was asked, of how many is not known/)
    }))
})

/** Deprecated since 1.34 and removed in 1.37 (k8s.io/api networking/v1beta1, prerelease lifecycle). */
const IP_ADDRESSES = "networking.k8s.io/v1beta1 ipaddresses"

const widgets = (old: { readonly served: boolean; readonly deprecated: boolean }) => {
  const schema = { openAPIV3Schema: { type: "object" } }
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "widgets.shop.example.com" },
    spec: {
      group: "shop.example.com",
      names: { kind: "Widget", plural: "widgets" },
      scope: "Namespaced",
      versions: [
        { name: "v1", served: true, storage: false, schema },
        { name: "v1beta1", ...old, storage: true, schema }
      ]
    }
  }
}

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

const until = (wanted: string, config: typeof ApiDeprecationsConfig.Encoded = {}) =>
  TestCluster.use(({ run }) =>
    eventually(run(Probe.configure(apiDeprecations, config)), (report) => verdict(report) === wanted, {
      every: "300 millis"
    })
  )

/** What was requested is forgotten only then. */
const restart = TestCluster.use(({ cluster: { components: { apiServer } } }) =>
  Effect.andThen(apiServer.stop, Effect.orDie(apiServer.start))
)

const binding = (name: string, subjects: ReadonlyArray<string>) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
  subjects: subjects.map((subject) => ({ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: subject }))
})

describe("k8s.api.deprecations", () => {
  layer(
    TestCluster.layer({
      name: "deprecations",
      extraFlags: { "kube-apiserver": ["--runtime-config=networking.k8s.io/v1beta1=true"] }
    }),
    { excludeTestServices: true, timeout: "180 seconds" }
  )("on a real cluster", (it) => {
    it.effect(
      healthy(
        apiDeprecations,
        "passes with no rights but its needs, though Kubernetes itself uses what is deprecated to stay"
      ),
      () =>
        Effect.gen(function*() {
          const { kubectl, run, userWith } = yield* TestCluster
          yield* kubectl("get", "endpoints", "--all-namespaces")
          const as = yield* userWith(apiDeprecations.needs)
          const report = yield* run(apiDeprecations, { as })
          assert.strictEqual(verdict(report), "PASS", report.message)
          assert.include(report.message, "deprecated, but to stay: v1 endpoints")
        })
    )

    it.effect(blind(apiDeprecations, "ACCESS_MISSING", "each required right taken away"), () =>
      Effect.gen(function*() {
        const { apply, kubectl, run, userWith } = yield* TestCluster
        // The version is everybody's, until somebody takes that away.
        const bindings = [
          binding("system:discovery", ["system:authenticated"]),
          binding("system:public-info-viewer", ["system:authenticated", "system:unauthenticated"])
        ]
        yield* kubectl("delete", "clusterrolebinding", ...bindings.map(({ metadata }) => metadata.name))
        for (const lacking of apiDeprecations.needs.filter(({ optional }) => !optional)) {
          const as = yield* userWith(apiDeprecations.needs.filter((need) => need !== lacking))
          const report = yield* eventually(run(apiDeprecations, { as }), ({ status }) => status === "UNKNOWN")
          assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
          assert.include(report.message, Needs.describe(lacking))
        }
        yield* apply(...bindings)
        const as = yield* userWith(apiDeprecations.needs)
        yield* eventually(run(apiDeprecations, { as }), ({ status }) => status === "PASS")
      }))

    it.effect(
      fault(apiDeprecations, "DEPRECATED_API_REQUESTED", "a client that lists networking.k8s.io/v1beta1 ipaddresses"),
      () =>
        Effect.gen(function*() {
          const { kubectl } = yield* TestCluster
          yield* until("PASS")
          yield* kubectl("get", "--raw", "/apis/networking.k8s.io/v1beta1/ipaddresses")
          const requested = yield* until("WARN DEPRECATED_API_REQUESTED")
          assert.include(requested.message, `${IP_ADDRESSES} is deprecated and removed in 1.37`)
          assert.include(requested.message, "1 times")
          assert.deepStrictEqual(requested.findings[0]?.subject, { kind: "API", name: IP_ADDRESSES })
          yield* until("PASS", { ignore: ["ipaddresses.v1beta1.networking.k8s.io"] })
        })
    )

    it.effect(
      fault(apiDeprecations, "DEPRECATED_API_REMOVED_SOON", "the same, seen from an upgrade by two releases"),
      () =>
        Effect.gen(function*() {
          const soon = yield* until("ERROR DEPRECATED_API_REMOVED_SOON", { minorsAhead: 2 })
          assert.include(soon.message, `${IP_ADDRESSES} is removed in 1.37, this is 1.35`)
          assert.deepStrictEqual(soon.findings[0]?.subject, { kind: "API", name: IP_ADDRESSES })
          yield* restart
          yield* until("PASS", { minorsAhead: 2 })
        })
    )

    it.effect(
      fault(
        apiDeprecations,
        "DEPRECATED_VERSION_REQUESTED",
        "a client that lists a deprecated version of a custom resource"
      ),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(widgets({ served: true, deprecated: true }))
          yield* kubectl("wait", "crd", "widgets.shop.example.com", "--for=condition=Established", "--timeout=30s")
          yield* until("PASS")
          yield* eventually(
            kubectl("get", "--raw", "/apis/shop.example.com/v1beta1/widgets").pipe(Effect.exit),
            ({ _tag }) => _tag === "Success"
          )
          const requested = yield* until("WARN DEPRECATED_VERSION_REQUESTED")
          assert.include(requested.message, "shop.example.com/v1beta1 widgets is deprecated by its definition")
          assert.strictEqual(requested.findings[0]?.subject?.name, "widgets.shop.example.com")
          yield* apply(widgets({ served: true, deprecated: false }))
          yield* restart
          yield* until("PASS")
        })
    )

    it.effect(
      fault(
        apiDeprecations,
        "STORED_VERSION_NOT_SERVED",
        "a definition that stopped serving the version its objects are stored in"
      ),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(widgets({ served: false, deprecated: false }))
          const left = yield* until("WARN STORED_VERSION_NOT_SERVED")
          assert.include(left.message, "widgets.shop.example.com may have objects stored in v1beta1")
          assert.strictEqual(left.findings[0]?.subject?.name, "widgets.shop.example.com")
          yield* apply(widgets({ served: true, deprecated: false }))
          yield* until("PASS")
          yield* kubectl("delete", "crd", "widgets.shop.example.com")
        })
    )
  })
})
