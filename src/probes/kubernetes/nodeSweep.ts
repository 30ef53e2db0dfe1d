/**
 * k8s.node.sweep: every node runs pods.
 *
 * A node may be Ready and run nothing: its CNI plugin has no configuration, its runtime hangs, its kubelet has lost its way.
 * So a pod is made for each node by the scheduler, until the kubelet has reached it over the network, and then taken down as
 * any pod is. A pod that answers, and not one that only ends: the API server removes an ended pod without its kubelet.
 */
import { Clock, Duration, Effect, Result, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Pod } from "../../infra/kube/resources/core.ts"
import { findingOfWorkerFault } from "../Attempt.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { Count, setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import { type ImagePull, imagePull } from "../workers/imagePull.ts"
import { isNoSuchImage } from "../workers/podStage.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { WorkerFault, type WorkerStage, Workers, needs as workerNeeds } from "../workers/Workers.ts"

const AT_ONCE = 10

const TIMEOUT = Duration.minutes(5)

/** For the requests beside the waits. */
const SLACK = Duration.seconds(15)

const POLL = Schedule.spaced("1 second")

export const NodeSweepConfig = Schema.Struct({
  slow: setting(DurationString, {
    default: "30s",
    description:
      "A pod that takes longer from its creation until it is Ready, the pull of its image not counted, is a WARN."
  }),
  within: setting(DurationString, {
    default: "120s",
    description: "A pod that is not Ready after this is an ERROR, named after the stage at which it stands."
  }),
  goneWithin: setting(DurationString, {
    default: "60s",
    description: "A pod that is still there this long after its deletion is an ERROR."
  }),
  nodes: setting(Count, { default: 50, description: "Nodes swept in a run; of more, others each time." })
})
export type NodeSweepConfig = typeof NodeSweepConfig.Type

export const codes = Codes.make({
  SANDBOX_FAILED: Codes.error(
    "A node cannot set up a pod's sandbox: its network and cgroups.",
    "Look at the CNI plugin's pod on that node, at /etc/cni/net.d there, and at the container runtime."
  ),
  KUBELET_SILENT: Codes.error(
    "A node is Ready, and its kubelet does not take up a pod that is meant for it.",
    "Look at the kubelet's log on that node and whether it can watch pods; restart it."
  ),
  IMAGE_PULL_FAILED: Codes.error(
    "A node cannot get an image that other nodes have.",
    "Look at the way from that node to the registry, at its pull credentials and mirrors, and at its disk."
  ),
  IMAGE_PULL_SLOW: Codes.warn(
    "A node has been pulling an image for so long that nothing more is known of it.",
    "Look at the way from that node to the registry and at the disk it unpacks images to."
  ),
  IMAGE_UNFIT: Codes.unknown(
    "No node, or none of one architecture, can get or run the image of the probe's own pods, or there is none of that " +
      "name, so nothing is known of them.",
    "Check the name of the workers' image, its architectures and its pull secret, and the way from nodes to its registry."
  ),
  NOT_STARTED: Codes.error(
    "A node sets up a pod and does not start its container.",
    "Look at the container runtime (containerd, runc) on that node."
  ),
  CRASHED: Codes.error(
    "A node starts a container that ends at once, though it runs on other nodes.",
    "Read the exit code in the message; look at that node's memory, and whether the image fits its architecture."
  ),
  UNREACHABLE_FROM_KUBELET: Codes.error(
    "A node runs a pod that its own kubelet cannot reach, so no pod becomes Ready there.",
    "Look at the CNI plugin and the firewall on that node: the way from the host to its pods."
  ),
  NODE_FULL: Codes.warn(
    "A node has no room for a small pod, so it was not tried.",
    "See k8s.capacity.quota; add nodes, or lower requests."
  ),
  UNSCHEDULABLE: Codes.error(
    "The scheduler does not put a pod on a node that is Ready, for another reason than want of room.",
    "Read the scheduler's reason in the message."
  ),
  SCHEDULER_SILENT: Codes.error(
    "The scheduler has decided nothing about pods that wait for it.",
    "Look at kube-scheduler: whether it runs, its log, and its Lease in kube-system."
  ),
  SLOW: Codes.warn(
    "A node takes long until a pod is Ready, even without the pull of its image.",
    "Look at the load of that node, its runtime's log and its CNI plugin."
  ),
  TERMINATING_STUCK: Codes.error(
    "A node does not end a pod that was deleted.",
    "Look at the kubelet's log on that node for why the pod cannot be torn down: mounts, the runtime, the CNI plugin."
  ),
  NOT_ADMITTED: Codes.unknown(
    "The API server refuses the probe's pods, by a quota, a policy or a webhook, so nothing is known of the nodes.",
    "Let the probe namespace hold 10 more pods of the prober; k8s.admission.webhooks judges webhooks."
  ),
  NODE_LEFT: Codes.info(
    "A node was Ready when the sweep began and is not any more, so its pod says nothing.",
    "See k8s.node.readiness, which judges that."
  ),
  NOT_REACHED: Codes.unknown(
    "Nodes were not looked at, because others took all the time of the run.",
    "Mend what is reported of the others; the next run begins with other nodes."
  ),
  NO_NODE: Codes.info("No node can run a pod now, so there is nothing to sweep.", "See k8s.node.readiness.")
})

/** What became of the pod on one node. */
export type Swept =
  /** `took`: from its creation until it was Ready, without the pull. `gone`: whether its deletion was seen to the end. */
  | { readonly _tag: "Ran"; readonly node: string; readonly took: Duration.Duration; readonly gone: boolean }
  | {
    readonly _tag: "Failed"
    readonly node: string
    readonly stage: WorkerStage
    readonly detail: string
    readonly pull: ImagePull
  }
  | { readonly _tag: "NotReached"; readonly node: string }

/** What the scheduler says of a node without room (kube-scheduler NodeResourcesFit: `Insufficient cpu`, `Too many pods`). */
const NO_ROOM = /Insufficient |Too many pods|free ports/u

/** What the reflected condition of a pod is when the scheduler has not looked at it. */
const SCHEDULER_SAID_NOTHING = "the scheduler has said nothing of it"

const ofStage = (
  stage: WorkerStage,
  { detail, pull }: Extract<Swept, { readonly _tag: "Failed" }>
): Codes.Code | undefined => {
  switch (stage) {
    case "Unscheduled":
      return detail.includes(SCHEDULER_SAID_NOTHING)
        ? codes.SCHEDULER_SILENT
        : NO_ROOM.test(detail)
        ? codes.NODE_FULL
        : codes.UNSCHEDULABLE
    case "NotTakenUp":
      return codes.KUBELET_SILENT
    case "ImagePull":
      return isNoSuchImage(detail) ? codes.IMAGE_UNFIT : codes.IMAGE_PULL_FAILED
    case "Sandbox":
      return codes.SANDBOX_FAILED
    case "NotStarted":
      return pull.goesOn ? codes.IMAGE_PULL_SLOW : codes.NOT_STARTED
    case "Crash":
      return codes.CRASHED
    case "Unready":
      return codes.UNREACHABLE_FROM_KUBELET
    case "Admission":
      return codes.NOT_ADMITTED
    default:
      return undefined
  }
}

/** What is the same for all nodes is said once, and of what all depend on. */
const COMMON = new Map<Codes.Code, (occurrence: Codes.Occurrence) => Finding>([
  [codes.NOT_ADMITTED, codes.NOT_ADMITTED],
  [codes.IMAGE_PULL_FAILED, codes.IMAGE_UNFIT],
  [codes.IMAGE_UNFIT, codes.IMAGE_UNFIT],
  [codes.CRASHED, codes.IMAGE_UNFIT],
  [
    codes.SCHEDULER_SILENT,
    (occurrence) =>
      codes.SCHEDULER_SILENT({
        ...occurrence,
        subject: { kind: "Lease", name: "kube-scheduler", namespace: "kube-system" }
      })
  ]
])

/** What is said where an image has no part for a node's architecture: containerd's pull, and the kernel's ENOEXEC. */
const NOT_FOR_ARCHITECTURE = /no match for platform|exec format error/u

/**
 * Architectures whose nodes all fail in this way while another's do not: then the image is to blame, and not each of them.
 * One node alone may have its own reasons, unless what it says leaves no doubt.
 */
const unfitOf = (
  code: Codes.Code,
  swept: ReadonlyArray<Swept>,
  architectures: ReadonlyMap<string, string>
): ReadonlySet<string> => {
  const fails = (one: Swept) => one._tag === "Failed" && ofStage(one.stage, one) === code
  const isCertain = (one: Swept) => one._tag === "Failed" && NOT_FOR_ARCHITECTURE.test(one.detail)
  const byArchitecture = Map.groupBy(
    swept.filter(({ _tag }) => _tag !== "NotReached"),
    ({ node }) => architectures.get(node) ?? ""
  )
  const unfit = [...byArchitecture].filter(([architecture, nodes]) =>
    architecture !== "" && nodes.every(fails) && (nodes.length > 1 || nodes.every(isCertain))
  ).map(([architecture]) => architecture)
  const isElsewhere = [...byArchitecture].some(([architecture, nodes]) =>
    !unfit.includes(architecture) && !nodes.some(fails)
  )
  return new Set(isElsewhere ? unfit : [])
}

/**
 * The verdict on a sweep.
 *
 * @param present nodes that can run pods after it.
 * @param architectures of nodes by name (label `kubernetes.io/arch`).
 */
export const judge = (
  config: Pick<NodeSweepConfig, "slow" | "goneWithin">,
  swept: ReadonlyArray<Swept>,
  present: ReadonlySet<string>,
  limits: Hysteresis.Limits = Hysteresis.strict,
  architectures: ReadonlyMap<string, string> = new Map()
): ReadonlyArray<Finding> => {
  const { goneWithin, slow } = config
  const findings: Array<Finding> = []
  const tried = swept.filter(({ _tag }) => _tag !== "NotReached")
  const common = new Set<Codes.Code>()
  const unfit = new Map(
    [codes.IMAGE_PULL_FAILED, codes.CRASHED].map((code) => [code, unfitOf(code, swept, architectures)] as const)
  )
  const unfitTold = new Set<string>()
  for (const one of swept) {
    const { node } = one
    const subject = { kind: "Node", name: node }
    if (one._tag === "NotReached") continue
    if (one._tag === "Ran") {
      const { gone, took } = one
      const evidence = { tookMillis: Math.round(Duration.toMillis(took)) }
      if (limits.takesLonger(took, slow, { code: codes.SLOW, subject })) {
        findings.push(codes.SLOW({
          message: `a pod on node ${node} was Ready after ${Duration.format(Duration.millis(evidence.tookMillis))} (${
            Hysteresis.text(Duration.format(slow), Duration.isGreaterThan(took, slow))
          })`,
          subject,
          evidence
        }))
      }
      if (!gone && present.has(node)) {
        findings.push(codes.TERMINATING_STUCK({
          message: `a pod on node ${node} is still there ${Duration.format(goneWithin)} after its deletion`,
          subject,
          evidence
        }))
      }
      continue
    }
    const code = ofStage(one.stage, one)
    const message = `a pod on node ${node}: ${one.detail}`
    const evidence = { stage: one.stage }
    if (code === undefined) {
      findings.push(findingOfWorkerFault(new WorkerFault({ stage: one.stage, detail: one.detail, node })))
    } else if (!present.has(node) && code.spec.status !== "UNKNOWN") {
      findings.push(
        codes.NODE_LEFT({ message: `node ${node} is not Ready any more, or gone; ${message}`, subject, evidence })
      )
    } else if (unfit.get(code)?.has(architectures.get(node) ?? "") === true) {
      const architecture = architectures.get(node) ?? ""
      if (unfitTold.has(architecture)) continue
      unfitTold.add(architecture)
      findings.push(codes.IMAGE_UNFIT({
        message: `all nodes of ${architecture} tried, and none of another architecture: ${one.detail}`,
        evidence: { ...evidence, architecture }
      }))
    } else {
      const once = COMMON.get(code)
      const alike = tried.filter((other) => other._tag === "Failed" && ofStage(other.stage, other) === code).length
      if (once === undefined || alike < tried.length) findings.push(code({ message, subject, evidence }))
      else if (!common.has(code)) {
        common.add(code)
        findings.push(
          once({ message: `all ${alike} nodes tried: ${one.detail}`, evidence: { ...evidence, nodes: alike } })
        )
      }
    }
  }
  const notReached = swept.flatMap((one) => one._tag === "NotReached" ? [one.node] : [])
  return notReached.length === 0 ? findings : [
    ...findings,
    codes.NOT_REACHED({
      message: `${notReached.length} of ${swept.length} nodes were not looked at for want of time, such as ${
        notReached.slice(0, 5).join(", ")
      }`,
      evidence: { nodes: notReached.length }
    })
  ]
}

/** Stages whose failure may be chance, and comes quickly: tried twice. */
const AGAIN: ReadonlySet<WorkerStage> = new Set(["NotStarted", "Crash", "Evicted"])

export const nodeSweep = Probe.make("k8s.node.sweep", {
  layer: "kubernetes",
  proves: "Every node takes up a pod, sets up its network, starts it, reaches it, and ends it.",
  writes: "namespace",
  placement: "workers",
  costs: "A pod on each of at most 50 nodes, 10 at a time, and about 6 API requests a pod.",
  needs: [Needs.list("nodes"), workerNeeds],
  codes,
  config: NodeSweepConfig,
  timeout: TIMEOUT,
  interval: "30 minutes",
  // A failed pod was waited for or tried twice.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeSweepConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const limits = yield* Hysteresis.limits
    const { probeNamespace: namespace } = yield* RunContext
    const { items } = yield* kube.list(Node)
    const available = usable(items, { cordoned: true })
    const names = yield* sample(available, config.nodes)
    if (names.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "no node can run a pod now" })])

    const started = yield* Clock.currentTimeMillis
    /** A pod begun before this ends in time, whatever becomes of it. */
    const lastStart = started +
      Duration.toMillis(TIMEOUT) -
      Duration.toMillis(Duration.sum(Duration.sum(config.within, config.goneWithin), SLACK))

    /** Whether the pod went within the time. */
    const end = Effect.fnUntraced(function*(name: string) {
      const ref = { name, namespace }
      yield* kube.delete(Pod, ref)
      const there = kube.get(Pod, ref)
      return yield* there.pipe(
        Effect.repeat(POLL),
        Effect.as(false),
        // What only waits for a finalizer has been ended by its node.
        Effect.timeoutOrElse({
          duration: config.goneWithin,
          orElse: () => Effect.map(there, ({ metadata: { finalizers = [] } }) => finalizers.length > 0)
        })
      )
    }, Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.succeed(true)))

    const attempt = (node: string) => workers.respond({ node, name: "sweep", within: config.within })
    const visit = Effect.fnUntraced(function*(node: string, index: number) {
      if (index >= AT_ONCE && (yield* Clock.currentTimeMillis) > lastStart) {
        return { _tag: "NotReached", node } satisfies Swept
      }
      const [took, result] = yield* Stopwatch.timed(Effect.result(
        attempt(node).pipe(
          Effect.catchIf(
            (error) => error instanceof WorkerFault && AGAIN.has(error.stage),
            (error) =>
              Effect.flatMap(
                Clock.currentTimeMillis,
                (now) => now > lastStart ? Effect.fail(error) : attempt(node)
              )
          )
        )
      ))
      if (Result.isFailure(result)) {
        const { failure } = result
        if (!(failure instanceof WorkerFault) || failure.stage === "Unavailable") return yield* failure
        const pull = failure.pod === undefined
          ? { took: Duration.zero, goesOn: false }
          : yield* imagePull({ name: failure.pod, namespace })
        return { _tag: "Failed", node, stage: failure.stage, detail: failure.detail, pull } satisfies Swept
      }
      const { pod } = result.success
      const pulled = Duration.isGreaterThan(took, config.slow)
        ? (yield* imagePull({ name: pod, namespace })).took
        : Duration.zero
      const gone = yield* end(pod)
      return {
        _tag: "Ran",
        node,
        took: Duration.max(Duration.zero, Duration.subtract(took, pulled)),
        gone
      } satisfies Swept
    })
    const swept: ReadonlyArray<Swept> = yield* Effect.forEach(names, visit, { concurrency: AT_ONCE })
    const ran = swept.flatMap((one) => one._tag === "Ran" ? [one] : [])
    const present = ran.length === swept.length && ran.every(({ gone }) => gone)
      ? new Set(names)
      : new Set(usable((yield* kube.list(Node)).items, { cordoned: true }))
    const slowest = Math.max(0, ...ran.map(({ took }) => Duration.toMillis(took)))
    return Outcome.make(
      `${ran.length} of ${available.length} nodes ran a pod, the slowest after ${Math.round(slowest / 100) / 10} s`,
      judge(
        config,
        swept,
        present,
        limits,
        new Map(items.map(({ metadata: { labels, name = "" } }) => [name, labels?.["kubernetes.io/arch"] ?? ""]))
      )
    )
  })
})
