/** k8s.workloads.health: what should run, runs. */
import { DateTime, Duration, Effect, Result, Schema } from "effect"
import { DurationString, parse as parseDuration } from "../../domain/Duration.ts"
import { matches } from "../../domain/NamePattern.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Evidence, Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeObject } from "../../infra/kube/KubeResource.ts"
import { DaemonSet, Deployment, StatefulSet } from "../../infra/kube/resources/apps.ts"
import { type ContainerStatus, Node, Pod } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Count, Names, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

const WorkloadKind = Schema.Literals(["Deployment", "StatefulSet", "DaemonSet"])

export const WorkloadsHealthConfig = Schema.Struct({
  include: setting(Names, {
    default: ["*"],
    description: "Namespaces that are looked at; `*` at the end matches any rest."
  }),
  exclude: setting(Names, { default: [], description: "Namespaces that are not, written in the same way." }),
  required: setting(
    Schema.Array(Schema.Struct({ kind: WorkloadKind, namespace: Schema.String, name: Schema.String })).check(
      Schema.isMaxLength(200)
    ),
    { default: [], description: "Workloads that must exist, want a replica and have one available, in any namespace." }
  ),
  startWithin: setting(DurationString, {
    default: "2m",
    description:
      "A workload may be without any available replica, or unseen by its controller, and DNS on one node, this long: it " +
      "starts, or is replaced."
  }),
  unavailableAfter: setting(DurationString, {
    default: "15m",
    description: "A pod may be unready, unscheduled or uncreated this long."
  }),
  crashLoopAfter: setting(DurationString, {
    default: "10m",
    description: "A container may crash again and again for this long before it is an ERROR."
  }),
  restartsPerHour: setting(Count, {
    default: 5,
    description: "Restarts of one container in an hour that are too many."
  }),
  quoteTermination: setting(Schema.Boolean, {
    default: false,
    description:
      "Quote a container's termination message, which may be the end of its log, in what is said of its crashes. Results " +
      "are shown to more people than logs are."
  })
})
export type WorkloadsHealthConfig = typeof WorkloadsHealthConfig.Type

export const codes = Codes.make({
  NO_REPLICA_AVAILABLE: Codes.error(
    "None of a workload's replicas is available: what it serves is down.",
    "Read what its pods wait for; it is in the message when they tell."
  ),
  WORKLOAD_STARTING: Codes.info(
    "A workload has no available replica, or was not yet looked at by its controller, but has not waited long.",
    "Nothing to do, unless it stays so."
  ),
  WORKLOAD_NOT_OBSERVED: Codes.error(
    "No controller has looked at what a workload should be now, so nothing creates or replaces its pods.",
    "Look at kube-controller-manager: is it running and leading?"
  ),
  CRASH_LOOP: Codes.error(
    "A container crashes again and again for a long time. The age of a loop is read from the kubelet's back-off and, once " +
      "that is at its longest, from the number of restarts.",
    "Read the previous log of the container (kubectl logs --previous) and the exit code and reason in the message."
  ),
  CRASH_LOOP_RECENT: Codes.warn(
    "A container crashes again and again.",
    "Read the previous log of the container (kubectl logs --previous) and the exit code and reason in the message."
  ),
  RESTARTS: Codes.warn(
    "A container restarts often: so many times in the last hour, as far as one look at its last runs tells.",
    "Read the reason of its last termination in the message: OOMKilled asks for memory, others for the previous log."
  ),
  IMAGE_PULL_FAILED: Codes.warn(
    "A container cannot start, because its image is not there.",
    "Check the image's name and tag, the pull secret, and that the node reaches the registry."
  ),
  CONTAINER_NOT_CREATED: Codes.warn(
    "A container cannot be created from its specification.",
    "Read the message: a ConfigMap, Secret, command or mount it refers to is missing."
  ),
  POD_UNSCHEDULABLE: Codes.warn(
    "No node takes a pod for a long time.",
    "Read the scheduler's message: add capacity, or change requests, selectors, affinities and tolerations."
  ),
  POD_NOT_READY: Codes.warn(
    "A pod is not ready for a long time.",
    "Describe the pod: its readiness probe, volumes and events tell what it waits for."
  ),
  REPLICAS_NOT_CREATED: Codes.warn(
    "The pods of a Deployment are not created.",
    "Read the message: usually a quota, a policy or a webhook refuses them."
  ),
  NAMESPACE_EMPTY: Codes.info(
    "A namespace that was asked for by name has neither workloads nor pods, so nothing was judged there.",
    "Check its name with kubectl get namespaces; require what must run there (`required`)."
  ),
  REQUIRED_MISSING: Codes.error(
    "A workload that this probe's configuration requires does not exist, is being deleted, or is scaled to zero.",
    "Install it or scale it up, or take it from `required`."
  ),
  DNS_NOT_REDUNDANT: Codes.warn(
    "The cluster's DNS runs on one node only, though there are more: losing it stops name resolution.",
    "Scale the DNS Deployment to two replicas and spread them over nodes."
  )
})

/** Any of the three kinds, as judged. */
export interface Workload {
  readonly subject: Subject & { readonly namespace: string }
  readonly desired: number
  readonly available: number
  readonly createdAt: DateTime.Utc | undefined
  /** Since when it counts as unavailable, when its status says so. */
  readonly unavailableSince: DateTime.Utc | undefined
  /** The controller has not yet seen the newest specification, so the status is of an older one. */
  readonly isOutdated: boolean
  /** The last time anyone but its controller is known to have written it: its specification is at least as old. */
  readonly writtenAt: DateTime.Utc | undefined
  /** It is on its way out; k8s.finalizers.stuck and what it served tell the rest. */
  readonly isDeleted: boolean
  readonly replicaFailure: { readonly since: DateTime.Utc | undefined; readonly message: string } | undefined
}

const newest = (times: ReadonlyArray<DateTime.Utc | undefined>): DateTime.Utc | undefined =>
  times.reduce((a, b) => a === undefined || (b !== undefined && DateTime.isGreaterThan(b, a)) ? b : a, undefined)

const workload = (
  kind: typeof WorkloadKind.Type,
  { metadata, status }: Pick<Deployment | StatefulSet | DaemonSet, "metadata"> & {
    readonly status: Pick<Deployment["status"], "observedGeneration" | "conditions">
  },
  desired: number,
  available: number
): Workload => {
  const condition = (type: string, value: string) =>
    status.conditions.find((each) => each.type === type && each.status === value)
  const failure = condition("ReplicaFailure", "True")
  return {
    subject: { kind, namespace: metadata.namespace ?? "", name: metadata.name ?? "" },
    desired,
    available,
    createdAt: metadata.creationTimestamp,
    unavailableSince: condition("Available", "False")?.lastTransitionTime,
    isOutdated: (status.observedGeneration ?? 0) < (metadata.generation ?? 0),
    writtenAt: newest([
      metadata.creationTimestamp,
      ...(status.observedGeneration ?? 0) === 0
        ? []
        : metadata.managedFields.filter(({ subresource }) => subresource !== "status").map(({ time }) => time)
    ]),
    isDeleted: metadata.deletionTimestamp !== undefined,
    replicaFailure: failure === undefined
      ? undefined
      : { since: failure.lastTransitionTime, message: failure.message ?? failure.reason ?? "" }
  }
}

export const ofDeployment = (object: Deployment): Workload =>
  workload("Deployment", object, object.spec.replicas ?? 1, object.status.availableReplicas)
export const ofStatefulSet = (object: StatefulSet): Workload =>
  workload("StatefulSet", object, object.spec.replicas ?? 1, object.status.availableReplicas)
/** A DaemonSet wants as many pods as there are nodes for it; none is fine. */
export const ofDaemonSet = (object: DaemonSet): Workload =>
  workload("DaemonSet", object, object.status.desiredNumberScheduled, object.status.numberAvailable)

/**
 * What a pod is part of: itself, when nothing controls it. A Deployment's ReplicaSets are named after it and the hash of
 * their template.
 */
export const ownerOf = ({ metadata }: Pod): Subject => {
  const namespace = metadata.namespace ?? ""
  const owner = metadata.ownerReferences?.find(({ controller }) => controller === true)
  if (owner === undefined) return { kind: "Pod", namespace, name: metadata.name ?? "" }
  const hash = metadata.labels?.["pod-template-hash"]
  return owner.kind === "ReplicaSet" && hash !== undefined && owner.name.endsWith(`-${hash}`)
    ? { kind: "Deployment", namespace, name: owner.name.slice(0, -hash.length - 1) }
    : { kind: owner.kind, namespace, name: owner.name }
}

const ageOf = (since: DateTime.Utc | undefined, now: DateTime.Utc): Duration.Duration =>
  since === undefined ? Duration.infinity : Elapsed.between(since, now)

const keyOf = ({ kind, name, namespace }: Subject): string => `${kind} ${namespace ?? ""}/${name}`

/** Ended pods are results, and deleted ones are on their way; neither is a service that should run. */
const isLive = ({ metadata, status }: Pod): boolean =>
  metadata.deletionTimestamp === undefined && status.phase !== "Succeeded" && status.phase !== "Failed"

const IMAGE_REASONS: ReadonlySet<string> = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "ErrImageNeverPull",
  "InvalidImageName",
  "ImageInspectError",
  "RegistryUnavailable",
  "SignatureValidationFailed"
])

const CREATE_REASONS: ReadonlySet<string> = new Set([
  "CreateContainerConfigError",
  "CreateContainerError",
  "RunContainerError",
  "PreStartHookError",
  "PostStartHookError"
])

/** The kubelet's longest wait between restarts (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy). */
const LONGEST_BACK_OFF = Duration.minutes(5)
/** Its first, doubled each time. */
const FIRST_BACK_OFF = Duration.seconds(10)

/** How long the kubelet waited in all before restart number `restarts`. */
const waitedFor = (restarts: number): Duration.Duration => {
  let total = Duration.zero
  let next = FIRST_BACK_OFF
  for (let restart = 0; restart < Math.min(restarts, 100); restart++) {
    total = Duration.sum(total, next)
    next = Duration.min(Duration.times(next, 2), LONGEST_BACK_OFF)
  }
  return total
}

/** After a run of this long the kubelet forgets that the container crashed before (the same page). */
const FORGIVEN_AFTER = Duration.minutes(10)

/**
 * Whether a container crashes again and again. Between a crash and its CrashLoopBackOff the kubelet shows it as merely
 * terminated, for ten seconds and more each time, and between that and the next crash as running: what it did last time
 * tells the first of these apart from a container that ended once.
 */
export const isCrashLooping = ({ lastState, restartCount, state }: ContainerStatus): boolean => {
  if (state.waiting?.reason === "CrashLoopBackOff") return true
  const now = state.terminated
  const before = lastState.terminated
  if (now === undefined || before === undefined || restartCount < 2) return false
  if (now.exitCode === 0 || before.exitCode === 0) return false
  return now.startedAt !== undefined && now.finishedAt !== undefined &&
    Duration.isLessThan(Elapsed.between(now.startedAt, now.finishedAt), FORGIVEN_AFTER)
}

/**
 * For how long, at least, a container that is in a crash loop has been crashing. Nothing records it. While the back-off
 * grows it tells: before a wait of 80 s there were waits of 10, 20 and 40. At its longest it says no more, and the
 * number of restarts takes over. A container cannot crash for longer than its pod exists.
 */
export const crashLoopAge = (pod: Pod, container: ContainerStatus, now: DateTime.Utc): Duration.Duration => {
  const told = /^back-off (\S+) restarting/.exec(container.state.waiting?.message ?? "")?.[1]
  const backOff = told === undefined ? undefined : Result.getOrElse(parseDuration(told), () => undefined)
  const ended = (container.state.terminated ?? container.lastState.terminated)?.finishedAt
  const waiting = ended === undefined ? Duration.zero : Elapsed.between(ended, now)
  const before = backOff !== undefined && Duration.isLessThan(backOff, LONGEST_BACK_OFF)
    ? Duration.max(Duration.zero, Duration.subtract(backOff, FIRST_BACK_OFF))
    : waitedFor(container.restartCount - 1)
  const life = pod.status.startTime === undefined ? Duration.infinity : Elapsed.between(pod.status.startTime, now)
  return Duration.min(Duration.sum(before, waiting), life)
}

/**
 * `exit code 137, OOMKilled, 5s ago`: how a container ended last. Its own last words only where that is asked for: they may
 * be a line of its log, and whoever may see results may see them.
 */
const lastEnd = (
  container: ContainerStatus,
  { quoteTermination }: Pick<WorkloadsHealthConfig, "quoteTermination">,
  now: DateTime.Utc
): string => {
  const ended = container.state.terminated ?? container.lastState.terminated
  if (ended === undefined) return "it never ran"
  const { exitCode, finishedAt, message, reason, signal } = ended
  return [
    `exit code ${exitCode}`,
    ...(signal === undefined || signal === 0 ? [] : [`signal ${signal}`]),
    ...(reason === undefined || reason === "Error" ? [] : [reason]),
    ...(finishedAt === undefined ? [] : [`${Elapsed.text(Elapsed.between(finishedAt, now))} ago`]),
    ...(!quoteTermination || message === undefined || message.trim() === "" ? [] : [quote(message, 200)])
  ].join(", ")
}

/**
 * Whether a container restarts at least `perHour` times an hour. Its count has no times, so: all of it in an hour when
 * the pod is no older; else its last run, and the time since, must be as short as that rate makes them.
 */
export const restartsOften = (pod: Pod, container: ContainerStatus, perHour: number, now: DateTime.Utc): boolean => {
  const ended = container.lastState.terminated
  if (perHour === 0 || container.restartCount < perHour || ended?.finishedAt === undefined) return false
  // An init container that has succeeded will not restart, however often it failed before.
  if (container.state.terminated?.exitCode === 0 && pod.status.initContainerStatuses.includes(container)) return false
  const hour = Duration.hours(1)
  const { startTime } = pod.status
  if (startTime !== undefined && Duration.isLessThanOrEqualTo(Elapsed.between(startTime, now), hour)) return true
  const pace = Duration.times(hour, 1 / perHour)
  return ended.startedAt !== undefined &&
    Duration.isLessThanOrEqualTo(Elapsed.between(ended.startedAt, ended.finishedAt), pace) &&
    Duration.isLessThanOrEqualTo(Elapsed.between(ended.finishedAt, now), pace)
}

/** What is wrong with one pod, to be told once for all pods of a workload with the same trouble. */
export interface Trouble {
  readonly code: Codes.Code
  readonly text: string
  readonly evidence: Evidence
}

const containersOf = ({ status }: Pod): ReadonlyArray<ContainerStatus> => [
  ...status.initContainerStatuses,
  ...status.containerStatuses
]

const conditionOf = (pod: Pod, type: string) => pod.status.conditions.find((condition) => condition.type === type)

const containerTrouble = (
  pod: Pod,
  container: ContainerStatus,
  config: WorkloadsHealthConfig,
  now: DateTime.Utc
): Trouble | undefined => {
  const { waiting } = container.state
  const evidence = {
    container: container.name,
    restarts: container.restartCount,
    ...(container.lastState.terminated === undefined ? {} : {
      lastExitCode: container.lastState.terminated.exitCode,
      lastReason: container.lastState.terminated.reason ?? ""
    })
  }
  if (isCrashLooping(container)) {
    const age = crashLoopAge(pod, container, now)
    return {
      code: Duration.isGreaterThan(age, config.crashLoopAfter) ? codes.CRASH_LOOP : codes.CRASH_LOOP_RECENT,
      text: `container ${container.name} crashes again and again for ${Elapsed.text(age)} (limit ${
        Elapsed.text(config.crashLoopAfter)
      }; ${container.restartCount} restarts; last: ${lastEnd(container, config, now)})`,
      evidence
    }
  }
  if (waiting?.reason !== undefined && (IMAGE_REASONS.has(waiting.reason) || CREATE_REASONS.has(waiting.reason))) {
    return {
      code: IMAGE_REASONS.has(waiting.reason) ? codes.IMAGE_PULL_FAILED : codes.CONTAINER_NOT_CREATED,
      text: `container ${container.name} does not start, ${waiting.reason}: ${
        waiting.message ?? `image ${container.image ?? ""}`
      }`,
      evidence: { ...evidence, reason: waiting.reason, image: container.image ?? "" }
    }
  }
  return restartsOften(pod, container, config.restartsPerHour, now)
    ? {
      code: codes.RESTARTS,
      text: `container ${container.name} restarted ${container.restartCount} times, at ${config.restartsPerHour} an ` +
        `hour or more (last: ${lastEnd(container, config, now)})`,
      evidence
    }
    : undefined
}

/** What is wrong with a pod: its worst container, else what it waits for. */
export const troubleOf = (pod: Pod, config: WorkloadsHealthConfig, now: DateTime.Utc): Trouble | undefined => {
  const troubles = containersOf(pod).map((container) => containerTrouble(pod, container, config, now))
  const worst = ["ERROR", "WARN"].flatMap((status) =>
    troubles.filter((trouble) => trouble?.code.spec.status === status)
  )
  if (worst[0] !== undefined) return worst[0]
  const scheduled = conditionOf(pod, "PodScheduled")
  if (scheduled?.status === "False") {
    // A gated pod waits because someone asked for it (KEP-3521).
    if (scheduled.reason === "SchedulingGated") return undefined
    const age = ageOf(scheduled.lastTransitionTime ?? pod.metadata.creationTimestamp, now)
    return Duration.isGreaterThan(age, config.unavailableAfter)
      ? {
        code: codes.POD_UNSCHEDULABLE,
        text: `no node takes it for ${Elapsed.text(age)} (limit ${Elapsed.text(config.unavailableAfter)}): ${
          scheduled.message ?? scheduled.reason ?? ""
        }`,
        evidence: {}
      }
      : undefined
  }
  const ready = conditionOf(pod, "Ready")
  if (ready?.status === "True") return undefined
  const age = ageOf(ready?.lastTransitionTime ?? pod.metadata.creationTimestamp, now)
  return Duration.isGreaterThan(age, config.unavailableAfter)
    ? {
      code: codes.POD_NOT_READY,
      text: `it is not ready for ${Elapsed.text(age)} (limit ${Elapsed.text(config.unavailableAfter)}): ${
        ready?.message ?? ready?.reason ?? pod.status.reason ?? `phase ${pod.status.phase ?? "unknown"}`
      }`,
      evidence: { phase: pod.status.phase ?? "" }
    }
    : undefined
}

/** Why a pod does not count as available, at any age: the detail of a workload that has none. */
const waitingFor = (pod: Pod, config: WorkloadsHealthConfig, now: DateTime.Utc): string | undefined => {
  const trouble = troubleOf(pod, config, now)
  if (trouble !== undefined) return trouble.text
  const scheduled = conditionOf(pod, "PodScheduled")
  if (scheduled?.status === "False") return `no node takes it: ${scheduled.message ?? scheduled.reason ?? ""}`
  const ready = conditionOf(pod, "Ready")
  return ready?.status === "True" ? undefined : ready?.message ?? ready?.reason
}

const judgeAvailability = (
  each: Workload,
  pods: ReadonlyArray<Pod>,
  config: WorkloadsHealthConfig,
  now: DateTime.Utc
): ReadonlyArray<Finding> => {
  const { available, desired, replicaFailure, subject } = each
  const title = `${subject.kind} ${subject.namespace}/${subject.name}`
  const limit = `limit ${Elapsed.text(config.startWithin)}`
  if (each.isOutdated) {
    const age = ageOf(each.writtenAt, now)
    const message = `${title}: its controller has not looked at it since it was written ${Elapsed.text(age)} ago`
    return [(Duration.isGreaterThan(age, config.startWithin) ? codes.WORKLOAD_NOT_OBSERVED : codes.WORKLOAD_STARTING)({
      message: `${message} (${limit})`,
      subject
    })]
  }
  if (desired === 0) return []
  const missing = replicaFailure !== undefined && available < desired && Duration.isGreaterThan(
      ageOf(replicaFailure.since, now),
      config.unavailableAfter
    )
    ? [codes.REPLICAS_NOT_CREATED({
      message:
        `${title}: ${available} of ${desired} replicas are available, pods are not created: ${replicaFailure.message}`,
      subject,
      evidence: { desired, available }
    })]
    : []
  if (available > 0) return missing
  // The last of its pods became unready at that time, or was created then.
  const turned = pods.map((pod) => conditionOf(pod, "Ready")?.lastTransitionTime ?? pod.metadata.creationTimestamp)
  const age = ageOf(each.unavailableSince ?? newest(turned) ?? each.createdAt, now)
  const why = pods.map((pod) => ({ pod, text: waitingFor(pod, config, now) })).find(({ text }) => text !== undefined)
  const detail = why !== undefined
    ? `: pod ${why.pod.metadata.name ?? ""}: ${why.text}`
    : pods.length > 0
    ? ""
    : `: it has no pods${replicaFailure === undefined ? "" : `: ${replicaFailure.message}`}`
  const occurrence = (limit: string) => ({
    message: `${title}: none of ${desired} replicas is available for ${Elapsed.text(age)} (${limit})${detail}`,
    subject,
    evidence: { desired, available }
  })
  return Duration.isGreaterThan(age, config.startWithin)
    ? [codes.NO_REPLICA_AVAILABLE(occurrence(limit))]
    : [codes.WORKLOAD_STARTING(occurrence(limit)), ...missing]
}

/** One finding for each workload and trouble, however many of its pods have it. */
const judgePods = (
  owner: Subject,
  pods: ReadonlyArray<Pod>,
  config: WorkloadsHealthConfig,
  now: DateTime.Utc
): ReadonlyArray<Finding> => {
  const byCode = new Map<Codes.Code, Array<{ readonly pod: Pod; readonly trouble: Trouble }>>()
  for (const pod of pods) {
    const trouble = troubleOf(pod, config, now)
    if (trouble !== undefined) byCode.set(trouble.code, [...(byCode.get(trouble.code) ?? []), { pod, trouble }])
  }
  return [...byCode].flatMap(([code, affected]) =>
    affected.slice(0, 1).map(({ pod, trouble }) => {
      const name = pod.metadata.name ?? ""
      const title = `${owner.kind} ${owner.namespace ?? ""}/${owner.name}`
      return code({
        message: owner.kind === "Pod"
          ? `${title}: ${trouble.text}`
          : `${title}: ${affected.length} of ${pods.length} pods, such as ${name}: ${trouble.text}`,
        subject: owner,
        evidence: {
          ...trouble.evidence,
          pod: name,
          pods: affected.length,
          ...(pod.spec.nodeName === undefined ? {} : { node: pod.spec.nodeName })
        }
      })
    })
  )
}

const judgeRequired = (
  workloads: ReadonlyMap<string, Workload>,
  config: WorkloadsHealthConfig
): ReadonlyArray<Finding> =>
  config.required.flatMap((subject) => {
    const found = workloads.get(keyOf(subject))
    const lack = found === undefined
      ? "does not exist"
      : found.isDeleted
      ? "is being deleted"
      // A DaemonSet without a node to run on is there, as asked.
      : found.desired === 0 && subject.kind !== "DaemonSet"
      ? "is scaled to zero"
      : undefined
    return lack === undefined ? [] : [codes.REQUIRED_MISSING({
      message: `${keyOf(subject)} is required, but ${lack}`,
      subject
    })]
  })

const anyMatches = (patterns: ReadonlyArray<string>, namespace: string): boolean =>
  patterns.some((pattern) => matches(pattern, namespace))

/** Whether a namespace is one that this configuration looks at. */
const isMeant = ({ exclude, include }: WorkloadsHealthConfig, namespace: string): boolean =>
  anyMatches(include, namespace) && !anyMatches(exclude, namespace)

const DNS_NAMESPACE = "kube-system"
const isDnsPod = (pod: Pod): boolean =>
  pod.metadata.namespace === DNS_NAMESPACE && pod.metadata.labels?.["k8s-app"] === "kube-dns"

export interface Seen {
  readonly workloads: ReadonlyArray<Workload>
  readonly pods: ReadonlyArray<Pod>
  readonly now: DateTime.Utc
}

/**
 * What was found, without what runs of probes made: some of that is not to become ready, and what a run that died has left
 * is the sweeper's to tell.
 */
export const seenOf = (found: {
  readonly deployments: ReadonlyArray<Deployment>
  readonly statefulSets: ReadonlyArray<StatefulSet>
  readonly daemonSets: ReadonlyArray<DaemonSet>
  readonly pods: ReadonlyArray<Pod>
  readonly now: DateTime.Utc
}): Seen => {
  const ours = new Set(found.deployments.filter(Watch.isOfRun).map((object) => keyOf(ofDeployment(object).subject)))
  const isOthers = (object: KubeObject): boolean => !Watch.isOfRun(object)
  return {
    workloads: [
      ...found.deployments.filter(isOthers).map(ofDeployment),
      ...found.statefulSets.filter(isOthers).map(ofStatefulSet),
      ...found.daemonSets.filter(isOthers).map(ofDaemonSet)
    ],
    pods: found.pods.filter((pod) => isOthers(pod) && !ours.has(keyOf(ownerOf(pod)))),
    now: found.now
  }
}

const isReady = (pod: Pod): boolean => conditionOf(pod, "Ready")?.status === "True"

/**
 * The DNS Deployment whose ready pods are all on one node; none when there is no such Deployment, or no need to worry. Nor
 * while another pod of it may be on its way: for `startWithin` after the Deployment was written, or a pod was created.
 */
export const loneDns = (
  { now, pods, workloads }: Seen,
  { startWithin }: Pick<WorkloadsHealthConfig, "startWithin">
): { readonly subject: Subject; readonly nodes: number } | undefined => {
  const serving = pods.filter((pod) => isDnsPod(pod) && isLive(pod) && ownerOf(pod).kind === "Deployment")
  const [first] = serving
  if (first === undefined) return undefined
  const subject = ownerOf(first)
  const nodes = new Set(serving.filter(isReady).map(({ spec }) => spec.nodeName))
  if (nodes.size > 1) return undefined
  const isYoung = (since: DateTime.Utc | undefined) => Duration.isLessThan(ageOf(since, now), startWithin)
  const deployment = workloads.find((each) => keyOf(each.subject) === keyOf(subject))
  const isWritten = deployment !== undefined && isYoung(deployment.writtenAt) &&
    (deployment.isOutdated || deployment.desired > serving.length)
  const isStarting = serving.some((pod) => !isReady(pod) && isYoung(pod.metadata.creationTimestamp))
  return isWritten || isStarting ? undefined : { subject, nodes: nodes.size }
}

/** Namespaces asked for by their whole name in which there is nothing to judge: a misspelt one must not read as PASS. */
const judgeEmpty = (seen: Seen, { exclude, include }: WorkloadsHealthConfig): ReadonlyArray<Finding> => {
  const populated = new Set([
    ...seen.workloads.map(({ subject }) => subject.namespace),
    ...seen.pods.map(({ metadata }) => metadata.namespace)
  ])
  return include
    .filter((name) => !name.endsWith("*") && !anyMatches(exclude, name) && !populated.has(name))
    .map((name) =>
      codes.NAMESPACE_EMPTY({
        message: `there is no namespace ${name}, or it has no Deployment, StatefulSet, DaemonSet or pod`,
        subject: { kind: "Namespace", name }
      })
    )
}

/** The verdict on what was seen, DNS redundancy aside. */
export const judge = (config: WorkloadsHealthConfig) => (seen: Seen): Outcome.Outcome => {
  const workloads = new Map(seen.workloads.map((each) => [keyOf(each.subject), each]))
  const groups = new Map<string, { readonly owner: Subject; readonly pods: Array<Pod> }>()
  for (const pod of seen.pods) {
    if (!isLive(pod)) continue
    const owner = ownerOf(pod)
    const group = groups.get(keyOf(owner)) ?? { owner, pods: [] }
    group.pods.push(pod)
    groups.set(keyOf(owner), group)
  }
  const meant = [...groups.values()].filter(({ owner }) => isMeant(config, owner.namespace ?? ""))
  const required = new Set(config.required.map(keyOf))
  const judged = seen.workloads.filter(({ isDeleted, subject }) =>
    !isDeleted && (isMeant(config, subject.namespace) || required.has(keyOf(subject)))
  )
  return Outcome.make(
    `${judged.filter(({ isOutdated }) => !isOutdated).length} workloads have the replicas they want, ${
      meant.reduce((sum, { pods }) => sum + pods.length, 0)
    } pods run`,
    [
      ...judgeRequired(workloads, config),
      ...judgeEmpty(seen, config),
      ...judged.flatMap((each) =>
        judgeAvailability(each, groups.get(keyOf(each.subject))?.pods ?? [], config, seen.now)
      ),
      ...meant.flatMap(({ owner, pods }) => judgePods(owner, pods, config, seen.now))
    ]
  )
}

/** Nodes are asked for only when DNS might be alone on one: to know whether there is another. */
const dnsRedundancy = Effect.fnUntraced(function*(seen: Seen, config: WorkloadsHealthConfig) {
  const lone = isMeant(config, DNS_NAMESPACE) ? loneDns(seen, config) : undefined
  if (lone === undefined) return []
  const kube = yield* Kube
  const { items } = yield* kube.list(Node)
  const schedulable = items.filter(({ spec, status }) =>
    !spec.unschedulable && status.conditions.some(({ status, type }) =>
      type === "Ready" && status === "True"
    )
  ).length
  return schedulable < 2 ? [] : [codes.DNS_NOT_REDUNDANT({
    message: `${lone.subject.kind} ${DNS_NAMESPACE}/${lone.subject.name} has ready pods on ${lone.nodes} of ` +
      `${schedulable} schedulable nodes (at least 2 expected)`,
    subject: lone.subject,
    evidence: { nodes: lone.nodes, schedulable }
  })]
})

/** Of a workload's status, what tells how it fares; a rollout also counts pods that no verdict depends on. */
const faring = (
  { observedGeneration, conditions }: Deployment["status"] | StatefulSet["status"] | DaemonSet["status"]
) => [observedGeneration, conditions.map(({ reason, status, type }) => [type, status, reason])]

const REPLICATED = Watch.differsIn(({ metadata, spec, status }: Deployment | StatefulSet) => [
  metadata.generation,
  metadata.deletionTimestamp,
  spec.replicas,
  status.availableReplicas,
  faring(status)
])

const PER_NODE = Watch.differsIn(({ metadata, status }: DaemonSet) => [
  metadata.generation,
  metadata.deletionTimestamp,
  status.desiredNumberScheduled,
  status.numberAvailable,
  faring(status)
])

export const workloadsHealth = Probe.make("k8s.workloads.health", {
  layer: "kubernetes",
  proves:
    "Deployments, StatefulSets and DaemonSets have available replicas, and no pod crashes, hangs or waits for long.",
  writes: "nothing",
  costs: "5 API requests, one more for each further 500 objects of a kind, and one when all of DNS is on one node.",
  needs: [
    Needs.list("pods"),
    Needs.list("deployments", { group: "apps" }),
    Needs.list("statefulsets", { group: "apps" }),
    Needs.list("daemonsets", { group: "apps" }),
    Needs.list("nodes"),
    ServerTime.needs
  ],
  codes,
  config: WorkloadsHealthConfig,
  timeout: "30 seconds",
  // Not pods: a cluster has too many, and a workload whose pods fail says so.
  timed: [],
  onChange: [
    Watch.of(Deployment, { when: REPLICATED }),
    Watch.of(StatefulSet, { when: REPLICATED }),
    Watch.of(DaemonSet, { when: PER_NODE })
  ],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: WorkloadsHealthConfig) {
    const kube = yield* Kube
    // Pods last: what a workload's status promises is then judged by pods at least as young.
    const [deployments, statefulSets, daemonSets] = yield* Effect.all([
      kube.list(Deployment),
      kube.list(StatefulSet),
      kube.list(DaemonSet)
    ], { concurrency: 3 })
    const [{ items: pods }, now] = yield* Effect.all([kube.list(Pod), ServerTime.nowOrOurs], { concurrency: 2 })
    const seen = seenOf({
      deployments: deployments.items,
      statefulSets: statefulSets.items,
      daemonSets: daemonSets.items,
      pods,
      now
    })
    const outcome = judge(config)(seen)
    return Outcome.make(outcome.summary, [...outcome.findings, ...yield* dnsRedundancy(seen, config)])
  })
})
