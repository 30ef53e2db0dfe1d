import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import type { KubeErrorReason } from "../../src/infra/kube/KubeError.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import { PodMetadata } from "../../src/infra/kube/resources/pods.ts"
import { PodDisruptionBudget } from "../../src/infra/kube/resources/policy.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { PdbDrainConfig, asksForPods, judge, pdbDrain } from "../../src/probes/kubernetes/pdbDrain.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually, reasonOf } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const budget = (options: {
  readonly name?: string
  readonly allowed?: number
  readonly healthy?: number
  readonly expected?: number
  readonly since?: Duration.Input
  readonly reason?: string
  readonly selector?: unknown
  readonly observed?: number
  readonly written?: Duration.Input
}) => {
  const { allowed = 0, expected = 2, name = "web", since = "2 hours" } = options
  return Schema.decodeUnknownSync(PodDisruptionBudget.object)({
    metadata: {
      name,
      namespace: "shop",
      generation: 2,
      creationTimestamp: ago("10 days"),
      managedFields: [{ time: ago(options.written ?? "1 day") }, { subresource: "status", time: ago("1 second") }]
    },
    spec: {
      minAvailable: 2,
      ...("selector" in options ? { selector: options.selector } : { selector: { matchLabels: { app: "web" } } })
    },
    status: {
      observedGeneration: options.observed ?? 2,
      disruptionsAllowed: allowed,
      currentHealthy: options.healthy ?? expected,
      desiredHealthy: 2,
      expectedPods: expected,
      conditions: [{
        type: "DisruptionAllowed",
        status: allowed > 0 ? "True" : "False",
        reason: options.reason ?? (allowed > 0 ? "SufficientPods" : "InsufficientPods"),
        message: "why",
        lastTransitionTime: ago(since)
      }]
    }
  })
}

const pod = (name: string, labels: Record<string, string>) =>
  Schema.decodeUnknownSync(PodMetadata.object)({ metadata: { name, namespace: "shop", labels } })

const says = (
  budgets: ReadonlyArray<PodDisruptionBudget>,
  pods: ReadonlyArray<PodMetadata> = [],
  config: typeof PdbDrainConfig.Encoded = {}
) =>
  judge(Schema.decodeSync(PdbDrainConfig)(config))({ budgets, pods, now: NOW }).findings.map(({ code, status }) =>
    `${status} ${code}`
  )

describe("judging disruption budgets", () => {
  it("goes by how long nothing may be evicted while all is well", () => {
    assert.deepStrictEqual(says([budget({ allowed: 1 })]), [])
    assert.deepStrictEqual(says([budget({ since: "30 minutes" })]), [])
    assert.deepStrictEqual(says([budget({})]), ["WARN DRAIN_BLOCKED"])
    assert.deepStrictEqual(says([budget({ expected: 0 })]), [], "no pods, nothing to evict")
    assert.deepStrictEqual(says([budget({})], [], { exclude: ["shop/*"] }), [])
    assert.deepStrictEqual(says([]), ["INFO NOT_APPLICABLE"])
  })

  it("does not blame a budget for pods that are not healthy", () => {
    assert.deepStrictEqual(says([budget({ healthy: 1, since: "5 minutes" })]), [], "they may be rolling")
    assert.deepStrictEqual(says([budget({ healthy: 1 })]), ["INFO PODS_UNHEALTHY"])
  })

  it("knows when the numbers cannot be trusted", () => {
    assert.deepStrictEqual(says([budget({ allowed: 1, observed: 1 })]), ["WARN BUDGET_NOT_COUNTED"])
    assert.deepStrictEqual(says([budget({ allowed: 1, observed: 1, written: "1 minute" })]), [])
    assert.deepStrictEqual(says([budget({ reason: "SyncFailed" })]), ["WARN BUDGET_NOT_COUNTED"])
    assert.deepStrictEqual(says([budget({ reason: "SyncFailed", since: "1 minute" })]), [])
  })

  it("tells once which budgets share pods", () => {
    const web = budget({ allowed: 1 })
    const frontend = budget({
      allowed: 1,
      name: "frontend",
      selector: { matchExpressions: [{ key: "tier", operator: "In", values: ["front"] }] }
    })
    const pods = [
      pod("a", { app: "web", tier: "front" }),
      pod("b", { app: "web", tier: "front" }),
      pod("c", { app: "web" })
    ]
    assert.deepStrictEqual(says([web, frontend], pods), ["ERROR BUDGETS_OVERLAP"])
    assert.deepStrictEqual(says([web, frontend], [pod("c", { app: "web" })]), [])
    const none = budget({ allowed: 1, name: "none", selector: null })
    assert.deepStrictEqual(says([web, none], pods), [], "no selector selects nothing")
    const every = budget({ allowed: 1, name: "every", selector: {} })
    assert.deepStrictEqual(says([web, every], pods), ["ERROR BUDGETS_OVERLAP"])
    assert.isFalse(asksForPods([web, none]))
    assert.isTrue(asksForPods([web, every]))
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Everything counts after a second. */
const strict = Probe.configure(pdbDrain, { blockedAfter: "1s", observedWithin: "1s" })

const until = (wanted: string) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) => eventually(run(strict), (report) => verdict(report) === wanted, { every: "300 millis" })
  )

const yamlBudget = (name: string, minAvailable: number | string, app = "web") => ({
  apiVersion: "policy/v1",
  kind: "PodDisruptionBudget",
  metadata: { name, namespace: "default" },
  spec: { minAvailable, selector: { matchLabels: { app } } }
})

const deployment = (replicas: number, ready = true) => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name: "web", namespace: "default" },
  spec: {
    replicas,
    selector: { matchLabels: { app: "web" } },
    strategy: { type: "Recreate", rollingUpdate: null },
    template: {
      metadata: { labels: { app: "web" } },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [{
          name: "main",
          image: BUSYBOX_IMAGE,
          command: ["sleep", "3600"],
          readinessProbe: { exec: { command: [ready ? "true" : "false"] }, periodSeconds: 1, timeoutSeconds: 10 }
        }]
      }
    }
  }
})

const available = (replicas: number) =>
  Effect.flatMap(TestCluster, ({ kubectl }) =>
    eventually(
      kubectl("get", "deployment/web", "-n", "default", "-o", "jsonpath={.status.availableReplicas}"),
      (text) => text === String(replicas)
    ))

/** What the API server says to the eviction of a pod, without doing it. */
const eviction = Effect.gen(function*() {
  const { kube } = yield* TestCluster
  const { items } = yield* kube.list(Pod, { namespace: "default", labelSelector: "app=web" })
  // One that is going already may be evicted whatever budgets say.
  const pod = items.find(({ metadata }) => metadata.deletionTimestamp === undefined)
  const metadata = { name: pod?.metadata.name ?? "", namespace: "default" }
  return yield* reasonOf(
    kube.create({ ...PodMetadata, metadataOnly: false }, { metadata, apiVersion: "policy/v1", kind: "Eviction" }, {
      dryRun: true,
      subresource: "eviction"
    })
  )
})

const evictionTag = Effect.map(eviction, (reason: KubeErrorReason | undefined) => reason?._tag)

describe("k8s.pdb.drain", () => {
  layer(TestCluster.layer({ name: "pdb-drain", nodes: 1 }), { excludeTestServices: true, timeout: "180 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect("does not apply where there is no budget", () => until("INFO NOT_APPLICABLE"))

      it.effect(
        healthy(pdbDrain, "passes where pods may be evicted, with no rights but to read"),
        () =>
          Effect.gen(function*() {
            const { apply, run, userWith } = yield* TestCluster
            assert.isTrue(
              pdbDrain.needs.every((need) => need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb))
            )
            yield* apply(deployment(2), yamlBudget("web", 1))
            yield* available(2)
            yield* until("PASS")
            for (const optional of [true, false]) {
              const report = yield* run(pdbDrain, { as: yield* userWith(pdbDrain.needs, { optional }) })
              assert.strictEqual(verdict(report), "PASS", report.message)
            }
          })
      )

      it.effect(
        blind(pdbDrain, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (
              const lacking of pdbDrain.needs.filter(({ optional }) => !optional)
            ) {
              const report = yield* run(pdbDrain, {
                as: yield* userWith(pdbDrain.needs.filter((need) => need !== lacking))
              })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      blindToAll(it, pdbDrain)

      it.effect(
        fault(pdbDrain, "DRAIN_BLOCKED", "sees a budget that needs every pod there is, as an eviction does"),
        () =>
          Effect.gen(function*() {
            const { apply, run } = yield* TestCluster
            yield* apply(yamlBudget("web", "100%"))
            const report = yield* until("WARN DRAIN_BLOCKED")
            assert.deepStrictEqual(report.findings[0]?.subject, {
              kind: "PodDisruptionBudget",
              name: "web",
              namespace: "default"
            })
            assert.include(report.message, "2 of 2 pods healthy and minAvailable 100%")
            assert.strictEqual(yield* evictionTag, "TooManyRequests")
            assert.strictEqual(verdict(yield* run(pdbDrain)), "PASS", "an hour has not passed")
            yield* apply(yamlBudget("web", 1))
            yield* until("PASS")
          })
      )

      it.effect("does not blame a budget whose pods are not ready", () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          yield* apply(deployment(2, false))
          const report = yield* until("INFO PODS_UNHEALTHY")
          assert.match(report.message, /PodDisruptionBudget default\/web .*: \d of \d pods are healthy, \d are needed/)
          yield* apply(deployment(2))
          yield* available(2)
          yield* until("PASS")
        }))

      it.effect(
        fault(pdbDrain, "BUDGETS_OVERLAP", "sees pods that two budgets cover, as an eviction does"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            yield* available(2)
            yield* apply(yamlBudget("second", 1))
            const report = yield* until("ERROR BUDGETS_OVERLAP")
            assert.match(
              report.message,
              /2 pods in default, such as web-.*, are covered by PodDisruptionBudgets second, web/
            )
            assert.strictEqual(yield* evictionTag, "ServerFault")
            yield* kubectl("delete", "-n", "default", "pdb/second")
            yield* until("PASS")
            // It is counted anew first.
            yield* eventually(evictionTag, (tag) => tag === undefined)
          })
      )

      it.effect(
        fault(pdbDrain, "BUDGET_NOT_COUNTED", "sees a budget that a stopped controller manager does not look at"),
        () =>
          Effect.gen(function*() {
            const { apply, cluster: { components: { controllerManager } }, kubectl } = yield* TestCluster
            yield* Effect.acquireUseRelease(
              controllerManager.pause,
              () => Effect.andThen(apply(yamlBudget("unseen", 1, "other")), until("WARN BUDGET_NOT_COUNTED")),
              () => controllerManager.resume
            )
            yield* kubectl("delete", "-n", "default", "pdb/unseen")
            yield* until("PASS")
          })
      )
    }
  )
})
