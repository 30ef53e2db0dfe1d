/** What tests of probes that work in pods share: breaking a node, and the proofs that each of them owes. */
import { assert } from "@effect/vitest"
import type * as Vitest from "@effect/vitest"
import { Effect } from "effect"
import type { Report } from "../../src/domain/Report.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Kills from "../clusters/Kills.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { world } from "../clusters/WorkerCluster.ts"
import { WORKER_IMAGE } from "../clusters/workerImage.ts"
import { blind, healthy, killed } from "../proofs/proof.ts"

/** The node that is broken, and the first, which is not. */
export const second = Effect.map(TestCluster, ({ cluster }) => {
  const [first, node] = cluster.nodes
  if (first === undefined || node === undefined) throw new Error("the cluster has two nodes")
  return { ...node, first }
})

/** Codes with the names of what they blame. */
export const found = (report: { readonly findings: ReadonlyArray<{ code: string; subject?: { name: string } }> }) =>
  report.findings.map(({ code, subject }) => `${code} ${subject?.name ?? "-"}`)

/**
 * Looks until exactly these are found, in any order. Where a machine is busy, a stage before the broken one may be late in
 * one look, or a second thing be slow.
 */
export const finds = <E, R>(look: Effect.Effect<Report, E, R>, names: ReadonlyArray<string>) => {
  const wanted = names.toSorted().join()
  return eventually(look, (report) => found(report).toSorted().join() === wanted, { within: "2 minutes" })
}

/** While `broken` is in force. */
export const during = <A, E, R, E1, R1, E2, R2>(
  broken: Effect.Effect<unknown, E1, R1>,
  look: Effect.Effect<A, E, R>,
  heal: Effect.Effect<unknown, E2, R2>
) => Effect.acquireUseRelease(broken, () => look, () => Effect.orDie(heal))

/** Waits until a probe is content again. */
export const passes = (probe: Probe.AnyProbe) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) =>
      eventually(run(Probe.toCheck(probe), { world }), ({ status }) => status === "PASS", { within: "90 seconds" })
  )

/** What busy machines need, and whether the probe has pods on each of several nodes. */
interface InPodsOptions {
  readonly limits?: Readonly<Record<string, unknown>>
  readonly perNode: boolean
}

/** Blind without one of its needs or an image, and killed in between. */
export const blindAndKilled = (
  it: Vitest.Vitest.MethodsNonLive<TestCluster>,
  probe: Probe.AnyProbe,
  { limits = {}, perNode }: InPodsOptions
): void => {
  const check = Probe.configure<unknown, unknown>(probe, limits)

  it.effect(blind(probe, "ACCESS_MISSING", "without one of its rights"), () =>
    Effect.gen(function*() {
      const { run, userWith } = yield* TestCluster
      const required = probe.needs.filter((need) => !need.optional)
      for (const lacking of [required[0], required.at(-1)].filter((need) => need !== undefined)) {
        const as = yield* userWith(probe.needs.filter((need) => need !== lacking))
        const report = yield* run(check, { world, as })
        assert.strictEqual(report.code, "ACCESS_MISSING")
        assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
      }
    }))

  it.effect(
    blind(probe, "WORKER_UNAVAILABLE", "where no image is known for worker pods"),
    () =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        assert.strictEqual((yield* run(check)).code, "WORKER_UNAVAILABLE")
      })
  )

  it.effect(killed(probe, "at each object it makes or deletes"), () =>
    Effect.gen(function*() {
      const boundaries = yield* Kills.atEachBoundary(probe, {
        workerImage: WORKER_IMAGE,
        config: perNode ? { ...limits, ...Kills.ONE_NODE } : limits
      })
      assert.isAtLeast(boundaries.creates, 1)
      assert.isAtLeast(boundaries.deletes, 2)
    }), 240_000)
}

/** Healthy with its needs alone, too. */
export const ofWorkers = (
  it: Vitest.Vitest.MethodsNonLive<TestCluster>,
  probe: Probe.AnyProbe,
  options: InPodsOptions
): void => {
  const { limits = {}, perNode } = options
  const check = Probe.configure<unknown, unknown>(probe, limits)

  it.effect(
    healthy(probe, "passes with its declared needs alone, in a restricted namespace"),
    () =>
      Effect.gen(function*() {
        const { kubectl, run, userWith } = yield* TestCluster
        yield* kubectl(
          "label",
          "namespace",
          PROBE_NAMESPACE,
          "pod-security.kubernetes.io/enforce=restricted",
          "--overwrite"
        )
        const report = yield* run(check, { world, as: yield* userWith(probe.needs) })
        assert.strictEqual(report.status, "PASS", JSON.stringify(report))
        if (perNode) assert.include(report.message, "2 of 2 nodes")
        yield* eventually(
          kubectl("get", "pods,configmaps,secrets,deployments,replicasets", "-n", PROBE_NAMESPACE, "-o", "name"),
          (names) => names.trim() === "configmap/kube-root-ca.crt"
        )
      })
  )

  blindAndKilled(it, probe, options)
}
