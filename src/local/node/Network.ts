import { Effect, FileSystem, Option, Schedule } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { NoFreeNetwork } from "../LocalError.ts"
import * as Command from "../process/Command.ts"
import * as Component from "../process/Component.ts"
import { type ClusterNetwork, MAX_CLUSTERS, type NodeNetwork, candidates } from "./Subnets.ts"

/** The network of a cluster: a switch in a namespace of its own, in which the control plane runs as well. */
export interface Network {
  readonly addresses: ClusterNetwork
  /** A process that does nothing but keep the namespace. */
  readonly holder: number
  /** Leads into the namespace. */
  readonly enter: ReadonlyArray<string>
}

/** Makes the network. Closing the scope takes it away. */
export const make = Effect.fn("Network.make")(function*(cluster: string, leash: Component.Leash) {
  const fs = yield* FileSystem.FileSystem
  const services = yield* Effect.context<ChildProcessSpawner.ChildProcessSpawner>()
  const component = yield* Component.make({
    name: "network",
    cluster,
    logPath: `${cluster}/network.log`,
    command: ["unshare", "--net", "sleep", "infinity"]
  }, leash)
  yield* component.start
  const holder = Option.getOrElse(yield* component.pid, () => 0)
  const own = yield* fs.readLink(namespaceOf(process.pid))
  yield* Effect.repeat(fs.readLink(namespaceOf(holder)), {
    while: (namespace) => namespace === own,
    schedule: Schedule.spaced("5 millis")
  }).pipe(Effect.raceFirst(component.ended))
  const addresses = yield* Effect.acquireRelease(
    connect(cluster, holder),
    ({ hostLink }) => Effect.ignore(deleteLink(hostLink)).pipe(Effect.provideContext(services))
  )
  const network: Network = { addresses, holder, enter: ["nsenter", `--net=${namespaceOf(holder)}`] }
  return network
})

/**
 * Takes the interface away that a killed owner has left. The kernel would do so, but not before the last connection
 * into the cluster has timed out.
 */
export const removeLeftover = Effect.fnUntraced(function*(cluster: string) {
  const fs = yield* FileSystem.FileSystem
  const links = yield* Effect.orElseSucceed(fs.readDirectory("/sys/class/net"), () => [])
  const own = yield* Effect.filter(links, (link) =>
    fs.readFileString(`/sys/class/net/${link}/ifalias`).pipe(
      Effect.map((alias) => alias.trimEnd() === cluster),
      Effect.orElseSucceed(() => false)
    ))
  yield* Effect.forEach(own, (link) => Effect.ignore(deleteLink(link)))
})

const deleteLink = (link: string) => ip(undefined, [`link del ${link}`])

/** Connections to what was switched off would keep a namespace for minutes. */
const SYSCTLS = { "ipv4/ip_forward": 1, "ipv4/tcp_orphan_retries": 1 }

/** A network namespace, named by a process that lives in it. It is gone when its last process is. */
const namespaceOf = (pid: number): string => `/proc/${pid}/ns/net`

/** Commands of ip(8), one a line, in the namespace of a process or (undefined) in that of this one. */
const ip = (pid: number | undefined, lines: ReadonlyArray<string>) =>
  Command.run(
    pid === undefined ? ["ip", "-batch", "-"] : ["nsenter", `--net=${namespaceOf(pid)}`, "ip", "-batch", "-"],
    { stdin: `${lines.join("\n")}\n` }
  )

/** Sets variables below /proc/sys/net, which are those of the namespace of the process. */
const sysctl = (pid: number, values: Record<string, number>) =>
  Command.run([
    "nsenter",
    `--net=${namespaceOf(pid)}`,
    "sh",
    "-eu",
    "-c",
    Object.entries(values).map(([name, value]) => `echo ${value} > /proc/sys/net/${name}`).join("; ")
  ])

/**
 * Connects this machine to the namespace and makes a switch of it, in a network that is free.
 * Taking the name of the interface takes the network: the kernel lets only one process have it, and gives it back
 * when the namespace ends.
 */
const connect = Effect.fnUntraced(function*(cluster: string, holder: number) {
  const fs = yield* FileSystem.FileSystem
  const free = candidates(yield* fs.readFileString("/proc/net/route"))
  const taken = yield* Effect.findFirst(
    free,
    ({ hostLink }) =>
      ip(undefined, [`link add ${hostLink} type veth peer name host netns ${holder}`]).pipe(
        Effect.as(true),
        Effect.catchIf((error) => error.output.includes("File exists"), () => Effect.succeed(false))
      )
  )
  if (Option.isNone(taken)) return yield* new NoFreeNetwork({ tried: MAX_CLUSTERS })
  const { controlPlaneAddress, hostAddress, hostLink } = taken.value
  yield* ip(holder, [
    "link set lo up",
    "link add br0 type bridge",
    `addr add ${controlPlaneAddress}/24 dev br0`,
    "link set br0 up",
    "link set host master br0 up"
  ])
  yield* sysctl(holder, { ...SYSCTLS, "bridge/bridge-nf-call-iptables": 0 })
  yield* ip(undefined, [
    `link set ${hostLink} alias ${cluster}`,
    `addr add ${hostAddress}/24 dev ${hostLink}`,
    `link set ${hostLink} up`
  ])
  return taken.value
})

/** Lets this machine and the control plane reach the pods of the nodes without kube-proxy. Done once. */
export const routePods = Effect.fnUntraced(
  function*({ addresses, holder }: Network, nodes: ReadonlyArray<NodeNetwork>) {
    const routes = nodes.map((node) => `route add ${node.podCidr} via ${node.address}`)
    yield* ip(holder, routes)
    yield* ip(undefined, routes.map((route) => `${route} dev ${addresses.hostLink}`))
  }
)

/** Plugs a node into the switch: after each boot, as its namespace is new. */
export const connectNode = Effect.fn("Network.connectNode")(function*(options: {
  readonly network: Network
  /** A process in the namespace of the node. */
  readonly node: number
  /** Counted from 1. */
  readonly number: number
  /** Those of all nodes of the cluster, in order. */
  readonly networks: ReadonlyArray<NodeNetwork>
}) {
  const { network: { addresses, holder }, networks, node, number } = options
  const own = networks[number - 1]
  const port = `n${number}`
  // The end of an earlier boot goes in its own time, and the name would be taken until then.
  yield* Effect.ignore(ip(holder, [`link del ${port}`]))
  yield* ip(holder, [
    `link add ${port} type veth peer name eth0 netns ${node}`,
    `link set ${port} master br0 up`
  ])
  yield* ip(node, [
    "link set lo up",
    `addr add ${own?.address}/24 dev eth0`,
    "link set eth0 up",
    // Nothing is behind it, but without a default route a Service cannot be reached from the network of the node.
    `route add default via ${addresses.controlPlaneAddress}`,
    ...networks.flatMap((other) => other === own ? [] : [`route add ${other.podCidr} via ${other.address}`])
  ])
  yield* sysctl(node, { ...SYSCTLS, "bridge/bridge-nf-call-iptables": 1 })
})
