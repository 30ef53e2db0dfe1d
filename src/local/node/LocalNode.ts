import { Effect, FileSystem, Option, type Scope } from "effect"
import type { PlatformError } from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process"
import { createHash } from "node:crypto"
import { stringify } from "yaml"
import * as AdminClient from "../AdminClient.ts"
import type { KeyPairPem } from "../Certificates.ts"
import { DNS_SERVICE_IP, type NodeTimings } from "../control-plane/Flags.ts"
import { PAUSE_IMAGE } from "../image/Images.ts"
import { type CommandFailed, ComponentExited, LocalIoError, NodeUnsupported, type NotReady } from "../LocalError.ts"
import * as Command from "../process/Command.ts"
import * as Component from "../process/Component.ts"
import * as Cgroups from "./Cgroups.ts"
import * as Network from "./Network.ts"
import { NODE_INIT, UNSHARE } from "./NodeInit.ts"
import type { Tools } from "./NodeTools.ts"
import type { NodeNetwork } from "./Subnets.ts"

/** One node: a machine as far as Kubernetes can tell, with its own daemons, network, file system and process ids. */
export interface LocalNode {
  readonly name: string
  readonly ip: string
  /** The addresses of its pods, which this machine reaches. */
  readonly podCidr: string
  readonly kubelet: Component.Component
  readonly containerd: Component.Component
  readonly kubeProxy: Component.Component
  /** Runs a program in the node and answers its standard output. */
  readonly exec: (
    command: Command.CommandLine,
    options?: Command.CommandOptions
  ) => Effect.Effect<string, CommandFailed | ComponentExited>
  /** Loads an image archive, so that pods of this node can use it. `imageTar` makes one. */
  readonly importImage: (tarPath: string) => Effect.Effect<void, CommandFailed | ComponentExited>
  /** Everything in it ends at once, as without electricity. Its disk stays. */
  readonly powerOff: Effect.Effect<void>
  /** Boots it again: new network interface, same disk, all daemons. Does nothing while it is on. */
  readonly powerOn: Effect.Effect<void, NodeBootError>
}

export type NodeBootError = LocalIoError | ComponentExited | CommandFailed | NotReady | NodeUnsupported

export interface NodeOptions {
  readonly name: string
  /** Counted from 1. */
  readonly number: number
  /** The state folder of the cluster. */
  readonly cluster: string
  /** A folder for this node, which exists. */
  readonly folder: string
  /** The cgroup of its pods, below the roots. */
  readonly cgroup: string
  /** The folder that is the network storage of all nodes. */
  readonly shared: string
  readonly network: Network.Network
  /** Those of all nodes, in order. */
  readonly networks: ReadonlyArray<NodeNetwork>
  readonly tools: Tools
  readonly kubeletPath: string
  readonly kubeProxyPath: string
  readonly credentials: NodeCredentials
  readonly timings: NodeTimings
  /** What a node keeps from pods, so that it looks smaller than this machine. */
  readonly systemReserved?: Record<string, string>
}

export interface NodeCredentials {
  readonly ca: string
  readonly kubeletServer: KeyPairPem
  /** Kubeconfigs. */
  readonly kubelet: string
  readonly kubeProxy: string
}

/**
 * Boots a node up to containerd, with its images, which takes no API server. `join` starts what registers it, once the
 * Node object is there. It ends with the scope.
 */
export const make: (
  options: NodeOptions,
  leash: Component.Leash
) => Effect.Effect<
  { readonly node: LocalNode; readonly join: Effect.Effect<void, LocalIoError | ComponentExited> },
  NodeBootError | PlatformError,
  FileSystem.FileSystem | ChildProcessSpawner.ChildProcessSpawner | Scope.Scope
> = Effect.fn("LocalNode.make")(function*(options: NodeOptions, leash: Component.Leash) {
  const { cgroup, cluster, folder, name, network, networks, number, tools } = options
  const own = networks[number - 1]
  if (own === undefined) return yield* Effect.die(`node ${number} of ${networks.length}`)
  const fs = yield* FileSystem.FileSystem
  const services = yield* Effect.context<FileSystem.FileSystem | ChildProcessSpawner.ChildProcessSpawner>()
  const snapshotter = yield* snapshotterFor(folder)
  const nameServers = nameServersOf(yield* Effect.orElseSucceed(fs.readFileString(RESOLV_CONF), () => ""))

  yield* Effect.forEach(
    [
      "root",
      "disk",
      "disk/tmp",
      "disk/var",
      "disk/etc",
      "disk/etc/cni/net.d",
      "disk/etc/containerd",
      "disk/etc/kubernetes"
    ],
    (path) => fs.makeDirectory(`${folder}/${path}`, { recursive: true, mode: 0o755 })
  )
  yield* fs.chmod(`${folder}/disk/tmp`, 0o1777)
  yield* Effect.forEach(
    Object.entries(files(options, own, { nameServers, snapshotter })),
    ([path, content]) => fs.writeFileString(`${folder}/disk/etc/${path}`, content, { mode: modeOf(path) })
  )
  yield* fs.writeFileString(`${folder}/init.sh`, NODE_INIT)

  const init = yield* Component.make({
    name,
    cluster,
    logPath: `${folder}/init.log`,
    forks: true,
    prefix: Effect.succeed([...UNSHARE, "--kill-child"]),
    command: [
      "sh",
      `${folder}/init.sh`,
      folder,
      name,
      Option.getOrElse(tools.overlay, () => ""),
      options.shared,
      options.kubeletPath,
      options.kubeProxyPath
    ]
  }, leash)
  const enter = Effect.flatMap(
    init.pid,
    Option.match({
      onNone: () =>
        Effect.fail(
          new ComponentExited({ component: `Node ${name}`, status: "powered off", logPath: init.logPath, logTail: "" })
        ),
      onSome: (pid) =>
        Effect.succeed(["nsenter", `--target=${pid}`, "--mount", "--uts", "--ipc", "--net", "--pid"] as const)
    })
  )
  const daemon = (name: string, command: Command.CommandLine) =>
    Component.make({
      name,
      cluster,
      logPath: `${folder}/${name}.log`,
      forks: true,
      restarts: true,
      prefix: enter,
      command
    }, leash)
  const containerd = yield* daemon("containerd", ["containerd", "--log-level=warn"])
  const kubelet = yield* daemon("kubelet", [
    "/kubernetes/kubelet",
    "--kubeconfig=/etc/kubernetes/kubelet.conf",
    "--config=/etc/kubernetes/kubelet.yaml",
    `--hostname-override=${name}`,
    `--node-ip=${own.address}`
  ])
  const kubeProxy = yield* daemon("kube-proxy", [
    "/kubernetes/kube-proxy",
    "--kubeconfig=/etc/kubernetes/kube-proxy.conf",
    "--proxy-mode=iptables",
    `--cluster-cidr=${network.addresses.podCidr}`,
    `--hostname-override=${name}`,
    // The limit is that of the whole machine, and not ours to change.
    "--conntrack-max-per-core=0"
  ])

  const exec: LocalNode["exec"] = (command, execOptions) =>
    Effect.flatMap(enter, (prefix) => Command.run([...prefix, ...command], execOptions)).pipe(
      Effect.provideContext(services)
    )

  const boot = Effect.gen(function*() {
    // A reboot empties cgroups; these outlive the node, and kubelet would spend seconds on each stale one.
    yield* Cgroups.remove(cgroup)
    yield* Effect.mapError(Cgroups.make(cgroup), (error) =>
      new NodeUnsupported({
        reason: "kernel",
        detail: `its cgroups cannot be used, as is so in a container that does not own them (${error.message})`
      }))
    yield* init.start
    const pid = yield* Effect.map(init.pid, Option.getOrElse(() => 0))
    yield* AdminClient.until(`Node ${name}`, BOOT_WITHIN, fs.access(`/proc/${pid}/root/run/node-ready`)).pipe(
      Effect.raceFirst(init.ended)
    )
    yield* Network.connectNode({ network, node: pid, number, networks })
    yield* containerd.start
    yield* AdminClient.until(`containerd of ${name}`, BOOT_WITHIN, exec(["ctr", "version"])).pipe(
      Effect.raceFirst(containerd.ended)
    )
  })
  const join = Effect.andThen(kubelet.start, kubeProxy.start)

  const node: LocalNode = {
    name,
    ip: own.address,
    podCidr: own.podCidr,
    kubelet,
    containerd,
    kubeProxy,
    exec,
    importImage: (tarPath) =>
      Effect.flatMap(enter, (prefix) =>
        Command.run([
          "sh",
          "-c",
          `tar=$1; shift; exec "$@" <"$tar"`,
          "sh",
          tarPath,
          ...prefix,
          "ctr",
          "--namespace=k8s.io",
          "images",
          "import",
          `--snapshotter=${snapshotter}`,
          "-"
        ])).pipe(Effect.asVoid, Effect.provideContext(services)),
    // The kernel ends the daemons with process 1; killing each waits for that, and keeps it from being started again.
    powerOff: Effect.andThen(
      init.kill,
      Effect.forEach([kubelet, kubeProxy, containerd], (daemon) => daemon.kill, { discard: true })
    ),
    powerOn: init.isRunning.pipe(
      Effect.flatMap((on) => on ? Effect.void : Effect.andThen(boot, join)),
      Effect.catchTag(
        "PlatformError",
        (cause) => Effect.fail(new LocalIoError({ doing: `Booting node ${name}`, cause }))
      ),
      Effect.provideContext(services)
    )
  }
  // After the processes of the node, which the kernel ends with process 1.
  yield* Effect.addFinalizer(() => Effect.provideContext(Cgroups.remove(cgroup), services).pipe(Effect.ignore))
  yield* Effect.addFinalizer(() => init.kill)
  yield* boot
  return { node, join }
})

/** A machine that is busy with other clusters; an idle one needs less than a second. */
const BOOT_WITHIN = "30 seconds"

/** overlayfs cannot have its upper layer on overlayfs, which is what the file system of a container is. */
const snapshotterFor = (folder: string) =>
  Effect.map(
    Command.run(["stat", "--file-system", "--format=%T", folder]),
    (type) => type.trim() === "overlayfs" ? "native" : "overlayfs"
  )

const modeOf = (path: string): number => path.startsWith("kubernetes/") ? 0o600 : 0o644

/** Of this machine (resolv.conf(5)). */
const RESOLV_CONF = "/etc/resolv.conf"

/**
 * A node's resolv.conf: the machine's name servers, of which there may be none, and not the domains that it searches. No
 * way need lead from the node's network to them, so whoever asks is not kept waiting.
 */
export const nameServersOf = (resolvConf: string): string => {
  const servers = resolvConf.split("\n").map((line) => line.trim()).filter((line) => /^nameserver\s/u.test(line))
  return servers.length === 0 ? "" : [...servers, "options timeout:1 attempts:1", ""].join("\n")
}

/** What is in /etc of a node. */
const files = (
  options: NodeOptions,
  own: NodeNetwork,
  { nameServers, snapshotter }: { readonly nameServers: string; readonly snapshotter: string }
): Record<string, string> => ({
  "hostname": `${options.name}\n`,
  "hosts": `127.0.0.1 localhost\n${own.address} ${options.name}\n`,
  "resolv.conf": nameServers,
  "machine-id": `${createHash("sha256").update(options.folder).digest("hex").slice(0, 32)}\n`,
  "containerd/config.toml": containerdConfig(options.tools, snapshotter),
  "cni/net.d/10-kubeprober.conflist": cniConfig(own),
  "kubernetes/ca.crt": options.credentials.ca,
  "kubernetes/kubelet.crt": options.credentials.kubeletServer.cert,
  "kubernetes/kubelet.key": options.credentials.kubeletServer.key,
  "kubernetes/kubelet.conf": options.credentials.kubelet,
  "kubernetes/kube-proxy.conf": options.credentials.kubeProxy,
  "kubernetes/kubelet.yaml": kubeletConfig(options)
})

/** Of version 2, which containerd 2 reads as well. */
const containerdConfig = (tools: Tools, snapshotter: string): string =>
  `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  # Lowering it takes CAP_SYS_RESOURCE, which root has not got everywhere.
  restrict_oom_score_adj = true
  sandbox_image = "${PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${tools.cniBinDir}"
    conf_dir = "/etc/cni/net.d"
`

const cniConfig = (own: NodeNetwork): string =>
  JSON.stringify({
    cniVersion: "1.0.0",
    name: "kubeprober",
    plugins: [
      {
        type: "bridge",
        bridge: "cni0",
        isGateway: true,
        // Other nodes, the control plane and this machine have routes to pods, and see them under their own addresses.
        ipMasq: false,
        hairpinMode: true,
        ipam: { type: "host-local", ranges: [[{ subnet: own.podCidr }]], routes: [{ dst: "0.0.0.0/0" }] }
      },
      { type: "portmap", capabilities: { portMappings: true } }
    ]
  })

const kubeletConfig = ({ cgroup, systemReserved, timings }: NodeOptions): string =>
  stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${cgroup}`,
    failCgroupV1: false,
    failSwapOn: false,
    clusterDNS: [DNS_SERVICE_IP],
    clusterDomain: "cluster.local",
    // Pods ask the cluster's DNS alone: no way need lead from them to the name servers of the node.
    resolvConf: "",
    containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: "/etc/kubernetes/ca.crt" }
    },
    authorization: { mode: "Webhook" },
    tlsCertFile: "/etc/kubernetes/kubelet.crt",
    tlsPrivateKeyFile: "/etc/kubernetes/kubelet.key",
    // The disk is that of the whole machine: how full it is says nothing of the node, and images cannot be pulled again.
    imageGCHighThresholdPercent: 100,
    evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
    nodeStatusUpdateFrequency: timings.statusUpdateFrequency,
    nodeLeaseDurationSeconds: timings.leaseDurationSeconds,
    ...(systemReserved === undefined ? {} : { systemReserved })
  })
