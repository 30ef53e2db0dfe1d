/** What a probe may do: the pre-flight, the guard and the generated roles, on a real API server. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { WriteLevel } from "../../src/domain/Profile.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { ConfigMap, Namespace, Pod } from "../../src/infra/kube/resources/core.ts"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import * as Codes from "../../src/probes/Codes.ts"
import { guard } from "../../src/probes/KubeGuard.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Preflight from "../../src/probes/Preflight.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Roles from "../../src/probes/Roles.ts"
import { PROBE_NAMESPACE, TestCluster, eventually, reasonOf } from "../clusters/TestCluster.ts"

const probeOf = (
  needs: ReadonlyArray<ReadonlyArray<Needs.Need>>,
  run: Probe.AnyProbe["run"],
  codes: Codes.Codes = Codes.make({})
) =>
  Probe.make("test.access", {
    layer: "kubernetes",
    proves: "a test",
    writes: "nothing",
    needs,
    codes,
    config: Probe.NoConfig,
    timeout: "10 seconds",
    run
  })

const missingOf = (kube: Kube["Service"], needs: ReadonlyArray<Needs.Need>) =>
  Preflight.missing(needs, PROBE_NAMESPACE).pipe(
    Effect.map((missing) => missing.map((need) => Needs.describe(need, PROBE_NAMESPACE))),
    Effect.provideService(Kube, kube)
  )

const needs: ReadonlyArray<Needs.Need> = [
  ...Needs.list("namespaces"),
  ...Needs.verbs(["create", "get"], "configmaps", { namespace: Needs.probeNamespace }),
  ...Needs.get("pods/log", { namespace: Needs.probeNamespace }),
  ...Needs.get("endpointslices", { group: "discovery.k8s.io", namespace: "default", names: ["kubernetes"] }),
  ...Needs.path("/metrics")
]

describe("access", () => {
  layer(TestCluster.layer({ name: "access" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect("the generated roles grant every declared need", () =>
        Effect.gen(function*() {
          const { userWith } = yield* TestCluster
          assert.deepStrictEqual(yield* missingOf(yield* userWith(needs), needs), [])
        }))

      it.effect("remembered rules are read once; what is granted meanwhile is seen, and what is taken away is no fault", () =>
        Effect.gen(function*() {
          const { apply, cluster, kubeAs, kubectl, run } = yield* TestCluster
          const user = yield* kubeAs(yield* cluster.issueClientCertificate({ user: "remembered" }))
          const need = Needs.list("namespaces")
          const roles = Roles.forNeeds(need, { name: "remembered", probeNamespace: PROBE_NAMESPACE })
          let reads = 0
          const rules = yield* Preflight.rememberedRules((namespace) => {
            reads++
            return Preflight.readRules(namespace)
          })
          const codes = Codes.make({ CANNOT_LIST: Codes.error("Namespaces cannot be listed.", "Look.") })
          // Takes every refusal for a fault of the cluster.
          const hasty = probeOf([need], () =>
            Effect.flatMap(Kube, (kube) => kube.list(Namespace)).pipe(
              Effect.as(Outcome.make("listed")),
              Effect.catch(() => codes.CANNOT_LIST.fail({ message: "refused" }))
            ), codes)
          const code = Effect.map(run(hasty, { as: user, rules }), ({ code, status }) => code ?? status)

          assert.strictEqual(yield* code, "ACCESS_MISSING")
          yield* apply(...roles, ...Roles.bindings(roles, [{ kind: "User", name: "remembered" }]))
          yield* eventually(code, (code) => code === "PASS")
          assert.strictEqual(reads, 1)
          // Read anew, they show the right, which is then taken away.
          const anew = yield* Preflight.rememberedRules()
          const withRight = run(hasty, { as: user, rules: anew })
          assert.strictEqual((yield* withRight).status, "PASS")
          yield* kubectl("delete", "clusterrolebinding", "remembered")
          yield* eventually(withRight, ({ status }) => status !== "PASS")
          assert.strictEqual((yield* withRight).code, "ACCESS_MISSING")
        }))

      it.effect("the pre-flight names each need that is not granted, and only those", () =>
        Effect.gen(function*() {
          const { kube, userWith } = yield* TestCluster
          for (const lacking of needs) {
            const user = yield* userWith(needs.filter((need) => need !== lacking))
            assert.deepStrictEqual(yield* missingOf(user, needs), [Needs.describe(lacking, PROBE_NAMESPACE)])
          }
          assert.deepStrictEqual(yield* missingOf(kube, needs), [])
        }))

      it.effect("a right in one namespace does not pass for the same right everywhere", () =>
        Effect.gen(function*() {
          const { userWith } = yield* TestCluster
          const user = yield* userWith(Needs.list("pods", { namespace: PROBE_NAMESPACE }))
          assert.deepStrictEqual(yield* missingOf(user, Needs.list("pods")), ["list pods"])
          assert.deepStrictEqual(yield* missingOf(user, Needs.list("pods", { namespace: "default" })), [
            "list pods in default"
          ])
        }))

      it.effect("a probe whose pre-flight fails does not run, and says which rule to grant", () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          let ran = false
          const probe = probeOf([Needs.list("namespaces"), Needs.list("nodes", { optional: true })], () => {
            ran = true
            return Effect.succeed(Outcome.make("ran"))
          })
          const refused = yield* run(probe, { as: yield* userWith([]) })
          assert.strictEqual(refused.code, "ACCESS_MISSING")
          assert.strictEqual(refused.status, "UNKNOWN")
          assert.strictEqual(refused.blame, "checker")
          assert.include(refused.message, "list namespaces")
          assert.notInclude(refused.message, "nodes")
          assert.isFalse(ran)
          const allowed = yield* run(probe, { as: yield* userWith(Needs.list("namespaces")) })
          assert.strictEqual(allowed.status, "PASS")
        }))

      it.effect("a call that is not declared is not sent, even as administrator", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          const report = yield* run(probeOf([Needs.list("nodes")], () =>
            Effect.gen(function*() {
              const guarded = yield* Kube
              const before = yield* guarded.requests
              const failure = yield* Effect.flip(guarded.list(Pod, { namespace: "shop" }))
              assert.strictEqual(yield* guarded.requests, before)
              return yield* failure
            })))
          assert.strictEqual(report.code, "UNDECLARED_CALL")
          assert.include(report.message, "list pods in shop")

          const declared = guard(
            kube,
            [
              ...Needs.list("namespaces"),
              ...Needs.get("configmaps", { namespace: PROBE_NAMESPACE, names: ["a"] }),
              ...Needs.patch("configmaps", { namespace: PROBE_NAMESPACE }),
              ...Needs.path("/readyz"),
              ...Needs.path("/apis/*"),
              ...Needs.create("pods", { namespace: PROBE_NAMESPACE })
            ],
            PROBE_NAMESPACE,
            "namespace"
          )
          const named = (name: string) => ({ metadata: { name, namespace: PROBE_NAMESPACE } })
          const refused = {
            "another name": declared.get(ConfigMap, named("b").metadata),
            "another namespace": declared.get(ConfigMap, { name: "a", namespace: "default" }),
            "watch beside list": Stream.runDrain(declared.reflect(Namespace)),
            "create beside patch, as apply does": declared.apply(ConfigMap, named("a")),
            "a subresource": Stream.runDrain(declared.logs({ name: "a", namespace: PROBE_NAMESPACE })),
            "delete": declared.delete(ConfigMap, named("a").metadata),
            "replace": declared.replace(ConfigMap, named("a")),
            "status": declared.applyStatus(ConfigMap, named("a")),
            "another group": declared.list(EndpointSlice),
            "another path": declared.raw("/metrics"),
            "a longer path": declared.raw("/readyz/etcd"),
            "a subresource of what may be created": declared.create(Pod, named("a"), { subresource: "eviction" }),
            "a path that climbs": declared.raw("/apis/../metrics"),
            "a path that climbs encoded": declared.raw("/apis/%2E%2e/metrics"),
            "a path that climbs encoded in one segment": declared.raw("/apis/x%2f..%2f..%2fmetrics"),
            "a path that climbs backwards": declared.raw("/apis/..\\metrics"),
            "a path that climbs once a tab is dropped": declared.raw("/apis/.\t./metrics")
          }
          for (const [what, effect] of Object.entries(refused)) {
            assert.strictEqual((yield* reasonOf(Effect.asVoid(effect)))?._tag, "Undeclared", what)
          }
          assert.isAbove((yield* declared.list(Namespace)).items.length, 0)
          assert.strictEqual((yield* reasonOf(declared.get(ConfigMap, named("a").metadata)))?._tag, "NotFound")
          assert.strictEqual((yield* declared.raw("/readyz?verbose")).status, 200)
          assert.strictEqual((yield* declared.raw("/apis/apps/v1")).status, 200)
        }))

      it.effect("a write above the probe's level is not sent, whatever its needs say", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          const needs = [
            ...Needs.verbs(["create", "patch", "update", "delete"], "configmaps"),
            ...Needs.verbs(["create", "delete"], "namespaces"),
            ...Needs.create("selfsubjectaccessreviews", { group: "authorization.k8s.io" }),
            ...Needs.create("selfsubjectrulesreviews", { group: "authorization.k8s.io" })
          ]
          const at = (namespace: string) => ({ name: "level", namespace })
          const writes = (level: WriteLevel, namespace: string) => {
            const guarded = guard(kube, needs, PROBE_NAMESPACE, level)
            const metadata = at(namespace)
            return [
              guarded.create(ConfigMap, { metadata }),
              guarded.apply(ConfigMap, { metadata }),
              guarded.patch(ConfigMap, metadata, { data: { a: "1" } }),
              guarded.replace(ConfigMap, { metadata }),
              guarded.delete(ConfigMap, metadata)
            ]
          }
          const before = yield* kube.requests
          for (
            const write of [
              ...writes("nothing", PROBE_NAMESPACE),
              ...writes("dry-run", PROBE_NAMESPACE),
              ...writes("namespace", "default"),
              guard(kube, needs, PROBE_NAMESPACE, "namespace").create(Namespace, { metadata: { name: "level" } }),
              // A namespace in a cluster-scoped manifest changes nothing about where it is stored.
              guard(kube, needs, PROBE_NAMESPACE, "namespace").create(Namespace, { metadata: at(PROBE_NAMESPACE) })
            ]
          ) {
            const error = yield* Effect.flip(Effect.asVoid(write))
            assert.strictEqual(error.reason._tag, "Undeclared")
            assert.include(error.message, "write level")
          }
          assert.strictEqual(yield* kube.requests, before)

          for (const write of writes("namespace", PROBE_NAMESPACE)) yield* Effect.asVoid(write)
          for (const write of writes("cluster", "default")) yield* Effect.asVoid(write)
          const dry = guard(kube, needs, PROBE_NAMESPACE, "dry-run")
          yield* dry.create(ConfigMap, { metadata: at(PROBE_NAMESPACE) }, { dryRun: true })
          const asks = guard(kube, needs, PROBE_NAMESPACE, "nothing")
          assert.deepStrictEqual(
            yield* Preflight.missing(needs, PROBE_NAMESPACE).pipe(Effect.provideService(Kube, asks)),
            []
          )
        }))
    }
  )
})
