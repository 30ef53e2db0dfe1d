/**
 * k8s.node.sweep and k8s.workload.lifecycle on one cluster with two nodes: what breaks the one is seen by the other too. Its timings are Kubernetes' own: a
 * node whose kubelet is gone stays Ready for 50 seconds, in which a sweep must see it.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import type { Report } from "../../src/domain/Report.ts"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import { ReplicaSet } from "../../src/infra/kube/resources/apps.ts"
import { Node, Pod } from "../../src/infra/kube/resources/core.ts"
import { COREDNS_IMAGE, PAUSE_IMAGE } from "../../src/local/image/Images.ts"
import { type Swept, judge as judgeSweep, nodeSweep } from "../../src/probes/kubernetes/nodeSweep.ts"
import { judge as judgeLife, manifest, workloadLifecycle } from "../../src/probes/kubernetes/workloadLifecycle.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { imagePullOf } from "../../src/probes/workers/imagePull.ts"
import { isNoSuchImage, sight } from "../../src/probes/workers/podStage.ts"
import { type WorkerFault, type WorkerImage } from "../../src/probes/workers/Workers.ts"
import { atEach, atFirst } from "../clusters/AtRequest.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { WORKER_IMAGE, workerImage } from "../clusters/workerImage.ts"
import { blind, fault } from "../proofs/proof.ts"
import { during, finds, found, ofWorkers, passes, second } from "./inPods.ts"

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
  const seen = (reason: string, message?: string) =>
    sight(
      Schema.decodeUnknownSync(Pod.object)({
        metadata: { name: "a" },
        spec: {},
        status: {
          conditions: [{ type: "PodScheduled", status: "True" }],
          containerStatuses: [{
            name: "worker",
            state: { waiting: { reason, ...message === undefined ? {} : { message } } }
          }]
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
    const none = "Back-off pulling image \"a\": ErrImagePull: rpc error: code = NotFound desc = not found"
    assert.deepInclude(seen("ImagePullBackOff", none), { _tag: "Failed", stage: "ImagePull" })
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

  /** For a fault that is looked for again, and what comes after it. */
  const TIMEOUT = 240_000

  type Config<P> = P extends Probe.Probe<infer _, infer E> ? E : never
  const run = (check: Probe.Check, its = world, as?: Kube["Service"]) =>
    Effect.flatMap(TestCluster, ({ run }) => run(check, { world: its, as }))
  const sweep = (config: Config<typeof nodeSweep> = {}, its = world, as?: Kube["Service"]) =>
    run(Probe.configure(nodeSweep, config), its, as)
  const life = (config: Config<typeof workloadLifecycle> = {}, its = world, as?: Kube["Service"]) =>
    run(Probe.configure(workloadLifecycle, config), its, as)

  ofWorkers(it, nodeSweep, { perNode: true })
  ofWorkers(it, workloadLifecycle, { perNode: false })

  // What two probes see of one fault is asserted together: breaking and healing nodes takes the time.

  it.effect(fault(nodeSweep, "SANDBOX_FAILED", "a node's CNI plugin is not there"), () =>
    Effect.gen(function*() {
      const { exec, name } = yield* second
      const edit = (from: string, to: string) =>
        exec(["sed", "-i", `s/"type":"${from}"/"type":"${to}"/`, "/etc/cni/net.d/10-kubeprober.conflist"])
      yield* during(
        edit("bridge", "absent"),
        Effect.gen(function*() {
          const report = yield* finds(sweep({ within: "20s" }), [`SANDBOX_FAILED ${name}`])
          assert.include(report.message, "absent")
        }),
        edit("absent", "bridge")
      )
      yield* passes(nodeSweep)
    }), TIMEOUT)

  it.effect(fault(nodeSweep, "SANDBOX_FAILED", "a node's containerd is killed"), () =>
    Effect.gen(function*() {
      const { containerd, name } = yield* second
      // Killed anew for each look: half a minute later its node is not Ready any more, and not looked at.
      yield* finds(
        during(containerd.kill, sweep({ within: "15s" }), containerd.start),
        [`SANDBOX_FAILED ${name}`]
      )
      yield* passes(nodeSweep)
    }), TIMEOUT)

  it.effect(
    fault(nodeSweep, "KUBELET_SILENT", "a node's kubelet is killed, and the node is still Ready"),
    () =>
      Effect.gen(function*() {
        const { kubelet, name } = yield* second
        // Killed anew for each look, for its node stays Ready for less than a minute.
        yield* finds(during(kubelet.kill, sweep({ within: "15s" }), kubelet.start), [`KUBELET_SILENT ${name}`])
        yield* passes(nodeSweep)
      }),
    TIMEOUT
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
          assert.deepStrictEqual(found(yield* sweep()), [`IMAGE_PULL_FAILED ${name}`])
          const pulling = ProbeWorld.make({ workers: Effect.succeed({ image: WORKER_IMAGE }) })
          yield* finds(sweep({ within: "20s" }, pulling), [`IMAGE_PULL_FAILED ${name}`])
        }),
        Effect.flatMap(workerImage, importImage)
      )
      yield* passes(nodeSweep)
    }), TIMEOUT)

  it.effect(
    fault(nodeSweep, "UNREACHABLE_FROM_KUBELET", "a firewall is between a node and its pods"),
    () =>
      Effect.gen(function*() {
        const { exec, name, podCidr } = yield* second
        const rule = ["OUTPUT", "-d", podCidr, "-j", "DROP"]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          finds(sweep({ within: "15s" }), [`UNREACHABLE_FROM_KUBELET ${name}`]),
          exec(["iptables", "-D", ...rule])
        )
        yield* passes(nodeSweep)
      }),
    TIMEOUT
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
          finds(sweep({ within: "10s" }), [`NODE_FULL ${name}`]),
          kubectl("delete", "pod", "filler", "-n", "default")
        )
        yield* passes(nodeSweep)
      }),
    TIMEOUT
  )

  it.effect(
    fault(nodeSweep, "TERMINATING_STUCK", "a node's kubelet hangs when its pod is deleted"),
    () =>
      Effect.gen(function*() {
        const { kube } = yield* TestCluster
        const { kubelet, name } = yield* second
        const as = atEach(kube, "delete Pod", (send, { name: pod }) =>
          Effect.gen(function*() {
            const { spec } = yield* kube.get(Pod, { name: pod, namespace: PROBE_NAMESPACE })
            if (spec.nodeName === name) yield* kubelet.pause
            return yield* send
          }))
        yield* finds(
          Effect.ensuring(sweep({ goneWithin: "10s" }, world, as), kubelet.resume),
          [`TERMINATING_STUCK ${name}`]
        )
        yield* passes(nodeSweep)
      }),
    TIMEOUT
  )

  it.effect(fault(nodeSweep, "SLOW", "a pod takes longer than the limit"), () =>
    Effect.gen(function*() {
      // Real times against a limit that no node keeps.
      const { cluster } = yield* TestCluster
      assert.sameMembers(found(yield* sweep({ slow: "1ms" })), cluster.nodes.map(({ name }) => `SLOW ${name}`))
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
            assert.deepStrictEqual(found(yield* sweep({ within: "3s" })), ["SCHEDULER_SILENT kube-scheduler"])
            yield* finds(life({ within: "3s" }), ["UNSCHEDULED kube-scheduler"])
          }),
          scheduler.resume
        )
        yield* passes(workloadLifecycle)
      }),
    TIMEOUT
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
            yield* finds(sweep(), ["NOT_ADMITTED -"])
            yield* finds(life({ within: "5s" }), ["NOT_ADMITTED -"])
          }),
          kubectl("delete", "resourcequota", "none", "-n", PROBE_NAMESPACE)
        )
        yield* passes(workloadLifecycle)
      }),
    TIMEOUT
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
        /** The code, of either node. */
        const either = (code: string) => {
          const wanted = cluster.nodes.map(({ name }) => `${code} ${name}`)
          return (report: Report) => wanted.includes(found(report).join())
        }
        assert.deepStrictEqual(found(yield* sweep({}, MISSING)), ["IMAGE_UNFIT -"])
        assert.deepStrictEqual(found(yield* sweep({}, CRASHING)), ["IMAGE_UNFIT -"])
        yield* eventually(life({ within: "6s" }, MISSING), either("IMAGE_PULL"))
        yield* eventually(life({ within: "10s" }, CRASHING), either("CRASH"))
        yield* passes(workloadLifecycle)
      }),
    TIMEOUT
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
        assert.deepStrictEqual(found(yield* sweep({}, theirs(absent))), ["IMAGE_UNFIT -"])
        for (const image of [absent, "kubeprober.local/No:Name"]) {
          const report = yield* finds(life({ within: "6s" }, theirs(image)), ["IMAGE_UNFIT -"])
          assert.strictEqual(report.status, "UNKNOWN")
        }
        yield* passes(workloadLifecycle)
      })),
    TIMEOUT
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
          const report = yield* finds(life({ within: "5s" }), ["UNSCHEDULED -"])
          assert.include(report.message, "unschedulable")
        }),
        kubectl("uncordon", ...nodes)
      )
      yield* passes(workloadLifecycle)
    }), TIMEOUT)

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
          finds(life({ within: "10s" }), [`SANDBOX ${name}`]),
          Effect.andThen(kubectl("uncordon", first.name), edit("absent", "bridge"))
        )
        yield* passes(workloadLifecycle)
      }),
    TIMEOUT
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
        const scaled = JSON.stringify({ spec: { replicas: 1 } })
        const as = atEach(kube, "patch Deployment", (send, { patch }) =>
          JSON.stringify(patch) === scaled ? Effect.andThen(controllerManager.pause, send) : send)
        // All stages before have as long as this one.
        yield* finds(
          Effect.ensuring(life({ within: "20s" }, world, as), controllerManager.resume),
          ["SCALE kube-controller-manager"]
        )
        assert.deepStrictEqual(found(yield* life({ slow: "1ms" })), ["SLOW -"])
        yield* passes(workloadLifecycle)
      }),
    TIMEOUT
  )

  it.effect(fault(workloadLifecycle, "GC", "a finalizer holds a ReplicaSet"), () =>
    Effect.gen(function*() {
      const { kube } = yield* TestCluster
      const ours = Effect.map(kube.list(ReplicaSet, { namespace: PROBE_NAMESPACE }), ({ items }) => items)
      const finalizers = (value: ReadonlyArray<string> | null) =>
        Effect.flatMap(ours, (items) =>
          Effect.forEach(
            items,
            ({ metadata: { name = "" } }) =>
              kube.patch(ReplicaSet, { name, namespace: PROBE_NAMESPACE }, { metadata: { finalizers: value } })
          ))
      const isGone = eventually(ours, (items) => items.length === 0)
      const held = Effect.gen(function*() {
        yield* isGone
        const as = atFirst(kube, "patch Deployment", (send) => Effect.andThen(finalizers(["test.example/stay"]), send))
        return yield* Effect.ensuring(life({ within: "20s" }, world, as), Effect.ignore(finalizers(null)))
      })
      // All stages before have as long as this one.
      const report = yield* finds(held, ["GC kube-controller-manager"])
      assert.include(report.message, "test.example/stay")
      yield* isGone
      yield* passes(workloadLifecycle)
    }), TIMEOUT)
})
