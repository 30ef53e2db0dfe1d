import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { AdmissionDenied, KubeError, ServerFault } from "../../src/infra/kube/KubeError.ts"
import { ValidatingWebhookConfiguration } from "../../src/infra/kube/resources/admission.ts"
import { ConfigMap, Pod, Service, ServiceAccount } from "../../src/infra/kube/resources/core.ts"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import {
  AdmissionWebhooksConfig,
  type Hook,
  admissionWebhooks,
  backendFault,
  judge,
  judgeCaBundle,
  judgeRefusal,
  selects,
  vitalOf
} from "../../src/probes/kubernetes/admissionWebhooks.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { webhookServer } from "../clusters/WebhookServer.ts"
import { blind, faults, healthy } from "../proofs/proof.ts"

const config = Schema.decodeSync(AdmissionWebhooksConfig)({})
const base64 = (text: string) => Buffer.from(text).toString("base64")
const KUBE_SYSTEM = { "kubernetes.io/metadata.name": "kube-system" }

const hook = (webhook: Readonly<Record<string, unknown>>): Hook => {
  const decoded = Schema.decodeSync(ValidatingWebhookConfiguration.object)({
    metadata: { name: "guard" },
    webhooks: [{
      name: "guard.example.com",
      clientConfig: { url: "https://guard.example.com" },
      failurePolicy: "Fail",
      rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] }],
      ...webhook
    }]
  })
  const [first] = decoded.webhooks
  if (first === undefined) throw new Error("one webhook was given")
  return { kind: "ValidatingWebhookConfiguration", configuration: "guard", webhook: first }
}

describe("judging webhooks", () => {
  it("selects labels as the API server does", () => {
    const expression = (operator: string, ...values: ReadonlyArray<string>) => ({
      matchLabels: {},
      matchExpressions: [{ key: "tier", operator, values }]
    })
    const tier = { tier: "web" }
    assert.isTrue(selects(undefined, {}))
    assert.isTrue(selects({ matchLabels: {}, matchExpressions: [] }, {}))
    assert.deepStrictEqual(
      [expression("In", "web"), expression("NotIn", "web"), expression("Exists"), expression("DoesNotExist")].map(
        (selector) => [selects(selector, tier), selects(selector, {})]
      ),
      [[true, false], [false, true], [true, false], [false, true]]
    )
    assert.isFalse(selects({ matchLabels: { tier: "db" }, matchExpressions: [] }, tier))
  })

  it("knows what is vital, and what excludes it", () => {
    const vital = (webhook: Readonly<Record<string, unknown>>) => vitalOf(hook(webhook).webhook, KUBE_SYSTEM)
    const rule = (apiGroup: string, resource: string, operation = "CREATE", scope = "*") => ({
      rules: [{ apiGroups: [apiGroup], apiVersions: ["*"], operations: [operation], resources: [resource], scope }]
    })
    const notKubeSystem = {
      namespaceSelector: {
        matchExpressions: [{ key: "kubernetes.io/metadata.name", operator: "NotIn", values: ["kube-system"] }]
      }
    }
    assert.deepStrictEqual(vital({}), ["pods in kube-system"])
    assert.deepStrictEqual(vital(notKubeSystem), [])
    assert.deepStrictEqual(vital({ ...rule("", "nodes"), ...notKubeSystem }), ["nodes"])
    assert.deepStrictEqual(vital(rule("", "nodes", "*", "Namespaced")), [])
    assert.deepStrictEqual(vital(rule("", "pods/exec")), [])
    assert.deepStrictEqual(vital(rule("", "pods", "DELETE")), [])
    assert.deepStrictEqual(vital(rule("*", "*")).length, 6)
    assert.deepStrictEqual(vital({ objectSelector: { matchLabels: { inject: "yes" } } }), [])
    assert.deepStrictEqual(
      vital({ objectSelector: { matchExpressions: [{ key: "skip", operator: "DoesNotExist" }] } }),
      ["pods in kube-system"]
    )
    assert.deepStrictEqual(vital({ matchConditions: [{ name: "not-system", expression: "false" }] }), [])
  })

  it.effect("judges a bundle by the certificate in it that lives longest, relative to its life", () =>
    Effect.gen(function*() {
      const authority = yield* Certificates.makeAuthority("webhook")
      const old = yield* authority.issue({ commonName: "old", validFor: "1 days" })
      const born = yield* DateTime.now
      const at = (days: number, bundle: string) =>
        judgeCaBundle(
          hook({ clientConfig: { url: "https://a", caBundle: base64(bundle) } }),
          config,
          DateTime.addDuration(born, Duration.days(days))
        ).map(({ code }) => code)
      assert.deepStrictEqual(at(300, authority.cert), [])
      assert.deepStrictEqual(at(340, authority.cert), ["WEBHOOK_CA_EXPIRING"])
      assert.deepStrictEqual(at(366, authority.cert), ["WEBHOOK_CA_INVALID"])
      assert.deepStrictEqual(at(0.5, old.cert), [])
      assert.deepStrictEqual(at(0.9, old.cert), ["WEBHOOK_CA_EXPIRING"])
      assert.deepStrictEqual(at(2, old.cert), ["WEBHOOK_CA_INVALID"])
      assert.deepStrictEqual(at(2, `${old.cert}\n${authority.cert}`), [])
      assert.deepStrictEqual(at(0, "no certificate"), ["WEBHOOK_CA_INVALID"])
    }))

  it("says nothing of a webhook without rules, which is never called", () => {
    const seen = {
      backends: { services: [], slices: [] },
      kubeSystem: KUBE_SYSTEM,
      now: DateTime.makeUnsafe("2026-01-01T00:00:00Z")
    }
    const clientConfig = { service: { namespace: "a", name: "b" } }
    assert.deepStrictEqual(judge(config, seen)(hook({ clientConfig, rules: [] })), [])
    assert.deepStrictEqual(judge(config, seen)(hook({ clientConfig })).map(({ code }) => code), [
      "WEBHOOK_BACKEND_DOWN",
      "WEBHOOK_CA_MISSING",
      "WEBHOOK_UNSAFE_SCOPE"
    ])
  })

  it("gives a new configuration time for its backend and its caBundle, and says so", () => {
    const now = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
    const seen = { backends: { services: [], slices: [] }, kubeSystem: {}, now }
    const made = (seconds: number, webhook: Readonly<Record<string, unknown>>) =>
      judge(config, seen)({
        ...hook({ ...elsewhere, ...webhook }),
        createdAt: DateTime.subtract(now, { seconds })
      }).map(({ code, status }) => `${status} ${code}`)
    const clientConfig = { service: { namespace: "a", name: "b" } }
    assert.deepStrictEqual(made(30, { clientConfig }), ["INFO WEBHOOK_STARTING"])
    assert.deepStrictEqual(made(30, { clientConfig, failurePolicy: "Ignore" }), ["INFO WEBHOOK_STARTING"])
    assert.deepStrictEqual(made(180, { clientConfig }), ["ERROR WEBHOOK_BACKEND_DOWN", "WARN WEBHOOK_CA_MISSING"])
    assert.deepStrictEqual(made(30, { timeoutSeconds: 30 }), ["WARN WEBHOOK_TIMEOUT_LONG"])
    // What a scaffold writes until the controller injects its own.
    const placeholder = { clientConfig: { url: "https://a", caBundle: "Cg==" } }
    assert.deepStrictEqual(made(30, placeholder), ["INFO WEBHOOK_STARTING"])
    assert.deepStrictEqual(made(180, placeholder), ["ERROR WEBHOOK_CA_INVALID"])
  })

  it("counts what ends and still serves as a backend, as kube-proxy does", () => {
    const fault = (conditions: EndpointSlice["endpoints"][number]["conditions"]) =>
      backendFault({ namespace: "a", name: "b" }, {
        services: [
          Schema.decodeSync(Service.object)({
            metadata: { name: "b", namespace: "a" },
            spec: { ports: [{ port: 443 }] }
          })
        ],
        slices: [
          Schema.decodeSync(EndpointSlice.object)({
            metadata: { name: "b-1", namespace: "a", labels: { "kubernetes.io/service-name": "b" } },
            addressType: "IPv4",
            endpoints: [{ addresses: ["10.0.0.1"], conditions }],
            ports: []
          })
        ]
      })
    assert.isUndefined(fault({}))
    assert.isUndefined(fault({ ready: false, serving: true, terminating: true }))
    for (const conditions of [{ ready: false }, { ready: false, serving: false, terminating: true }]) {
      assert.include(fault(conditions), "no ready endpoint")
    }
  })

  it("names the object to change in every message, as far as it is known", () => {
    const seen = {
      backends: { services: [], slices: [] },
      kubeSystem: KUBE_SYSTEM,
      now: DateTime.makeUnsafe("2026-01-01T00:00:00Z")
    }
    const guard = hook({ clientConfig: { service: { namespace: "a", name: "b" } }, timeoutSeconds: 30 })
    const named = "webhook guard.example.com of ValidatingWebhookConfiguration guard"
    const said = judge(config, seen)(guard)
    assert.strictEqual(said.length, 4)
    for (const { message } of said) assert.include(message, named)
    const error = new KubeError({
      cluster: "c",
      call: { verb: "create", resource: "pods" },
      reason: new AdmissionDenied({ kind: "webhook-failed", by: "guard.example.com", detail: "refused" })
    })
    assert.include(judgeRefusal("Pod", error, [guard]).message, `because ${named} does not answer`)
    assert.include(judgeRefusal("Pod", error, []).message, "because webhook guard.example.com does not answer")
  })

  it("never blames webhooks for a dry run that the API server did not get to", () => {
    const reason = new ServerFault({ status: 503, detail: "etcd" })
    const call = { verb: "create", resource: "pods" }
    const finding = judgeRefusal("Pod", new KubeError({ cluster: "c", call, reason }), [])
    assert.strictEqual(`${finding.status} ${finding.code}`, "UNKNOWN DRY_RUN_IMPOSSIBLE")
  })
})

const configuration = (webhook: Readonly<Record<string, unknown>>) => ({
  apiVersion: "admissionregistration.k8s.io/v1",
  kind: "ValidatingWebhookConfiguration",
  metadata: { name: "guard" },
  webhooks: [{
    name: "guard.example.com",
    rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] }],
    admissionReviewVersions: ["v1"],
    sideEffects: "None",
    ...webhook
  }]
})

/** Rules that no dry run of the probe meets, so that only what the API tells is judged. */
const elsewhere = {
  rules: [{ apiGroups: ["apps"], apiVersions: ["v1"], operations: ["CREATE"], resources: ["deployments"] }]
}

const withConfiguration = <A, E, R>(webhook: Readonly<Record<string, unknown>>, effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestCluster, ({ apply, kubectl }) =>
    Effect.acquireUseRelease(
      apply(configuration(webhook)),
      () => effect,
      () => kubectl("delete", "validatingwebhookconfiguration", "guard")
    ))

const says = ({ findings }: { readonly findings: ReadonlyArray<{ readonly status: string; readonly code: string }> }) =>
  findings.map(({ code, status }) => `${status} ${code}`)

/** The configurations of these tests are as old as the cluster. */
const strict = Probe.configure(admissionWebhooks, { startWithin: "1ms" })

const until = (...wanted: ReadonlyArray<string>) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) => eventually(run(strict), (report) => says(report).join() === wanted.join())
  )

describe("k8s.admission.webhooks", () => {
  layer(TestCluster.layer({ name: "webhooks" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(
          admissionWebhooks,
          "passes with no rights but its needs, also under the restricted pod security standard, and stores nothing"
        ),
        () =>
          Effect.gen(function*() {
            const { kube, kubectl, run, userWith } = yield* TestCluster
            yield* eventually(
              Effect.option(kube.get(ServiceAccount, { name: "default", namespace: PROBE_NAMESPACE })),
              ({ _tag }) => _tag === "Some"
            )
            yield* kubectl("label", "namespace", PROBE_NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
            const server = yield* webhookServer
            const report = yield* withConfiguration(
              { clientConfig: { url: server.url, caBundle: server.caBundle } },
              Effect.flatMap(userWith(admissionWebhooks.needs), (as) => run(admissionWebhooks, { as }))
            )
            assert.strictEqual(report.status, "PASS", report.message)
            assert.include(report.message, "1 webhook can be called")
            assert.lengthOf((yield* kube.list(Pod, { namespace: PROBE_NAMESPACE })).items, 0)
            const { items } = yield* kube.list(ConfigMap, { namespace: PROBE_NAMESPACE })
            assert.deepStrictEqual(items.map(({ metadata }) => metadata.name), ["kube-root-ca.crt"])
          })
      )

      it.effect(
        blind(admissionWebhooks, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have, and names it"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of admissionWebhooks.needs) {
              const as = yield* userWith(admissionWebhooks.needs.filter((need) => need !== lacking))
              const report = yield* run(admissionWebhooks, { as })
              if (lacking.optional) {
                assert.strictEqual(report.status, "PASS", report.message)
                continue
              }
              assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
            }
          })
      )

      it.effect(
        faults(
          admissionWebhooks,
          "sees a webhook's Service missing, without its port, without ready endpoints, and back",
          "WEBHOOK_BACKEND_DOWN",
          "WEBHOOK_INEFFECTIVE",
          "WEBHOOK_CA_MISSING"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run } = yield* TestCluster
            const authority = yield* Certificates.makeAuthority("webhook")
            const service = (port: number) => ({
              apiVersion: "v1",
              kind: "Service",
              metadata: { name: "guard", namespace: "default" },
              spec: { ports: [{ port }] }
            })
            const endpoint = (ready: boolean) => ({
              apiVersion: "discovery.k8s.io/v1",
              kind: "EndpointSlice",
              metadata: { name: "guard", namespace: "default", labels: { "kubernetes.io/service-name": "guard" } },
              addressType: "IPv4",
              endpoints: [{ addresses: ["10.1.2.3"], conditions: { ready } }],
              ports: [{ port: 9443 }]
            })
            const clientConfig = { service: { namespace: "default", name: "guard" }, caBundle: base64(authority.cert) }
            yield* withConfiguration(
              { ...elsewhere, clientConfig },
              Effect.gen(function*() {
                assert.deepStrictEqual(says(yield* run(admissionWebhooks)), ["INFO WEBHOOK_STARTING"])
                const missing = yield* run(strict)
                assert.strictEqual(`${missing.status} ${missing.code}`, "ERROR WEBHOOK_BACKEND_DOWN")
                assert.include(missing.message, "guard.example.com")
                assert.include(missing.message, "Service default/guard does not exist")
                assert.deepStrictEqual(missing.findings[0]?.subject, {
                  kind: "ValidatingWebhookConfiguration",
                  name: "guard"
                })
                yield* apply(service(8443))
                assert.include((yield* run(strict)).message, "has no port 443")
                yield* kubectl("delete", "service", "guard")
                yield* apply(service(443))
                assert.include((yield* run(strict)).message, "has no ready endpoint (0 not ready)")
                yield* apply(endpoint(false))
                assert.include((yield* run(strict)).message, "has no ready endpoint (1 not ready)")
                yield* apply(configuration({ ...elsewhere, clientConfig, failurePolicy: "Ignore" }))
                const ignored = yield* run(strict)
                assert.deepStrictEqual(says(ignored), ["WARN WEBHOOK_INEFFECTIVE"])
                assert.strictEqual(ignored.findings[0]?.subject?.name, "guard")
                const { service: backend } = clientConfig
                yield* apply(configuration({ ...elsewhere, clientConfig: { service: backend } }), endpoint(true))
                const untrusted = yield* run(strict)
                assert.deepStrictEqual(says(untrusted), ["WARN WEBHOOK_CA_MISSING"])
                assert.strictEqual(untrusted.findings[0]?.subject?.name, "guard")
                yield* apply(configuration({ ...elsewhere, clientConfig }))
                assert.strictEqual((yield* run(strict)).status, "PASS")
              })
            )
            yield* kubectl("delete", "service/guard", "endpointslice/guard")
          })
      )

      it.effect(
        faults(
          admissionWebhooks,
          "feels a webhook that hangs, refuses or is dead, and names it",
          "WEBHOOK_CALL_FAILED",
          "ADMISSION_SLOW"
        ),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const server = yield* webhookServer
            const clientConfig = { url: server.url, caBundle: server.caBundle }
            yield* withConfiguration(
              { clientConfig, timeoutSeconds: 1 },
              Effect.gen(function*() {
                yield* server.answer({ allowed: true, delay: 5_000 })
                const hangs = yield* until("ERROR WEBHOOK_CALL_FAILED")
                assert.include(hangs.message, "a ConfigMap cannot be created, because webhook guard.example.com")
                assert.strictEqual(hangs.findings[0]?.subject?.name, "guard")
                yield* server.answer({ allowed: false, message: "not here" })
                const refuses = yield* until("INFO DRY_RUN_REFUSED")
                assert.include(refuses.message, "not here")
                yield* server.answer({ allowed: true, delay: 500 })
                // On a busy machine the webhook may be late beyond its own timeout, once.
                const slow = yield* eventually(
                  run(Probe.configure(admissionWebhooks, { slowAfter: "300ms" })),
                  (report) => says(report).join() === "WARN ADMISSION_SLOW"
                )
                assert.strictEqual(slow.findings[0]?.evidence?.["object"], "ConfigMap")
                yield* server.answer({ allowed: true })
                yield* until()
              })
            )
            const closed = { url: "https://127.0.0.1:1", caBundle: server.caBundle }
            const dead = yield* withConfiguration({ clientConfig: closed }, until("ERROR WEBHOOK_CALL_FAILED"))
            assert.include(dead.message, "refused")
            yield* until()
          })
      )

      it.effect(
        faults(
          admissionWebhooks,
          "warns of caBundles, scopes and timeouts that will hurt",
          "WEBHOOK_CA_EXPIRING",
          "WEBHOOK_CA_INVALID",
          "WEBHOOK_TIMEOUT_LONG",
          "WEBHOOK_UNSAFE_SCOPE"
        ),
        () =>
          Effect.gen(function*() {
            const authority = yield* Certificates.makeAuthority("webhook")
            const ending = yield* authority.issue({ commonName: "ending", validFor: "1 minutes" })
            const ended = yield* authority.issue({ commonName: "ended", validFor: "-1 minutes" })
            const url = "https://127.0.0.1:1"
            const bundle = (caBundle: string) => ({ ...elsewhere, clientConfig: { url, caBundle: base64(caBundle) } })
            const told = (webhook: Readonly<Record<string, unknown>>, wanted: string) =>
              Effect.tap(withConfiguration(webhook, until(wanted)), ({ findings }) =>
                Effect.sync(() =>
                  assert.deepStrictEqual(findings[0]?.subject, {
                    kind: "ValidatingWebhookConfiguration",
                    name: "guard"
                  })
                ))
            yield* told(bundle(ending.cert), "WARN WEBHOOK_CA_EXPIRING")
            yield* told(bundle(ended.cert), "ERROR WEBHOOK_CA_INVALID")
            yield* told({ ...bundle(ended.cert), failurePolicy: "Ignore" }, "WARN WEBHOOK_INEFFECTIVE")
            yield* told({ ...bundle(authority.cert), timeoutSeconds: 30 }, "WARN WEBHOOK_TIMEOUT_LONG")
            const nodes = { apiGroups: [""], apiVersions: ["v1"], operations: ["UPDATE"], resources: ["nodes"] }
            const unsafe = yield* told({ ...bundle(authority.cert), rules: [nodes] }, "WARN WEBHOOK_UNSAFE_SCOPE")
            assert.include(unsafe.message, "nodes")
            yield* until()
          })
      )

      it.effect(
        blind(admissionWebhooks, "DRY_RUN_IMPOSSIBLE", "is UNKNOWN when there is no namespace to try in"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const report = yield* run(admissionWebhooks, { namespace: "nowhere" })
            assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN DRY_RUN_IMPOSSIBLE")
          })
      )
    }
  )
})
