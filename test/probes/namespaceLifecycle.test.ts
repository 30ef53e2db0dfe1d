import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import { NamespaceLifecycleConfig, namespaceLifecycle } from "../../src/probes/kubernetes/namespaceLifecycle.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { RUN_LABEL } from "../../src/probes/Scratch.ts"
import { atFirst, halts } from "../clusters/AtRequest.ts"
import { killWhileHeld } from "../clusters/killWhileHeld.ts"
import * as ProbeProcess from "../clusters/ProbeProcess.ts"
import { PROBE_NAMESPACE, TestCluster, eventually, reasonOf } from "../clusters/TestCluster.ts"
import { webhookServer } from "../clusters/WebhookServer.ts"
import { blind, fault, faults, healthy, killed } from "../proofs/proof.ts"

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** The namespace of one run, as soon as it is there. */
const namespaceOf = Effect.fnUntraced(function*(runId: string) {
  const { kube } = yield* TestCluster
  const { items } = yield* eventually(
    kube.list(Namespace, { labelSelector: `${RUN_LABEL}=${runId}` }),
    ({ items }) => items.length === 1
  )
  return items[0]?.metadata.name ?? ""
})

/** Without kube-controller-manager no namespace gets its defaults, so a run waits there. */
const withoutControllers = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(
    TestCluster,
    ({ cluster: { components: { controllerManager } } }) =>
      Effect.acquireUseRelease(controllerManager.pause, () => effect, () => controllerManager.resume)
  )

/** Why the API server refuses a new namespace; a policy takes a moment to hold. */
const refusal = Effect.flatMap(
  TestCluster,
  ({ kube }) => reasonOf(kube.create(Namespace, { metadata: { name: "asked" } }, { dryRun: true }))
)

/** An empty namespace takes about 5 seconds to go: the namespace controller's grace period. */
const noNamespaceOfRuns = Effect.flatMap(
  TestCluster,
  ({ kube }) => eventually(kube.list(Namespace, { labelSelector: RUN_LABEL }), ({ items }) => items.length === 0)
)

it("accepts no waits that do not fit into a run", () => {
  const decode = Schema.decodeUnknownSync(NamespaceLifecycleConfig)
  decode({})
  decode({ defaultsErrorAfter: "20s", deleteErrorAfter: "90s" })
  assert.throws(
    () => decode({ deleteErrorAfter: "91s" }),
    "defaultsErrorAfter and deleteErrorAfter together are longer than the 1m 50s a run may wait"
  )
})

describe("k8s.namespace.lifecycle", () => {
  layer(TestCluster.layer({ name: "namespace" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(namespaceLifecycle, "passes with no rights but its needs, and leaves nothing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            const report = yield* run(namespaceLifecycle, { as: yield* userWith(namespaceLifecycle.needs) })
            assert.strictEqual(verdict(report), "PASS", report.message)
            yield* noNamespaceOfRuns
          })
      )

      it.effect(
        blind(namespaceLifecycle, "ACCESS_MISSING", "is UNKNOWN without one of its rights, and names it"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of namespaceLifecycle.needs.filter((need) => !need.optional)) {
              const as = yield* userWith(namespaceLifecycle.needs.filter((need) => need !== lacking))
              const report = yield* run(namespaceLifecycle, { as })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      it.effect(
        fault(
          namespaceLifecycle,
          "NAMESPACE_DEFAULTS_MISSING",
          "is ERROR when no controller furnishes namespaces, and passes when it is back"
        ),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const report = yield* withoutControllers(
              run(Probe.configure(namespaceLifecycle, { defaultsErrorAfter: "1s" }))
            )
            assert.strictEqual(verdict(report), "ERROR NAMESPACE_DEFAULTS_MISSING")
            assert.include(report.message, "ServiceAccount default and ConfigMap kube-root-ca.crt after 1s")
            assert.strictEqual(report.findings[0]?.subject?.kind, "Namespace")
            yield* noNamespaceOfRuns
            assert.strictEqual(verdict(yield* run(namespaceLifecycle)), "PASS")
          })
      )

      it.effect(
        fault(
          namespaceLifecycle,
          "NAMESPACE_STUCK",
          "is ERROR when its namespace is stuck on a finalizer, and quotes the condition"
        ),
        () =>
          Effect.gen(function*() {
            const { kube, run } = yield* TestCluster
            const as = atFirst(kube, "delete Namespace", (send, { name }) =>
              Effect.andThen(
                kube.create(ConfigMap, {
                  metadata: { name: "holder", namespace: name, finalizers: ["kubeprober.test/hold"] }
                }),
                send
              ))
            // The condition is there five seconds after the deletion at the earliest.
            const report = yield* run(Probe.configure(namespaceLifecycle, { deleteErrorAfter: "12s" }), {
              as,
              runId: "stuck"
            })
            assert.strictEqual(verdict(report), "ERROR NAMESPACE_STUCK")
            assert.include(report.message, "NamespaceFinalizersRemaining")
            assert.include(report.message, "kubeprober.test/hold")

            const name = yield* namespaceOf("stuck")
            const again = yield* run(Probe.configure(namespaceLifecycle, { deleteErrorAfter: "8s" }))
            assert.strictEqual(verdict(again), "ERROR NAMESPACE_STUCK")
            assert.deepStrictEqual(again.findings[0]?.subject, { kind: "Namespace", name })
            assert.include(again.message, "kubeprober.test/hold")
            assert.lengthOf((yield* kube.list(Namespace, { labelSelector: RUN_LABEL })).items, 1)
            yield* kube.patch(ConfigMap, { name: "holder", namespace: name }, { metadata: { finalizers: null } })
            yield* noNamespaceOfRuns
            assert.strictEqual(verdict(yield* run(namespaceLifecycle)), "PASS")
          })
      )

      it.effect(
        faults(
          namespaceLifecycle,
          "is WARN when the controllers halt for seconds, at its beginning and at its end",
          "NAMESPACE_DEFAULTS_SLOW",
          "NAMESPACE_DELETE_SLOW"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { controllerManager } }, kube, run } = yield* TestCluster
            const creating = atFirst(kube, "create Namespace", halts(controllerManager, "2 seconds"))
            const as = atFirst(creating, "delete Namespace", halts(controllerManager, "3 seconds"))
            const report = yield* run(
              Probe.configure(namespaceLifecycle, {
                defaultsWarnAfter: "500ms",
                // Of a controller manager that loses its lease while it halts, too.
                defaultsErrorAfter: "50s",
                // A deletion takes five seconds by itself.
                deleteWarnAfter: "6s",
                deleteErrorAfter: "60s"
              }),
              { as }
            )
            assert.deepStrictEqual(report.findings.map(verdict), [
              "WARN NAMESPACE_DEFAULTS_SLOW",
              "WARN NAMESPACE_DELETE_SLOW"
            ], report.message)
            yield* noNamespaceOfRuns
            assert.strictEqual(verdict(yield* run(namespaceLifecycle)), "PASS")
          })
      )

      it.effect(
        faults(
          namespaceLifecycle,
          blind(
            namespaceLifecycle,
            "NAMESPACE_REFUSED",
            "blames the cluster when a webhook that guards namespaces is dead, and itself when a policy refuses"
          ),
          "NAMESPACE_CREATE_FAILED",
          "NAMESPACE_DELETE_FAILED"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kube, kubectl, run } = yield* TestCluster
            const namespaces = {
              apiGroups: [""],
              apiVersions: ["v1"],
              operations: ["CREATE"],
              resources: ["namespaces"]
            }
            const guard = (operation: string) => ({
              apiVersion: "admissionregistration.k8s.io/v1",
              kind: "ValidatingWebhookConfiguration",
              metadata: { name: "dead" },
              webhooks: [{
                name: "dead.kubeprober.test",
                clientConfig: { service: { namespace: "default", name: "nobody" } },
                rules: [{ ...namespaces, operations: [operation] }],
                admissionReviewVersions: ["v1"],
                sideEffects: "None"
              }]
            })
            yield* apply(guard("CREATE"))
            yield* eventually(refusal, (reason) => reason !== undefined)
            const dead = yield* run(namespaceLifecycle)
            assert.strictEqual(verdict(dead), "ERROR NAMESPACE_CREATE_FAILED")
            assert.include(dead.message, "dead.kubeprober.test")
            yield* apply(guard("DELETE"))
            yield* eventually(refusal, (reason) => reason === undefined)
            yield* eventually(
              reasonOf(kube.delete(Namespace, { name: PROBE_NAMESPACE }, { dryRun: true })),
              (reason) => reason !== undefined
            )
            const undeleted = yield* run(namespaceLifecycle)
            assert.strictEqual(verdict(undeleted), "ERROR NAMESPACE_DELETE_FAILED")
            assert.include(undeleted.message, "dead.kubeprober.test")
            yield* kubectl("delete", "validatingwebhookconfiguration", "dead")
            yield* kubectl("delete", "namespaces", "--selector", RUN_LABEL)
            yield* noNamespaceOfRuns

            yield* apply({
              apiVersion: "admissionregistration.k8s.io/v1",
              kind: "ValidatingAdmissionPolicy",
              metadata: { name: "team-label" },
              spec: {
                matchConstraints: { resourceRules: [namespaces] },
                validations: [{ expression: "has(object.metadata.labels.team)", message: "a namespace needs a team" }]
              }
            }, {
              apiVersion: "admissionregistration.k8s.io/v1",
              kind: "ValidatingAdmissionPolicyBinding",
              metadata: { name: "team-label" },
              spec: { policyName: "team-label", validationActions: ["Deny"] }
            })
            yield* eventually(refusal, (reason) => reason !== undefined)
            const refused = yield* run(namespaceLifecycle)
            assert.strictEqual(verdict(refused), "UNKNOWN NAMESPACE_REFUSED")
            assert.include(refused.message, "a namespace needs a team")
            const labelled = yield* run(Probe.configure(namespaceLifecycle, { labels: { team: "probers" } }))
            assert.strictEqual(verdict(labelled), "PASS", labelled.message)
            yield* kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "team-label")
            yield* eventually(refusal, (reason) => reason === undefined)
          })
      )

      it.effect(
        killed(namespaceLifecycle, "killed in the middle, it leaves only what the sweeper removes"),
        () =>
          Effect.gen(function*() {
            const { cluster } = yield* TestCluster
            const name = yield* withoutControllers(Effect.gen(function*() {
              const process = yield* ProbeProcess.start(cluster, namespaceLifecycle, {
                runId: "killed",
                namespace: "default",
                expiresInMillis: 0
              })
              const name = yield* namespaceOf("killed")
              assert.isTrue(yield* process.kill)
              return name
            }))
            const swept = yield* Sweeper.sweep({})
            assert.deepStrictEqual(swept.map(({ error, kind, name, run }) => ({ error, kind, name, run })), [
              { error: undefined, kind: "Namespace", name, run: "killed" }
            ])
            yield* noNamespaceOfRuns
          })
      )

      it.effect(
        killed(namespaceLifecycle, "killed while it creates or deletes, it leaves nothing after one sweep"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            const server = yield* webhookServer
            const asking = (operation: string) => ({
              apiVersion: "admissionregistration.k8s.io/v1",
              kind: "ValidatingWebhookConfiguration",
              metadata: { name: "holds-up" },
              webhooks: [{
                name: "holds-up.kubeprober.test",
                clientConfig: { url: server.url, caBundle: server.caBundle },
                rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: [operation], resources: ["namespaces"] }],
                admissionReviewVersions: ["v1"],
                sideEffects: "None",
                timeoutSeconds: 15
              }]
            })
            for (const operation of ["CREATE", "DELETE"]) {
              yield* killWhileHeld(namespaceLifecycle, {
                namespace: "default",
                server,
                registered: Effect.acquireRelease(
                  apply(asking(operation)),
                  () => kubectl("delete", "validatingwebhookconfiguration", "holds-up")
                )
              })
              const swept = yield* Sweeper.sweep({})
              assert.deepStrictEqual(
                swept.map(({ error }) => error),
                operation === "CREATE" ? [] : [undefined],
                operation
              )
              yield* noNamespaceOfRuns
            }
          })
      )
    }
  )
})
