/** infra.node.runtime: kubelet, kube-proxy and container runtime of every node live. */
import { type DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Pod } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import { Nodes, needs as nodeNeeds, silenceOf } from "../workers/Nodes.ts"
import {
  EBPF_AGENT,
  KUBELETS,
  KUBE_PROXY,
  type NodeRuntime,
  TRIES,
  type Try,
  isRuntimeUp,
  nodeRuntime as task
} from "../workers/tasks/nodeRuntime.ts"
import type { Process } from "../workers/tasks/processes.ts"

export const NodeRuntimeConfig = Schema.Struct({
  settledAfter: setting(DurationString, {
    default: "5m",
    description:
      "On a node, or beside a pod of kube-proxy, that is younger, a missing kube-proxy is a WARN: its image may " +
      "still be on the way, and an update replaces one pod after another."
  })
})
export type NodeRuntimeConfig = typeof NodeRuntimeConfig.Type

const KUBELET_LOG = "Read the kubelet's log on that node (`journalctl -u kubelet`)."
const RUNTIME_LOG = "Read the runtime's log on that node (`journalctl -u containerd`), then restart it: pods live on."
const PROXY_LOG = "Read the log of kube-proxy on that node, and look at its pod."

export const codes = Codes.make({
  KUBELET_DOWN: Codes.error("No kubelet runs on a node, at three looks in a row.", `Start it. ${KUBELET_LOG}`),
  KUBELET_UNWELL: Codes.error(
    "The kubelet of a node hangs, or says that it is not well, three times in a row.",
    KUBELET_LOG
  ),
  KUBELET_MISSED: Codes.warn(
    "The kubelet of a node did not answer at first, or was started a moment ago.",
    `Nothing, when it was once. ${KUBELET_LOG}`
  ),
  KUBE_PROXY_DOWN: Codes.error(
    "No kube-proxy runs on a node while others have one, or a pod of it is there to run one: changes of Services do not " +
      "reach the node. When no node has one, nor a pod of it in kube-system, something else does its work, and nothing " +
      "is said: kube-proxies that no pod runs and that are dead on all nodes look the same.",
    PROXY_LOG
  ),
  KUBE_PROXY_UNWELL: Codes.error(
    "The kube-proxy of a node hangs, or says that its rules are not up to date, three times in a row.",
    PROXY_LOG
  ),
  KUBE_PROXY_MISSED: Codes.warn(
    "The kube-proxy of a node did not answer at first, or was started a moment ago.",
    `Nothing, when it was once. ${PROXY_LOG}`
  ),
  CONTAINER_RUNTIME_DOWN: Codes.error(
    "The container runtime of a node does not run, at three looks in a row: nothing can be started or stopped there.",
    RUNTIME_LOG
  ),
  CONTAINER_RUNTIME_STOPPED: Codes.error(
    "The container runtime of a node is suspended by a signal or a debugger.",
    "Look for who sent it SIGSTOP; resume it with SIGCONT."
  ),
  CONTAINER_RUNTIME_MISSED: Codes.warn(
    "The container runtime of a node did not run at first, and then did.",
    `Nothing, when it was once. ${RUNTIME_LOG}`
  ),
  HEALTH_NOT_SERVED: Codes.info(
    "A daemon of a node runs and does not serve its health on the usual port, so what it says of itself is not known.",
    "Nothing, when it is meant (--healthz-port=0, healthzBindAddress)."
  ),
  PROCESSES_HIDDEN: Codes.unknown(
    "The kubelet's health port is closed on a node, and its processes cannot be seen, so whether it lives is not known.",
    "Mount /proc of that node without hidepid, or leave the probe out there; k8s.node.readiness tells lost nodes."
  )
})

/** A daemon that is younger (seconds) may not serve its health yet. */
const YOUNG = 60

/** The program that a node's object names (`containerd://1.7.2`); nothing for runtimes that are not known here. */
const runtimeOf = (version: string): string | undefined =>
  ({ containerd: "containerd", "cri-o": "crio", docker: "dockerd" } as Readonly<Record<string, string>>)[
    version.split("://")[0] ?? ""
  ]

type Answers =
  | { readonly _tag: "Well" }
  | { readonly _tag: "Late" | "Refused" | "Unwell"; readonly detail: string; readonly tries: number }

/** What a row of tries comes to. */
export const answersOf = (tries: ReadonlyArray<Try>): Answers => {
  const failed = tries.flatMap((one) => one.how === "well" ? [] : [one])
  const last = failed.at(-1)
  if (last === undefined) return { _tag: "Well" }
  const { detail } = last
  if (failed.length < tries.length) return { _tag: "Late", detail, tries: tries.length }
  return { _tag: failed.every(({ how }) => how === "refused") ? "Refused" : "Unwell", detail, tries: tries.length }
}

/** Whether a node runs a kube-proxy, by what it answers or by its processes. */
export const hasKubeProxy = ({ kubeProxy, processes }: NodeRuntime): boolean =>
  kubeProxy.some(({ how }) => how === "well") || processes?.at(-1)?.some(({ name }) => name === KUBE_PROXY) === true

/** Whether nothing of kube-proxy was seen on a node, at fewer looks than make a fault. */
export const isMissedOnce = ({ kubeProxy, processes }: NodeRuntime): boolean =>
  kubeProxy.length < TRIES && kubeProxy.every(({ how }) => how === "refused") &&
  processes?.at(-1)?.some(({ name }) => name === KUBE_PROXY || name === EBPF_AGENT) !== true

/** How long ago kube-proxy could first have run on each node, in seconds, where that is less than `settled`. */
export const joinedAgo = (
  settled: Duration.Duration,
  now: DateTime.Utc,
  nodes: ReadonlyArray<Node>,
  pods: ReadonlyArray<Pod>
): ReadonlyMap<string, number> => {
  const young = new Map<string, number>()
  const add = (node: string, since: DateTime.Utc | undefined) => {
    if (since === undefined) return
    const age = Elapsed.between(since, now)
    if (Duration.isLessThan(age, settled)) young.set(node, Math.round(Duration.toSeconds(age)))
  }
  for (const { metadata } of nodes) add(metadata.name ?? "", metadata.creationTimestamp)
  for (const { metadata, spec } of pods) {
    if (metadata.name?.startsWith(KUBE_PROXY) === true) add(spec.nodeName ?? "", metadata.creationTimestamp)
  }
  return young
}

/** Nodes where a kube-proxy is meant to run, as its pods there tell. */
export const meantOn = (pods: ReadonlyArray<Pod>): ReadonlySet<string> =>
  new Set(
    pods.filter(({ metadata }) =>
      metadata.name?.startsWith(KUBE_PROXY) === true && metadata.deletionTimestamp === undefined &&
      metadata.ownerReferences?.some(({ kind }) => kind === "DaemonSet" || kind === "Node") === true
    ).map(({ spec }) => spec.nodeName ?? "")
  )

/** The verdict on one node. */
export const judge = (
  node: string,
  /** Of the node's object. */
  runtimeVersion: string,
  seen: NodeRuntime,
  kubeProxies: {
    /** Whether other nodes have one. */
    readonly others: boolean
    /** Whether a pod of it is on this node. */
    readonly meant?: boolean | undefined
    /** For how long (seconds) this node could have had one, when that is known to be short. */
    readonly joinedAgo?: number | undefined
  }
): ReadonlyArray<Finding> => {
  const subject = { kind: "Node", name: node }
  const processes = seen.processes?.at(-1)
  const findings: Array<Finding> = []
  const say = (code: Codes.Code, message: string, evidence: Finding["evidence"] = {}) =>
    findings.push(code({ message: `${message} on node ${node}`, subject, evidence }))

  /** A daemon that runs and refuses: not ready yet, or not told to serve. */
  const refusing = (what: string, { age }: Process, missed: Codes.Code) =>
    age < YOUNG
      ? say(missed, `${what}, started ${Math.round(age)} s ago, does not serve its health yet`, {
        ageSeconds: Math.round(age)
      })
      : say(codes.HEALTH_NOT_SERVED, `${what} does not serve its health`, { ageSeconds: Math.round(age) })

  const kubelet = answersOf(seen.kubelet)
  const kubeletProcess = processes?.find(({ inPod, name }) => KUBELETS.has(name) && !inPod)
  if (kubelet._tag === "Late") {
    say(codes.KUBELET_MISSED, `the kubelet was well at try ${kubelet.tries} only (${kubelet.detail})`, {
      tries: kubelet.tries
    })
  } else if (kubelet._tag === "Unwell") {
    say(codes.KUBELET_UNWELL, `the kubelet is not well (${kubelet.detail})`, {
      tries: kubelet.tries,
      ...(kubeletProcess === undefined ? {} : { state: kubeletProcess.state })
    })
  } else if (kubelet._tag === "Refused") {
    if (processes === undefined) say(codes.PROCESSES_HIDDEN, "the kubelet's health port is closed")
    else if (kubeletProcess !== undefined) refusing("the kubelet", kubeletProcess, codes.KUBELET_MISSED)
    else say(codes.KUBELET_DOWN, "no kubelet runs", { tries: kubelet.tries })
  }

  const proxy = answersOf(seen.kubeProxy)
  const proxyProcess = processes?.find(({ name }) => name === KUBE_PROXY)
  const isEmbedded = kubeletProcess !== undefined && kubeletProcess.name !== "kubelet"
  if (proxy._tag === "Late") {
    say(codes.KUBE_PROXY_MISSED, `kube-proxy was well at try ${proxy.tries} only (${proxy.detail})`, {
      tries: proxy.tries
    })
  } else if (proxy._tag === "Unwell" && (proxyProcess !== undefined || isEmbedded)) {
    say(codes.KUBE_PROXY_UNWELL, `kube-proxy is not well (${proxy.detail})`, {
      tries: proxy.tries,
      ...(proxyProcess === undefined ? {} : { state: proxyProcess.state })
    })
  } else if (proxy._tag === "Refused") {
    if (proxyProcess !== undefined) refusing("kube-proxy", proxyProcess, codes.KUBE_PROXY_MISSED)
    // Where no node has one and none can be seen either, it may serve its health elsewhere.
    else if (
      (kubeProxies.others || (kubeProxies.meant === true && processes !== undefined)) &&
      processes?.some(({ name }) => name === EBPF_AGENT) !== true
    ) {
      const { joinedAgo } = kubeProxies
      if (joinedAgo === undefined) say(codes.KUBE_PROXY_DOWN, "no kube-proxy runs", { tries: proxy.tries })
      else {
        say(codes.KUBE_PROXY_MISSED, `no kube-proxy runs yet, whose pod or node is ${joinedAgo} s old,`, {
          ageSeconds: joinedAgo
        })
      }
    }
  }

  const runtime = runtimeOf(runtimeVersion)
  const isIt = ({ inPod, name }: Process) => name === runtime && !inPod
  if (processes !== undefined && runtime !== undefined) {
    const looks = seen.processes?.length ?? 0
    const found = processes.filter(isIt)
    if (found.length === 0) say(codes.CONTAINER_RUNTIME_DOWN, `${runtime} does not run`, { runtime, looks })
    else if (!found.some(isRuntimeUp)) {
      say(codes.CONTAINER_RUNTIME_STOPPED, `${runtime} is stopped`, { runtime, state: found[0]?.state ?? "" })
    } else if (seen.processes?.some((look) => !look.some((one) => isIt(one) && isRuntimeUp(one))) === true) {
      say(codes.CONTAINER_RUNTIME_MISSED, `${runtime} did not run at first`, { runtime, looks })
    }
  }
  return findings
}

/** None where they may not be listed, or where kube-proxy is no pod. */
const proxyPods = Kube.use((kube) => kube.list(Pod, { namespace: "kube-system" })).pipe(
  Effect.map(({ items }) => items),
  Effect.orElseSucceed((): ReadonlyArray<Pod> => [])
)

export const nodeRuntime = Probe.make("infra.node.runtime", {
  layer: "infrastructure",
  proves: "On every node the kubelet and kube-proxy say that they are well, and the container runtime runs.",
  writes: "nothing",
  placement: "nodes",
  costs:
    "3 API requests, 4 more when a node lacks kube-proxy, and a question to each node agent, which asks its node's kubelet and " +
    "kube-proxy; a second one to those that lack kube-proxy and should have it.",
  needs: [nodeNeeds, Needs.list("pods", { namespace: "kube-system", optional: true })],
  codes,
  config: NodeRuntimeConfig,
  timeout: "60 seconds",
  // Each node looks three times by itself before anything is an ERROR, and a single miss is a WARN by its meaning.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeRuntimeConfig) {
    const kube = yield* Kube
    const nodes = yield* Nodes
    // Where nothing of kube-proxy is to be seen one miss is enough, until it is known that it should be there.
    const { items } = yield* kube.list(Node)
    const first = yield* nodes.run(task, { expectsKubeProxy: false }, { all: items })
    const versions = new Map(
      items.map(({ metadata, status }) => [metadata.name ?? "", status.nodeInfo.containerRuntimeVersion ?? ""])
    )
    const answered = first.flatMap((answer) => answer._tag === "Answered" ? [answer] : [])
    const withProxy = answered.filter(({ output }) => hasKubeProxy(output))
    const hasOthers = (node: string) => withProxy.some((other) => other.node !== node)
    // Only a node without one needs an explanation.
    const lacks = withProxy.length < answered.length
    const pods = lacks ? yield* proxyPods : []
    const young = lacks
      ? joinedAgo(config.settledAfter, yield* ServerTime.nowOrOurs, items, pods)
      : new Map<string, number>()
    const meant = meantOn(pods)
    const missed = answered.filter(({ node, output }) => isMissedOnce(output) && (hasOthers(node) || meant.has(node)))
      .map(({ node }) => node)
    const again = new Map(
      (missed.length === 0 ? [] : yield* nodes.run(task, { expectsKubeProxy: true }, { all: items, nodes: missed }))
        .map((answer) => [answer.node, answer] as const)
    )
    return Outcome.make(
      `${answered.length} of ${first.length} nodes have a live kubelet, kube-proxy and container runtime`,
      [
        ...answered.flatMap(({ node, output }) => {
          const second = again.get(node)
          // What could not be asked again says nothing of kube-proxy.
          const isUnknown = second === undefined ? missed.includes(node) : second._tag === "Silent"
          return judge(node, versions.get(node) ?? "", second?._tag === "Answered" ? second.output : output, {
            others: !isUnknown && hasOthers(node),
            meant: !isUnknown && meant.has(node),
            joinedAgo: young.get(node)
          })
        }),
        ...silenceOf(first),
        ...silenceOf([...again.values()])
      ]
    )
  })
})
