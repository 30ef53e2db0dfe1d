import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { APIService } from "../../src/infra/kube/resources/extensions.ts"
import { ApiServiceConfig, apiService, judgeAnswer, judgeCondition } from "../../src/probes/kubernetes/apiService.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { httpsBackend } from "../clusters/HttpsBackend.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const config = Schema.decodeSync(ApiServiceConfig)({})
const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const GROUP = "metrics.example.com"
const NAME = `v1.${GROUP}`

const decoded = (options: {
  readonly created?: Duration.Input
  readonly deleted?: boolean
  readonly available?: readonly [status: string, since: Duration.Input]
  readonly local?: boolean
}) =>
  Schema.decodeSync(APIService.object)({
    metadata: {
      name: NAME,
      creationTimestamp: ago(options.created ?? "1 day"),
      ...(options.deleted === true ? { deletionTimestamp: ago("1 minute") } : {})
    },
    spec: {
      group: GROUP,
      version: "v1",
      ...(options.local === true ? {} : { service: { namespace: "monitoring", name: "adapter", port: 443 } })
    },
    status: {
      conditions: options.available === undefined ? [] : [{
        type: "Available",
        status: options.available[0],
        reason: "MissingEndpoints",
        message: "no addresses",
        lastTransitionTime: ago(options.available[1])
      }]
    }
  })

describe("judging APIServices", () => {
  const says = (options: Parameters<typeof decoded>[0]) => {
    const finding = judgeCondition(config, NOW)(decoded(options))
    return finding === undefined ? "" : `${finding.status} ${finding.code}`
  }

  it("goes by how long one is unavailable, and lets a new one start", () => {
    assert.strictEqual(says({ available: ["True", "1 day"] }), "")
    assert.strictEqual(says({ available: ["False", "1 minute"] }), "ERROR APISERVICE_UNAVAILABLE")
    assert.strictEqual(says({ available: ["Unknown", "1 minute"] }), "ERROR APISERVICE_UNAVAILABLE")
    assert.strictEqual(says({ available: ["False", "10 seconds"] }), "WARN APISERVICE_UNAVAILABLE_RECENTLY")
    assert.strictEqual(says({ created: "1 minute", available: ["False", "1 minute"] }), "INFO APISERVICE_STARTING")
    assert.strictEqual(says({ created: "1 minute" }), "INFO APISERVICE_STARTING")
    assert.strictEqual(says({}), "ERROR APISERVICE_UNAVAILABLE")
  })

  it("leaves alone what is being deleted, and the API server's own kinds that are a moment old", () => {
    assert.strictEqual(says({ deleted: true, available: ["False", "1 hour"] }), "")
    assert.strictEqual(says({ local: true, created: "1 second" }), "")
  })

  it("blames the server for any answer but success, and us for a missing right", () => {
    const code = (status: number) =>
      judgeAnswer(decoded({}), { status, body: "why", warnings: [] }, Duration.seconds(5))?.code
    assert.deepStrictEqual([200, 401, 403, 404, 429, 503].map(code), [
      undefined,
      "APISERVICE_NOT_SERVING",
      "ACCESS_MISSING",
      "APISERVICE_NOT_SERVING",
      // The API server's own fairness.
      "API_FAULT",
      "APISERVICE_NOT_SERVING"
    ])
    assert.include(judgeAnswer(decoded({}), "silent", Duration.seconds(5))?.message, "no answer within 5s")
  })

  it("quotes no secret that the cut of an answer would hide", () => {
    const body = `${"x".repeat(175)} postgres://shop:S3cr3t-Pa55@db/shop`
    const finding = judgeAnswer(decoded({}), { status: 500, body, warnings: [] }, Duration.seconds(5))
    assert.include(finding?.message, "xxx")
    assert.notInclude(finding?.message, "S3cr3t")
  })
})

const ADAPTER = { namespace: "default", name: "adapter" }

const service = (spec: object) => ({ apiVersion: "v1", kind: "Service", metadata: ADAPTER, spec })

const registration = (port: number, caBundle: string) => ({
  apiVersion: "apiregistration.k8s.io/v1",
  kind: "APIService",
  metadata: { name: NAME },
  spec: {
    group: GROUP,
    version: "v1",
    groupPriorityMinimum: 100,
    versionPriority: 100,
    caBundle,
    service: { ...ADAPTER, port }
  }
})

/** As the API server makes it when it starts. */
const DISCOVERY = {
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name: "system:discovery" },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:discovery" },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "system:authenticated" }]
}

/** What an extension API server must answer to be one: its resources. */
const adapter = httpsBackend({
  dnsNames: ["adapter.default.svc"],
  answer: (path) =>
    path.startsWith(`/apis/${GROUP}/v1`)
      ? { body: { kind: "APIResourceList", apiVersion: "v1", groupVersion: `${GROUP}/v1`, resources: [] } }
      : { status: 404, body: {} }
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Nothing is granted time, unless it is. */
const strict = { startWithin: "1ms", unavailableAfter: "1ms" }

const until = (wanted: string, config: typeof ApiServiceConfig.Encoded = {}) =>
  TestCluster.use(({ run }) =>
    eventually(run(Probe.configure(apiService, { ...strict, ...config })), (report) => verdict(report) === wanted, {
      every: "300 millis"
    })
  )

const unregister = TestCluster.use(({ kubectl }) => kubectl("delete", "--ignore-not-found", "apiservice", NAME))

describe("k8s.apiservice", () => {
  layer(
    TestCluster.layer({
      name: "apiservice",
      // A Service may then be a name, such as localhost, where the test's servers are; no kube-proxy serves addresses.
      extraFlags: { "kube-apiserver": ["--enable-aggregator-routing=false"] }
    }),
    { excludeTestServices: true, timeout: "180 seconds" }
  )("on a real cluster", (it) => {
    it.effect(
      healthy(apiService, "passes with no rights but its needs, with an extension API server and without"),
      () =>
        Effect.gen(function*() {
          const { apply, run, userWith } = yield* TestCluster
          const as = yield* userWith(apiService.needs)
          const alone = yield* run(apiService, { as })
          assert.strictEqual(verdict(alone), "PASS", alone.message)
          const server = yield* adapter
          yield* apply(service({ type: "ExternalName", externalName: "localhost" }))
          yield* apply(registration(server.port, server.caBundle))
          const extended = yield* eventually(run(apiService, { as }), (report) => report.status === "PASS")
          assert.include(extended.message, "1 that other servers add answer")
          yield* unregister
        })
    )

    it.effect(blind(apiService, "ACCESS_MISSING", "each required right taken away"), () =>
      Effect.gen(function*() {
        const { apply, kubectl, run, userWith } = yield* TestCluster
        const withoutList = yield* run(apiService, { as: yield* userWith(Needs.path("/apis/*")) })
        assert.strictEqual(verdict(withoutList), "UNKNOWN ACCESS_MISSING")
        assert.include(withoutList.message, "list apiservices.apiregistration.k8s.io")
        // Discovery is everybody's, until somebody takes that away.
        const as = yield* userWith(Needs.list("apiservices", { group: "apiregistration.k8s.io" }))
        yield* kubectl("delete", "clusterrolebinding", "system:discovery")
        const report = yield* eventually(run(apiService, { as }), ({ status }) => status === "UNKNOWN")
        assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
        assert.include(report.message, "get /apis/*")
        yield* apply(DISCOVERY)
        yield* eventually(run(apiService, { as }), ({ status }) => status === "PASS")
      }))

    it.effect(
      fault(apiService, "APISERVICE_UNAVAILABLE", "an APIService whose Service does not exist, then has no endpoints"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl, run } = yield* TestCluster
          const server = yield* adapter
          yield* kubectl("delete", "--ignore-not-found", "--namespace=default", "service", "adapter")
          yield* apply(registration(server.port, server.caBundle))
          const missing = yield* until("ERROR APISERVICE_UNAVAILABLE")
          assert.include(missing.message, "ServiceNotFound")
          assert.include(missing.message, "Service default/adapter")
          assert.deepStrictEqual(missing.findings[0]?.subject, { kind: "APIService", name: NAME })
          assert.strictEqual(verdict(yield* run(apiService)), "INFO APISERVICE_STARTING", "it is new")

          yield* apply(service({ ports: [{ port: server.port }] }))
          yield* eventually(
            until("ERROR APISERVICE_UNAVAILABLE"),
            ({ message }) => /EndpointsNotFound|MissingEndpoints/.test(message)
          )

          yield* unregister
          yield* until("PASS")
          yield* kubectl("delete", "--namespace=default", "service", "adapter")
        })
    )

    it.effect(
      fault(apiService, "APISERVICE_UNAVAILABLE_RECENTLY", "an extension API server that begins to answer 500"),
      () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          const server = yield* adapter
          yield* apply(service({ type: "ExternalName", externalName: "localhost" }))
          yield* apply(registration(server.port, server.caBundle))
          yield* until("PASS")
          yield* server.fail(500)
          const failing = yield* until("WARN APISERVICE_UNAVAILABLE_RECENTLY", { unavailableAfter: "10m" })
          assert.include(failing.message, "FailedDiscoveryCheck")
          assert.strictEqual(failing.findings[0]?.subject?.name, NAME)
          yield* server.fail(undefined)
          yield* until("PASS")
          yield* unregister
        })
    )

    it.effect(
      fault(
        apiService,
        "APISERVICE_NOT_SERVING",
        "an extension API server whose certificate the API server cannot verify"
      ),
      () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          const [server, stranger] = yield* Effect.all([adapter, adapter])
          yield* apply(service({ type: "ExternalName", externalName: "localhost" }))
          // The availability check does not verify certificates (remote_available_controller.go), only requests do.
          yield* apply(registration(server.port, stranger.caBundle))
          const failing = yield* until("ERROR APISERVICE_NOT_SERVING")
          assert.include(failing.message, NAME)
          assert.include(failing.message, "503")
          assert.deepStrictEqual(failing.findings[0]?.subject, { kind: "APIService", name: NAME })
          yield* apply(registration(server.port, server.caBundle))
          yield* until("PASS")
          yield* unregister
        })
    )

    it.effect(
      fault(apiService, "APISERVICE_SLOW", "an extension API server that takes its time"),
      () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          const server = yield* adapter
          yield* apply(service({ type: "ExternalName", externalName: "localhost" }))
          yield* apply(registration(server.port, server.caBundle))
          yield* until("PASS")
          yield* server.delay(500)
          const slow = yield* until("WARN APISERVICE_SLOW", { slow: "300ms" })
          assert.match(slow.message, /takes \d+ ms \(median of 3\)/)
          assert.strictEqual(slow.findings[0]?.subject?.name, NAME)
          yield* server.delay(0)
          yield* until("PASS", { slow: "300ms" })
          yield* server.delay(2_000)
          const silent = yield* until("ERROR APISERVICE_NOT_SERVING", { timeout: "500ms" })
          assert.include(silent.message, "no answer")
          yield* unregister
          yield* until("PASS")
        })
    )
  })
})
