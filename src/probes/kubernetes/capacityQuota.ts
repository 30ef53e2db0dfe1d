/** k8s.capacity.quota: new pods fit. */
import { type DateTime, Duration, Effect, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import { matches } from "../../domain/NamePattern.ts"
import * as Quantity from "../../domain/Quantity.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, ResourceQuota } from "../../infra/kube/resources/core.ts"
import { PodRequests } from "../../infra/kube/resources/pods.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Names, Percent, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"
import { isVirtual } from "../workers/virtualNode.ts"

export const CapacityQuotaConfig = Schema.Struct({
  quotaWarn: setting(Percent, {
    default: 90,
    description: "Percentage of a quota's hard limit from which its use is a WARN."
  }),
  podsWarn: setting(Percent, {
    default: 95,
    description: "Percentage of a node's allocatable pods from which their number is a WARN."
  }),
  countedWithin: setting(DurationString, {
    default: "2m",
    description: "How long the use of a new quota may be uncounted."
  }),
  exclude: setting(Names, {
    default: [],
    description: "Quotas that are full on purpose, as `namespace/name`; `*` at the end matches any rest."
  })
})
export type CapacityQuotaConfig = typeof CapacityQuotaConfig.Type

export const codes = Codes.make({
  QUOTA_FULL: Codes.error(
    "A ResourceQuota is used up: no more of the resource named can be created in its namespace, which also stops rollouts.",
    "Raise the quota or delete what is not needed; list quotas that are meant to be full in `exclude`."
  ),
  QUOTA_NEAR: Codes.warn(
    "A ResourceQuota is nearly used up.",
    "Raise the quota or delete what is not needed."
  ),
  QUOTA_NOT_COUNTED: Codes.warn(
    "The use of a resource that a ResourceQuota limits is not counted, so whatever it limits is refused.",
    "Look at the resource's name in the quota, then at kube-controller-manager, which counts."
  ),
  NODE_PODS_NEAR: Codes.warn(
    "A node has nearly, or quite, as many pods as it may have, so it takes none whatever its free processors and memory.",
    "Add nodes, or raise maxPods of its kubelet where the pod network has room."
  ),
  NO_ROOM_FOR_PODS: Codes.error(
    "Every node that takes pods has as many as it may have: no further pod can start.",
    "Add nodes, or raise maxPods of the kubelets where the pod network has room."
  ),
  NO_NODE_HEADROOM: Codes.warn(
    "Were the node named lost, what its pods request would not fit on the rest. Sums are compared; affinity, selectors and " +
      "the pieces that free room is in may let even less fit.",
    "Add a node, or lower requests that are higher than what is used."
  ),
  NO_OPEN_NODE: Codes.info(
    "No node takes any pod: none is Ready, uncordoned and without taints. Room on nodes was not judged; " +
      "k8s.node.readiness judges the nodes.",
    "Nothing to do where all nodes are kept for some pods by taints."
  ),
  ONE_NODE: Codes.info(
    "A single node takes pods, so there is none to take over from it.",
    "Nothing to do, unless the workloads shall survive the loss of a node."
  )
})

/** What a look at the cluster saw. */
export interface Seen {
  readonly quotas: ReadonlyArray<ResourceQuota>
  readonly nodes: ReadonlyArray<Node>
  readonly pods: ReadonlyArray<PodRequests>
  readonly now: DateTime.Utc
}

const judgeQuota = (quota: ResourceQuota, now: DateTime.Utc, config: CapacityQuotaConfig): ReadonlyArray<Finding> => {
  const { creationTimestamp, deletionTimestamp, name = "", namespace = "" } = quota.metadata
  if (deletionTimestamp !== undefined || config.exclude.some((pattern) => matches(pattern, `${namespace}/${name}`))) {
    return []
  }
  const subject = { kind: "ResourceQuota", name, namespace }
  const age = creationTimestamp === undefined ? Duration.infinity : Elapsed.between(creationTimestamp, now)
  // The status tells limit and use of one moment; the limit of the specification may be newer than the count.
  const resources = [...new Set([...Object.keys(quota.spec.hard), ...Object.keys(quota.status.hard)])]
  const uncounted = resources.filter((resource) => quota.status.used[resource] === undefined)
  const silent = uncounted.length > 0 && Duration.isGreaterThan(age, config.countedWithin)
    ? [codes.QUOTA_NOT_COUNTED({
      message: `ResourceQuota ${namespace}/${name}: the use of ${uncounted.slice(0, 5).join(", ")} is not counted ${
        Elapsed.text(age)
      } after it was created (limit ${Elapsed.text(config.countedWithin)})`,
      subject,
      evidence: { resources: uncounted.slice(0, 5).join(", ") }
    })]
    : []
  return [
    ...silent,
    ...resources.flatMap((resource) => {
      const [usedText = "", hardText = ""] = [quota.status.used[resource], quota.status.hard[resource]]
      const [used, hard] = [Quantity.parse(usedText), Quantity.parse(hardText)]
      // A limit of 0 forbids the resource: it is not full while there is none.
      if (used === undefined || hard === undefined || used === 0) return []
      const percent = hard === 0 ? 100 : Math.floor(used * 100 / hard)
      const code = used >= hard ? codes.QUOTA_FULL : percent >= config.quotaWarn ? codes.QUOTA_NEAR : undefined
      return code === undefined ? [] : [code({
        message: `ResourceQuota ${namespace}/${name}: ${usedText} of ${hardText} ${resource} are used (${percent} %)`,
        subject,
        evidence: { resource, used: usedText, hard: hardText, percent }
      })]
    })
  ]
}

/** What is compared: cores, bytes and pieces. */
const RESOURCES = ["cpu", "memory", "pods"] as const
type Resource = (typeof RESOURCES)[number]
type Amounts = Readonly<Record<Resource, number>>

const NOTHING: Amounts = { cpu: 0, memory: 0, pods: 0 }

const combined = (a: Amounts, b: Amounts, combine: (a: number, b: number) => number): Amounts => ({
  cpu: combine(a.cpu, b.cpu),
  memory: combine(a.memory, b.memory),
  pods: combine(a.pods, b.pods)
})

const plus = (a: Amounts, b: Amounts): Amounts => combined(a, b, (a, b) => a + b)
const minus = (a: Amounts, b: Amounts): Amounts => combined(a, b, (a, b) => a - b)

const amountsOf = (quantities: Readonly<Record<string, string>>): Amounts => ({
  cpu: Quantity.parse(quantities["cpu"] ?? "0") ?? 0,
  memory: Quantity.parse(quantities["memory"] ?? "0") ?? 0,
  pods: Quantity.parse(quantities["pods"] ?? "0") ?? 0
})

/**
 * What the scheduler reserves for a pod: the greater of what its containers request together with its sidecars, and what it
 * takes to start each init container beside the sidecars before it (component-helpers resource.PodRequests).
 */
export const requestsOf = ({ spec }: PodRequests): Amounts => {
  let sidecars = NOTHING
  let starting = NOTHING
  for (const { resources, restartPolicy } of spec.initContainers) {
    const own = amountsOf(resources.requests)
    if (restartPolicy === "Always") sidecars = plus(sidecars, own)
    starting = combined(starting, restartPolicy === "Always" ? sidecars : plus(sidecars, own), Math.max)
  }
  const running = spec.containers.map(({ resources }) => amountsOf(resources.requests)).reduce(plus, sidecars)
  const containers = combined(running, starting, Math.max)
  const whole = amountsOf(spec.resources.requests)
  return {
    ...plus({
      ...containers,
      ...(spec.resources.requests["cpu"] === undefined ? {} : { cpu: whole.cpu }),
      ...(spec.resources.requests["memory"] === undefined ? {} : { memory: whole.memory })
    }, amountsOf(spec.overhead)),
    pods: 1
  }
}

/** A node with the pods it has room for. */
interface Loaded {
  readonly name: string
  readonly allocatable: Amounts
  readonly requested: Amounts
  /** What is requested by pods that would start elsewhere, were the node lost. */
  readonly movable: Amounts
}

/** Pods of DaemonSets and static pods end with their node. */
const staysWithNode = ({ metadata }: PodRequests): boolean =>
  (metadata.ownerReferences ?? []).some(({ kind }) => kind === "DaemonSet" || kind === "Node")

const load = (nodes: ReadonlyArray<Node>, pods: ReadonlyArray<PodRequests>): ReadonlyArray<Loaded> => {
  const byNode = new Map<string, Array<PodRequests>>()
  for (const pod of pods) {
    // What has ended gives its room back.
    if (pod.spec.nodeName === undefined || pod.status.phase === "Succeeded" || pod.status.phase === "Failed") continue
    const there = byNode.get(pod.spec.nodeName)
    if (there === undefined) byNode.set(pod.spec.nodeName, [pod])
    else there.push(pod)
  }
  return nodes.map(({ metadata: { name = "" }, status }) => {
    const there = byNode.get(name) ?? []
    return {
      name,
      allocatable: amountsOf(status.allocatable),
      requested: there.map(requestsOf).reduce(plus, NOTHING),
      movable: there.filter((pod) => !staysWithNode(pod)).map(requestsOf).reduce(plus, NOTHING)
    }
  })
}

const isReady = ({ status }: Node): boolean =>
  status.conditions.some((condition) => condition.type === "Ready" && condition.status === "True")

/** Nodes that take any pod: Ready, not cordoned, not kept for some by a taint, and with their room told. */
const isOpen = (node: Node): boolean =>
  isReady(node) && !node.spec.unschedulable && node.metadata.deletionTimestamp === undefined &&
  node.status.allocatable["pods"] !== undefined &&
  node.spec.taints.every(({ effect }) => effect !== "NoSchedule" && effect !== "NoExecute")

/** Sums of processors carry errors of the last binary digit; a millionth of a core is none. */
const TOLERANCE = 1e-6

const amountText = (resource: Resource, amount: number): string =>
  resource === "memory"
    ? `${Quantity.formatBytes(amount)} memory`
    : resource === "cpu"
    ? `${Number(amount.toFixed(3))} cpu`
    : counted(amount, "pod")

/** What does not fit, should this node be lost: by how much, relative to what must move. */
const shortfall = (lost: Loaded, nodes: ReadonlyArray<Loaded>) => {
  const free = nodes.filter((node) => node !== lost)
    // A node that is overcommitted has no room, and takes none from others.
    .map(({ allocatable, requested }) => combined(minus(allocatable, requested), NOTHING, Math.max))
    .reduce(plus, NOTHING)
  return RESOURCES.filter((resource) => lost.movable[resource] > free[resource] + TOLERANCE).map((resource) => ({
    node: lost.name,
    resource,
    needed: lost.movable[resource],
    free: free[resource],
    missing: (lost.movable[resource] - free[resource]) / lost.movable[resource]
  }))
}

const judgeHeadroom = (nodes: ReadonlyArray<Loaded>): ReadonlyArray<Finding> => {
  const [only] = nodes
  if (only === undefined) {
    return [codes.NO_OPEN_NODE({ message: "no node is Ready, uncordoned and without taints" })]
  }
  if (nodes.length === 1) {
    return [codes.ONE_NODE({
      message: `node ${only.name} is the only one that takes any pod`,
      subject: { kind: "Node", name: only.name }
    })]
  }
  // The node whose loss leaves the largest part of what must move without room.
  const [worst] = nodes.flatMap((node) => shortfall(node, nodes)).sort((a, b) => b.missing - a.missing)
  return worst === undefined ? [] : [codes.NO_NODE_HEADROOM({
    message: `were node ${worst.node} lost, its pods would need ${
      amountText(worst.resource, worst.needed)
    }, and the other ${nodes.length === 2 ? "node has" : `${nodes.length - 1} nodes have`} ${
      amountText(worst.resource, worst.free)
    } free`,
    subject: { kind: "Node", name: worst.node },
    evidence: { resource: worst.resource, needed: worst.needed, free: worst.free, nodes: nodes.length }
  })]
}

const judgePods = (
  nodes: ReadonlyArray<Loaded>,
  open: ReadonlyArray<Loaded>,
  config: CapacityQuotaConfig,
  limits: Hysteresis.Limits
): ReadonlyArray<Finding> => {
  const isFull = ({ allocatable, requested }: Loaded): boolean => requested.pods >= allocatable.pods
  const [first] = open
  const none = first !== undefined && open.every(isFull)
    ? [codes.NO_ROOM_FOR_PODS({
      message: `all ${open.length} nodes that take any pod have as many as they may: ${
        open.slice(0, 5).map(({ name, requested }) => `${name} ${requested.pods}`).join(", ")
      }`,
      subject: { kind: "Node", name: first.name },
      evidence: { nodes: open.length }
    })]
    : []
  return [
    ...none,
    ...nodes.flatMap(({ allocatable, name, requested }) => {
      const percent = allocatable.pods === 0 ? 0 : Math.floor(requested.pods * 100 / allocatable.pods)
      const subject = { kind: "Node", name }
      const isNear = limits.reaches(percent, config.podsWarn, { code: codes.NODE_PODS_NEAR, subject })
      return !isNear || requested.pods === 0 ? [] : [codes.NODE_PODS_NEAR({
        message: `node ${name} has ${requested.pods} of at most ${allocatable.pods} pods (${percent} %, ${
          Hysteresis.text(`${config.podsWarn} %`, percent >= config.podsWarn)
        })`,
        subject,
        evidence: { pods: requested.pods, allocatable: allocatable.pods, percent }
      })]
    })
  ]
}

/** The verdict on what was seen. */
export const judge =
  (config: CapacityQuotaConfig, limits: Hysteresis.Limits = Hysteresis.strict) => (seen: Seen): Outcome.Outcome => {
    // A virtual node has room for what its provider makes it for, often one pod, and no machine that could be lost.
    const staying = seen.nodes.filter((node) =>
      isReady(node) && node.metadata.deletionTimestamp === undefined && !isVirtual(node)
    )
    const nodes = load(staying, seen.pods)
    const open = load(staying.filter(isOpen), seen.pods)
    if (seen.quotas.length === 0 && seen.nodes.length === 0) {
      return Outcome.make("", [
        checkerCodes.NOT_APPLICABLE({ message: "the cluster has no node and no ResourceQuota" })
      ])
    }
    return Outcome.make(
      `${counted(seen.quotas.length, "quota")} and ${counted(nodes.length, "node")} have room` +
        (open.length > 1 ? `; the pods of any one of ${open.length} nodes would fit on the others` : ""),
      [
        ...seen.quotas.flatMap((quota) => judgeQuota(quota, seen.now, config)),
        ...judgePods(nodes, open, config, limits),
        ...judgeHeadroom(open)
      ]
    )
  }

/** A quota is changed, or a resource of it is used up or has room again: every object created counts, and most tell nothing. */
const FILLS = Watch.differsIn(({ spec, status }: ResourceQuota) => [
  spec.hard,
  Object.entries(status.hard).filter(([resource, hard]) =>
    (Quantity.parse(status.used[resource] ?? "") ?? 0) >= (Quantity.parse(hard) ?? Infinity)
  ).map(([resource]) => resource)
])

export const capacityQuota = Probe.make("k8s.capacity.quota", {
  layer: "kubernetes",
  proves: "Quotas and nodes have room for more pods, and the nodes for the pods of one that is lost.",
  writes: "nothing",
  costs: "4 list requests; that of all pods is the largest.",
  needs: [Needs.list("resourcequotas"), Needs.list("nodes"), Needs.list("pods"), ServerTime.needs],
  codes,
  config: CapacityQuotaConfig,
  interval: "5 minutes",
  timeout: "30 seconds",
  timed: [],
  onChange: [Watch.of(ResourceQuota, { when: FILLS })],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: CapacityQuotaConfig) {
    const kube = yield* Kube
    const limits = yield* Hysteresis.limits
    const [{ items: quotas }, { items: nodes }, { items: pods }, now] = yield* Effect.all([
      kube.list(ResourceQuota),
      kube.list(Node),
      kube.list(PodRequests),
      ServerTime.nowOrOurs
    ], { concurrency: 4 })
    return judge(config, limits)({ quotas, nodes, pods, now })
  })
})
