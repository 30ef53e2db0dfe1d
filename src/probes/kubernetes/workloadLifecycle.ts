/**
 * k8s.workload.lifecycle: Deployments start, roll, scale and vanish.
 *
 * One small Deployment of the run's own goes the way of every release: two pods Available, a rolling update, one pod, none.
 * That takes the API server with its admission, the Deployment, ReplicaSet and garbage collection controllers, the scheduler
 * and kubelets. Who does not do his part is found by how far the pods came.
 */
import { DateTime, Duration, Effect, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import type { Condition } from "../../infra/kube/KubeResource.ts"
import { Deployment, ReplicaSet } from "../../infra/kube/resources/apps.ts"
import { Node, Pod } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL, Scratch } from "../Scratch.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import { type ImagePull, imagePull } from "../workers/imagePull.ts"
import { isNoSuchImage, sight } from "../workers/podStage.ts"
import { isVirtual } from "../workers/virtualNode.ts"
import { type WorkerImage, Workers } from "../workers/Workers.ts"

/** By which the pods and ReplicaSets of one run are found. */
const LABEL = "kubeprober.io/workload"

const POLL = Schedule.spaced("500 millis")

export const WorkloadLifecycleConfig = Schema.Struct({
  slow: setting(DurationString, {
    default: "30s",
    description: "A stage that takes longer, the pull of the image not counted, is a WARN."
  }),
  within: setting(DurationString, {
    default: "120s",
    description: "A stage that is not done after this is an ERROR, named after what holds it up."
  })
})
export type WorkloadLifecycleConfig = typeof WorkloadLifecycleConfig.Type

export const codes = Codes.make({
  CREATE_FAILED: Codes.error(
    "A Deployment could not be written.",
    "Read the API server's reason in the message; k8s.api.crud and k8s.admission.webhooks judge writes and webhooks."
  ),
  ADMISSION: Codes.error(
    "Pods of a Deployment are refused, because an admission webhook or plugin cannot be asked.",
    "Restore the webhook named in the message; k8s.admission.webhooks says more."
  ),
  NOT_ADMITTED: Codes.unknown(
    "A quota or policy of the probe namespace refuses the probe's objects, so nothing is known.",
    "Let the probe namespace hold a Deployment of the prober with 3 pods."
  ),
  ROLLOUT_STUCK: Codes.error(
    "The controllers do not act on a Deployment.",
    "Look at kube-controller-manager: whether it runs, its log, and its Lease in kube-system."
  ),
  UNSCHEDULED: Codes.error(
    "Pods of a Deployment find no node.",
    "Read the scheduler's reason in the message: want of room, taints, or none when kube-scheduler does not run."
  ),
  KUBELET_SILENT: Codes.error(
    "A pod of a Deployment is not taken up by its node's kubelet.",
    "Look at the kubelet's log on that node; k8s.node.sweep looks at all nodes."
  ),
  IMAGE_PULL: Codes.error(
    "A node cannot get the image of a Deployment's pod.",
    "Look at the way from that node to the registry, at pull credentials and mirrors."
  ),
  IMAGE_UNFIT: Codes.unknown(
    "There is no image of the name that the probe's own pods have, so nothing is known.",
    "Correct --worker-image, or push the image to the registry that the message names."
  ),
  IMAGE_PULL_SLOW: Codes.warn(
    "A node has been pulling the image of a Deployment's pod for too long to say more.",
    "Look at the way from that node to the registry and at the disk it unpacks images to."
  ),
  SANDBOX: Codes.error(
    "A node cannot set up the sandbox (network, cgroups) of a Deployment's pod.",
    "Look at the CNI plugin and the container runtime on that node."
  ),
  NOT_STARTED: Codes.error(
    "A node does not start the container of a Deployment's pod.",
    "Look at the container runtime (containerd, runc) on that node."
  ),
  CRASH: Codes.error(
    "The container of a Deployment's pod ends again and again.",
    "Read its exit code in the message; look for memory limits, and whether the image fits the node's architecture."
  ),
  UNREADY: Codes.error(
    "A pod of a Deployment runs and its kubelet cannot reach it.",
    "Look at the CNI plugin and the firewall on that node: the way from the host to its pods."
  ),
  TERMINATING: Codes.error(
    "A node does not end a pod that was deleted.",
    "Look at the kubelet's log on that node for why the pod cannot be torn down."
  ),
  SCALE: Codes.error(
    "A Deployment that was scaled down keeps its pods.",
    "Look at kube-controller-manager: whether it runs, its log, and its Lease in kube-system."
  ),
  GC: Codes.error(
    "What a deleted Deployment owned is still there.",
    "Look for finalizers on what the message names, then at kube-controller-manager's garbage collector, which stops when an aggregated API does not answer discovery."
  ),
  SLOW: Codes.warn(
    "A Deployment takes long to start, roll, scale or vanish, even without the pull of its image.",
    "Look at the stage in the message: kube-controller-manager, kube-scheduler, or the nodes its pods ran on."
  ),
  NO_NODE: Codes.info(
    "The cluster has no node for a plain pod of Linux by somebody's will: none at all, or all are kept for others by taints.",
    "Nothing to do where that is meant, as in a cluster that is scaled to zero."
  )
})

/**
 * Taints that tell how a node fares, and not whom it is kept for: those of Kubernetes and its cloud providers, of what scales
 * nodes, and of agents (CNI and CSI plugins) that have not started on it.
 */
const PASSING =
  /^node\.(?:cloudprovider\.)?kubernetes\.io\/|^karpenter\.sh\/|ClusterAutoscaler|not-ready|uninitialized/u

/** Whether a plain pod of Linux is meant to find a place there, however the node fares now; a cordon passes too. */
const isForPlainPods = (node: Node): boolean =>
  (node.metadata.labels?.["kubernetes.io/os"] ?? "linux") === "linux" && !isVirtual(node) &&
  node.spec.taints.every(({ effect, key }) => (effect !== "NoSchedule" && effect !== "NoExecute") || PASSING.test(key))

/** Why no node is meant for a plain pod; nothing when one is. */
export const noNodeOf = (nodes: ReadonlyArray<Node>): Finding | undefined =>
  nodes.some(isForPlainPods) ? undefined : codes.NO_NODE({
    message:
      `none of ${nodes.length} nodes is for plain pods of Linux: taints keep them for others, or they are of another kind`,
    evidence: { nodes: nodes.length }
  })

export type Stage = "start" | "update" | "scale" | "deletion"

/** What of a workload is there when a stage's time is up. */
export interface Remains {
  readonly deployment: Deployment | undefined
  readonly replicaSets: ReadonlyArray<ReplicaSet>
  readonly pods: ReadonlyArray<Pod>
  /** Looked at where pods find none. */
  readonly nodes?: ReadonlyArray<Node> | undefined
  /** Of the pod that stands at its container. */
  readonly pull?: ImagePull | undefined
}

const MANAGER: Subject = { kind: "Lease", name: "kube-controller-manager", namespace: "kube-system" }
const SCHEDULER: Subject = { kind: "Lease", name: "kube-scheduler", namespace: "kube-system" }

/** Something could not be asked, as against somebody who said no (apiserver pkg/admission/plugin/webhook/errors). */
const isOutage = (message: string): boolean => /failed calling webhook|Internal error occurred/u.test(message)

const refusal = (conditions: ReadonlyArray<Condition>): string | undefined =>
  conditions.find(({ status, type }) => type === "ReplicaFailure" && status === "True")?.message

interface Blame {
  readonly code: Codes.Code
  readonly detail: string
  /** None where a whole cluster is to blame. */
  readonly subject?: Subject | undefined
}

/** How far a pod that should be Ready came, and who has it now; nothing of one that is Ready. */
const blameOfPod = (pod: Pod, pull: ImagePull | undefined): Blame | undefined => {
  const { metadata, spec, status } = pod
  const node = { kind: "Node", name: spec.nodeName ?? "" }
  if (metadata.deletionTimestamp !== undefined) return undefined
  const [container] = status.containerStatuses
  const last = container?.state.terminated ?? container?.lastState.terminated
  if (last !== undefined && !container?.ready) {
    const why = last.reason === undefined || last.reason === "Error" ? "" : ` (${last.reason})`
    return {
      code: codes.CRASH,
      detail: `its container ended ${container?.restartCount ?? 0} times, with exit code ${last.exitCode}${why}`,
      subject: node
    }
  }
  const seen = sight(pod)
  if (seen._tag === "Ended") return undefined
  if (seen._tag === "Running") {
    return seen.ready ? undefined : { code: codes.UNREADY, detail: "it runs and is not Ready", subject: node }
  }
  const { detail, stage } = seen
  switch (stage) {
    case "Unscheduled": {
      const silent = !status.conditions.some(({ type }) => type === "PodScheduled")
      return { code: codes.UNSCHEDULED, detail, ...(silent ? { subject: SCHEDULER } : {}) }
    }
    case "NotTakenUp":
      return { code: codes.KUBELET_SILENT, detail, subject: node }
    case "ImagePull":
      return isNoSuchImage(detail)
        ? { code: codes.IMAGE_UNFIT, detail }
        : { code: codes.IMAGE_PULL, detail, subject: node }
    case "Sandbox":
      return { code: codes.SANDBOX, detail, subject: node }
    case "NotStarted":
      return { code: pull?.goesOn === true ? codes.IMAGE_PULL_SLOW : codes.NOT_STARTED, detail, subject: node }
    default:
      return undefined
  }
}

const held = ({ metadata }: { readonly metadata: { readonly finalizers?: ReadonlyArray<string> } }): string =>
  metadata.finalizers === undefined || metadata.finalizers.length === 0
    ? ""
    : `, which waits for finalizers ${metadata.finalizers.join(", ")}`

const blameOf = (stage: Stage, { deployment, pods, pull, replicaSets }: Remains): Blame => {
  const ending = pods.find(({ metadata: { deletionTimestamp }, spec }) =>
    deletionTimestamp !== undefined && spec.nodeName !== undefined
  )
  const terminating = (pod: Pod): Blame => ({
    code: codes.TERMINATING,
    detail: `pod ${pod.metadata.name} was deleted and is still there${held(pod)}`,
    subject: { kind: "Node", name: pod.spec.nodeName ?? "" }
  })
  if (stage === "deletion") {
    if (ending !== undefined && held(ending) === "") return terminating(ending)
    const left = [
      ...deployment === undefined ? [] : [`Deployment ${deployment.metadata.name}${held(deployment)}`],
      ...replicaSets.map((one) => `ReplicaSet ${one.metadata.name}${held(one)}`),
      ...pods.map((one) => `Pod ${one.metadata.name}${held(one)}`)
    ]
    return { code: codes.GC, detail: `${left.slice(0, 3).join("; ")} (${left.length} in all)`, subject: MANAGER }
  }
  const refused = [deployment, ...replicaSets].flatMap((one) => {
    const message = one === undefined ? undefined : refusal(one.status.conditions)
    return message === undefined ? [] : [message]
  })[0]
  if (refused !== undefined) {
    return {
      code: isOutage(refused) ? codes.ADMISSION : codes.NOT_ADMITTED,
      detail: refused
    }
  }
  const blamed = pods.flatMap((pod) => blameOfPod(pod, pull) ?? [])[0]
  if (blamed !== undefined) return blamed
  if (ending !== undefined) return terminating(ending)
  const { observedGeneration = 0 } = deployment?.status ?? {}
  const seen = observedGeneration >= (deployment?.metadata.generation ?? 0)
  return {
    code: stage === "scale" ? codes.SCALE : codes.ROLLOUT_STUCK,
    detail: seen
      ? `it has ${pods.length} pods in ${replicaSets.length} ReplicaSets, and ${
        deployment?.status.availableReplicas ?? 0
      } are counted as available`
      : "the Deployment controller has not looked at it",
    subject: MANAGER
  }
}

/** What holds up a stage that is not done in its time. */
export const judge = (stage: Stage, within: Duration.Duration, remains: Remains): Finding => {
  const { code, detail, subject } = blameOf(stage, remains)
  const noNode = code === codes.UNSCHEDULED && remains.nodes !== undefined ? noNodeOf(remains.nodes) : undefined
  // A scheduler that has said nothing is at fault wherever the pods could go.
  if (noNode !== undefined && subject === undefined) return noNode
  return code({
    message: `the ${stage} of a Deployment is not done after ${Duration.format(within)}: ${detail}`,
    ...(subject === undefined || subject.name === "" ? {} : { subject }),
    evidence: { stage, pods: remains.pods.length, replicaSets: remains.replicaSets.length }
  })
}

export const manifest = (options: {
  readonly name: string
  readonly namespace: string
  readonly image: WorkerImage
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}) => {
  const { annotations, image, labels, name, namespace } = options
  return {
    metadata: { name, namespace, labels },
    spec: {
      replicas: 2,
      revisionHistoryLimit: 1,
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      selector: { matchLabels: { [LABEL]: name } },
      template: {
        metadata: { labels, annotations },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          terminationGracePeriodSeconds: 1,
          nodeSelector: { "kubernetes.io/os": "linux" },
          imagePullSecrets: image.imagePullSecrets,
          securityContext: image.podSecurityContext,
          containers: [{
            name: "workload",
            image: image.image,
            imagePullPolicy: image.imagePullPolicy,
            args: image.respondArgs,
            resources: { requests: { cpu: "10m", memory: "48Mi" }, limits: { memory: "160Mi" } },
            securityContext: image.containerSecurityContext,
            ports: [{ name: "http", containerPort: image.port }],
            readinessProbe: { httpGet: { path: "/", port: image.port }, periodSeconds: 1, timeoutSeconds: 2 }
          }]
        }
      }
    }
  }
}

export const workloadLifecycle = Probe.make("k8s.workload.lifecycle", {
  layer: "kubernetes",
  proves: "A Deployment starts its pods, rolls to a new version, scales, and leaves nothing when it is deleted.",
  writes: "namespace",
  placement: "workers",
  costs: "A Deployment with 2 pods, 4 pods in all, and about 50 API requests.",
  needs: [
    Needs.list("nodes"),
    Needs.verbs(["create", "get", "patch", "delete"], "deployments", {
      group: "apps",
      namespace: Needs.probeNamespace
    }),
    Needs.list("replicasets", { group: "apps", namespace: Needs.probeNamespace }),
    Needs.list("pods", { namespace: Needs.probeNamespace }),
    Needs.list("events", { group: "events.k8s.io", namespace: Needs.probeNamespace })
  ],
  codes,
  config: WorkloadLifecycleConfig,
  // Four stages.
  timeout: "9 minutes",
  interval: "10 minutes",
  // Each stage was waited for.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: WorkloadLifecycleConfig) {
    const kube = yield* Kube
    const scratch = yield* Scratch
    const { image: theImage } = yield* Workers
    const image = yield* theImage
    const { expiresAt, probeNamespace: namespace, runId } = yield* RunContext
    const name = yield* scratch.name("workload")
    const ref = { name, namespace }
    const ours = { namespace, labelSelector: `${LABEL}=${name}` }
    const took = new Map<Stage, Duration.Duration>()

    const find = Effect.all({
      deployment: kube.get(Deployment, ref).pipe(
        Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.undefined)
      ),
      replicaSets: Effect.map(kube.list(ReplicaSet, ours), ({ items }) => items),
      pods: Effect.map(kube.list(Pod, ours), ({ items }) => items)
    }, { concurrency: 3 })

    /** The longest pull of these pods. */
    const pulls = (pods: ReadonlyArray<Pod>) =>
      Effect.map(
        Effect.forEach(pods, ({ metadata }) => imagePull({ name: metadata.name ?? "", namespace }), { concurrency: 4 }),
        (all): ImagePull => ({
          took: all.reduce((longest, { took }) => Duration.max(longest, took), Duration.zero),
          goesOn: all.some(({ goesOn }) => goesOn)
        })
      )

    /** Waits until `done`; the run ends here when that does not come in time. */
    const stage = Effect.fnUntraced(function*(which: Stage, done: Effect.Effect<boolean, KubeError>) {
      const [waited] = yield* Stopwatch.timed(done.pipe(
        Effect.repeat({ until: (is) => is, schedule: POLL }),
        Stopwatch.withinOrElse({
          limit: config.within,
          orElse: () =>
            Effect.gen(function*() {
              const remains = yield* find
              const finding = judge(which, config.within, {
                ...remains,
                nodes: (yield* kube.list(Node)).items,
                pull: yield* pulls(remains.pods)
              })
              return yield* new Codes.TargetFault({ finding })
            })
        })
      ))
      const long = which !== "deletion" && Duration.isGreaterThan(waited, config.slow)
      const pulling = long ? (yield* pulls((yield* find).pods)).took : Duration.zero
      took.set(which, Duration.max(Duration.zero, Duration.subtract(waited, pulling)))
    })
    /** All of the newest template, all available, and none besides. */
    const rolled = (replicas: number) =>
      Effect.map(
        kube.get(Deployment, ref),
        ({ metadata: { generation = 0 }, status }) =>
          (status.observedGeneration ?? 0) >= generation && status.replicas === replicas &&
          status.updatedReplicas === replicas && status.availableReplicas === replicas
      )

    // Nobody is waited for where there is no node: nor is one asked for, by pods that wait, of what scales the cluster.
    const { items: some } = yield* kube.list(Node, { maximum: 1 })
    if (some.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "the cluster has no node" })])
    const labels = { [LABEL]: name, [RUN_LABEL]: runId, "app.kubernetes.io/name": "kubeprober" }
    const annotations = { [EXPIRES_ANNOTATION]: DateTime.formatIso(expiresAt) }
    yield* scratch.create(Deployment, manifest({ name, namespace, image, labels, annotations })).pipe(
      Effect.catchIf(
        ({ reason }) => reason._tag === "AdmissionDenied" || reason._tag === "ServerFault",
        (error) =>
          (error.reason._tag === "AdmissionDenied" && error.reason.kind !== "webhook-failed"
            ? codes.NOT_ADMITTED
            : codes.CREATE_FAILED).fail({ message: error.message })
      )
    )
    yield* stage("start", rolled(2))
    yield* kube.patch(Deployment, ref, {
      spec: { template: { metadata: { annotations: { "kubeprober.io/version": "2" } } } }
    })
    yield* stage("update", rolled(2))
    yield* kube.patch(Deployment, ref, { spec: { replicas: 1 } })
    yield* stage("scale", rolled(1))
    yield* kube.delete(Deployment, ref, { propagationPolicy: "Background" })
    yield* stage(
      "deletion",
      Effect.map(
        find,
        ({ deployment, pods, replicaSets }) => deployment === undefined && pods.length === 0 && replicaSets.length === 0
      )
    )

    const seconds = (duration: Duration.Duration) => `${Math.round(Duration.toMillis(duration) / 100) / 10} s`
    const times = [...took].map(([which, duration]) => `${which} ${seconds(duration)}`).join(", ")
    const slow = [...took].filter(([, duration]) => Duration.isGreaterThan(duration, config.slow))
    return Outcome.make(
      `a Deployment started, rolled, scaled and vanished: ${times}`,
      slow.length === 0 ? [] : [codes.SLOW({
        message: `stages of a Deployment took longer than ${Duration.format(config.slow)}: ${
          slow.map(([which, duration]) => `${which} ${seconds(duration)}`).join(", ")
        }`,
        evidence: Object.fromEntries(
          [...took].map(([which, duration]) => [`${which}Millis`, Math.round(Duration.toMillis(duration))])
        )
      })]
    )
  })
})
