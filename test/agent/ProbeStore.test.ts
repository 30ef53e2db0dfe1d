/** The desired set as resources of a real API server. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Option, References, Stream } from "effect"
import { ProbeStore } from "../../src/agent/ProbeStore.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import { Probe } from "../../src/infra/kube/resources/kubeprober.ts"
import { installCrds } from "../clusters/installCrds.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { brittle, steady } from "./agentProbes.ts"
import { desiredOf, hashOf } from "./desired.ts"

const NAMESPACE = "kubeprober"

const install = Effect.gen(function*() {
  const { apply } = yield* TestCluster
  yield* installCrds
  yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } })
})

/** A store as an agent that has just started has it. */
const newStore = Layer.build(Layer.fresh(
  ProbeStore.layerKubernetes({ namespace: NAMESPACE, available: [steady, brittle] })
)).pipe(Effect.map(Context.get(ProbeStore)), Effect.provideService(References.MinimumLogLevel, "None"))

const uses = (use: string, interval: Duration.Input = "1 minute"): ProbeSpec => ({
  checks: [{ name: "it", use }],
  policy: { interval: Duration.fromInputUnsafe(interval) }
})

const setOf = (specs: Readonly<Record<string, ProbeSpec>>, extraInfo: Readonly<Record<string, string>> = {}) => {
  const desired = desiredOf(specs, { namespace: NAMESPACE, extraInfo })
  return [hashOf(desired), desired] as const
}

const names = (store: ProbeStore["Service"]) =>
  store.probes.pipe(
    Stream.runHead,
    Effect.map((probes) => Option.getOrElse(probes, () => []).map(({ name }) => name).toSorted())
  )

describe("Probes as resources", () => {
  layer(TestCluster.layer({ name: "probe-store" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect("converges to the set it is given, and knows after a restart which that was", () =>
        Effect.gen(function*() {
          yield* install
          const kube = yield* Kube
          const { apply, kubectl } = yield* TestCluster
          const store = yield* newStore
          assert.deepStrictEqual(yield* store.applied, Option.none())

          yield* apply({
            apiVersion: "kubeprober.erda.cloud/v1",
            kind: "Probe",
            metadata: { name: "own", namespace: NAMESPACE },
            spec: { checks: [{ name: "mine", use: "test.steady" }] }
          })
          const [first, desired] = setOf({ a: uses("test.steady"), b: uses("test.steady") }, { REGION: "eu" })
          assert.deepStrictEqual(yield* store.apply(first, desired), [])
          assert.deepStrictEqual(yield* store.applied, Option.some(first))
          yield* eventually(names(store), (found) => found.join() === "a,b,own", { within: "10 seconds" })
          const extra = yield* kube.get(ConfigMap, { name: "extra-config", namespace: NAMESPACE })
          assert.deepStrictEqual(extra.data, { REGION: "eu" })

          // Once more changes nothing in the cluster.
          const versionOf = Effect.map(
            kube.get(Probe, { name: "a", namespace: NAMESPACE }),
            ({ metadata }) => metadata.resourceVersion
          )
          const version = yield* versionOf
          assert.deepStrictEqual(yield* store.apply(first, desired), [])
          assert.strictEqual(yield* versionOf, version)

          const [second, changed] = setOf({ a: uses("test.steady", "5 minutes"), c: uses("test.brittle") })
          assert.deepStrictEqual(yield* store.apply(second, changed), [])
          yield* eventually(names(store), (found) => found.join() === "a,c,own", { within: "10 seconds" })
          const a = yield* kube.get(Probe, { name: "a", namespace: NAMESPACE })
          assert.strictEqual(Duration.toMinutes(a.spec.policy?.interval ?? 0), 5)
          assert.deepStrictEqual((yield* kube.get(ConfigMap, { name: "extra-config", namespace: NAMESPACE })).data, {})

          // What somebody deleted or changed here is mended when the set is given again.
          yield* kubectl("delete", "kp", "c", "-n", NAMESPACE)
          const next = yield* newStore
          assert.deepStrictEqual(yield* next.applied, Option.some(second))
          yield* next.apply(second, changed)
          yield* eventually(names(next), (found) => found.join() === "a,c,own", { within: "10 seconds" })
        }).pipe(Effect.scoped))

      it.effect("refuses what cannot run and keeps the rest; takes no set whose hash is another's", () =>
        Effect.gen(function*() {
          yield* install
          const store = yield* newStore
          const { apply } = yield* TestCluster
          yield* apply({
            apiVersion: "kubeprober.erda.cloud/v1",
            kind: "Probe",
            metadata: { name: "own", namespace: NAMESPACE },
            spec: { checks: [{ name: "mine", use: "test.steady" }] }
          })
          const [, desired] = setOf({
            fine: uses("test.steady"),
            nowhere: uses("test.nowhere"),
            never: { checks: [{ name: "it", use: "test.steady" }], policy: { cron: "0 0 30 2 *" } },
            own: uses("test.brittle")
          })
          const [other] = setOf({})
          const before = yield* store.applied
          const mismatch = yield* Effect.flip(store.apply(other, desired))
          assert.strictEqual(mismatch._tag, "HashMismatch")
          assert.deepStrictEqual(yield* store.applied, before)

          const elsewhere = { namespace: "elsewhere", name: "away", spec: uses("test.steady") }
          const whole = { ...desired, probes: [...desired.probes, elsewhere] }
          const refused = yield* store.apply(hashOf(whole), whole)
          const reasons = Object.fromEntries(refused.map(({ probe, reason }) => [probe.name, reason]))
          assert.deepStrictEqual(Object.keys(reasons).toSorted(), ["away", "never", "nowhere", "own"])
          assert.match(reasons["away"] ?? "", /namespace kubeprober alone/)
          assert.match(reasons["never"] ?? "", /never comes/)
          assert.match(reasons["nowhere"] ?? "", /test\.nowhere/)
          assert.match(reasons["own"] ?? "", /made here by someone else/)
          yield* eventually(names(store), (found) => found.join() === "fine,own", { within: "10 seconds" })
        }).pipe(Effect.scoped))

      it.effect("says that the earlier form of a Probe goes on whose change is not admitted", () =>
        Effect.gen(function*() {
          yield* install
          const store = yield* newStore
          const { apply, kubectl } = yield* TestCluster
          const kube = yield* Kube
          const [first, before] = setOf({ guarded: uses("test.steady") })
          assert.deepStrictEqual(yield* store.apply(first, before), [])
          const policy = "no-changes"
          yield* apply({
            apiVersion: "admissionregistration.k8s.io/v1",
            kind: "ValidatingAdmissionPolicy",
            metadata: { name: policy },
            spec: {
              failurePolicy: "Fail",
              matchConstraints: {
                resourceRules: [{
                  apiGroups: ["kubeprober.erda.cloud"],
                  apiVersions: ["v1"],
                  operations: ["UPDATE"],
                  resources: ["probes"]
                }]
              },
              validations: [{ expression: "false", message: "nothing changes today" }]
            }
          }, {
            apiVersion: "admissionregistration.k8s.io/v1",
            kind: "ValidatingAdmissionPolicyBinding",
            metadata: { name: policy },
            spec: { policyName: policy, validationActions: ["Deny"] }
          })
          yield* Effect.addFinalizer(() =>
            Effect.andThen(
              kubectl("delete", "validatingadmissionpolicybinding", policy),
              kubectl("delete", "validatingadmissionpolicy", policy)
            )
          )
          const change = kube.patch(Probe, { name: "guarded", namespace: NAMESPACE }, {
            metadata: { labels: { tried: "yes" } }
          }, { dryRun: true })
          yield* eventually(Effect.exit(change), ({ _tag }) => _tag === "Failure")

          const [second, after] = setOf({ guarded: uses("test.brittle"), other: uses("test.steady") })
          const [refused, ...others] = yield* store.apply(second, after)
          assert.deepStrictEqual(others, [])
          assert.strictEqual(refused?.probe.name, "guarded")
          assert.match(refused?.reason ?? "", /nothing changes today.*; its earlier form goes on$/)
          const { spec } = yield* kube.get(Probe, { name: "guarded", namespace: NAMESPACE })
          assert.strictEqual(spec.checks?.[0].use, "test.steady")
          yield* eventually(names(store), (found) => found.includes("other"), { within: "10 seconds" })
        }).pipe(Effect.scoped))
    }
  )
})
