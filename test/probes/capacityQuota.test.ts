import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { Node, ResourceQuota } from "../../src/infra/kube/resources/core.ts"
import { PodRequests } from "../../src/infra/kube/resources/pods.ts"
import { CapacityQuotaConfig, capacityQuota, judge, requestsOf } from "../../src/probes/kubernetes/capacityQuota.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const quota = (hard: Record<string, string>, used: Record<string, string>, age: Duration.Input = "1 day") =>
  Schema.decodeUnknownSync(ResourceQuota.object)({
    metadata: { name: "limits", namespace: "shop", creationTimestamp: ago(age) },
    spec: { hard },
    status: Object.keys(used).length === 0 ? {} : { hard, used }
  })

const node = (
  name: string,
  allocatable: Record<string, string>,
  options: {
    readonly ready?: boolean
    readonly taint?: string
    readonly labels?: Readonly<Record<string, string>>
  } = {}
) =>
  Schema.decodeUnknownSync(Node.object)({
    metadata: { name, labels: options.labels ?? {} },
    spec: { taints: options.taint === undefined ? [] : [{ key: options.taint, effect: "NoSchedule" }] },
    status: {
      allocatable: { pods: "110", cpu: "4", memory: "8Gi", ...allocatable },
      conditions: [{ type: "Ready", status: options.ready === false ? "False" : "True" }]
    }
  })

const podOf = (spec: object, metadata: object = {}, phase = "Running") =>
  Schema.decodeUnknownSync(PodRequests.object)({ metadata: { name: "a", ...metadata }, spec, status: { phase } })

const pod = (
  nodeName: string,
  requests: Record<string, string>,
  options: { readonly owner?: string; readonly phase?: string } = {}
) =>
  podOf(
    { nodeName, containers: [{ resources: { requests } }] },
    options.owner === undefined
      ? {}
      : { ownerReferences: [{ apiVersion: "apps/v1", kind: options.owner, name: "x", uid: "1", controller: true }] },
    options.phase
  )

const says = (
  seen: Partial<Omit<Parameters<ReturnType<typeof judge>>[0], "now">>,
  config: typeof CapacityQuotaConfig.Encoded = {}
) =>
  judge(Schema.decodeSync(CapacityQuotaConfig)(config))({ quotas: [], nodes: [], pods: [], ...seen, now: NOW }).findings
    .map(({ code, status, subject }) => `${status} ${code} ${subject?.name ?? ""}`.trim())

const quotaSays = (...quotas: ReadonlyArray<ResourceQuota>) => says({ quotas, nodes: [node("a", {}), node("b", {})] })

describe("judging quotas", () => {
  it("goes by the share that is used of each resource", () => {
    assert.deepStrictEqual(quotaSays(quota({ pods: "10" }, { pods: "8" })), [])
    assert.deepStrictEqual(
      quotaSays(quota({ pods: "10", "requests.cpu": "1" }, { pods: "9", "requests.cpu": "1000m" })),
      [
        "WARN QUOTA_NEAR limits",
        "ERROR QUOTA_FULL limits"
      ]
    )
    assert.deepStrictEqual(quotaSays(quota({ "limits.memory": "1Gi" }, { "limits.memory": "1025Mi" })), [
      "ERROR QUOTA_FULL limits"
    ])
  })

  it("takes a limit of zero for a ban, and a use that is not counted for what it is", () => {
    assert.deepStrictEqual(quotaSays(quota({ "services.loadbalancers": "0" }, { "services.loadbalancers": "0" })), [])
    assert.deepStrictEqual(quotaSays(quota({ pods: "1" }, {}, "1 minute")), [])
    assert.deepStrictEqual(quotaSays(quota({ pods: "1" }, {})), ["WARN QUOTA_NOT_COUNTED limits"])
  })

  it("leaves out what is full on purpose", () => {
    const quotas = [quota({ pods: "1" }, { pods: "1" })]
    assert.deepStrictEqual(says({ quotas, nodes: [node("a", {}), node("b", {})] }, { exclude: ["shop/limits"] }), [])
  })
})

describe("judging room on nodes", () => {
  it("adds up what the scheduler does", () => {
    const requests = (cpu: string) => ({ resources: { requests: { cpu } } })
    const cpuOf = (spec: object) => requestsOf(podOf(spec)).cpu
    assert.strictEqual(cpuOf({ containers: [requests("1"), requests("2")] }), 3)
    assert.strictEqual(cpuOf({ containers: [requests("1")], initContainers: [requests("4"), requests("2")] }), 4)
    const sidecar = { ...requests("1"), restartPolicy: "Always" }
    assert.strictEqual(cpuOf({ containers: [requests("2")], initContainers: [sidecar] }), 3)
    assert.strictEqual(cpuOf({ containers: [requests("1")], initContainers: [sidecar, requests("4")] }), 5)
    assert.strictEqual(cpuOf({ containers: [requests("1")], initContainers: [requests("4"), sidecar] }), 4)
    assert.strictEqual(cpuOf({ containers: [requests("1")], overhead: { cpu: "250m" } }), 1.25)
    assert.strictEqual(cpuOf({ containers: [requests("1")], resources: { requests: { cpu: "3" } } }), 3)
  })

  it("asks whether the rest could take over from any one node", () => {
    const nodes = [node("a", {}), node("b", {})]
    const three = (name: string) => pod(name, { cpu: "3" })
    assert.deepStrictEqual(says({ nodes, pods: [three("a")] }), [])
    assert.deepStrictEqual(says({ nodes, pods: [three("a"), pod("b", { cpu: "2" })] }), ["WARN NO_NODE_HEADROOM b"])
    assert.deepStrictEqual(says({ nodes, pods: [pod("a", { cpu: "3" }, { owner: "DaemonSet" }), three("b")] }), [
      "WARN NO_NODE_HEADROOM b"
    ])
    assert.deepStrictEqual(says({ nodes, pods: [pod("a", { cpu: "4" }, { phase: "Succeeded" }), three("b")] }), [])
    assert.deepStrictEqual(says({ nodes: [node("a", {})], pods: [three("a")] }), ["INFO ONE_NODE a"])
    const apart = [node("a", {}), node("cp", {}, { taint: "node-role.kubernetes.io/control-plane" })]
    assert.deepStrictEqual(says({ nodes: apart }), ["INFO ONE_NODE a"])
    assert.deepStrictEqual(says({ nodes: [node("a", {}, { ready: false })] }), ["INFO NO_OPEN_NODE"])
    assert.deepStrictEqual(says({}), ["INFO NOT_APPLICABLE"])
  })

  it("counts pods against what a node may have", () => {
    const nodes = [node("a", { pods: "2" }), node("b", {}), node("c", {})]
    const two = [pod("a", {}), pod("a", {})]
    assert.deepStrictEqual(says({ nodes, pods: two }), ["WARN NODE_PODS_NEAR a"])
    assert.deepStrictEqual(says({ nodes, pods: [pod("a", {}), pod("a", {}, { phase: "Failed" })] }), [])
    assert.deepStrictEqual(says({ nodes: [node("a", { pods: "2" })], pods: two }), [
      "ERROR NO_ROOM_FOR_PODS a",
      "WARN NODE_PODS_NEAR a",
      "INFO ONE_NODE a"
    ])
  })

  it("finds nothing in a virtual node that is full of the one pod it was made for", () => {
    const fargate = node("fargate", { pods: "1" }, {
      taint: "eks.amazonaws.com/compute-type",
      labels: { "eks.amazonaws.com/compute-type": "fargate" }
    })
    const aci = node("aci", { pods: "1" }, { labels: { type: "virtual-kubelet" } })
    const pods = [pod("fargate", {}), pod("aci", {})]
    assert.deepStrictEqual(says({ nodes: [fargate, aci, node("a", {}), node("b", {})], pods }), [])
    assert.deepStrictEqual(says({ nodes: [fargate], pods }), ["INFO NO_OPEN_NODE"])
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

const until = (wanted: string, check: Probe.AnyProbe | Probe.Check = capacityQuota) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) =>
      eventually(run(check), (report) => verdict(report) === wanted, { every: "300 millis", within: "90 seconds" })
  )

const yamlNode = (name: string) => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name, labels: { "kubernetes.io/hostname": name } }
})

/** As a kubelet would: Ready, with room for so much. */
const readied = (name: string, allocatable: Record<string, string>) =>
  Effect.flatMap(TestCluster, ({ kubectl }) =>
    kubectl(
      "patch",
      `node/${name}`,
      "--subresource=status",
      "--type=merge",
      `--patch=${
        JSON.stringify({
          status: {
            allocatable,
            capacity: allocatable,
            conditions: [{
              type: "Ready",
              status: "True",
              reason: "KubeletReady",
              lastHeartbeatTime: "2026-01-01T00:00:00Z"
            }]
          }
        })
      }`
    ))

const yamlPod = (name: string, options: { readonly cpu?: string; readonly nodeName?: string } = {}) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "default" },
  spec: {
    ...(options.nodeName === undefined ? {} : { nodeName: options.nodeName }),
    containers: [{ name: "main", image: "none", resources: { requests: { cpu: options.cpu ?? "0" } } }]
  }
})

/** Pods that the scheduler has given a node. */
const placed = Effect.flatMap(TestCluster, ({ kubectl }) =>
  Effect.map(
    kubectl("get", "pods", "-n", "default", "-o", "jsonpath={.items[*].spec.nodeName}"),
    (text) => text.split(" ").filter((name) => name !== "").length
  ))

const gone = (...names: ReadonlyArray<string>) =>
  Effect.flatMap(
    TestCluster,
    ({ kubectl }) =>
      kubectl("delete", "-n", "default", "--force", "--grace-period=0", ...names.map((name) => `pod/${name}`))
  )

const ROOM = { pods: "3", cpu: "4", memory: "8Gi" }

/** Created nodes have no kubelet that would go on telling that it lives. */
const CLUSTER = TestCluster.layer({
  name: "capacity",
  extraFlags: {
    "kube-controller-manager": ["--node-monitor-grace-period=1h", "--node-startup-grace-period=1h"]
  }
})

describe("k8s.capacity.quota", () => {
  layer(CLUSTER, { excludeTestServices: true, timeout: "120 seconds" })("on a real server", (it) => {
    it.effect(
      healthy(capacityQuota, "passes where there is room, with no rights but to read"),
      () =>
        Effect.gen(function*() {
          const { apply, run, userWith } = yield* TestCluster
          assert.isTrue(
            capacityQuota.needs.every((need) => need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb))
          )
          yield* until("INFO NOT_APPLICABLE")
          yield* apply(yamlNode("a"))
          yield* readied("a", ROOM)
          yield* until("INFO ONE_NODE")
          yield* apply(yamlNode("b"))
          yield* readied("b", ROOM)
          yield* until("PASS")
          for (const optional of [true, false]) {
            const report = yield* run(capacityQuota, { as: yield* userWith(capacityQuota.needs, { optional }) })
            assert.strictEqual(verdict(report), "PASS", report.message)
          }
        })
    )

    it.effect(
      blind(capacityQuota, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have"),
      () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          for (const lacking of capacityQuota.needs.filter(({ optional }) => !optional)) {
            const report = yield* run(capacityQuota, {
              as: yield* userWith(capacityQuota.needs.filter((need) => need !== lacking))
            })
            assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
            assert.include(report.message, Needs.describe(lacking))
          }
        })
    )

    blindToAll(it, capacityQuota)

    it.effect(
      faults(capacityQuota, "sees a quota fill up, as the API server does", "QUOTA_FULL", "QUOTA_NEAR"),
      () =>
        Effect.gen(function*() {
          const { apply, cluster, kubectl } = yield* TestCluster
          yield* kubectl("create", "namespace", "tenant")
          const limited = (hard: Record<string, string>) =>
            apply({
              apiVersion: "v1",
              kind: "ResourceQuota",
              metadata: { name: "limits", namespace: "tenant" },
              spec: { hard }
            })
          yield* limited({ "count/secrets": "10", "services.loadbalancers": "0" })
          yield* Effect.forEach(
            Array.from({ length: 9 }, (_, index) => `s${index}`),
            (name) =>
              eventually(
                Effect.isSuccess(cluster.kubectl(["create", "secret", "generic", name, "-n", "tenant"])),
                (done) => done
              )
          )
          const near = yield* until("WARN QUOTA_NEAR")
          assert.include(near.message, "ResourceQuota tenant/limits: 9 of 10 count/secrets are used (90 %)")
          yield* kubectl("create", "secret", "generic", "s9", "-n", "tenant")
          const full = yield* until("ERROR QUOTA_FULL")
          assert.deepStrictEqual(full.findings[0]?.subject, {
            kind: "ResourceQuota",
            name: "limits",
            namespace: "tenant"
          })
          assert.isFalse(
            yield* Effect.isSuccess(cluster.kubectl(["create", "secret", "generic", "s10", "-n", "tenant"]))
          )
          yield* kubectl("delete", "-n", "tenant", "secret/s9", "secret/s8", "secret/s7")
          yield* until("PASS")
        }),
      240_000
    )

    it.effect(
      fault(capacityQuota, "QUOTA_NOT_COUNTED", "sees a quota that a stopped controller manager does not count"),
      () =>
        Effect.gen(function*() {
          const { apply, cluster: { components: { controllerManager } }, kubectl } = yield* TestCluster
          const strict = Probe.configure(capacityQuota, { countedWithin: "1s" })
          yield* Effect.acquireUseRelease(
            controllerManager.pause,
            () =>
              Effect.andThen(
                apply({
                  apiVersion: "v1",
                  kind: "ResourceQuota",
                  metadata: { name: "uncounted", namespace: "tenant" },
                  spec: { hard: { pods: "5" } }
                }),
                until("WARN QUOTA_NOT_COUNTED", strict)
              ),
            () => controllerManager.resume
          )
          // A controller manager that was halted for long has lost its lease and starts anew.
          yield* until("PASS", strict)
          yield* kubectl("delete", "-n", "tenant", "resourcequota/uncounted")
        }),
      240_000
    )

    it.effect(
      fault(capacityQuota, "NO_NODE_HEADROOM", "sees that the pods of a lost node would not fit on the rest"),
      () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          yield* apply(yamlPod("one", { cpu: "3" }), yamlPod("two", { cpu: "3" }))
          const report = yield* until("WARN NO_NODE_HEADROOM")
          assert.match(
            report.message,
            /were node [ab] lost, its pods would need 3 cpu, and the other node has 1 cpu free/
          )
          assert.strictEqual(report.findings[0]?.subject?.kind, "Node")
          yield* gone("two")
          yield* until("PASS")
          yield* gone("one")
        })
    )

    it.effect(
      fault(
        capacityQuota,
        "NODE_PODS_NEAR",
        fault(capacityQuota, "NO_ROOM_FOR_PODS", "sees nodes fill up with pods, until the scheduler finds no place")
      ),
      () =>
        Effect.gen(function*() {
          const { apply } = yield* TestCluster
          yield* apply(...["p1", "p2", "p3"].map((name) => yamlPod(name, { nodeName: "a" })))
          const near = yield* eventually(
            Effect.flatMap(TestCluster, ({ run }) => run(capacityQuota)),
            ({ findings }) => findings.some(({ code }) => code === "NODE_PODS_NEAR")
          )
          assert.deepStrictEqual(
            near.findings.filter(({ code }) => code === "NODE_PODS_NEAR").map(({ subject }) => subject?.name),
            ["a"]
          )
          assert.strictEqual(near.status, "WARN")
          yield* apply(...["p4", "p5", "p6", "p7"].map((name) => yamlPod(name)))
          const full = yield* until("ERROR NO_ROOM_FOR_PODS")
          assert.include(full.message, "all 2 nodes that take any pod have as many as they may: a 3, b 3")
          assert.strictEqual(yield* placed, 6)
          yield* gone("p1", "p2", "p3", "p4", "p5", "p6", "p7")
          yield* until("PASS")
        }),
      240_000
    )
  })
})
