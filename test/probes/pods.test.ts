/**
 * Probes that work in pods, and worker pods themselves, on one cluster with two nodes. Its timings are Kubernetes' own: a
 * node whose kubelet is gone stays Ready for 50 seconds, in which a sweep must see it.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted, Schedule, Schema } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { seal } from "../../src/agent/workers/seal.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Deployment, ReplicaSet } from "../../src/infra/kube/resources/apps.ts"
import { Node, Pod } from "../../src/infra/kube/resources/core.ts"
import { COREDNS_IMAGE, PAUSE_IMAGE } from "../../src/local/image/Images.ts"
import { diskLatency } from "../../src/probes/infrastructure/diskLatency.ts"
import { apiFromPod, judge as judgeApi } from "../../src/probes/kubernetes/apiFromPod.ts"
import { type Swept, judge as judgeSweep, nodeSweep } from "../../src/probes/kubernetes/nodeSweep.ts"
import { judge as judgeLife, manifest, workloadLifecycle } from "../../src/probes/kubernetes/workloadLifecycle.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { imagePullOf } from "../../src/probes/workers/imagePull.ts"
import { isNoSuchImage, sight } from "../../src/probes/workers/podStage.ts"
import { diskCommits } from "../../src/probes/workers/tasks/diskCommits.ts"
import { type WorkerFault, type WorkerImage, Workers, needs as workerNeeds } from "../../src/probes/workers/Workers.ts"
import * as Kills from "../clusters/Kills.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { WORKER_IMAGE, workerImage } from "../clusters/workerImage.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"

describe("judging a sweep", () => {
  const config = { slow: Duration.seconds(30), goneWithin: Duration.seconds(60) }
  const ran = (node: string, seconds = 2, gone = true): Swept => ({
    _tag: "Ran",
    node,
    took: Duration.seconds(seconds),
    gone
  })
  const failed = (node: string, stage: WorkerFault["stage"], detail = "why", goesOn = false): Swept => ({
    _tag: "Failed",
    node,
    stage,
    detail,
    pull: { took: Duration.zero, goesOn }
  })
  const says = (
    swept: ReadonlyArray<Swept>,
    present = ["a", "b", "c", "d"],
    architectures: Readonly<Record<string, string>> = {}
  ) =>
    judgeSweep(config, swept, new Set(present), undefined, new Map(Object.entries(architectures))).map((
      { code, subject }
    ) => `${code} ${subject?.name ?? "-"}`)

  it("names each node that fails, after its stage", () => {
    assert.deepStrictEqual(says([ran("a"), ran("b", 31)]), ["SLOW b"])
    assert.deepStrictEqual(says([ran("a"), ran("b", 2, false)]), ["TERMINATING_STUCK b"])
    assert.deepStrictEqual(says([ran("a"), failed("b", "NotStarted")]), ["NOT_STARTED b"])
    assert.deepStrictEqual(says([ran("a"), failed("b", "NotStarted", "why", true)]), ["IMAGE_PULL_SLOW b"])
    assert.deepStrictEqual(says([ran("a"), failed("b", "Crash")]), ["CRASHED b"])
    assert.deepStrictEqual(says([ran("a"), failed("b", "Unscheduled", "1 node(s) had volume limits")]), [
      "UNSCHEDULABLE b"
    ])
    assert.deepStrictEqual(says([ran("a"), failed("b", "Unscheduled", "1 Too many pods")]), ["NODE_FULL b"])
    assert.deepStrictEqual(says([ran("a"), failed("b", "Evicted")]), ["WORKER_FAILED -"])
  })

  it("leaves a node that went away meanwhile to k8s.node.readiness", () =>
    assert.deepStrictEqual(says([ran("a"), failed("b", "NotTakenUp")], ["a"]), ["NODE_LEFT b"]))

  it("blames the image where it fits no node of one architecture, and nodes where it fits some", () => {
    const mixed = { a: "amd64", b: "amd64", c: "arm64", d: "arm64" }
    const arm = (...failing: ReadonlyArray<Swept>) => says([ran("a"), ran("b"), ...failing], undefined, mixed)
    assert.deepStrictEqual(arm(failed("c", "ImagePull"), failed("d", "ImagePull")), ["IMAGE_UNFIT -"])
    assert.deepStrictEqual(arm(failed("c", "Crash"), failed("d", "Crash")), ["IMAGE_UNFIT -"])
    assert.deepStrictEqual(arm(failed("c", "ImagePull"), ran("d")), ["IMAGE_PULL_FAILED c"])
    assert.deepStrictEqual(arm(failed("c", "ImagePull")), ["IMAGE_PULL_FAILED c"])
    assert.deepStrictEqual(arm(failed("c", "Crash", "exec /kubeprober: exec format error")), ["IMAGE_UNFIT -"])
    assert.deepStrictEqual(arm(failed("c", "ImagePull", "no match for platform in manifest")), ["IMAGE_UNFIT -"])
    assert.deepStrictEqual(arm(failed("c", "Sandbox"), failed("d", "Sandbox")), [
      "SANDBOX_FAILED c",
      "SANDBOX_FAILED d"
    ])
    assert.deepStrictEqual(
      says([failed("a", "ImagePull"), ran("b"), failed("c", "ImagePull"), failed("d", "ImagePull")], undefined, mixed),
      ["IMAGE_PULL_FAILED a", "IMAGE_PULL_FAILED c", "IMAGE_PULL_FAILED d"]
    )
  })

  it("says once what is no node's fault, and tells of nodes without their turn", () => {
    assert.deepStrictEqual(says([failed("a", "ImagePull"), failed("b", "ImagePull")]), ["IMAGE_UNFIT -"])
    assert.deepStrictEqual(
      says([failed("a", "Admission"), failed("b", "Admission"), { _tag: "NotReached", node: "c" }]),
      [
        "NOT_ADMITTED -",
        "NOT_REACHED -"
      ]
    )
  })
})

describe("a pod that waits for its image", () => {
  const seen = (reason: string) =>
    sight(
      Schema.decodeUnknownSync(Pod.object)({
        metadata: { name: "a" },
        spec: {},
        status: {
          conditions: [{ type: "PodScheduled", status: "True" }],
          containerStatuses: [{ name: "worker", state: { waiting: { reason } } }]
        }
      })
    )

  it("is on its way while its kubelet tries again, and has failed where trying again changes nothing", () => {
    for (const reason of ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"]) {
      assert.deepInclude(seen(reason), { _tag: "OnItsWay", stage: "ImagePull" })
    }
    for (const reason of ["ErrImageNeverPull", "InvalidImageName"]) {
      assert.deepInclude(seen(reason), { _tag: "Failed", stage: "ImagePull" })
    }
  })
})

describe("judging the way from pods to the API", () => {
  const way = (good: number, failure?: { kind: string; detail: string; status?: number }, p50Millis = 10) => ({
    good,
    times: 3,
    p50Millis,
    ...(failure === undefined ? {} : { failure })
  })
  const timeout = { kind: "timeout", detail: "no answer" }
  const says = (...ways: ReadonlyArray<[ReturnType<typeof way>, ReturnType<typeof way>]>) =>
    judgeApi(
      { slow: Duration.seconds(1) },
      ways.map(([byAddress, byName], at) => ({ node: `n${at}`, got: { address: "10.0.0.1:443", byAddress, byName } }))
    ).map(({ code, subject }) => `${code} ${subject?.name}`)

  it("tells a node from the Service, and the way from what stands at its end", () => {
    const good = way(3)
    const bad = way(0, timeout)
    const unknown = way(0, { kind: "status", detail: "status 401", status: 401 })
    assert.deepStrictEqual(says([good, good], [good, good]), [])
    assert.deepStrictEqual(says([good, good], [bad, bad]), ["API_UNREACHABLE_FROM_NODE n1"])
    assert.deepStrictEqual(says([bad, bad], [bad, bad]), ["API_UNREACHABLE_FROM_PODS kubernetes"])
    assert.deepStrictEqual(says([unknown, unknown]), ["TOKEN_REJECTED n0"])
    assert.deepStrictEqual(says([way(2, timeout), good]), ["API_UNRELIABLE_FROM_NODE n0"])
    assert.deepStrictEqual(says([good, way(0, { kind: "dns", detail: "ENOTFOUND" })]), ["API_NAME_FAILS n0"])
    assert.deepStrictEqual(says([way(3, undefined, 1001), good]), ["API_SLOW_FROM_NODE n0"])
  })
})

describe("an image that cannot be had", () => {
  const failed = (detail: string) => isNoSuchImage(`ImagePullBackOff: Back-off pulling image "a/b:1": ${detail}`)

  it("is missing when its name is none, or the registry says so", () => {
    assert.isTrue(
      isNoSuchImage("InvalidImageName: Failed to apply default image tag \"a/B:1\": couldn't parse image name")
    )
    assert.isTrue(failed(
      "ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image \"r/a/b:1\": failed to resolve image"
    ))
    assert.isTrue(failed("ErrImagePull: reading manifest 1 in r/a/b: manifest unknown"))
  })

  it("may be there when the registry cannot be reached, or does not let us in", () => {
    for (
      const why of [
        "failed to do request: Head \"https://r/v2/a/b/manifests/1\": dial tcp: lookup r: no such host",
        "failed to do request: Head \"https://r/v2/a/b/manifests/1\": dial tcp 10.0.0.1:443: connect: connection refused",
        "failed to do request: Head \"https://r/v2/a/b/manifests/1\": dial tcp 10.0.0.1:443: i/o timeout",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "pull access denied, repository does not exist or may require authorization",
        "unexpected status from HEAD request to https://r/v2/a/b/manifests/1: 503 Service Unavailable"
      ]
    ) assert.isFalse(failed(`ErrImagePull: rpc error: code = Unknown desc = ${why}`), why)
    assert.isFalse(
      isNoSuchImage("ErrImageNeverPull: Container image \"a/b:1\" is not present with pull policy of Never")
    )
  })

  it("is no node's fault when it is missing", () => {
    const none = "ErrImagePull: rpc error: code = NotFound desc = not found"
    const sweep = (...swept: ReadonlyArray<Swept>) =>
      judgeSweep({ slow: Duration.seconds(30), goneWithin: Duration.seconds(60) }, swept, new Set(["a", "b"]))
        .map(({ code, status }) => `${status} ${code}`)
    const failed = (node: string): Swept => ({
      _tag: "Failed",
      node,
      stage: "ImagePull",
      detail: none,
      pull: { took: Duration.zero, goesOn: false }
    })
    const ran: Swept = { _tag: "Ran", node: "a", took: Duration.zero, gone: true }
    // One node has it from before.
    assert.deepStrictEqual(sweep(ran, failed("b")), ["UNKNOWN IMAGE_UNFIT"])
    assert.deepStrictEqual(sweep(failed("a"), failed("b")), ["UNKNOWN IMAGE_UNFIT"])
  })
})

describe("judging a Deployment whose pods find no node", () => {
  const node = (spec: object = {}, labels: Readonly<Record<string, string>> = {}) =>
    Schema.decodeUnknownSync(Node.object)({ metadata: { name: "a", labels }, spec, status: {} })
  const tainted = (...keys: ReadonlyArray<string>) =>
    node({ taints: keys.map((key) => ({ key, effect: "NoSchedule" })) })
  const waiting = (conditions: ReadonlyArray<object>) =>
    Schema.decodeUnknownSync(Pod.object)({ metadata: { name: "a" }, spec: {}, status: { conditions } })
  const refused = waiting([{ type: "PodScheduled", status: "False", message: "0/1 nodes are available" }])
  const says = (nodes: ReadonlyArray<Node>, pod = refused) => {
    const { code, status, subject } = judgeLife("start", Duration.seconds(120), {
      deployment: undefined,
      replicaSets: [],
      pods: [pod],
      nodes
    })
    return `${status} ${code} ${subject?.name ?? ""}`.trim()
  }

  it("has nothing to blame where no node is meant for them", () => {
    assert.strictEqual(says([tainted("node-role.kubernetes.io/control-plane")]), "INFO NO_NODE")
    assert.strictEqual(says([tainted("team"), node({}, { "kubernetes.io/os": "windows" })]), "INFO NO_NODE")
    assert.strictEqual(says([node({}, { "eks.amazonaws.com/compute-type": "fargate" })]), "INFO NO_NODE")
  })

  it("blames the cluster where a node that is meant for them does not take them", () => {
    assert.strictEqual(says([tainted("team"), node()]), "ERROR UNSCHEDULED")
    assert.strictEqual(says([tainted("node.kubernetes.io/not-ready")]), "ERROR UNSCHEDULED")
    assert.strictEqual(says([tainted("node.cilium.io/agent-not-ready")]), "ERROR UNSCHEDULED")
    assert.strictEqual(
      says([node({
        unschedulable: true,
        taints: [{ key: "node.kubernetes.io/unschedulable", effect: "NoSchedule" }]
      })]),
      "ERROR UNSCHEDULED"
    )
    assert.strictEqual(says([tainted("team")], waiting([])), "ERROR UNSCHEDULED kube-scheduler")
  })

  it("keeps its pods from nodes of Windows", () => {
    const image: WorkerImage = {
      image: "example.test/kubeprober:1",
      imagePullPolicy: "IfNotPresent",
      imagePullSecrets: [],
      respondArgs: [],
      port: 1,
      echoPort: 2,
      podSecurityContext: {},
      containerSecurityContext: {}
    }
    const { spec } = manifest({ name: "a", namespace: "b", image, labels: {}, annotations: {} })
    assert.deepStrictEqual(spec.template.spec.nodeSelector, { "kubernetes.io/os": "linux" })
  })
})

describe("the time that an image took", () => {
  it("is read from the kubelet's events, waiting included", () => {
    const of = (...events: ReadonlyArray<[reason: string, note?: string]>) => {
      const { goesOn, took } = imagePullOf(events.map(([reason, note = ""]) => ({ reason, note })))
      return `${Duration.toMillis(took)}${goesOn ? " and on" : ""}`
    }
    assert.strictEqual(
      of(["Pulling"], [
        "Pulled",
        "Successfully pulled image \"a:1\" in 1.5s (1m2.25s including waiting). Image size: 1 bytes."
      ]),
      "62250"
    )
    assert.strictEqual(of(["Pulled", "Container image \"a:1\" already present on machine"]), "0")
    assert.strictEqual(of(["Pulling"]), "0 and on")
    assert.strictEqual(of(["Pulling"], ["Failed", "Failed to pull image"]), "0")
  })
})

layer(
  WorkerCluster.layer({ name: "pods", nodes: 2, nodeTimings: "default" }),
  { excludeTestServices: true, timeout: "180 seconds" }
)("probes in pods", (it) => {
  const { world } = WorkerCluster
  const worldOf = (image: string) => ProbeWorld.make({ workers: Effect.succeed({ image, imagePullPolicy: "Never" }) })
  const MISSING = worldOf("kubeprober.local/missing:1")
  const CRASHING = worldOf(COREDNS_IMAGE)

  const second = Effect.map(TestCluster, ({ cluster }) => {
    const [first, node] = cluster.nodes
    if (first === undefined || node === undefined) throw new Error("the cluster has two nodes")
    return { ...node, first }
  })
  const found = (report: { readonly findings: ReadonlyArray<{ code: string; subject?: { name: string } }> }) =>
    report.findings.map(({ code, subject }) => `${code} ${subject?.name ?? "-"}`)
  const run = (check: Probe.Check, its = world) => Effect.flatMap(TestCluster, ({ run }) => run(check, { world: its }))
  const sweep = (config: typeof nodeSweep extends Probe.Probe<infer _, infer E> ? E : never = {}, its = world) =>
    Effect.map(run(Probe.configure(nodeSweep, config), its), found)
  const life = (config: typeof workloadLifecycle extends Probe.Probe<infer _, infer E> ? E : never = {}, its = world) =>
    run(Probe.configure(workloadLifecycle, config), its)
  const api = (config: typeof apiFromPod extends Probe.Probe<infer _, infer E> ? E : never = {}) =>
    Effect.map(run(Probe.configure(apiFromPod, config)), found)

  /** While `broken` is in force. */
  const during = <A, E, R, E1, R1, E2, R2>(
    broken: Effect.Effect<unknown, E1, R1>,
    look: Effect.Effect<A, E, R>,
    heal: Effect.Effect<unknown, E2, R2>
  ) => Effect.acquireUseRelease(broken, () => look, () => Effect.orDie(heal))
  const passes = (probe: Probe.AnyProbe) =>
    eventually(run(Probe.toCheck(probe)), ({ status }) => status === "PASS", { within: "90 seconds" })

  for (const probe of [nodeSweep, workloadLifecycle, apiFromPod, diskLatency]) {
    const limits = probe === diskLatency ? { slow: "5s", tooSlow: "10s" } : probe === apiFromPod ? { slow: "10s" } : {}
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
          if (probe !== workloadLifecycle) assert.include(report.message, "2 of 2 nodes")
          yield* eventually(
            kubectl("get", "pods,configmaps,secrets,deployments,replicasets", "-n", PROBE_NAMESPACE, "-o", "name"),
            (names) => names.trim() === "configmap/kube-root-ca.crt"
          )
        })
    )

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
          config: probe === workloadLifecycle ? {} : { ...limits, ...Kills.ONE_NODE }
        })
        assert.isAtLeast(boundaries.creates, 1)
        assert.isAtLeast(boundaries.deletes, 2)
      }), 240_000)
  }

  // What two probes see of one fault is asserted together: breaking and healing nodes takes the time.

  it.effect(fault(nodeSweep, "SANDBOX_FAILED", "a node's CNI plugin is not there"), () =>
    Effect.gen(function*() {
      const { exec, name } = yield* second
      const edit = (from: string, to: string) =>
        exec(["sed", "-i", `s/"type":"${from}"/"type":"${to}"/`, "/etc/cni/net.d/10-kubeprober.conflist"])
      yield* during(
        edit("bridge", "absent"),
        Effect.gen(function*() {
          const report = yield* run(Probe.configure(nodeSweep, { within: "20s" }))
          assert.deepStrictEqual(found(report), [`SANDBOX_FAILED ${name}`])
          assert.include(report.message, "absent")
        }),
        edit("absent", "bridge")
      )
      yield* passes(nodeSweep)
    }))

  it.effect(fault(nodeSweep, "SANDBOX_FAILED", "a node's containerd is killed"), () =>
    Effect.gen(function*() {
      const { containerd, name } = yield* second
      yield* during(
        containerd.kill,
        Effect.map(sweep({ within: "15s" }), (names) => assert.deepStrictEqual(names, [`SANDBOX_FAILED ${name}`])),
        containerd.start
      )
      yield* passes(nodeSweep)
    }))

  it.effect(
    fault(nodeSweep, "KUBELET_SILENT", "a node's kubelet is killed, and the node is still Ready"),
    () =>
      Effect.gen(function*() {
        const { kubelet, name } = yield* second
        yield* during(
          kubelet.kill,
          Effect.map(sweep({ within: "15s" }), (names) => assert.deepStrictEqual(names, [`KUBELET_SILENT ${name}`])),
          kubelet.start
        )
        yield* passes(nodeSweep)
      })
  )

  it.effect(fault(nodeSweep, "IMAGE_PULL_FAILED", "the image is missing on one node"), () =>
    Effect.gen(function*() {
      const { exec, importImage, name } = yield* second
      const images = (yield* exec(["ctr", "-n", "k8s.io", "images", "ls", "-q"])).split("\n").filter((image) =>
        image.endsWith(WORKER_IMAGE)
      )
      assert.isNotEmpty(images)
      yield* during(
        exec(["ctr", "-n", "k8s.io", "images", "rm", "--sync", ...images]),
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* sweep(), [`IMAGE_PULL_FAILED ${name}`])
          const pulling = ProbeWorld.make({ workers: Effect.succeed({ image: WORKER_IMAGE }) })
          assert.deepStrictEqual(yield* sweep({ within: "20s" }, pulling), [`IMAGE_PULL_FAILED ${name}`])
        }),
        Effect.flatMap(workerImage, importImage)
      )
      yield* passes(nodeSweep)
    }))

  it.effect(
    fault(nodeSweep, "UNREACHABLE_FROM_KUBELET", "a firewall is between a node and its pods"),
    () =>
      Effect.gen(function*() {
        const { exec, name, podCidr } = yield* second
        const rule = ["OUTPUT", "-d", podCidr, "-j", "DROP"]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          Effect.map(
            sweep({ within: "15s" }),
            (names) => assert.deepStrictEqual(names, [`UNREACHABLE_FROM_KUBELET ${name}`])
          ),
          exec(["iptables", "-D", ...rule])
        )
        yield* passes(nodeSweep)
      })
  )

  it.effect(
    fault(nodeSweep, "NODE_FULL", "pods have asked for all of a node's processors"),
    () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* TestCluster
        const { name } = yield* second
        const said = yield* kubectl("describe", "node", name)
        const millis = (text: string) => text.endsWith("m") ? Number.parseInt(text, 10) : Number(text) * 1000
        const used = millis(/Allocated resources:[^]*?\n\s+cpu\s+(\S+)/u.exec(said)?.[1] ?? "")
        const all = millis(yield* kubectl("get", "node", name, "-o", "jsonpath={.status.allocatable.cpu}"))
        yield* during(
          apply({
            apiVersion: "v1",
            kind: "Pod",
            metadata: { name: "filler", namespace: "default" },
            spec: {
              nodeName: name,
              terminationGracePeriodSeconds: 0,
              containers: [{
                name: "filler",
                image: PAUSE_IMAGE,
                resources: { requests: { cpu: `${all - used - 5}m` } }
              }]
            }
          }),
          Effect.map(sweep({ within: "10s" }), (names) => assert.deepStrictEqual(names, [`NODE_FULL ${name}`])),
          kubectl("delete", "pod", "filler", "-n", "default")
        )
        yield* passes(nodeSweep)
      })
  )

  it.effect(
    fault(nodeSweep, "TERMINATING_STUCK", "a node's kubelet hangs when its pod is deleted"),
    () =>
      Effect.gen(function*() {
        const { kube } = yield* TestCluster
        const { kubelet, name } = yield* second
        yield* during(
          Effect.void,
          Effect.gen(function*() {
            const running = yield* Effect.forkChild(sweep({ goneWithin: "5s" }))
            yield* eventually(
              kube.list(Pod, { namespace: PROBE_NAMESPACE, fieldSelector: `spec.nodeName=${name}` }),
              ({ items }) => items.some(({ metadata }) => metadata.deletionTimestamp !== undefined),
              { every: "20 millis" }
            )
            yield* kubelet.pause
            assert.deepStrictEqual(yield* Fiber.join(running), [`TERMINATING_STUCK ${name}`])
          }),
          kubelet.resume
        )
        yield* passes(nodeSweep)
      })
  )

  it.effect(fault(nodeSweep, "SLOW", "a pod takes longer than the limit"), () =>
    Effect.gen(function*() {
      // Real times against a limit that no node keeps.
      const { cluster } = yield* TestCluster
      assert.sameMembers(yield* sweep({ slow: "1ms" }), cluster.nodes.map(({ name }) => `SLOW ${name}`))
      yield* passes(nodeSweep)
    }))

  it.effect(
    fault(nodeSweep, "SCHEDULER_SILENT", fault(workloadLifecycle, "UNSCHEDULED", "the scheduler hangs")),
    () =>
      Effect.gen(function*() {
        const { cluster: { components: { scheduler } } } = yield* TestCluster
        yield* during(
          scheduler.pause,
          Effect.gen(function*() {
            assert.deepStrictEqual(yield* sweep({ within: "3s" }), ["SCHEDULER_SILENT kube-scheduler"])
            assert.deepStrictEqual(found(yield* life({ within: "3s" })), ["UNSCHEDULED kube-scheduler"])
          }),
          scheduler.resume
        )
        yield* passes(workloadLifecycle)
      })
  )

  it.effect(
    blind(
      nodeSweep,
      "NOT_ADMITTED",
      blind(workloadLifecycle, "NOT_ADMITTED", "a quota of the probe namespace is used up")
    ),
    () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* TestCluster
        yield* during(
          apply({
            apiVersion: "v1",
            kind: "ResourceQuota",
            metadata: { name: "none", namespace: PROBE_NAMESPACE },
            spec: { hard: { pods: "0" } }
          }),
          Effect.gen(function*() {
            yield* eventually(sweep(), (names) => names.join() === "NOT_ADMITTED -")
            assert.deepStrictEqual(found(yield* life({ within: "3s" })), ["NOT_ADMITTED -"])
          }),
          kubectl("delete", "resourcequota", "none", "-n", PROBE_NAMESPACE)
        )
        yield* passes(workloadLifecycle)
      })
  )

  it.effect(
    blind(
      nodeSweep,
      "IMAGE_UNFIT",
      fault(
        workloadLifecycle,
        "IMAGE_PULL",
        fault(workloadLifecycle, "CRASH", "the image is nowhere, or is one that ends at once")
      )
    ),
    () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const nodes = cluster.nodes.map(({ name }) => name)
        assert.deepStrictEqual(yield* sweep({}, MISSING), ["IMAGE_UNFIT -"])
        assert.deepStrictEqual(yield* sweep({}, CRASHING), ["IMAGE_UNFIT -"])
        const one = found(yield* life({ within: "6s" }, MISSING)).join()
        assert.include(nodes.map((name) => `IMAGE_PULL ${name}`), one)
        const other = found(yield* life({ within: "8s" }, CRASHING)).join()
        assert.include(nodes.map((name) => `CRASH ${name}`), other)
        yield* passes(workloadLifecycle)
      })
  )

  it.effect(
    blind(nodeSweep, "IMAGE_UNFIT", blind(workloadLifecycle, "IMAGE_UNFIT", "no registry has an image of that name")),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        /** On every node a registry that has nothing. */
        const port = 5055
        const listening = port.toString(16).toUpperCase()
        yield* Effect.forEach(cluster.nodes, ({ exec }) =>
          Effect.andThen(
            Effect.forkScoped(exec(["busybox", "httpd", "-f", "-p", `127.0.0.1:${port}`, "-h", "/mnt"])),
            eventually(exec(["cat", "/proc/net/tcp"]), (sockets) => sockets.includes(`:${listening} 00000000:0000 0A`))
          ))
        const absent = `127.0.0.1:${port}/kubeprober:nowhere`
        const theirs = (image: string) => ProbeWorld.make({ workers: Effect.succeed({ image }) })
        assert.deepStrictEqual(yield* sweep({}, theirs(absent)), ["IMAGE_UNFIT -"])
        for (const image of [absent, "kubeprober.local/No:Name"]) {
          const report = yield* life({ within: "6s" }, theirs(image))
          assert.deepStrictEqual(found(report), ["IMAGE_UNFIT -"], JSON.stringify(report))
          assert.strictEqual(report.status, "UNKNOWN")
        }
        yield* passes(workloadLifecycle)
      })),
    120_000
  )

  it.effect(fault(workloadLifecycle, "ROLLOUT_STUCK", "the controller manager hangs"), () =>
    Effect.gen(function*() {
      const { cluster: { components: { controllerManager } } } = yield* TestCluster
      yield* during(
        controllerManager.pause,
        Effect.map(
          life({ within: "3s" }),
          (report) => assert.deepStrictEqual(found(report), ["ROLLOUT_STUCK kube-controller-manager"])
        ),
        controllerManager.resume
      )
      yield* passes(workloadLifecycle)
    }))

  it.effect(fault(workloadLifecycle, "UNSCHEDULED", "all nodes are cordoned"), () =>
    Effect.gen(function*() {
      const { cluster, kubectl } = yield* TestCluster
      const nodes = cluster.nodes.map(({ name }) => name)
      yield* during(
        kubectl("cordon", ...nodes),
        Effect.gen(function*() {
          const report = yield* life({ within: "3s" })
          assert.deepStrictEqual(found(report), ["UNSCHEDULED -"])
          assert.include(report.message, "unschedulable")
        }),
        kubectl("uncordon", ...nodes)
      )
      yield* passes(workloadLifecycle)
    }))

  it.effect(fault(workloadLifecycle, "ADMISSION", "a webhook for pods has no backend"), () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      yield* during(
        apply({
          apiVersion: "admissionregistration.k8s.io/v1",
          kind: "ValidatingWebhookConfiguration",
          metadata: { name: "pods.test.example" },
          webhooks: [{
            name: "pods.test.example",
            clientConfig: { url: "https://127.0.0.1:1/" },
            rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] }],
            failurePolicy: "Fail",
            sideEffects: "None",
            admissionReviewVersions: ["v1"]
          }]
        }),
        Effect.gen(function*() {
          const report = yield* eventually(life({ within: "5s" }), ({ code }) => code === "ADMISSION")
          assert.include(report.message, "pods.test.example")
        }),
        kubectl("delete", "validatingwebhookconfiguration", "pods.test.example")
      )
      yield* passes(workloadLifecycle)
    }))

  it.effect(
    fault(workloadLifecycle, "SANDBOX", "the only node that takes pods has no CNI plugin"),
    () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const { exec, first, name } = yield* second
        const edit = (from: string, to: string) =>
          exec(["sed", "-i", `s/"type":"${from}"/"type":"${to}"/`, "/etc/cni/net.d/10-kubeprober.conflist"])
        yield* during(
          Effect.andThen(kubectl("cordon", first.name), edit("bridge", "absent")),
          Effect.map(life({ within: "10s" }), (report) => assert.deepStrictEqual(found(report), [`SANDBOX ${name}`])),
          Effect.andThen(kubectl("uncordon", first.name), edit("absent", "bridge"))
        )
        yield* passes(workloadLifecycle)
      })
  )

  it.effect(
    fault(
      workloadLifecycle,
      "SCALE",
      fault(
        workloadLifecycle,
        "SLOW",
        "the controller manager hangs when it is scaled; stages take longer than the limit"
      )
    ),
    () =>
      Effect.gen(function*() {
        const { cluster: { components: { controllerManager } }, kube } = yield* TestCluster
        yield* during(
          Effect.void,
          Effect.gen(function*() {
            const running = yield* Effect.forkChild(life({ within: "20s" }))
            // Rolled, which the probe sees within its next half second: then it scales.
            yield* eventually(
              kube.list(Deployment, { namespace: PROBE_NAMESPACE }),
              ({ items }) =>
                items.some(({ metadata: { generation = 0 }, status }) =>
                  generation > 1 && status.observedGeneration === generation && status.replicas === 2 &&
                  status.updatedReplicas === 2 && status.availableReplicas === 2
                ),
              { every: "10 millis" }
            )
            yield* controllerManager.pause
            assert.deepStrictEqual(found(yield* Fiber.join(running)), ["SCALE kube-controller-manager"])
          }),
          controllerManager.resume
        )
        assert.deepStrictEqual(found(yield* life({ slow: "1ms" })), ["SLOW -"])
        yield* passes(workloadLifecycle)
      })
  )

  it.effect(fault(workloadLifecycle, "GC", "a finalizer holds a ReplicaSet"), () =>
    Effect.gen(function*() {
      const { kube } = yield* TestCluster
      const ours = Effect.map(kube.list(ReplicaSet, { namespace: PROBE_NAMESPACE }), ({ items }) => items)
      const running = yield* Effect.forkChild(life({ within: "20s" }))
      const [held] = yield* eventually(ours, (items) => items.length > 0, { every: "20 millis" })
      const ref = { name: held?.metadata.name ?? "", namespace: PROBE_NAMESPACE }
      yield* kube.patch(ReplicaSet, ref, { metadata: { finalizers: ["test.example/stay"] } })
      const report = yield* Fiber.join(running)
      yield* kube.patch(ReplicaSet, ref, { metadata: { finalizers: null } })
      assert.deepStrictEqual(found(report), ["GC kube-controller-manager"])
      assert.include(report.message, "test.example/stay")
      yield* eventually(ours, (items) => items.length === 0)
      yield* passes(workloadLifecycle)
    }))

  it.effect(
    fault(
      apiFromPod,
      "API_UNREACHABLE_FROM_NODE",
      fault(apiFromPod, "API_UNREACHABLE_FROM_PODS", "the Service's address is cut off on one node, then on all")
    ),
    () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const { exec, first, name } = yield* second
        const rule = ["PREROUTING", "-t", "raw", "-d", "10.96.0.1", "-j", "DROP"]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          Effect.gen(function*() {
            assert.deepStrictEqual(yield* api({ timeout: "1s" }), [`API_UNREACHABLE_FROM_NODE ${name}`])
            yield* during(
              first.exec(["iptables", "-I", ...rule]),
              Effect.map(api({ timeout: "1s" }), (names) =>
                assert.deepStrictEqual(names, ["API_UNREACHABLE_FROM_PODS kubernetes"])),
              first.exec(["iptables", "-D", ...rule])
            )
          }),
          exec(["iptables", "-D", ...rule])
        )
        assert.lengthOf(cluster.nodes, 2)
        yield* passes(apiFromPod)
      })
  )

  it.effect(
    fault(apiFromPod, "API_UNTRUSTED", "another server answers at the Service's address on one node"),
    () =>
      Effect.gen(function*() {
        const { exec, ip, name } = yield* second
        // The kubelet: its certificate is of the same authority and for another name.
        const rule = [
          "PREROUTING",
          "-t",
          "nat",
          "-d",
          "10.96.0.1",
          "-p",
          "tcp",
          "--dport",
          "443",
          "-j",
          "DNAT",
          "--to-destination",
          `${ip}:10250`
        ]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          Effect.map(api(), (names) => assert.deepStrictEqual(names, [`API_UNTRUSTED ${name}`])),
          exec(["iptables", "-D", ...rule])
        )
        yield* passes(apiFromPod)
      })
  )

  it.effect(
    fault(
      apiFromPod,
      "API_NAME_FAILS",
      fault(apiFromPod, "API_SLOW_FROM_NODE", "CoreDNS is scaled to zero; a limit that no network keeps")
    ),
    () =>
      Effect.gen(function*() {
        const { cluster, kubectl } = yield* TestCluster
        const nodes = cluster.nodes.map(({ name }) => name)
        const scale = (replicas: number) =>
          Effect.andThen(
            kubectl("scale", "deployment/coredns", "-n", "kube-system", `--replicas=${replicas}`),
            kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
          )
        yield* during(
          scale(0),
          Effect.map(api({ timeout: "2s" }), (names) =>
            assert.sameMembers(names, nodes.map((name) => `API_NAME_FAILS ${name}`))),
          scale(1)
        )
        assert.sameMembers(
          yield* api({ slow: "1ms" }),
          nodes.map((name) =>
            `API_SLOW_FROM_NODE ${name}`
          )
        )
        yield* passes(apiFromPod)
      })
  )

  /** Every commit of the worker on this node takes so much longer, as on a slow disk. Takes `strace`. */
  const slowDisk = (milliseconds: number) =>
    Effect.flatMap(second, ({ exec }) =>
      exec([
        "sh",
        "-c",
        `for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'worker[ ]run'; then
           strace -f -qq -e trace=fdatasync -e inject=fdatasync:delay_enter=${
          milliseconds * 1000
        } -o /dev/null -p \${p#/proc/}
           exit 0
         fi; done; exit 1`
      ]).pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.forever))

  it.effect(
    fault(diskLatency, "DISK_SLOW", fault(diskLatency, "DISK_TOO_SLOW", "each commit on one node takes 300 ms more")),
    () =>
      Effect.gen(function*() {
        const { name } = yield* second
        const look = (slow: string, tooSlow: string) =>
          Effect.scoped(Effect.andThen(
            Effect.forkScoped(slowDisk(300)),
            Effect.map(run(Probe.configure(diskLatency, { slow, tooSlow, commits: 10 })), found)
          ))
        assert.deepStrictEqual(yield* look("250ms", "10s"), [`DISK_SLOW ${name}`])
        assert.deepStrictEqual(yield* look("200ms", "250ms"), [`DISK_TOO_SLOW ${name}`])
        yield* eventually(
          run(Probe.configure(diskLatency, { slow: "200ms", tooSlow: "250ms", commits: 10 })),
          ({ status }) => status === "PASS"
        )
      })
  )

  describe("a worker pod", () => {
    /** Many commits, so that there is time to look at the pod. */
    const busy = (within: Duration.Input = "60 seconds") =>
      Probe.make("test.worker", {
        layer: "infrastructure",
        proves: "A worker pod works.",
        writes: "namespace",
        needs: [workerNeeds],
        codes: {},
        config: Probe.NoConfig,
        timeout: "90 seconds",
        confirm: "none",
        run: Effect.fnUntraced(function*() {
          const workers = yield* Workers
          const { output } = yield* workers.run(diskCommits, { folder: "/tmp", times: 10_000, bytes: 1 }, { within })
          return Outcome.make(`${output.times} commits`)
        })
      })
    const workerPods = Effect.map(
      Effect.flatMap(
        Kube,
        (kube) => kube.list(Pod, { namespace: PROBE_NAMESPACE, labelSelector: "app.kubernetes.io/component=worker" })
      ),
      ({ items }) => items
    )
    /** Sends a signal to the worker, wherever it runs; whether there was one. */
    const signal = (name: "CONT" | "STOP" | "KILL") =>
      Effect.flatMap(TestCluster, ({ cluster }) =>
        Effect.map(
          Effect.forEach(cluster.nodes, ({ exec }) =>
            exec([
              "sh",
              "-c",
              `for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'worker[ ]run'; then kill -${name} \${p#/proc/} && echo hit; fi; done; true`
            ])),
          (said) => said.join("").includes("hit")
        ))

    it.effect("is restricted, has no token of the API, is labelled, and is gone after the run", () =>
      Effect.gen(function*() {
        const { kubectl, run } = yield* TestCluster
        const running = yield* Effect.forkChild(run(busy(), { world, runId: "looked-at" }))
        const [placed] = yield* eventually(
          workerPods,
          ([pod]) => pod?.spec.nodeName !== undefined,
          { every: "20 millis" }
        )
        // Without --force, for pods that something controls alone.
        const drained = yield* kubectl(
          "drain",
          placed?.spec.nodeName ?? "",
          "--dry-run=client",
          "--delete-emptydir-data",
          "--pod-selector=kubeprober.io/run=looked-at"
        )
        assert.include(drained, `evicting pod ${PROBE_NAMESPACE}/${placed?.metadata.name ?? ""}`)
        const pod = JSON.parse(
          yield* kubectl("get", "pods", "-n", PROBE_NAMESPACE, "-l", "kubeprober.io/run=looked-at", "-o", "json")
        ).items[0]
        assert.strictEqual(pod.spec.automountServiceAccountToken, false)
        assert.strictEqual(pod.metadata.labels["app.kubernetes.io/managed-by"], "kubeprober")
        assert.match(pod.metadata.annotations["kubeprober.io/expires-at"], /^2/)
        assert.isAbove(pod.spec.activeDeadlineSeconds, 0)
        assert.deepStrictEqual(pod.spec.volumes.map((volume: object) => Object.keys(volume).sort().join()), [
          "emptyDir,name"
        ])
        const report = yield* Fiber.join(running)
        assert.strictEqual(report.message, "10000 commits", JSON.stringify(report))
        yield* eventually(workerPods, (pods) => pods.length === 0)
      }))

    it.effect("whose result has another seal is not believed", () =>
      Effect.gen(function*() {
        const { kube, run } = yield* TestCluster
        const running = yield* Effect.forkChild(run(busy(), { world }))
        const [pod] = yield* eventually(
          workerPods,
          ([pod]) => pod?.status.containerStatuses[0]?.state.running !== undefined,
          { every: "20 millis" }
        )
        const name = pod?.metadata.name ?? ""
        const message = seal(Redacted.make("a guess"), name, {
          ok: true,
          output: { p50: 0, p99: 0, max: 0, times: 10_000 }
        })
        const terminated = {
          exitCode: 0,
          message,
          startedAt: "2026-01-01T00:00:00Z",
          finishedAt: "2026-01-01T00:00:01Z"
        }
        yield* kube.patch(Pod, { name, namespace: PROBE_NAMESPACE }, {
          status: {
            phase: "Succeeded",
            containerStatuses: [{
              name: "worker",
              image: "",
              imageID: "",
              ready: false,
              restartCount: 0,
              state: { terminated }
            }]
          }
        }, { subresource: "status" })
        const report = yield* Fiber.join(running)
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN WORKER_FAILED", JSON.stringify(report))
        assert.strictEqual(report.findings[0]?.evidence?.["stage"], "Forged")
      }))

    it.effect("that is killed, hangs, or has no image is told as that", () =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        const stageOf = (report: { findings: ReadonlyArray<{ evidence?: Readonly<Record<string, unknown>> }> }) =>
          report.findings[0]?.evidence?.["stage"]
        // Kubelets end the workers of earlier runs after their pods are gone.
        const none = eventually(signal("CONT"), (hit) => !hit)
        yield* none
        const killed = yield* Effect.forkChild(run(busy(), { world }))
        yield* eventually(signal("KILL"), (hit) => hit, { every: "20 millis" })
        assert.strictEqual(stageOf(yield* Fiber.join(killed)), "Crash")
        yield* none
        const stopped = yield* Effect.forkChild(run(busy("15 seconds"), { world }))
        yield* eventually(signal("STOP"), (hit) => hit, { every: "20 millis" })
        assert.strictEqual(stageOf(yield* Fiber.join(stopped)), "Silent")
        assert.strictEqual(stageOf(yield* run(busy(), { world: MISSING })), "ImagePull")
        assert.strictEqual(stageOf(yield* run(busy(), { world: CRASHING })), "Crash")
        yield* eventually(workerPods, (pods) => pods.length === 0)
      }))
  })
})
