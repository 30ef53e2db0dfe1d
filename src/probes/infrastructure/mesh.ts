/**
 * infra.net.mesh: pods on every two nodes reach each other, with little and with much, and lose nothing.
 *
 * On each node one pod echoes, and one asks those of all nodes, its own too: what does not answer its own node is no fault
 * of the network between nodes. The matrix of who reached whom tells a node that is cut off from a path that is broken.
 */
import { Duration, Effect, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node } from "../../infra/kube/resources/core.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { setting } from "../Setting.ts"
import { gather } from "../workers/Gather.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { netPairs } from "../workers/tasks/netPairs.ts"
import { Workers, needs as workerNeeds } from "../workers/Workers.ts"

/**
 * Nodes in a run, whatever is configured: with ten that ask at a time, 60 of the 80 pods of `deploy/base/agent/quota.yaml`.
 * Where the budget of pods is smaller, as it is unless somebody raised it, that is the limit ({@link sampleSize}).
 */
const MOST = 50

/** Places in the budget of pods for those that ask: pods that answer hold theirs until the last one has asked. */
const ASKING = 4

/** Places in it that are left to other probes meanwhile. */
const LEFT = 2

/** Paths told of in a report for each code. */
const MOST_TOLD = 10

/** Small datagrams on each path; with 100, one that is lost is not yet more than 1 %. */
const DATAGRAMS = 100

export const MeshConfig = Schema.Struct({
  nodes: setting(Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: MOST })), {
    default: 6,
    description:
      "Nodes looked at in a run, each with every other; of more, others each time, and at least the square root of all. " +
      "Never more than the agent's budget of pods has room for: 6 fewer than it, 10 unless it was changed."
  }),
  loss: setting(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 100 })), {
    default: 1,
    description: "Percent of small datagrams (there and back) that may be lost on a path before it is a WARN."
  }),
  slow: setting(DurationString, {
    default: "50ms",
    description:
      "A WARN when the 99th percentile of the time there and back is this much above that within the nodes themselves."
  })
})
export type MeshConfig = typeof MeshConfig.Type

const LOOK_BETWEEN = "Look at routes, tunnels, firewalls, security groups and network policies between the nodes named."
const LOOK_AT_MTU =
  "Compare the MTU of the pod network with those of the nodes' interfaces and tunnels; let ICMP `fragmentation needed` pass."

export const codes = Codes.make({
  NODE_CUT_OFF: Codes.error(
    "Pods of a node reach no pod of another node, nor are they reached, while other nodes reach each other.",
    "Look at the network plugin's pod on that node, at its routes and at its interface."
  ),
  NODE_APART: Codes.error(
    "Pods of a node do not reach each other, though pods of other nodes reach them.",
    "Look at the network plugin's pod on that node, at its bridge and its firewall rules."
  ),
  PATH_BROKEN: Codes.error("Pods of one node do not reach those of another; both reach others.", LOOK_BETWEEN),
  NETWORK_DOWN: Codes.error(
    "No pod of any node reaches a pod of another, though each reaches those of its own node.",
    "Look at the network plugin, and at what changed in the network between nodes."
  ),
  UDP_LOST: Codes.error("Between nodes TCP passes, and no UDP at all.", LOOK_BETWEEN),
  LARGE_PACKETS_LOST: Codes.error(
    "Between nodes little data passes, and much does not: packets of full size are lost.",
    LOOK_AT_MTU
  ),
  LARGE_DATAGRAMS_LOST: Codes.warn(
    "Between nodes TCP passes with any data, and UDP datagrams of the size that the pods' interface allows do not.",
    LOOK_AT_MTU
  ),
  PACKETS_LOST: Codes.warn(
    "Between nodes more packets are lost than may be.",
    "Look at errors and drops of the nodes' interfaces, at how busy the nodes and the links between them are."
  ),
  PATH_SLOW: Codes.warn(
    "Between nodes packets take longer than they may.",
    "Look at how busy the links between the nodes are, and at which way packets take."
  ),
  POD_SILENT: Codes.unknown(
    "A pod that should answer did not answer even its own node, so nothing is known of the way to it.",
    "Look at network policies of the probe namespace, which must let its pods reach each other; then at that node."
  ),
  ONE_NODE: Codes.info(
    "Fewer than two nodes can run a pod now, so there is nothing between nodes to look at.",
    "Nothing."
  )
})

/** What a pod on `from` found of that on `to`. */
export interface Pair {
  readonly from: string
  readonly to: string
  readonly connects: boolean
  readonly carries: boolean
  readonly sent: number
  readonly echoed: number
  readonly fits: boolean
  readonly p99Millis: number
  /** The kind of the last failure; empty without one. */
  readonly why: string
}

/** Where something is: on all paths, around some nodes, and on other paths. */
export interface Places {
  readonly everywhere: boolean
  readonly nodes: ReadonlyArray<string>
  /** `a` before `b` by name. `ways`: from which of them to the other. */
  readonly paths: ReadonlyArray<{ readonly a: string; readonly b: string; readonly ways: "both" | "a" | "b" }>
}

/**
 * Who is to blame for what is on these of all pairs: a node when it is on all its pairs, and others are well among each
 * other. Between two nodes alone, or by what one alone says, nobody can tell.
 */
export const placesOf = (all: ReadonlyArray<Pair>, isBad: (pair: Pair) => boolean): Places => {
  const bad = all.filter(isBad)
  const names = [...new Set(all.flatMap(({ from, to }) => [from, to]))].sort()
  const canTell = names.length > 2 && new Set(all.map(({ from }) => from)).size > 1
  if (bad.length === 0) return { everywhere: false, nodes: [], paths: [] }
  if (canTell && bad.length === all.length) return { everywhere: true, nodes: [], paths: [] }
  const of = (name: string, { from, to }: Pair) => from === name || to === name
  const nodes = !canTell ? [] : names.filter((name) => all.filter((pair) => of(name, pair)).every(isBad))
  const ways = new Map<string, { readonly a: string; readonly b: string; ways: "both" | "a" | "b" }>()
  for (const pair of bad.filter((pair) => !nodes.some((name) => of(name, pair)))) {
    const [a, b] = pair.from < pair.to ? [pair.from, pair.to] : [pair.to, pair.from]
    const way = pair.from === a ? "a" : "b"
    const known = ways.get(`${a} ${b}`)
    if (known === undefined) ways.set(`${a} ${b}`, { a, b, ways: way })
    else if (known.ways !== way) known.ways = "both"
  }
  return { everywhere: false, nodes, paths: [...ways.values()] }
}

/** The same for both ways. */
const pathOf = (a: string, b: string): Subject => ({ kind: "Path", name: [a, b].sort().join(" ") })

const lossOf = ({ echoed, sent }: Pair) => sent === 0 ? 0 : (sent - echoed) * 100 / sent

const rounded = (value: number) => Math.round(value * 10) / 10

/** The verdict on what all pods found. Pairs of a node with itself are what the others are held against. */
export const judge = (
  { loss, slow }: Pick<MeshConfig, "loss" | "slow">,
  found: ReadonlyArray<Pair>,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const own = new Map(found.flatMap((pair) => pair.from === pair.to ? [[pair.to, pair] as const] : []))
  const isBroken = ({ connects }: Pair) => !connects
  const reached = new Set(found.filter(({ connects }) => connects).map(({ to }) => to))
  const reaches = new Set(found.filter(({ connects, from, to }) => connects && from !== to).map(({ from }) => from))
  // Its pod is gone, or hidden from all: when its own questions are answered, the node is not cut off.
  const silent = [...own].filter(([name]) => !reached.has(name)).map(([name]) => name)
  const isHidden = silent.length === own.size && silent.length > 0
  const unknown = silent.filter((name) => isHidden || reaches.has(name))
  const between = found.filter(({ from, to }) => from !== to && !unknown.includes(to))
  const findings: Array<Finding> = unknown.length === 0 ? [] : [codes.POD_SILENT({
    message: isHidden
      ? "no pod answers any other, of its own node neither: something in the probe namespace keeps its pods apart"
      : `the pods on ${unknown.slice(0, 5).join(", ")} did not answer their own nodes either`,
    evidence: { nodes: unknown.length }
  })]
  for (const [name, pair] of own) {
    if (isBroken(pair) && reached.has(name)) {
      findings.push(codes.NODE_APART({
        message: `pods on node ${name} do not reach each other (last ${pair.why}); those of other nodes reach them`,
        subject: { kind: "Node", name },
        evidence: { last: pair.why }
      }))
    }
  }
  if (between.length === 0) return findings

  const say = (
    code: Codes.Code,
    all: ReadonlyArray<Pair>,
    isBad: (pair: Pair) => boolean,
    what: string,
    facts: (bad: ReadonlyArray<Pair>) => Readonly<Record<string, string | number>>,
    more: { readonly node?: Codes.Code; readonly everywhere?: Codes.Code } = {}
  ) => {
    const { everywhere, nodes, paths } = placesOf(all, isBad)
    const badOf = (...names: ReadonlyArray<string>) =>
      all.filter((pair) => isBad(pair) && names.every((name) => pair.from === name || pair.to === name))
    const textOf = (facts: Readonly<Record<string, string | number>>) =>
      Object.entries(facts).map(([name, value]) => `${name} ${value}`).join(", ")
    const tell = (code: Codes.Code, where: string, bad: ReadonlyArray<Pair>, subject?: Subject) => {
      const evidence = { ...facts(bad), pairs: bad.length }
      findings.push(code({ message: `${where}: ${what} (${textOf(facts(bad))})`, subject, evidence }))
    }
    if (everywhere) tell(more.everywhere ?? code, "between all nodes looked at", all.filter(isBad))
    for (const name of nodes.slice(0, MOST_TOLD)) {
      tell(more.node ?? code, `between node ${name} and all others`, badOf(name), { kind: "Node", name })
    }
    for (const { a, b, ways } of paths.slice(0, MOST_TOLD)) {
      const where = ways === "both"
        ? `between nodes ${a} and ${b}, both ways`
        : ways === "a"
        ? `from node ${a} to node ${b}`
        : `from node ${b} to node ${a}`
      tell(code, where, badOf(a, b), pathOf(a, b))
    }
    const untold = Math.max(0, nodes.length - MOST_TOLD) + Math.max(0, paths.length - MOST_TOLD)
    if (untold > 0) findings.push(code({ message: `${what} also on ${untold} other paths or nodes` }))
  }

  const why = (bad: ReadonlyArray<Pair>) => ({ last: [...new Set(bad.map(({ why }) => why))].slice(0, 3).join("/") })
  say(codes.PATH_BROKEN, between, isBroken, "no TCP connection in several tries", why, {
    node: codes.NODE_CUT_OFF,
    everywhere: codes.NETWORK_DOWN
  })
  const connected = between.filter(({ connects }) => connects)
  const isWithoutUdp = ({ echoed }: Pair) => echoed === 0
  say(codes.UDP_LOST, connected, isWithoutUdp, "TCP connects, and no UDP datagram is answered", why)
  const isLossy = (pair: Pair) =>
    !isWithoutUdp(pair) &&
    limits.exceeds(lossOf(pair), loss, { code: codes.PACKETS_LOST, subject: pathOf(pair.from, pair.to) })
  say(codes.PACKETS_LOST, connected, isLossy, "small datagrams are lost", (bad) => ({
    worstPercent: rounded(Math.max(0, ...bad.map(lossOf))),
    limitPercent: loss
  }))
  // Where packets of any size are lost, those of full size tell nothing of their size.
  const sound = connected.filter((pair) => !isLossy(pair))
  say(codes.LARGE_PACKETS_LOST, sound, ({ carries }) => !carries, "32 bytes pass, and 64 KiB over TCP do not", why)
  const isTooLarge = ({ carries, echoed, fits }: Pair) => carries && echoed > 0 && !fits
  say(codes.LARGE_DATAGRAMS_LOST, sound, isTooLarge, "datagrams as large as the pods' interface allows are lost", why)
  const inside = ({ from, to }: Pair) => Math.max(own.get(from)?.p99Millis ?? 0, own.get(to)?.p99Millis ?? 0)
  const isSlow = (pair: Pair) =>
    limits.exceeds(pair.p99Millis - inside(pair), Duration.toMillis(slow), {
      code: codes.PATH_SLOW,
      subject: pathOf(pair.from, pair.to)
    })
  say(codes.PATH_SLOW, connected, isSlow, "datagrams take long", (bad) => ({
    worstP99Millis: Math.max(0, ...bad.map(({ p99Millis }) => p99Millis)),
    withinNodesMillis: Math.max(0, ...bad.map(inside)),
    limitMillis: Duration.toMillis(slow)
  }))
  return findings
}

/** How many of so many nodes are looked at in a run, given how many pods there may be at once. */
export const sampleSize = (nodes: number, configured: number, podsAtOnce = Infinity): number =>
  Math.min(
    nodes,
    MOST,
    Math.max(2, podsAtOnce - ASKING - LEFT),
    Math.max(configured, Math.ceil(Math.sqrt(nodes)))
  )

/** How many pods ask at a time beside so many that answer. */
export const askingAtOnce = (answering: number, podsAtOnce = Infinity): number =>
  Math.max(1, podsAtOnce - LEFT - answering)

export const mesh = Probe.make("infra.net.mesh", {
  layer: "infrastructure",
  proves:
    "Pods on every two nodes looked at reach each other over TCP and UDP, with little and much, without loss or delay.",
  writes: "namespace",
  placement: "workers",
  costs:
    "2 pods on each of 6 nodes (of at most 50, and 6 fewer than the budget of pods; of many, the square root of all), about 3 API requests a pod, and on each " +
    "path 100 to 200 small datagrams and 128 KiB.",
  needs: [Needs.list("nodes"), workerNeeds],
  codes,
  config: MeshConfig,
  timeout: "5 minutes",
  interval: "30 minutes",
  // Each path is tried for several seconds, and what was lost is sent again; pods are dear. Only a node that was busy for a
  // moment looks like a slow path.
  confirm: { unless: Object.keys(codes).filter((code) => code !== "PATH_SLOW") },
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: MeshConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const limits = yield* Hysteresis.limits
    const { podsAtOnce } = yield* RunContext
    const available = usable((yield* kube.list(Node)).items)
    const names = yield* sample(available, sampleSize(available.length, config.nodes, podsAtOnce))
    if (names.length < 2) {
      return Outcome.make("", [codes.ONE_NODE({ message: `${counted(names.length, "node")} can run a pod now` })])
    }
    const { blind: unready, done: responders } = yield* gather(
      names.map((node) => workers.respond({ node, name: "mesh-echo" }))
    )
    const [first] = responders
    if (first === undefined) return Outcome.make("", unready)
    const input = { targets: responders.map(({ ip }) => ip), port: first.echoPort, datagrams: DATAGRAMS }
    const { blind: silent, done: asked } = yield* gather(
      responders.map(({ node }) => workers.run(netPairs, input, { node, name: "mesh-ask" })),
      askingAtOnce(responders.length, podsAtOnce)
    )
    const found = asked.flatMap(({ node: from, output: { pairs } }) =>
      pairs.flatMap(([connects, carries, sent, echoed, fits, p99Millis, why], index): ReadonlyArray<Pair> => {
        const to = responders[index]?.node
        return to === undefined ? [] : [{ from, to, connects, carries, sent, echoed, fits, p99Millis, why }]
      })
    )
    const between = found.filter(({ from, to }) => from !== to)
    const findings = [...judge(config, found, limits), ...unready, ...silent]
    if (between.length === 0 && findings.length === 0) {
      findings.push(checkerCodes.CHECKER_FAILED({ message: "no path was looked at" }))
    }
    const worst = Math.max(0, ...between.map(({ p99Millis }) => p99Millis))
    return Outcome.make(
      `${between.length} paths between ${responders.length} of ${available.length} nodes carry little and much, packets ` +
        `of ${Math.min(...asked.map(({ output: { mtu } }) => mtu))} bytes too, within ${worst} ms (99th percentile)`,
      findings
    )
  })
})
