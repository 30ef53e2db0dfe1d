import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, DateTime, Duration, Effect, Option, Schema } from "effect"
import { Lease } from "../../src/infra/kube/resources/coordination.ts"
import { Node } from "../../src/infra/kube/resources/core.ts"
import type { LocalNode } from "../../src/local/node/LocalNode.ts"
import { NodeReadinessConfig, judge, nodeReadiness } from "../../src/probes/kubernetes/nodeReadiness.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as ServerTime from "../../src/probes/ServerTime.ts"
import { withKubeletConfig } from "../clusters/KubeletConfig.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const node = (name: string, options: {
  readonly ready?: readonly [status: string, since: Duration.Input]
  readonly created?: Duration.Input
  readonly deleted?: boolean
  readonly cordoned?: Duration.Input
  readonly taints?: ReadonlyArray<string>
  readonly conditions?: ReadonlyArray<string>
} = {}) => {
  const { created = "10 days", ready = ["True", "10 days"] } = options
  return Schema.decodeSync(Node.object)({
    metadata: {
      name,
      creationTimestamp: ago(created),
      ...(options.deleted === true ? { deletionTimestamp: ago("1 minute") } : {})
    },
    spec: {
      unschedulable: options.cordoned !== undefined,
      taints: [
        ...(options.taints ?? []).map((key) => ({ key, effect: "NoSchedule" })),
        ...(options.cordoned === undefined
          ? []
          : [{ key: "node.kubernetes.io/unschedulable", effect: "NoSchedule", timeAdded: ago(options.cordoned) }])
      ]
    },
    status: {
      conditions: [
        ...(ready === undefined ? [] : [{
          type: "Ready",
          status: ready[0],
          reason: "Reason",
          message: "why",
          lastTransitionTime: ago(ready[1])
        }]),
        ...(options.conditions ?? []).map((type) => ({ type, status: "True", message: "short" }))
      ]
    }
  })
}

const lease = (name: string, age: Duration.Input) =>
  Schema.decodeSync(Lease.object)({ metadata: { name }, spec: { renewTime: ago(age) } })

const says = (
  nodes: ReadonlyArray<Node>,
  options: { readonly leases?: ReadonlyArray<Lease>; readonly config?: typeof NodeReadinessConfig.Encoded } = {}
) =>
  judge(Schema.decodeSync(NodeReadinessConfig)(options.config ?? {}))({
    nodes,
    leases: options.leases ?? [],
    now: NOW,
    leaseNow: NOW
  }).findings.map(({ code, status, subject }) => [status, code, subject?.name].filter((text) => text).join(" "))

describe("judging nodes", () => {
  it("finds nothing to say of nodes that are Ready", () =>
    assert.deepStrictEqual(says([node("a"), node("b")], { leases: [lease("a", "9 seconds")] }), []))

  it("goes by how long a node is NotReady, whether it says so or is silent", () => {
    assert.deepStrictEqual(says([node("a", { ready: ["Unknown", "3 minutes"] }), node("b")]), [
      "ERROR NODE_NOT_READY a"
    ])
    assert.deepStrictEqual(says([node("a", { ready: ["False", "3 minutes"] }), node("b")]), ["ERROR NODE_NOT_READY a"])
    assert.deepStrictEqual(says([node("a", { ready: ["Unknown", "1 minute"] }), node("b")]), [
      "WARN NODE_NOT_READY_RECENTLY a"
    ])
  })

  it("does not soften what a stale lease showed when the node turns Unknown", () => {
    const leases = [lease("a", "50 seconds"), lease("b", "1 second")]
    assert.deepStrictEqual(says([node("a"), node("b")], { leases }), ["ERROR NODE_LEASE_STALE a"])
    assert.deepStrictEqual(says([node("a", { ready: ["Unknown", "1 second"] }), node("b")], { leases }), [
      "ERROR NODE_NOT_READY a"
    ])
  })

  it("lets nodes join and leave", () => {
    const joining = node("a", { ready: ["False", "20 seconds"], created: "20 seconds" })
    assert.deepStrictEqual(says([joining, node("b")]), ["INFO NODE_JOINING a"])
    const leaving = node("a", { ready: ["Unknown", "10 minutes"], deleted: true })
    assert.deepStrictEqual(says([leaving, node("b")]), ["INFO NODE_LEAVING a"])
  })

  it("lets a node join with its network and its agents' taints still to come, and no longer than that", () => {
    const cloud = ["node.cloudprovider.kubernetes.io/uninitialized", "node.cilium.io/agent-not-ready"]
    const joining = { ready: ["True", "5 seconds"], created: "30 seconds" } as const
    assert.deepStrictEqual(says([node("a", { ...joining, taints: cloud }), node("b")]), ["INFO NODE_JOINING a"])
    assert.deepStrictEqual(says([node("a", { ...joining, conditions: ["NetworkUnavailable"] }), node("b")]), [
      "INFO NODE_JOINING a"
    ])
    assert.deepStrictEqual(says([node("a", joining), node("b")]), [])
    assert.deepStrictEqual(
      says([node("a", { created: "3 minutes", taints: cloud, conditions: ["NetworkUnavailable"] }), node("b")]),
      ["WARN NODE_NETWORK_UNAVAILABLE a", "WARN NODE_TAINTED a", "WARN NODE_TAINTED a"]
    )
    assert.deepStrictEqual(says([node("a", { ...joining, conditions: ["DiskPressure"] }), node("b")]), [
      "WARN NODE_PRESSURE a"
    ])
  })

  it("lets an autoscaler take nodes away, and is alarmed when it does not come to an end", () => {
    for (const taint of ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"]) {
      const shutDown = [taint, "node.cloudprovider.kubernetes.io/shutdown"]
      const leaving = (since: Duration.Input) => node("a", { ready: ["Unknown", since], taints: shutDown })
      for (const since of ["1 second", "10 minutes"] as const) {
        assert.deepStrictEqual(says([leaving(since), node("b")], { leases: [lease("a", "11 minutes")] }), [
          "INFO NODE_LEAVING a"
        ])
      }
      assert.deepStrictEqual(says([leaving("40 minutes"), node("b")]), ["ERROR NODE_NOT_READY a"])
      const ready = node("a", { taints: [taint] })
      assert.deepStrictEqual(says([ready, node("b")], { leases: [lease("a", "50 seconds")] }), ["INFO NODE_LEAVING a"])
      assert.deepStrictEqual(says([ready, node("b")], { leases: [lease("a", "1 hour")] }), ["ERROR NODE_LEASE_STALE a"])
    }
  })

  it("knows the taints of virtual nodes", () =>
    assert.deepStrictEqual(
      says([
        node("a", { taints: ["virtual-kubelet.io/provider"] }),
        node("b", { taints: ["eks.amazonaws.com/compute-type"] }),
        node("c", { taints: ["virtual-node.liqo.io/not-allowed"] })
      ]),
      []
    ))

  it("tells a cordon from a forgotten one", () => {
    assert.deepStrictEqual(says([node("a", { cordoned: "1 hour" }), node("b")]), ["INFO NODE_CORDONED a"])
    assert.deepStrictEqual(says([node("a", { cordoned: "2 days" }), node("b")]), ["WARN NODE_CORDONED_LONG a"])
  })

  it("needs most workers to take pods, but lets one out for maintenance", () => {
    const cordoned = (name: string, since: Duration.Input = "2 days") => node(name, { cordoned: since })
    const few = (nodes: ReadonlyArray<Node>) => says(nodes).filter((text) => text.includes("FEW"))
    const ten = ["c", "d", "e", "f", "g", "h", "i", "j"].map((name) => node(name))
    assert.deepStrictEqual(few([cordoned("a"), node("b")]), [])
    assert.deepStrictEqual(few([cordoned("a")]), ["ERROR FEW_NODES_SCHEDULABLE"])
    assert.deepStrictEqual(few([cordoned("a"), cordoned("b"), ...ten]), [])
    assert.deepStrictEqual(few([cordoned("a"), cordoned("b"), cordoned("z"), ...ten]), ["ERROR FEW_NODES_SCHEDULABLE"])
    // Control planes do not count among workers, unless there is nothing else.
    const controlPlane = node("cp", { taints: ["node-role.kubernetes.io/control-plane"] })
    assert.deepStrictEqual(few([cordoned("a"), controlPlane]), ["ERROR FEW_NODES_SCHEDULABLE"])
    assert.deepStrictEqual(says([controlPlane]), [])
    // Blue nodes, cordoned for green ones, are maintenance; when nothing else takes pods they are told all the same.
    const blue = ["a", "b", "c", "d"].map((name) => cordoned(name, "1 hour"))
    const green = ["e", "f", "g", "h"].map((name) => node(name))
    const dead = (name: string) => node(name, { ready: ["Unknown", "1 hour"] })
    const leaving = node("z", { taints: ["ToBeDeletedByClusterAutoscaler"] })
    assert.deepStrictEqual(says([...blue, ...green]), blue.map(({ metadata }) => `INFO NODE_CORDONED ${metadata.name}`))
    assert.deepStrictEqual(few(blue), ["ERROR FEW_NODES_SCHEDULABLE"])
    assert.deepStrictEqual(few([...blue, leaving]), ["ERROR FEW_NODES_SCHEDULABLE"])
    assert.deepStrictEqual(few([...blue, dead("e"), dead("f"), node("g")]), ["ERROR FEW_NODES_SCHEDULABLE"])
    assert.deepStrictEqual(few([leaving]), [])
    assert.deepStrictEqual(few([leaving, dead("b")]), ["ERROR FEW_NODES_SCHEDULABLE"])
  })

  it("names the nodes that take no pods, a few of each cause", () => {
    const cordoned = ["a", "b", "c", "d", "e", "f"].map((name) => node(name, { cordoned: "2 days" }))
    const dead = node("z", { ready: ["Unknown", "1 hour"], cordoned: "2 days" })
    const config = Schema.decodeSync(NodeReadinessConfig)({})
    const { findings } = judge(config)({ nodes: [...cordoned, dead, node("y")], leases: [], now: NOW, leaseNow: NOW })
    assert.deepStrictEqual(
      findings.filter(({ code }) => code === "FEW_NODES_SCHEDULABLE").map(({ message }) => message),
      ["1 of 8 worker nodes take pods (12 %, at least 80 % expected); cordoned: a, b, c, d, e, ...; not ready: z"]
    )
  })

  it("names pressures, missing networks and unexpected taints, each taint once", () => {
    assert.deepStrictEqual(says([node("a", { conditions: ["DiskPressure", "NetworkUnavailable", "Custom"] })]), [
      "WARN NODE_PRESSURE a",
      "WARN NODE_NETWORK_UNAVAILABLE a"
    ])
    const tainted = [
      node("a", { taints: ["example.com/maintenance", "node.kubernetes.io/disk-pressure"] }),
      node("b", { taints: ["example.com/maintenance", "nvidia.com/gpu"] })
    ]
    assert.deepStrictEqual(says(tainted), ["WARN NODE_TAINTED a"])
    assert.deepStrictEqual(says(tainted, { config: { expectedTaints: ["example.com/*", "nvidia.com/gpu"] } }), [])
  })

  it("mentions that there is no node, and is alarmed when there should be", () => {
    assert.deepStrictEqual(says([]), ["INFO NO_NODES"])
    assert.deepStrictEqual(says([], { config: { minNodes: 1 } }), ["ERROR TOO_FEW_NODES"])
    assert.deepStrictEqual(says([node("a")], { config: { minNodes: 2 } }), ["ERROR TOO_FEW_NODES"])
  })
})

describe("the cluster's time", () => {
  it("is ours, unless a server's last sign of life contradicts it", () => {
    const at = (seconds: number) => DateTime.add(NOW, { seconds })
    assert.deepStrictEqual(ServerTime.correct(at(8), NOW), at(8))
    assert.deepStrictEqual(ServerTime.correct(at(-60), NOW), NOW)
    assert.deepStrictEqual(ServerTime.correct(at(600), NOW), at(15))
  })

  it("is what most API servers say, and ours where one of them agrees with us against another", () => {
    const at = (seconds: number) => DateTime.add(NOW, { seconds })
    const agreed = (ours: number, ...renewals: ReadonlyArray<number>) =>
      Option.getOrUndefined(Option.map(
        ServerTime.agreed(
          at(ours),
          renewals.map((seconds) => lease(`apiserver-${seconds}`, Duration.seconds(-seconds)))
        ),
        (time) => Duration.toSeconds(DateTime.distance(NOW, time))
      ))
    assert.isUndefined(agreed(0))
    // One is minutes ahead, or behind.
    assert.strictEqual(agreed(8, 0, 5, 300), 8)
    assert.strictEqual(agreed(8, 5, 300), 8)
    assert.strictEqual(agreed(8, 5, -300), 8)
    // Ours is wrong, and one of theirs beside it.
    assert.strictEqual(agreed(600, 0, 5, 300), 20)
    assert.strictEqual(agreed(-600, 0, 5, 300), 5)
    assert.strictEqual(agreed(308, 0, 5, 300), 20)
    assert.strictEqual(agreed(308, 0, 300, 305), 308)
    // A single API server is right by definition.
    assert.strictEqual(agreed(0, 300), 300)
    assert.strictEqual(agreed(0, -300), -285)
    // Leases of servers that are gone say nothing beside one that lives.
    assert.strictEqual(agreed(600, 0, -1200, -2400), 15)
    assert.strictEqual(agreed(-600, 0, -1200), 0)
  })
})

/** Our clock, wrong by so much; time passes as ever. */
const withClockOff = (millis: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Clock.clockWith((clock) => {
    const nanos = BigInt(millis) * 1_000_000n
    return Effect.provideService(effect, Clock.Clock, {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
      currentTimeNanos: Effect.map(clock.currentTimeNanos, (now) => now + nanos),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => clock.sleep(duration)
    })
  })

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

const until = (wanted: string, config: typeof NodeReadinessConfig.Encoded = {}) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) =>
      eventually(run(Probe.configure(nodeReadiness, config)), (report) => verdict(report) === wanted, {
        every: "300 millis"
      })
  )

const second: Effect.Effect<LocalNode, never, TestCluster> = Effect.map(TestCluster, ({ cluster }) => {
  const found = cluster.nodes[1]
  if (found === undefined) throw new Error("the cluster has two nodes")
  return found
})

/** Nodes of the test cluster renew their leases each second, and count as lost after 6. */
const strict = { notReadyAfter: "1s", leaseAge: "4s" }

/** Nodes of the test cluster have joined a moment ago. */
const joined = { notReadyAfter: "1s" }

describe("k8s.node.readiness", () => {
  layer(TestCluster.layer({ name: "readiness", nodes: 2 }), { excludeTestServices: true, timeout: "180 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(nodeReadiness, "passes with no rights but to read, so it creates nothing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            assert.isTrue(
              nodeReadiness.needs.every((need) => need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb))
            )
            for (const optional of [true, false]) {
              const report = yield* run(nodeReadiness, { as: yield* userWith(nodeReadiness.needs, { optional }) })
              assert.strictEqual(verdict(report), "PASS", report.message)
              assert.include(report.message, "2 of 2 nodes")
            }
          })
      )

      it.effect(
        blind(nodeReadiness, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have, and names it"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of nodeReadiness.needs.filter((need) => !need.optional)) {
              const as = yield* userWith(nodeReadiness.needs.filter((need) => need !== lacking))
              const report = yield* run(nodeReadiness, { as })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      it.effect("is not misled by a clock of ours that is minutes off", () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          const withoutServerTime = yield* userWith(nodeReadiness.needs, { optional: false })
          for (const millis of [600_000, -600_000]) {
            assert.strictEqual(verdict(yield* withClockOff(millis)(run(nodeReadiness))), "PASS")
            assert.strictEqual(
              verdict(yield* withClockOff(millis)(run(nodeReadiness, { as: withoutServerTime }))),
              "PASS"
            )
          }
        }))

      it.effect(
        faults(
          nodeReadiness,
          "sees a node whose kubelet is dead, and that it is back",
          "NODE_NOT_READY",
          "NODE_NOT_READY_RECENTLY"
        ),
        () =>
          Effect.gen(function*() {
            const { kubelet, name } = yield* second
            yield* kubelet.kill
            const lost = yield* until("ERROR NODE_NOT_READY", strict)
            assert.include(lost.message, `node ${name} is NotReady`)
            assert.include(lost.message, "Kubelet stopped posting node status")
            assert.deepStrictEqual(lost.findings[0]?.subject, { kind: "Node", name })
            yield* until("WARN NODE_NOT_READY_RECENTLY")
            yield* kubelet.start
            yield* until("PASS", strict)
          })
      )

      it.effect(
        fault(
          nodeReadiness,
          "NODE_LEASE_STALE",
          "sees a dead kubelet even when the controller that should notice is silent"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { controllerManager } } } = yield* TestCluster
            const { kubelet, name } = yield* second
            const stale = yield* Effect.acquireUseRelease(
              controllerManager.pause,
              () => Effect.andThen(kubelet.kill, until("ERROR NODE_LEASE_STALE", strict)),
              () => controllerManager.resume
            )
            assert.include(stale.message, `node ${name} counts as Ready`)
            yield* Effect.orDie(kubelet.start)
            yield* until("PASS", strict)
          })
      )

      it.effect(
        fault(nodeReadiness, "NODE_PRESSURE", "sees a node that has less memory than its kubelet is to keep"),
        () =>
          Effect.gen(function*() {
            const node = yield* second
            // A soft limit with an hour's grace: the pressure is told, and nothing is evicted meanwhile.
            const soft = { "memory.available": "1Pi" }
            yield* Effect.gen(function*() {
              const pressed = yield* until("WARN NODE_PRESSURE", { ...strict, expectedTaints: ["*"] })
              assert.include(pressed.message, `node ${node.name} is short of memory`)
              assert.deepStrictEqual(pressed.findings[0]?.subject, { kind: "Node", name: node.name })
            }).pipe(withKubeletConfig(node, {
              evictionSoft: soft,
              evictionSoftGracePeriod: { "memory.available": "1h" }
            }))
            yield* until("PASS", strict)
          })
      )

      it.effect(
        faults(
          nodeReadiness,
          "sees cordons, and that nothing takes pods any more",
          "NODE_CORDONED_LONG",
          "FEW_NODES_SCHEDULABLE"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kubectl } = yield* TestCluster
            const { name } = yield* second
            yield* kubectl("cordon", name)
            const cordoned = yield* until("INFO NODE_CORDONED")
            assert.include(cordoned.message, `node ${name} is cordoned`)
            const long = yield* until("WARN NODE_CORDONED_LONG", { cordonWarnAfter: "1ms" })
            assert.deepStrictEqual(long.findings[0]?.subject, { kind: "Node", name })
            yield* kubectl("cordon", ...cluster.nodes.map((node) => node.name))
            const none = yield* until("ERROR FEW_NODES_SCHEDULABLE")
            assert.include(none.message, "0 of 2 worker nodes")
            assert.include(none.message, "cordoned: ")
            yield* kubectl("uncordon", ...cluster.nodes.map((node) => node.name))
            yield* until("PASS")
          })
      )

      it.effect(fault(nodeReadiness, "NODE_TAINTED", "sees a taint that nobody expects"), () =>
        Effect.gen(function*() {
          const { kubectl } = yield* TestCluster
          const { name } = yield* second
          yield* kubectl("taint", "nodes", name, "example.com/maintenance=now:NoSchedule")
          const tainted = yield* until("WARN NODE_TAINTED", joined)
          assert.include(tainted.message, `node ${name} has the unexpected taint example.com/maintenance:NoSchedule`)
          yield* until("PASS", { expectedTaints: ["example.com/*"] })
          yield* kubectl("taint", "nodes", name, "example.com/maintenance-")
          yield* until("PASS")
        }))

      it.effect(
        fault(nodeReadiness, "NODE_NETWORK_UNAVAILABLE", "sees a node whose network plugin says that it is not set up"),
        () =>
          Effect.gen(function*() {
            const { kubectl } = yield* TestCluster
            const { name } = yield* second
            // As network plugins and cloud controllers say it.
            const say = (status: "True" | "False") =>
              kubectl(
                "patch",
                "node",
                name,
                "--subresource=status",
                "--patch",
                JSON.stringify({
                  status: {
                    conditions: [{
                      type: "NetworkUnavailable",
                      status,
                      reason: "Test",
                      message: "no routes",
                      lastHeartbeatTime: "2026-01-01T00:00:00Z",
                      lastTransitionTime: "2026-01-01T00:00:00Z"
                    }]
                  }
                })
              )
            yield* say("True")
            const without = yield* until("WARN NODE_NETWORK_UNAVAILABLE", joined)
            assert.deepStrictEqual(without.findings[0]?.subject, { kind: "Node", name })
            yield* say("False")
            yield* until("PASS")
          })
      )

      it.effect(
        fault(nodeReadiness, "TOO_FEW_NODES", "misses nodes that should be there, until they join"),
        () =>
          Effect.gen(function*() {
            const { kube, kubectl } = yield* TestCluster
            const few = yield* until("ERROR TOO_FEW_NODES", { minNodes: 3 })
            assert.include(few.message, "2")
            yield* kube.create(Node, { metadata: { name: "third" } })
            yield* until("INFO NODE_JOINING", { minNodes: 3 })
            yield* kubectl("delete", "node", "third")
            yield* until("PASS")
          })
      )
    }
  )
})

describe("k8s.node.readiness of a control plane alone", () => {
  layer(TestCluster.layer({ name: "nodeless" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect("mentions that there is no node", () => until("INFO NO_NODES"))
    }
  )
})
