/**
 * `k8s.version.skew`: do nodes run versions that their API server supports?
 *
 * By the version skew policy (https://kubernetes.io/releases/version-skew-policy/): kubelet and kube-proxy are never newer
 * than the API server, and at most three minor versions older (two before 1.25).
 */
import { Effect, Option, Result, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Pod } from "../../infra/kube/resources/core.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

const UPGRADE_ORDER =
  "Upgrade in order: API servers, then the other control plane components, then kubelet and kube-proxy."

const codes = Codes.make({
  KUBELET_NEWER: Codes.error("A kubelet is of a newer minor version than the API server.", UPGRADE_ORDER),
  KUBELET_TOO_OLD: Codes.error("A kubelet is more minor versions older than the API server supports.", UPGRADE_ORDER),
  KUBE_PROXY_NEWER: Codes.error("A kube-proxy is of a newer minor version than the API server.", UPGRADE_ORDER),
  KUBE_PROXY_TOO_OLD: Codes.error(
    "A kube-proxy is more minor versions older than the API server supports.",
    UPGRADE_ORDER
  ),
  KUBELETS_MIXED: Codes.warn(
    "Nodes run different versions of the kubelet.",
    "Nothing while an upgrade is under way; else bring the nodes to one version."
  ),
  KUBELET_AT_LIMIT: Codes.info(
    "A kubelet is as old as the API server supports, so the next minor upgrade of the API server must wait for it.",
    "Upgrade these nodes before the control plane."
  ),
  RUNTIMES_MIXED: Codes.info(
    "Nodes of one operating system run different versions of their container runtime.",
    "Nothing while an upgrade is under way; else bring the nodes to one version."
  ),
  VERSION_UNREADABLE: Codes.unknown(
    "A version is not written as Kubernetes writes versions.",
    "Look at `kubectl get nodes -o wide`; a kubelet built by hand may say anything."
  )
})

const Config = Schema.Struct({
  kubeProxySelector: setting(Schema.String, {
    default: "k8s-app=kube-proxy",
    description:
      "Label selector of the pods in kube-system that run kube-proxy; where there are none, it is not judged."
  })
})
type Config = typeof Config.Type

/** Of a Kubernetes component. What follows the patch (`-eks-a1b2`, `+k3s1`) is the distributor's own. */
export interface Version {
  readonly major: number
  readonly minor: number
  readonly patch: number
}

/** `v1.35.4`, `1.29.1-eks-508b6b3`. */
export const parseVersion = (text: string): Option.Option<Version> => {
  const [, major, minor, patch] = /^v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:$|[-+.])/.exec(text) ?? []
  return major === undefined || minor === undefined || patch === undefined
    ? Option.none()
    : Option.some({ major: Number(major), minor: Number(minor), patch: Number(patch) })
}

/** The tag of an image, which for kube-proxy is its version: `registry:5000/kube-proxy:v1.35.4@sha256:...`. */
export const tagOf = (image: string): string | undefined => /:([^:/@]+)(?:@[^@]*)?$/.exec(image)?.[1]

/** How many minors `component` is behind `server`; negative when it is ahead. A major counts as more than any minors. */
const minorsBehind = (component: Version, server: Version): number =>
  (server.major - component.major) * 1000 + server.minor - component.minor

/** Minors a component may be behind, by its own version. */
const supported = ({ major, minor }: Version): number => major === 1 && minor < 25 ? 2 : 3

/** A version as it is written, and who runs it. */
export interface Deployed {
  readonly version: string
  readonly node: string
}

const groupByVersion = (deployed: ReadonlyArray<Deployed>): ReadonlyArray<readonly [string, ReadonlyArray<string>]> => {
  const groups = new Map<string, Array<string>>()
  for (const { node, version } of deployed) {
    const nodes = groups.get(version)
    if (nodes === undefined) groups.set(version, [node])
    else nodes.push(node)
  }
  return [...groups].sort(([a], [b]) => a < b ? -1 : 1)
}

/** Names in a message; the count tells the rest. */
const MAXIMUM_NAMES = 5

const nodesText = (nodes: ReadonlyArray<string>): string =>
  nodes.length === 1
    ? `node ${nodes[0]}`
    : `${nodes.length} nodes (${nodes.slice(0, MAXIMUM_NAMES).join(", ")}${
      nodes.length > MAXIMUM_NAMES ? ", ..." : ""
    })`

/** Hold one component's versions against the API server's. One finding a version, however many nodes run it. */
export const judgeSkew = (
  component: "kubelet" | "kube-proxy",
  serverVersion: string,
  server: Version,
  deployed: ReadonlyArray<Deployed>
): ReadonlyArray<Finding> =>
  groupByVersion(deployed).flatMap(([text, nodes]): ReadonlyArray<Finding> => {
    const where = nodesText(nodes)
    const subject = { kind: "Node", name: nodes[0] ?? "" }
    const evidence = { version: text, server: serverVersion, nodes: nodes.length }
    const version = parseVersion(text)
    if (Option.isNone(version)) {
      return [codes.VERSION_UNREADABLE({ message: `${component} of ${where} calls itself ${text}`, subject, evidence })]
    }
    const behind = minorsBehind(version.value, server)
    const limit = supported(version.value)
    if (behind < 0) {
      return [(component === "kubelet" ? codes.KUBELET_NEWER : codes.KUBE_PROXY_NEWER)({
        message: `${component} ${text} of ${where} is newer than API server ${serverVersion}`,
        subject,
        evidence
      })]
    }
    if (behind > limit) {
      return [(component === "kubelet" ? codes.KUBELET_TOO_OLD : codes.KUBE_PROXY_TOO_OLD)({
        message: `${component} ${text} of ${where} is ${behind} minor versions older than API server ` +
          `${serverVersion} (limit ${limit})`,
        subject,
        evidence
      })]
    }
    return component === "kubelet" && behind === limit
      ? [codes.KUBELET_AT_LIMIT({
        message: `kubelet ${text} of ${where} is ${behind} minor versions older than API server ${serverVersion}, ` +
          "which is the limit",
        subject,
        evidence
      })]
      : []
  })

const countsText = (groups: ReadonlyArray<readonly [string, ReadonlyArray<string>]>): string =>
  groups.map(([version, nodes]) => `${version} on ${nodesText(nodes)}`).join(", ")

/** Versions that differ among nodes, by major, minor and patch. */
export const judgeMixed = (kubelets: ReadonlyArray<Deployed>): ReadonlyArray<Finding> => {
  const release = (text: string) =>
    Option.match(parseVersion(text), { onNone: () => text, onSome: (v) => `v${v.major}.${v.minor}.${v.patch}` })
  const groups = groupByVersion(kubelets.map(({ node, version }) => ({ node, version: release(version) })))
  return groups.length < 2 ? [] : [codes.KUBELETS_MIXED({
    message: `kubelets differ: ${countsText(groups)}`,
    evidence: { versions: groups.length }
  })]
}

/** Container runtimes that differ among nodes of one operating system. Nodes of several kinds differ for a reason. */
export const judgeRuntimes = (nodes: ReadonlyArray<Node>): ReadonlyArray<Finding> => {
  const systems = new Map<string, Array<Deployed>>()
  for (const { metadata, status: { nodeInfo } } of nodes) {
    if (nodeInfo.containerRuntimeVersion === undefined || nodeInfo.containerRuntimeVersion === "") continue
    const system = `${nodeInfo.operatingSystem} ${nodeInfo.architecture} ${nodeInfo.osImage}`
    const deployed = { node: metadata.name ?? "", version: nodeInfo.containerRuntimeVersion }
    systems.set(system, [...(systems.get(system) ?? []), deployed])
  }
  return [...systems.values()].map(groupByVersion).filter((groups) => groups.length > 1).map((groups) =>
    codes.RUNTIMES_MIXED({ message: `container runtimes differ: ${countsText(groups)}` })
  )
}

const decodeVersion = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Struct({ gitVersion: Schema.String })))

const serverVersion = Effect.gen(function*() {
  const kube = yield* Kube
  const { body, status } = yield* kube.raw("/version")
  if (status === 401) {
    return yield* checkerCodes.UNAUTHENTICATED.fail({ message: "the API server does not accept the credentials (401)" })
  }
  if (status === 403) {
    return yield* checkerCodes.ACCESS_MISSING.fail({ message: "not allowed to get /version; grant this rule" })
  }
  const decoded = decodeVersion(body)
  const text = Result.isSuccess(decoded) ? decoded.success.gitVersion : ""
  const version = parseVersion(text)
  if (status !== 200 || Option.isNone(version)) {
    return yield* checkerCodes.UNEXPECTED_ANSWER.fail({
      message: `/version answered ${status} without a version that can be read`,
      evidence: { status }
    })
  }
  return { text, version: version.value }
})

/** kube-proxy by node, from the image each pod runs. Not every cluster has it, and it may not be ours to see. */
const kubeProxies = Effect.fnUntraced(function*({ kubeProxySelector }: Config) {
  const kube = yield* Kube
  const { items } = yield* kube.list(Pod, { namespace: "kube-system", labelSelector: kubeProxySelector })
  return items.flatMap(({ metadata, spec, status }): ReadonlyArray<Deployed> => {
    const [container] = spec.containers
    const version = tagOf(container?.image ?? "")
    const ended = metadata.deletionTimestamp !== undefined || status.phase === "Succeeded" || status.phase === "Failed"
    return ended || spec.nodeName === undefined || version === undefined || Option.isNone(parseVersion(version))
      ? []
      : [{ node: spec.nodeName, version }]
  })
})

const run = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const [server, { items: nodes }, proxies] = yield* Effect.all([
    serverVersion,
    kube.list(Node),
    Effect.catchIf(kubeProxies(config), (error) => error.reason._tag === "Forbidden", () => Effect.succeed([]))
  ], { concurrency: "unbounded" })
  // A node that is just joining has not told yet.
  const kubelets = nodes.flatMap(({ metadata, status: { nodeInfo: { kubeletVersion = "" } } }) =>
    kubeletVersion === "" ? [] : [{ node: metadata.name ?? "", version: kubeletVersion }]
  )
  if (kubelets.length === 0 && proxies.length === 0) {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: `API server ${server.text} has no node that tells its version` })
    ])
  }
  return Outcome.make(
    `${counted(kubelets.length, "kubelet")} and ${proxies.length} kube-proxy ` +
      `are of versions that API server ${server.text} supports`,
    [
      ...judgeSkew("kubelet", server.text, server.version, kubelets),
      ...judgeSkew("kube-proxy", server.text, server.version, proxies),
      ...judgeMixed(kubelets),
      ...judgeRuntimes(nodes)
    ]
  )
})

const versions = Watch.differsIn(({ status: { nodeInfo } }: Node) => [
  nodeInfo.kubeletVersion,
  nodeInfo.containerRuntimeVersion
])

export const versionSkew = Probe.make("k8s.version.skew", {
  layer: "kubernetes",
  proves: "Every kubelet and kube-proxy is of a version that the API server supports, and all kubelets of the same.",
  writes: "nothing",
  costs: "3 API requests, and one more for each further 500 nodes.",
  needs: [
    Needs.path("/version"),
    Needs.list("nodes"),
    Needs.list("pods", { namespace: "kube-system", optional: true })
  ],
  codes,
  config: Config,
  interval: "10 minutes",
  timeout: "20 seconds",
  timed: [],
  onChange: [Watch.of(Node, { when: versions })],
  dependsOn: ["k8s.api.health"],
  run
})
