import { Effect, FileSystem, Schema } from "effect"
import { COREDNS_PATH, addons } from "../Addons.ts"
import * as AdminClient from "../AdminClient.ts"
import type { Binary } from "../binaries/LocalBinaries.ts"
import type { Credentials } from "../control-plane/Credentials.ts"
import type { NodeTimings } from "../control-plane/Flags.ts"
import * as Images from "../image/Images.ts"
import type { ComponentExited } from "../LocalError.ts"
import type { Leash } from "../process/Component.ts"
import * as Cgroups from "./Cgroups.ts"
import * as LocalNode from "./LocalNode.ts"
import * as Network from "./Network.ts"
import type { Tools } from "./NodeTools.ts"
import { nodeNetwork } from "./Subnets.ts"

export interface NodePoolOptions {
  readonly name: string
  /** The state folder of the cluster. */
  readonly cluster: string
  readonly cache: string
  readonly count: number
  readonly network: Network.Network
  readonly shared: string
  readonly tools: Tools
  readonly programs: Readonly<Record<"kubelet" | "kube-proxy" | "coredns", Binary>>
  readonly credentials: Credentials
  readonly timings: NodeTimings
  readonly systemReserved: Record<string, string> | undefined
  /** Image archives besides the built-in ones. */
  readonly images: ReadonlyArray<string>
}

/** Nodes that are on and have their images, but that Kubernetes does not know yet. */
export type Booted = ReadonlyArray<Effect.Success<ReturnType<typeof LocalNode.make>>>

/** Boots all nodes, which takes no API server. They end with the scope. */
export const boot = Effect.fn("NodePool.boot")(function*(options: NodePoolOptions, leash: Leash) {
  const { cluster, count, credentials, name, network, programs, tools } = options
  const fs = yield* FileSystem.FileSystem
  const images = [...yield* Images.builtIn(options.cache, tools.busybox, programs.coredns), ...options.images]
  const networks = Array.from({ length: count }, (_, index) => nodeNetwork(network.addresses.index, index + 1))
  yield* Network.routePods(network, networks)
  const kubeProxy = yield* credentials.kubeconfigOf("system:kube-proxy")

  const bootNode = Effect.fnUntraced(function*(own: (typeof networks)[number], index: number) {
    const number = index + 1
    const nodeName = `${name}-n${number}`
    const folder = `${cluster}/nodes/${nodeName}`
    yield* fs.makeDirectory(folder, { recursive: true, mode: 0o700 })
    const booted = yield* LocalNode.make({
      name: nodeName,
      number,
      cluster,
      folder,
      cgroup: `${Cgroups.groupOf(cluster)}/n${number}`,
      shared: options.shared,
      network,
      networks,
      tools,
      kubeletPath: programs.kubelet.path,
      kubeProxyPath: programs["kube-proxy"].path,
      credentials: {
        ca: credentials.authority.cert,
        kubeletServer: yield* credentials.authority.issue({
          commonName: `system:node:${nodeName}`,
          organizations: ["system:nodes"],
          dnsNames: [nodeName],
          ipAddresses: [own.address]
        }),
        kubelet: yield* credentials.kubeconfigOf(`system:node:${nodeName}`, ["system:nodes"]),
        kubeProxy
      },
      timings: options.timings,
      ...(options.systemReserved === undefined ? {} : { systemReserved: options.systemReserved })
    }, leash)
    yield* Effect.forEach(images, booted.node.importImage)
    return booted
  })
  const booted = yield* Effect.forEach(networks, bootNode, { concurrency: "unbounded" })
  // Ends all at once what would otherwise end one after the other.
  yield* Effect.addFinalizer(() => Effect.forEach(booted, ({ node }) => node.powerOff, { concurrency: "unbounded" }))
  return booted
})

/** Registers the nodes with the API server, and waits until all are Ready and answer names. */
export const join = Effect.fn("NodePool.join")(function*(booted: Booted, admin: AdminClient.AdminClient) {
  yield* Effect.forEach(booted, ({ join, node }) =>
    // The Node object first: it fixes the addresses of pods to those that the routes lead to, and by its label the
    // scheduler knows that pods can be spread to it before its kubelet is there.
    admin.apply(`/api/v1/nodes/${node.name}`, {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: node.name, labels: { "kubernetes.io/hostname": node.name } },
      spec: { podCIDR: node.podCidr, podCIDRs: [node.podCidr] }
    }).pipe(Effect.andThen(join)), { concurrency: "unbounded" })
  yield* Effect.forEach(addons(Math.min(2, booted.length)), ({ manifest, path }) => admin.apply(path, manifest))
  yield* whileAllRun(booted)(Effect.forEach(
    booted,
    ({ node }) => AdminClient.until(`Node ${node.name}`, READY_WITHIN, nodeIsReady(admin, node.name)),
    { concurrency: "unbounded" }
  ))
})

/** Gives up as soon as a daemon ends. */
const whileAllRun = (booted: Booted) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.raceAllFirst<Effect.Effect<A, E | ComponentExited, R>>([
    effect,
    ...booted.flatMap(({ node }) => [node.containerd.ended, node.kubelet.ended, node.kubeProxy.ended])
  ])

/** Waits until every replica of CoreDNS serves. */
export const dnsServes = (booted: Booted, admin: AdminClient.AdminClient) =>
  whileAllRun(booted)(AdminClient.until(
    "CoreDNS",
    READY_WITHIN,
    Effect.flatMap(admin.get(COREDNS_PATH, Deployment), ({ spec, status }) =>
      status.readyReplicas === spec.replicas
        ? Effect.void
        : Effect.fail({ message: `${status.readyReplicas ?? 0} of ${spec.replicas} replicas are ready` }))
  ))

const READY_WITHIN = "90 seconds"

const Deployment = Schema.Struct({
  spec: Schema.Struct({ replicas: Schema.Int }),
  status: Schema.Struct({ readyReplicas: Schema.optionalKey(Schema.Int) })
})

const NodeStatus = Schema.Struct({
  status: Schema.Struct({
    conditions: Schema.optionalKey(Schema.Array(Schema.Struct({
      type: Schema.String,
      status: Schema.String,
      message: Schema.optionalKey(Schema.String)
    })))
  })
})

const nodeIsReady = (admin: AdminClient.AdminClient, name: string) =>
  Effect.flatMap(admin.get(`/api/v1/nodes/${name}`, NodeStatus), ({ status }) => {
    const ready = status.conditions?.find(({ type }) => type === "Ready")
    return ready?.status === "True"
      ? Effect.void
      : Effect.fail({ message: ready?.message ?? "kubelet has not reported yet" })
  })
