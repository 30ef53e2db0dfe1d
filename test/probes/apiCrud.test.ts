import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Exit, Option, Redacted } from "effect"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import {
  AdmissionDenied,
  Forbidden,
  KubeError,
  type KubeErrorReason,
  NotFound,
  ServerFault,
  TooManyRequests,
  Unreachable
} from "../../src/infra/kube/KubeError.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import { apiCrud, codes, judgeFailure, judgeTimings } from "../../src/probes/kubernetes/apiCrud.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { RUN_LABEL } from "../../src/probes/Scratch.ts"
import * as ServerTime from "../../src/probes/ServerTime.ts"
import { noSpace } from "../clusters/EtcdAlarm.ts"
import { interruptAt } from "../clusters/Interruption.ts"
import { killWhileHeld } from "../clusters/killWhileHeld.ts"
import * as ProbeProcess from "../clusters/ProbeProcess.ts"
import { shedUser } from "../clusters/Shedding.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { type WebhookServer, webhookServer } from "../clusters/WebhookServer.ts"
import * as TcpProxy from "../kube/TcpProxy.ts"
import { blind, fault, faults, healthy, killed } from "../proofs/proof.ts"

const failure = (reason: KubeErrorReason, verb = "create") =>
  judgeFailure(
    codes.CREATE_FAILED,
    new KubeError({ cluster: "c", call: { verb, resource: "configmaps" }, reason }),
    { kind: "ConfigMap", name: "x" }
  )?.code

describe("judging a failed step", () => {
  it("blames the cluster for what only it can mend", () => {
    assert.strictEqual(failure(new ServerFault({ status: 500, detail: "context deadline exceeded" })), "CREATE_FAILED")
    assert.strictEqual(
      failure(new ServerFault({ status: 500, detail: "etcdserver: mvcc: database space exceeded" })),
      "ETCD_NO_SPACE"
    )
    assert.strictEqual(failure(new Unreachable({ kind: "reset", detail: "ECONNRESET" })), "CREATE_FAILED")
    assert.strictEqual(failure(new AdmissionDenied({ kind: "webhook-failed", by: "w", detail: "" })), "WEBHOOK_FAILED")
    assert.strictEqual(failure(new TooManyRequests({ detail: "" })), "THROTTLED")
    assert.strictEqual(failure(new NotFound({ what: "object", detail: "" }), "get"), "WRITE_LOST")
  })

  it("does not blame it for our rights, name resolution, namespace or what admission wants", () => {
    assert.strictEqual(failure(new Forbidden({ detail: "" })), undefined)
    assert.strictEqual(failure(new Unreachable({ kind: "dns", detail: "ENOTFOUND" })), undefined)
    assert.strictEqual(failure(new NotFound({ what: "object", detail: "" })), "NAMESPACE_MISSING")
    for (const kind of ["quota", "policy", "webhook-denied", "pod-security", "namespace-terminating"] as const) {
      assert.strictEqual(failure(new AdmissionDenied({ kind, detail: "" })), "NOT_ADMITTED")
    }
  })
})

it("judges a step by the limit, and at the limit in its favour", () => {
  const took = (millis: number) =>
    judgeTimings(codes.SLOW, [{ step: "create", took: Duration.millis(millis) }], Duration.seconds(1))
  assert.deepStrictEqual(took(1000), [])
  assert.deepStrictEqual(took(1200).map(({ message }) => message), ["create took 1s 200ms (limit 1s)"])
})

/** ConfigMaps that any run left. */
const leftovers = Effect.gen(function*() {
  const { kube } = yield* TestCluster
  return (yield* kube.list(ConfigMap, { labelSelector: RUN_LABEL })).items.map(({ metadata }) => metadata.name)
})

const webhook = (
  kind: "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
  server: WebhookServer,
  operations = ["CREATE"]
) => ({
  apiVersion: "admissionregistration.k8s.io/v1",
  kind,
  metadata: { name: "crud-test" },
  webhooks: [{
    name: "crud.test.example",
    admissionReviewVersions: ["v1"],
    sideEffects: "None",
    // Longer than a webhook is made to hold a run up.
    timeoutSeconds: 30,
    failurePolicy: "Fail",
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": PROBE_NAMESPACE } },
    rules: [{ apiGroups: [""], apiVersions: ["v1"], operations, resources: ["configmaps"] }],
    clientConfig: { url: server.url, caBundle: server.caBundle }
  }]
})

const admitted = (kind: Parameters<typeof webhook>[0], server: WebhookServer, operations?: Array<string>) =>
  Effect.gen(function*() {
    const { apply, kubectl } = yield* TestCluster
    yield* Effect.acquireRelease(apply(webhook(kind, server, operations)), () => kubectl("delete", kind, "crud-test"))
  })

const verdict = (check: Probe.AnyProbe | Probe.Check = apiCrud) =>
  Effect.gen(function*() {
    const { run } = yield* TestCluster
    const { code, findings, message, status } = yield* run(check)
    return { said: code === undefined ? status : `${status} ${code}`, message, subject: findings[0]?.subject }
  })

const until = (said: string, check?: Probe.Check) => eventually(verdict(check), (answer) => answer.said === said)

describe("k8s.api.crud", () => {
  layer(TestCluster.layer({ name: "api-crud" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(apiCrud, "passes on a healthy cluster with its declared needs alone, and leaves nothing"),
        () =>
          Effect.gen(function*() {
            const { kube, run, userWith } = yield* TestCluster
            const requests = yield* kube.requests
            const report = yield* run(apiCrud)
            assert.strictEqual(report.status, "PASS", report.message)
            // Two for the pre-flight, seven of its own, one more deletion to be sure.
            assert.isAtMost((yield* kube.requests) - requests, 10)
            const minimal = yield* run(apiCrud, { as: yield* userWith(apiCrud.needs) })
            assert.strictEqual(minimal.status, "PASS", minimal.message)
            assert.deepStrictEqual(yield* leftovers, [])
          })
      )

      it.effect("passes when a connection was cut once, and is ERROR when it is again", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          const cutting = (times: number, kind: Unreachable["kind"]): Kube["Service"] => {
            let cut = 0
            return {
              ...kube,
              patch: (resource, ref, patch, options) =>
                Effect.suspend(() =>
                  cut++ < times
                    ? Effect.fail(
                      new KubeError({
                        cluster: kube.cluster,
                        call: { verb: "patch", resource: resource.plural },
                        reason: new Unreachable({ kind, detail: "ECONNRESET" })
                      })
                    )
                    : kube.patch(resource, ref, patch, options)
                )
            }
          }
          for (const kind of ["reset", "refused"] as const) {
            const once = yield* run(apiCrud, { as: cutting(1, kind) })
            assert.strictEqual(once.status, "PASS", once.message)
            const twice = yield* run(apiCrud, { as: cutting(2, kind) })
            assert.strictEqual(`${twice.status} ${twice.code}`, "ERROR UPDATE_FAILED")
          }
          const slow = yield* run(apiCrud, { as: cutting(1, "timeout") })
          assert.strictEqual(`${slow.status} ${slow.code}`, "ERROR UPDATE_FAILED")
          assert.deepStrictEqual(yield* leftovers, [])
        }))

      it.effect(
        blind(apiCrud, "ACCESS_MISSING", "is UNKNOWN with the rule that is missing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of apiCrud.needs) {
              const user = yield* userWith(apiCrud.needs.filter((need) => need !== lacking))
              const report = yield* run(apiCrud, { as: user })
              assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
            }
            assert.deepStrictEqual(yield* leftovers, [])
          })
      )

      it.effect(
        blind(
          apiCrud,
          "NAMESPACE_MISSING",
          blind(apiCrud, "NOT_ADMITTED", "is UNKNOWN without its namespace, and where a quota forbids its object")
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run } = yield* TestCluster
            const missing = yield* run(apiCrud, { namespace: "nowhere" })
            assert.strictEqual(`${missing.status} ${missing.code}`, "UNKNOWN NAMESPACE_MISSING")
            yield* apply({
              apiVersion: "v1",
              kind: "ResourceQuota",
              metadata: { name: "none", namespace: PROBE_NAMESPACE },
              spec: { hard: { "count/configmaps": "0" } }
            })
            yield* until("UNKNOWN NOT_ADMITTED")
            yield* kubectl("delete", "resourcequota", "none", "-n", PROBE_NAMESPACE)
            yield* until("PASS")
          })
      )

      it.effect(
        faults(
          apiCrud,
          "blames a webhook that is down, slow, or changes what is written, and passes when it is gone",
          "WEBHOOK_FAILED",
          "SLOW",
          "WRITE_LOST",
          "DELETE_FAILED"
        ),
        () =>
          Effect.gen(function*() {
            yield* Effect.scoped(Effect.gen(function*() {
              const server = yield* webhookServer
              yield* admitted("MutatingWebhookConfiguration", server)
              yield* server.answer({ allowed: false, message: "no" })
              yield* until("UNKNOWN NOT_ADMITTED")
              yield* server.answer({ allowed: true, delay: 1_200 })
              const slow = yield* until("WARN SLOW")
              assert.match(slow.message, /create took \d+s( \d+ms)? \(limit 1s\)/)
              yield* server.answer({ allowed: true, patch: [{ op: "replace", path: "/data/token", value: "other" }] })
              assert.strictEqual((yield* until("ERROR WRITE_LOST")).subject?.kind, "ConfigMap")
              yield* server.answer({
                allowed: true,
                patch: [{ op: "add", path: "/metadata/finalizers", value: ["test.example/stay"] }]
              })
              const stuck = yield* until("ERROR DELETE_FAILED", Probe.configure(apiCrud, { stepTimeout: "2s" }))
              assert.include(stuck.message, "test.example/stay")
              yield* server.answer({ allowed: true })
              yield* until("PASS")
            }))
            const { kube, kubectl } = yield* TestCluster
            for (const name of yield* leftovers) {
              yield* kube.patch(ConfigMap, { name: name ?? "", namespace: PROBE_NAMESPACE }, {
                metadata: { finalizers: null }
              })
            }
            const gone = yield* Effect.scoped(webhookServer)
            yield* Effect.scoped(Effect.gen(function*() {
              yield* admitted("ValidatingWebhookConfiguration", gone)
              const down = yield* until("ERROR WEBHOOK_FAILED")
              assert.include(down.message, "crud.test.example")
            }))
            yield* until("PASS")
            assert.notInclude(yield* kubectl("get", "configmaps", "-A"), "crud-")
          })
      )

      it.effect(
        fault(apiCrud, "ETCD_NO_SPACE", "says when etcd has no space, and passes when it has"),
        () =>
          Effect.gen(function*() {
            const { cluster } = yield* TestCluster
            yield* Effect.scoped(Effect.andThen(noSpace(cluster), until("ERROR ETCD_NO_SPACE")))
            yield* until("PASS")
          })
      )

      it.effect(
        fault(apiCrud, "CREATE_FAILED", "is ERROR while etcd hangs, and what a lost create made is deleted"),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { etcd } }, kube, run } = yield* TestCluster
            const as: Kube["Service"] = {
              ...kube,
              create: (resource, manifest, options) =>
                resource.kind === "ConfigMap"
                  ? Effect.andThen(etcd.pause, kube.create(resource, manifest, options))
                  : kube.create(resource, manifest, options),
              // Only when the verdict is there is it asked what the lost create made.
              get: (resource, ref) => Effect.andThen(etcd.resume, kube.get(resource, ref))
            }
            const report = yield* run(Probe.configure(apiCrud, { stepTimeout: "1500ms" }), { as }).pipe(
              Effect.ensuring(etcd.resume)
            )
            assert.strictEqual(`${report.status} ${report.code}`, "ERROR CREATE_FAILED")
            assert.strictEqual(report.findings[0]?.subject?.kind, "ConfigMap")
            yield* eventually(leftovers, (names) => names.length === 0)
            yield* until("PASS")
          })
      )

      it.effect(
        faults(
          apiCrud,
          "is ERROR when etcd begins to hang after the create or before the change, and passes when it goes on",
          "READ_FAILED",
          "UPDATE_FAILED"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { etcd } }, kube, run } = yield* TestCluster
            // Deletions come when the verdict is there, so etcd hangs until then.
            const until: Kube["Service"] = {
              ...kube,
              delete: (resource, ref, options) => Effect.andThen(etcd.resume, kube.delete(resource, ref, options))
            }
            const impatient = Probe.configure(apiCrud, { stepTimeout: "1500ms" })
            const unread = yield* run(impatient, {
              as: { ...until, get: (resource, ref) => Effect.andThen(etcd.pause, kube.get(resource, ref)) }
            })
            assert.strictEqual(`${unread.status} ${unread.code}`, "ERROR READ_FAILED")
            assert.strictEqual(unread.findings[0]?.subject?.kind, "ConfigMap")
            const unchanged = yield* run(impatient, {
              as: {
                ...until,
                patch: (resource, ref, patch, options) =>
                  Effect.andThen(etcd.pause, kube.patch(resource, ref, patch, options))
              }
            })
            assert.strictEqual(`${unchanged.status} ${unchanged.code}`, "ERROR UPDATE_FAILED")
            assert.strictEqual(unchanged.findings[0]?.subject?.kind, "ConfigMap")
            yield* eventually(verdict(), ({ said }) => said === "PASS")
            assert.deepStrictEqual(yield* leftovers, [])
          })
      )

      it.effect(
        faults(
          apiCrud,
          "tells a watch that is cut, stays silent or comes late behind a proxy, and passes when it does not",
          "WATCH_FAILED",
          "WATCH_SILENT",
          "WATCH_LAG"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kube, run } = yield* TestCluster
            const proxy = yield* TcpProxy.make(cluster.server)
            const proxied = yield* KubeHttp.make(KubeConnection.make({
              cluster: cluster.name,
              server: proxy.server,
              identity: {
                tls: { ca: cluster.caCertPem, cert: cluster.adminCertPem, key: Redacted.make(cluster.adminKeyPem) }
              }
            }))
            /** Watches through the proxy, to which something happens just before the change. */
            const verdictWhen = (
              happens: () => void,
              config: { readonly stepTimeout?: string; readonly watchLag?: string }
            ) =>
              run(Probe.configure(apiCrud, config), {
                as: {
                  ...kube,
                  watch: proxied.watch,
                  patch: (resource, ref, patch, options) =>
                    eventually(Effect.sync(() => proxy.open()), (open) => open > 0).pipe(
                      Effect.andThen(Effect.sync(happens)),
                      Effect.andThen(kube.patch(resource, ref, patch, options))
                    )
                }
              }).pipe(Effect.map(({ code, findings, status }) => [`${status} ${code}`, findings[0]?.subject?.kind]))
            assert.deepStrictEqual(yield* verdictWhen(() => proxy.cut(), {}), ["ERROR WATCH_FAILED", "ConfigMap"])
            assert.deepStrictEqual(
              yield* verdictWhen(() => proxy.freeze(true), { stepTimeout: "1500ms" }),
              ["ERROR WATCH_SILENT", "ConfigMap"]
            )
            proxy.cut()
            proxy.freeze(false)
            const late = yield* verdictWhen(() => proxy.lag(600), { watchLag: "300ms" })
            assert.strictEqual(late[0], "WARN WATCH_LAG")
            proxy.lag(0)
            yield* eventually(verdictWhen(() => {}, { watchLag: "300ms" }), ([said]) => said === "PASS undefined")
            assert.deepStrictEqual(yield* leftovers, [])
          })
      )

      it.effect(
        fault(apiCrud, "THROTTLED", "warns when the API server sheds its load, and passes when it does not"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const { as, shedding } = yield* shedUser("throttled", apiCrud.needs)
            yield* eventually(run(apiCrud, { as }), ({ status }) => status === "PASS")
            const shed = yield* Effect.scoped(Effect.andThen(shedding, run(apiCrud, { as })))
            assert.strictEqual(`${shed.status} ${shed.code}`, "WARN THROTTLED", shed.message)
            assert.strictEqual(shed.findings[0]?.subject?.kind, "ConfigMap")
            yield* eventually(run(apiCrud, { as }), ({ status }) => status === "PASS")
          })
      )

      it.effect("leaves nothing when it is interrupted at any of its requests", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          // Pre-flight, create, get, patch, get, delete; the watch runs beside them.
          for (let at = 1; at <= 6; at++) {
            assert.isTrue(Exit.isFailure(yield* interruptAt(kube, at, (as) => run(apiCrud, { as }))), `request ${at}`)
            assert.deepStrictEqual(yield* leftovers, [], `interrupted at request ${at}`)
          }
        }))

      it.effect(
        killed(apiCrud, "killed leaves an object that is swept when it has expired, not before"),
        () =>
          Effect.gen(function*() {
            const { cluster } = yield* TestCluster
            yield* Effect.scoped(Effect.gen(function*() {
              const server = yield* webhookServer
              // Holds the run up between create and delete, for longer than it takes to kill it.
              yield* server.answer({ allowed: true, delay: 20_000 })
              yield* admitted("ValidatingWebhookConfiguration", server, ["UPDATE"])
              const process = yield* ProbeProcess.start(cluster, apiCrud, {
                runId: "killed",
                namespace: PROBE_NAMESPACE,
                expiresInMillis: 600_000
              })
              yield* eventually(leftovers, (names) => names.length === 1, { every: "20 millis" })
              assert.isTrue(yield* process.kill)
            }))
            assert.deepStrictEqual(yield* Sweeper.sweep({}), [])
            const afterExpiry = Sweeper.sweep({}).pipe(
              Effect.provideService(
                ServerTime.Reading,
                Effect.map(DateTime.now, (now) => Option.some(DateTime.add(now, { minutes: 10 })))
              )
            )
            const swept = yield* afterExpiry
            assert.deepStrictEqual(swept.map(({ error, kind, run }) => ({ error, kind, run })), [
              { error: undefined, kind: "ConfigMap", run: "killed" }
            ])
            assert.deepStrictEqual(yield* leftovers, [])
            assert.deepStrictEqual(yield* afterExpiry, [])
          })
      )

      it.effect(
        killed(apiCrud, "killed while it creates, changes or deletes, it leaves nothing after one sweep"),
        () =>
          Effect.gen(function*() {
            const server = yield* webhookServer
            for (const operation of ["CREATE", "UPDATE", "DELETE"]) {
              yield* killWhileHeld(apiCrud, {
                namespace: PROBE_NAMESPACE,
                server,
                registered: admitted("ValidatingWebhookConfiguration", server, [operation])
              })
              const swept = yield* Sweeper.sweep({})
              assert.deepStrictEqual(
                swept.map(({ error }) => error),
                operation === "CREATE" ? [] : [undefined],
                operation
              )
              assert.deepStrictEqual(yield* leftovers, [], operation)
            }
          })
      )
    }
  )
})
