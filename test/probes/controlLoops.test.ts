import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Schema } from "effect"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import { Deployment, ReplicaSet } from "../../src/infra/kube/resources/apps.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import type { Component } from "../../src/local/process/Component.ts"
import { ControlLoopsConfig, controlLoops, judgeLease } from "../../src/probes/kubernetes/controlLoops.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { RUN_LABEL } from "../../src/probes/Scratch.ts"
import { atEach, halts } from "../clusters/AtRequest.ts"
import { interruptAt } from "../clusters/Interruption.ts"
import * as ProbeProcess from "../clusters/ProbeProcess.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"

const config = Schema.decodeSync(ControlLoopsConfig)({})

describe("judging a leader's lease", () => {
  const said = (acted: boolean | undefined, leaseAge: Duration.Input | undefined) =>
    judgeLease(config)({
      component: "kube-scheduler",
      acted,
      leaseAge: leaseAge === undefined ? undefined : Duration.fromInputUnsafe(leaseAge)
    }).map(({ code, status }) => `${status} ${code}`)

  it("goes by its age and by what its holder was seen to do", () => {
    assert.deepStrictEqual(said(true, "2 seconds"), [])
    assert.deepStrictEqual(said(true, undefined), [], "managed control planes hide it")
    assert.deepStrictEqual(said(true, "40 seconds"), ["WARN LEASE_STALE"])
    assert.deepStrictEqual(said(undefined, "40 seconds"), ["WARN LEASE_STALE"])
    assert.deepStrictEqual(said(undefined, "70 seconds"), ["ERROR LEASE_LOST"])
    assert.deepStrictEqual(said(false, "70 seconds"), [], "that it did not act says it")
    assert.deepStrictEqual(said(true, "2 days"), ["INFO LEASE_UNUSED"])
  })

  it("waits no longer than a run may", () => {
    assert.isTrue(
      Exit.isFailure(Effect.runSyncExit(
        Schema.decodeEffect(ControlLoopsConfig)({ podErrorAfter: "1m", scheduledErrorAfter: "1m" })
      ))
    )
  })
})

/** Objects that any run left. */
const leftovers = Effect.gen(function*() {
  const { kube } = yield* TestCluster
  const selection = { labelSelector: RUN_LABEL }
  const lists = yield* Effect.all([
    kube.list(Deployment, selection),
    kube.list(ReplicaSet, selection),
    kube.list(Pod, selection)
  ])
  return lists.flatMap(({ items }) => items.map(({ metadata }) => metadata.name))
})

/** How many objects of a kind a run made so far. */
const made = Effect.fnUntraced(function*(kind: "Deployment" | "Pod", runId: string) {
  const { kube } = yield* TestCluster
  const selection = { labelSelector: `${RUN_LABEL}=${runId}` }
  if (kind === "Pod") return (yield* kube.list(Pod, selection)).items.length
  return (yield* kube.list(Deployment, selection)).items.length
})

/** Collecting what belonged to a deleted Deployment takes the garbage collector a moment. */
const nothingLeft = eventually(leftovers, (names) => names.length === 0)

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Errors after two seconds instead of thirty. */
const strict = Probe.configure(controlLoops, { podErrorAfter: "2s", scheduledErrorAfter: "2s" })

const whilePaused = <A, E, R>(
  component: (components: { readonly controllerManager: Component; readonly scheduler: Component }) => Component,
  use: Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const { cluster } = yield* TestCluster
    const { pause, resume } = component(cluster.components)
    return yield* Effect.acquireUseRelease(pause, () => use, () => resume)
  })

const passes = Effect.gen(function*() {
  const { run } = yield* TestCluster
  yield* eventually(run(strict), (report) => verdict(report) === "PASS", { every: "500 millis" })
  yield* nothingLeft
})

describe("k8s.control.loops", () => {
  layer(TestCluster.layer({ name: "control-loops" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(controlLoops, "passes with its declared needs alone, and leaves nothing"),
        () =>
          Effect.gen(function*() {
            const { kube, run, userWith } = yield* TestCluster
            yield* eventually(run(controlLoops), (report) => verdict(report) === "PASS", { every: "500 millis" })
            const cost = Effect.gen(function*() {
              const requests = yield* kube.requests
              const report = yield* run(controlLoops)
              assert.strictEqual(verdict(report), "PASS", report.message)
              return (yield* kube.requests) - requests
            })
            // Two for the pre-flight, one for the deletion, and what the probe says it costs; more while a loop is late.
            yield* eventually(cost, (requests) => requests <= 14)
            for (const optional of [true, false]) {
              const minimal = yield* run(controlLoops, { as: yield* userWith(controlLoops.needs, { optional }) })
              assert.strictEqual(verdict(minimal), "PASS", minimal.message)
            }
            yield* nothingLeft
          })
      )

      it.effect("makes a pod that no node takes, which nothing is pulled for", () =>
        Effect.gen(function*() {
          const { cluster, kube } = yield* TestCluster
          yield* Effect.scoped(Effect.gen(function*() {
            yield* whilePaused(
              ({ scheduler }) => scheduler,
              Effect.gen(function*() {
                yield* ProbeProcess.start(cluster, controlLoops, {
                  runId: "watched",
                  namespace: PROBE_NAMESPACE,
                  expiresInMillis: 600_000
                })
                const { items: [pod] } = yield* eventually(
                  kube.list(Pod, { labelSelector: `${RUN_LABEL}=watched` }),
                  ({ items }) => items.length === 1
                )
                assert.isDefined(pod?.metadata.annotations?.["kubeprober.io/expires-at"])
                assert.isUndefined(pod?.spec.nodeName)
              })
            )
            yield* nothingLeft
          }))
        }))

      it.effect(
        blind(controlLoops, "ACCESS_MISSING", "is UNKNOWN with the rule that is missing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of controlLoops.needs.filter(({ optional }) => !optional)) {
              const as = yield* userWith(controlLoops.needs.filter((need) => need !== lacking))
              const report = yield* run(controlLoops, { as })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
            }
            assert.deepStrictEqual(yield* leftovers, [])
          })
      )

      blindToAll(it, controlLoops)

      it.effect(
        blind(controlLoops, "NAMESPACE_MISSING", "is UNKNOWN without its namespace"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            assert.strictEqual(verdict(yield* run(controlLoops, { namespace: "nowhere" })), "UNKNOWN NAMESPACE_MISSING")
          })
      )

      it.effect(
        blind(controlLoops, "NOT_ADMITTED", "is UNKNOWN where a quota forbids its Deployment or its pod"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run } = yield* TestCluster
            for (const resource of ["count/deployments.apps", "pods"]) {
              yield* apply({
                apiVersion: "v1",
                kind: "ResourceQuota",
                metadata: { name: "none", namespace: PROBE_NAMESPACE },
                spec: { hard: { [resource]: "0" } }
              })
              yield* eventually(run(strict), (report) => verdict(report) === "UNKNOWN NOT_ADMITTED", {
                every: "500 millis"
              })
              yield* kubectl("delete", "resourcequota", "none", "-n", PROBE_NAMESPACE)
            }
            yield* passes
          })
      )

      it.effect(
        fault(controlLoops, "REPLICA_SET_MISSING", "blames a controller manager that is stopped"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const report = yield* whilePaused(({ controllerManager }) => controllerManager, run(strict))
            assert.strictEqual(verdict(report), "ERROR REPLICA_SET_MISSING", report.message)
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), ["kube-controller-manager"])
            assert.match(report.message, /kube-controller-manager did not act; its lease was renewed .* ago/)
            yield* passes
          })
      )

      it.effect(
        fault(controlLoops, "NOT_SCHEDULED", "blames a scheduler that is stopped"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const report = yield* whilePaused(
              ({ scheduler }) => scheduler,
              run(Probe.configure(controlLoops, { podErrorAfter: "30s", scheduledErrorAfter: "2s" }))
            )
            assert.strictEqual(verdict(report), "ERROR NOT_SCHEDULED", report.message)
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), ["kube-scheduler"])
            yield* passes
          })
      )

      it.effect(fault(controlLoops, "LEASE_LOST", "tells of both when both are stopped"), () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          const report = yield* whilePaused(
            ({ controllerManager }) => controllerManager,
            whilePaused(
              ({ scheduler }) => scheduler,
              run(Probe.configure(controlLoops, { podErrorAfter: "5s", leaseWarnAfter: "3s", leaseErrorAfter: "3s" }))
            )
          )
          assert.deepStrictEqual(report.findings.map(({ code, subject }) => `${code} ${subject?.name}`), [
            "LEASE_LOST kube-scheduler",
            "REPLICA_SET_MISSING kube-controller-manager"
          ])
          yield* passes
        }))

      it.effect(
        fault(controlLoops, "POD_SLOW", "warns of a kube-controller-manager that halts for two seconds at a time"),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { controllerManager } }, kube, run } = yield* TestCluster
            // At each, so that a second look finds it as slow.
            const as = atEach(kube, "create Deployment", halts(controllerManager, "2 seconds"))
            const report = yield* run(Probe.configure(controlLoops, { podWarnAfter: "500ms" }), { as })
            assert.strictEqual(verdict(report), "WARN POD_SLOW", report.message)
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), ["kube-controller-manager"])
            yield* passes
          })
      )

      it.effect(
        fault(controlLoops, "SCHEDULING_SLOW", "warns of a kube-scheduler that halts for two seconds at a time"),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { scheduler } }, kube, run } = yield* TestCluster
            let made = ""
            const pausing = atEach(kube, "create Deployment", (send, { name }) => {
              made = name
              return Effect.andThen(scheduler.pause, send)
            })
            // Until two seconds after the probe has seen the pod, from when it counts.
            const as = atEach(pausing, "list Pod", (send) => {
              if (made === "") return send
              const pods = kube.list(Pod, { labelSelector: `kubeprober.io/control-loops=${made}` })
              made = ""
              return Effect.andThen(
                eventually(pods, ({ items }) => items.length > 0),
                halts(scheduler, "2 seconds")(send)
              )
            })
            const report = yield* run(
              Probe.configure(controlLoops, { podWarnAfter: "30s", scheduledWarnAfter: "500ms" }),
              { as }
            ).pipe(Effect.ensuring(scheduler.resume))
            assert.strictEqual(verdict(report), "WARN SCHEDULING_SLOW", report.message)
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), ["kube-scheduler"])
            yield* passes
          })
      )

      it.effect("leaves nothing when it is interrupted at any of its requests", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          // Pre-flight, create, ReplicaSets, pods, pods, two leases, delete; some ask again.
          for (let at = 1; at <= 7; at++) {
            assert.isTrue(
              Exit.isFailure(yield* interruptAt(kube, at, (as) => run(controlLoops, { as }))),
              `request ${at}`
            )
            yield* nothingLeft
          }
        }))

      it.effect(
        killed(controlLoops, "leaves, killed at any stage, what one sweep removes"),
        () =>
          Effect.gen(function*() {
            const { cluster } = yield* TestCluster
            // Stopped components hold a run up before it has its ReplicaSet, and before its pod is looked at.
            for (
              const [runId, component, reached] of [
                ["killed-early", cluster.components.controllerManager, "Deployment"],
                ["killed-late", cluster.components.scheduler, "Pod"]
              ] as const
            ) {
              yield* Effect.scoped(Effect.gen(function*() {
                yield* Effect.acquireRelease(component.pause, () => component.resume)
                const process = yield* ProbeProcess.start(cluster, controlLoops, {
                  runId,
                  namespace: PROBE_NAMESPACE,
                  expiresInMillis: 3_000
                })
                yield* eventually(
                  made(reached, runId),
                  (count) => count === 1,
                  { every: "20 millis" }
                )
                assert.isTrue(yield* process.kill)
              }))
              const swept = yield* eventually(Sweeper.sweep({}), (done) => done.length > 0)
              assert.include(swept.map(({ kind, run }) => `${kind} ${run}`), `Deployment ${runId}`)
              assert.isTrue(swept.every(({ error }) => error === undefined))
              yield* nothingLeft
            }
          })
      )
    }
  )

  layer(
    TestCluster.layer({
      name: "no-replica-sets",
      extraFlags: { "kube-controller-manager": ["--controllers=*,-replicaset-controller"] }
    }),
    { excludeTestServices: true, timeout: "120 seconds" }
  )("on a cluster whose ReplicaSets nobody follows", (it) => {
    it.effect(
      fault(controlLoops, "POD_MISSING", "blames the controller manager, of which one controller is off"),
      () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          const report = yield* eventually(run(strict), (report) => report.code === "POD_MISSING", {
            every: "500 millis"
          })
          assert.strictEqual(verdict(report), "ERROR POD_MISSING", report.message)
          assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), ["kube-controller-manager"])
          yield* nothingLeft
        })
    )
  })
})
