/** k8s.node.readiness: every node is there for pods. */
import { DateTime, Duration, Effect, Option, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import { matches } from "../../domain/NamePattern.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Lease } from "../../infra/kube/resources/coordination.ts"
import { Node } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Count, Names, Percent, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

const LEASE_NAMESPACE = "kube-node-lease"

/**
 * Taints that say what a node is for, or that someone else is already at work on it: roles, accelerators, capacity
 * types, virtual nodes, and autoscalers about to remove it. Those of `node.kubernetes.io` follow conditions, which are
 * judged themselves.
 */
const EXPECTED_TAINTS = [
  "node-role.kubernetes.io/*",
  "CriticalAddonsOnly",
  "nvidia.com/*",
  "amd.com/*",
  "karpenter.sh/*",
  "kubernetes.azure.com/*",
  "cloud.google.com/*",
  "eks.amazonaws.com/*",
  "virtual-kubelet.io/*",
  "virtual-node.liqo.io/*",
  "ToBeDeletedByClusterAutoscaler",
  "DeletionCandidateOfClusterAutoscaler"
]

/** Set and removed by the control plane with a condition or with `spec.unschedulable`. */
const CONDITION_TAINTS: ReadonlySet<string> = new Set([
  "not-ready",
  "unreachable",
  "memory-pressure",
  "disk-pressure",
  "pid-pressure",
  "network-unavailable",
  "unschedulable"
].map((name) => `node.kubernetes.io/${name}`))

/** Set by cluster-autoscaler and Karpenter (the last by its v1beta1 too) on a node that they are taking away. */
const LEAVING_TAINTS: ReadonlySet<string> = new Set([
  "ToBeDeletedByClusterAutoscaler",
  "karpenter.sh/disrupted",
  "karpenter.sh/disruption"
])

const PRESSURES: Readonly<Record<string, string>> = {
  MemoryPressure: "memory",
  DiskPressure: "disk space or inodes",
  PIDPressure: "process ids"
}

export const NodeReadinessConfig = Schema.Struct({
  notReadyAfter: setting(DurationString, {
    default: "2m",
    description:
      "A node may be NotReady this long before it is an ERROR. A node this young is joining: it may also lack " +
      "its network and carry any taint."
  }),
  leaveWithin: setting(DurationString, {
    default: "30m",
    description: "A node that an autoscaler takes away may be NotReady, or its lease stale, this long."
  }),
  leaseAge: setting(DurationString, {
    default: "40s",
    description: "How old a node's lease may be. Kubelets renew it every 10 s; the default is its duration (KEP-589)."
  }),
  cordonWarnAfter: setting(DurationString, {
    default: "24h",
    description: "A cordon older than this was probably forgotten."
  }),
  minSchedulable: setting(Percent, { default: 80, description: "Percentage of worker nodes that take pods." }),
  minNodes: setting(Count, { default: 0, description: "Fewer nodes than this are an ERROR." }),
  expectedTaints: setting(Names, {
    default: EXPECTED_TAINTS,
    description: "Keys of taints that belong here; `*` at the end matches any rest."
  })
})
export type NodeReadinessConfig = typeof NodeReadinessConfig.Type

export const codes = Codes.make({
  NODE_NOT_READY: Codes.error(
    "A node is NotReady for longer than allowed, or its kubelet no longer renews its lease either; its pods are lost or being moved.",
    "Read the kubelet's log on that node; when it is unreachable, look at the machine and its network."
  ),
  NODE_NOT_READY_RECENTLY: Codes.warn(
    "A node became NotReady a moment ago.",
    "Wait for the limit in the message; then read the kubelet's log on that node."
  ),
  NODE_LEASE_STALE: Codes.error(
    "A node counts as Ready, but its kubelet has stopped renewing its lease, and nothing in the control plane has noticed.",
    "Look at the kubelet of that node and, if the node stays Ready for minutes, at kube-controller-manager."
  ),
  NODE_JOINING: Codes.info(
    "A node registered a moment ago and takes no pods yet: it is not Ready, lacks its network or is tainted.",
    "Nothing to do, unless it stays so."
  ),
  NODE_LEAVING: Codes.info(
    "A node is being deleted, or an autoscaler takes it away, and its kubelet has ended.",
    "Nothing to do, unless it stays so: then see its finalizers, or the autoscaler's log."
  ),
  NODE_PRESSURE: Codes.warn(
    "A node runs short of memory, disk or process ids; it takes no new pods and evicts some.",
    "Free the resource in the message on that node, or move pods away."
  ),
  NODE_NETWORK_UNAVAILABLE: Codes.warn(
    "The network of a node is not set up, so it takes no pods.",
    "Look at the network plugin's pod on that node, or at the cloud's route controller."
  ),
  NODE_CORDONED: Codes.info(
    "A node is cordoned: it takes no new pods.",
    "Uncordon it when the maintenance is over."
  ),
  NODE_CORDONED_LONG: Codes.warn(
    "A node is cordoned for so long that it was probably forgotten.",
    "Uncordon the node, or remove it from the cluster."
  ),
  NODE_TAINTED: Codes.warn(
    "Nodes carry a NoSchedule or NoExecute taint that is neither Kubernetes' own nor expected by this probe's configuration.",
    "Remove the taint, or add its key to `expectedTaints`."
  ),
  FEW_NODES_SCHEDULABLE: Codes.error(
    "Too small a part of the worker nodes takes pods: none at all, or fewer than `minSchedulable` with more than one out. " +
      "One node out is maintenance, however few there are; so are those cordoned since less than `cordonWarnAfter`, while " +
      "another takes pods.",
    "Uncordon nodes or mend those that are NotReady."
  ),
  NO_NODES: Codes.info(
    "The cluster has no node, so nothing can run in it. That is meant for a control plane that is shared, new or scaled to " +
      "zero; set `minNodes` where it is not. Pods that wait for a node are told by k8s.workloads.health.",
    "Join a node, or set `minNodes` to be alarmed."
  ),
  TOO_FEW_NODES: Codes.error("The cluster has fewer nodes than `minNodes`.", "Join nodes, or look why they left.")
})

const nameOf = (node: Node): string => node.metadata.name ?? ""

const subject = (node: Node) => ({ kind: "Node", name: nameOf(node) })

const ageOf = (since: DateTime.Utc | undefined, now: DateTime.Utc): Duration.Duration =>
  since === undefined ? Duration.infinity : Elapsed.between(since, now)

/** What a look at the nodes saw. `now` is the cluster's time, and absent when only differences between leases are known. */
export interface Seen {
  readonly nodes: ReadonlyArray<Node>
  readonly leases: ReadonlyArray<Lease>
  readonly now: DateTime.Utc
  /** What the age of leases is measured against. */
  readonly leaseNow: DateTime.Utc
}

type Condition = Node["status"]["conditions"][number]

const conditionOf = (node: Node, type: string): Condition | undefined =>
  node.status.conditions.find((condition) => condition.type === type)

/** The node controller's reason for a kubelet that had posted its status and went silent: such a node has joined. */
const STOPPED_POSTING = "NodeStatusUnknown"

const isDeleted = (node: Node): boolean => node.metadata.deletionTimestamp !== undefined

/** Whether an autoscaler has begun to take it away; it does not say when. */
const isTakenAway = (node: Node): boolean => node.spec.taints.some(({ key }) => LEAVING_TAINTS.has(key))

const isYoung = (node: Node, seen: Seen, config: NodeReadinessConfig): boolean =>
  Duration.isLessThan(ageOf(node.metadata.creationTimestamp, seen.now), config.notReadyAfter)

/** Keeps new pods away, for a reason that is neither a condition's nor expected. */
const isUnexpected = (config: NodeReadinessConfig) => ({ effect, key }: Node["spec"]["taints"][number]): boolean =>
  (effect === "NoSchedule" || effect === "NoExecute") && !CONDITION_TAINTS.has(key) &&
  !config.expectedTaints.some((pattern) => matches(pattern, key))

/** What a node that is Ready still lacks, as a new one may: its network, or an agent that takes a taint away. */
const lackOf = (node: Node, config: NodeReadinessConfig): string | undefined => {
  const taint = node.spec.taints.find(isUnexpected(config))
  return conditionOf(node, "NetworkUnavailable")?.status === "True"
    ? "has no network yet"
    : taint === undefined
    ? undefined
    : `has the taint ${taint.key}:${taint.effect}`
}

/** The verdict on one node by its Ready condition and its lease, and whether it counts as there. */
const judgeReadiness = (node: Node, seen: Seen, config: NodeReadinessConfig): Finding | undefined => {
  const name = nameOf(node)
  const ready = conditionOf(node, "Ready")
  const lease = seen.leases.find((lease) => lease.metadata.name === name)
  const leaseAge = lease?.spec.renewTime === undefined ? undefined : ageOf(lease.spec.renewTime, seen.leaseNow)
  const stale = leaseAge !== undefined && Duration.isGreaterThan(leaseAge, config.leaseAge)
  const leaseEvidence = leaseAge === undefined ? {} : { leaseAgeSeconds: Math.round(Duration.toSeconds(leaseAge)) }
  const limit = `(limit ${Elapsed.text(config.notReadyAfter)})`
  const registered = `node ${name} registered ${Elapsed.text(ageOf(node.metadata.creationTimestamp, seen.now))} ago and`
  if (ready?.status === "True") {
    if (stale) {
      const isEnding = isDeleted(node) || isTakenAway(node) && Duration.isLessThan(leaseAge, config.leaveWithin)
      return isEnding
        ? codes.NODE_LEAVING({
          message: `node ${name} is ${isDeleted(node) ? "being deleted" : "taken away by an autoscaler"}, and its ` +
            `kubelet last renewed its lease ${Elapsed.text(leaseAge)} ago`,
          subject: subject(node),
          evidence: leaseEvidence
        })
        : codes.NODE_LEASE_STALE({
          message:
            `node ${name} counts as Ready, but its kubelet last renewed its lease ${Elapsed.text(leaseAge)} ago ` +
            `(limit ${Elapsed.text(config.leaseAge)})`,
          subject: subject(node),
          evidence: leaseEvidence
        })
    }
    const lack = isYoung(node, seen, config) ? lackOf(node, config) : undefined
    return lack === undefined || isDeleted(node)
      ? undefined
      : codes.NODE_JOINING({ message: `${registered} ${lack} ${limit}`, subject: subject(node) })
  }
  const since = ready?.lastTransitionTime ?? node.metadata.creationTimestamp
  const age = ageOf(since, seen.now)
  const why = ready === undefined
    ? "it never reported a status"
    : ready.message ?? ready.reason ?? `its Ready condition is ${ready.status}`
  const about = {
    subject: subject(node),
    evidence: {
      ready: ready?.status ?? "missing",
      reason: ready?.reason ?? "",
      ...(since === undefined ? {} : { since: DateTime.formatIso(since) }),
      ...leaseEvidence
    }
  }
  if (node.metadata.deletionTimestamp !== undefined) {
    return codes.NODE_LEAVING({
      ...about,
      message: `node ${name} is being deleted for ${
        Elapsed.text(ageOf(node.metadata.deletionTimestamp, seen.now))
      } and is NotReady`
    })
  }
  if (isTakenAway(node) && Duration.isLessThan(age, config.leaveWithin)) {
    return codes.NODE_LEAVING({
      ...about,
      message: `node ${name} is taken away by an autoscaler and is NotReady for ${Elapsed.text(age)} (limit ${
        Elapsed.text(config.leaveWithin)
      })`
    })
  }
  const inTime = Duration.isLessThan(age, config.notReadyAfter)
  if (isYoung(node, seen, config) && ready?.reason !== STOPPED_POSTING) {
    return codes.NODE_JOINING({ ...about, message: `${registered} is not Ready yet ${limit}: ${why}` })
  }
  return inTime && !stale
    ? codes.NODE_NOT_READY_RECENTLY({
      ...about,
      message: `node ${name} is NotReady for ${Elapsed.text(age)} ${limit}: ${why}`
    })
    : codes.NODE_NOT_READY({
      ...about,
      message: stale && inTime
        ? `node ${name} is NotReady for ${Elapsed.text(age)}, and its kubelet last renewed its lease ` +
          `${Elapsed.text(leaseAge)} ago (limit ${Elapsed.text(config.leaseAge)}): ${why}`
        : `node ${name} is NotReady for ${Elapsed.text(age)} ${limit}: ${why}`
    })
}

const judgeConditions = (node: Node, isMoving: boolean): ReadonlyArray<Finding> =>
  node.status.conditions.filter((condition) => condition.status === "True").flatMap((condition) => {
    const short = PRESSURES[condition.type]
    const detail = condition.message ?? condition.reason ?? condition.type
    if (short !== undefined) {
      return [codes.NODE_PRESSURE({
        message: `node ${nameOf(node)} is short of ${short}: ${detail}`,
        subject: subject(node),
        evidence: { condition: condition.type }
      })]
    }
    return condition.type === "NetworkUnavailable" && !isMoving
      ? [codes.NODE_NETWORK_UNAVAILABLE({
        message: `node ${nameOf(node)} has no network: ${detail}`,
        subject: subject(node)
      })]
      : []
  })

/** The time a cordon was made is kept by this taint alone. */
const cordonTaint = (node: Node) => node.spec.taints.find(({ key }) => key === "node.kubernetes.io/unschedulable")

/** Cordoned a while ago at most; the controller adds the taint with its time only after the cordon. */
const isInMaintenance = (node: Node, now: DateTime.Utc, config: NodeReadinessConfig): boolean => {
  if (!node.spec.unschedulable) return false
  const taint = cordonTaint(node)
  return taint === undefined ||
    taint.timeAdded !== undefined &&
      !Duration.isGreaterThan(Elapsed.between(taint.timeAdded, now), config.cordonWarnAfter)
}

const judgeCordon = (node: Node, now: DateTime.Utc, config: NodeReadinessConfig): ReadonlyArray<Finding> => {
  if (!node.spec.unschedulable || isDeleted(node)) return []
  const since = cordonTaint(node)?.timeAdded
  const about = {
    subject: subject(node),
    ...(since === undefined ? {} : { evidence: { since: DateTime.formatIso(since) } })
  }
  if (since === undefined) return [codes.NODE_CORDONED({ ...about, message: `node ${nameOf(node)} is cordoned` })]
  const age = Elapsed.between(since, now)
  const message = `node ${nameOf(node)} is cordoned for ${Elapsed.text(age)}`
  return [
    Duration.isGreaterThan(age, config.cordonWarnAfter)
      ? codes.NODE_CORDONED_LONG({ ...about, message: `${message} (limit ${Elapsed.text(config.cordonWarnAfter)})` })
      : codes.NODE_CORDONED({ ...about, message })
  ]
}

/** The first few: a message has room for no more. */
const someOf = (names: ReadonlyArray<string>): string =>
  `${names.slice(0, 5).join(", ")}${names.length > 5 ? ", ..." : ""}`

/** Taints are told once each, with the nodes that carry them: a pool of a hundred is one decision. */
const judgeTaints = (nodes: ReadonlyArray<Node>, config: NodeReadinessConfig): ReadonlyArray<Finding> => {
  const carriers = new Map<string, Array<string>>()
  for (const node of nodes) {
    for (const { effect, key } of node.spec.taints.filter(isUnexpected(config))) {
      const taint = `${key}:${effect}`
      carriers.set(taint, [...(carriers.get(taint) ?? []), nameOf(node)])
    }
  }
  return [...carriers].map(([taint, names]) => {
    const [first = ""] = names
    return codes.NODE_TAINTED({
      message: names.length === 1
        ? `node ${first} has the unexpected taint ${taint}`
        : `${names.length} nodes have the unexpected taint ${taint}: ${someOf(names)}`,
      subject: { kind: "Node", name: first },
      evidence: { taint, nodes: names.length }
    })
  })
}

const isControlPlane = (node: Node): boolean =>
  node.spec.taints.some(({ effect, key }) =>
    effect !== "PreferNoSchedule" &&
    (key === "node-role.kubernetes.io/control-plane" || key === "node-role.kubernetes.io/master")
  )

/** On its way into the cluster or out of it: its network and its taints are others' work just now. */
const isMoving = (node: Node, seen: Seen, config: NodeReadinessConfig): boolean =>
  isYoung(node, seen, config) || isDeleted(node) || isTakenAway(node)

/** Whether enough workers take pods, by what was said of each. */
const judgeOpen = (
  readiness: ReadonlyArray<readonly [Node, Finding | undefined]>,
  now: DateTime.Utc,
  config: NodeReadinessConfig
): ReadonlyArray<Finding> => {
  const present = readiness.filter(([node, finding]) =>
    !isDeleted(node) && finding?.code !== codes.NODE_JOINING.code && finding?.code !== codes.NODE_LEAVING.code
  )
  const workers = present.filter(([node]) => !isControlPlane(node))
  const all = workers.length > 0 ? workers : present
  const isBroken = (finding: Finding | undefined) => finding?.status === "ERROR"
  const open = all.filter(([node, finding]) => !isBroken(finding) && !node.spec.unschedulable && !isTakenAway(node))
  const few = (counted: typeof all, percent: number) => {
    const out = Map.groupBy(
      counted.filter((each) => !open.includes(each)),
      ([node, finding]) => isBroken(finding) ? "not ready" : isTakenAway(node) ? "taken away" : "cordoned"
    )
    const causes = [...out].map(([cause, nodes]) => `${cause}: ${someOf(nodes.map(([node]) => nameOf(node)))}`)
    return codes.FEW_NODES_SCHEDULABLE({
      message: `${open.length} of ${counted.length} worker nodes take pods (${percent} %, at least ` +
        `${config.minSchedulable} % expected); ${causes.join("; ")}`,
      evidence: { schedulable: open.length, nodes: counted.length }
    })
  }
  // An autoscaler may take the last nodes away, when nothing runs on them.
  if (open.length === 0) {
    return all.some(([node, finding]) => isBroken(finding) || node.spec.unschedulable) ? [few(all, 0)] : []
  }
  const counted = all.filter(([node, finding]) =>
    isBroken(finding) || !isInMaintenance(node, now, config) && !isTakenAway(node)
  )
  const percent = Math.floor(open.length * 100 / counted.length)
  return counted.length - open.length > 1 && percent < config.minSchedulable ? [few(counted, percent)] : []
}

/** The verdict on what was seen. */
export const judge = (config: NodeReadinessConfig) => (seen: Seen): Outcome.Outcome => {
  const { nodes } = seen
  if (nodes.length === 0 && config.minNodes === 0) {
    return Outcome.make("", [codes.NO_NODES({ message: "the cluster has no node, so it cannot run anything" })])
  }
  const tooFew = nodes.length < config.minNodes
    ? [codes.TOO_FEW_NODES({
      message: `the cluster has ${counted(nodes.length, "node")} (at least ${config.minNodes} expected)`,
      evidence: { nodes: nodes.length, expected: config.minNodes }
    })]
    : []
  const readiness = nodes.map((node) => [node, judgeReadiness(node, seen, config)] as const)
  return Outcome.make(`${nodes.length} of ${nodes.length} nodes are Ready and take the pods meant for them`, [
    ...tooFew,
    ...judgeOpen(readiness, seen.now, config),
    ...readiness.flatMap(([, finding]) => finding === undefined ? [] : [finding]),
    ...nodes.flatMap((node) => [
      ...judgeConditions(node, isMoving(node, seen, config)),
      ...judgeCordon(node, seen.now, config)
    ]),
    ...judgeTaints(nodes.filter((node) => !isMoving(node, seen, config)), config)
  ])
}

/** What is judged of a node; not its heartbeats, capacity and images. */
const judged = ({ metadata, spec, status }: Node) => [
  metadata.deletionTimestamp,
  spec.unschedulable,
  spec.taints.map(({ effect, key }) => [key, effect]),
  status.conditions.map(({ reason, status, type }) => [type, status, reason])
]

export const nodeReadiness = Probe.make("k8s.node.readiness", {
  layer: "kubernetes",
  proves: "Every node is Ready, its kubelet renews its lease, and it takes the pods meant for it.",
  writes: "nothing",
  costs: "3 API requests, and 2 more for each further 500 nodes.",
  needs: [
    Needs.list("nodes"),
    Needs.list("leases", { group: "coordination.k8s.io", namespace: LEASE_NAMESPACE }),
    ServerTime.needs
  ],
  codes,
  config: NodeReadinessConfig,
  timeout: "20 seconds",
  timed: [],
  onChange: [Watch.of(Node, { when: Watch.differsIn(judged) })],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeReadinessConfig) {
    const kube = yield* Kube
    const [{ items: nodes }, { items: leases }, serverTime] = yield* Effect.all([
      kube.list(Node),
      kube.list(Lease, { namespace: LEASE_NAMESPACE }),
      ServerTime.now
    ], { concurrency: 3 })
    const ours = yield* DateTime.now
    const now = Option.getOrElse(serverTime, () => ours)
    return judge(config)({
      nodes,
      leases,
      now,
      // Without the server's time, leases are compared with the youngest of them: nothing is stale because our clock is
      // ahead. Should all kubelets stop at once, the nodes' Ready conditions tell.
      leaseNow: Option.getOrElse(serverTime, () => Option.getOrElse(ServerTime.newest(leases), () => ours))
    })
  })
})
