import { Clock, Context, DateTime, Duration, Effect, Exit, FileSystem, Layer, Option, Schema, Scope } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { type BinariesError, LocalBinaries } from "./binaries/LocalBinaries.ts"
import type { KeyPairPem } from "./Certificates.ts"
import * as ControlPlane from "./control-plane/ControlPlane.ts"
import * as Flags from "./control-plane/Flags.ts"
import * as Kubeconfig from "./Kubeconfig.ts"
import {
  type ClusterExists,
  type CommandFailed,
  ComponentExited,
  InvalidOptions,
  type LocalError,
  LocalIoError
} from "./LocalError.ts"
import { LocalPaths } from "./LocalPaths.ts"
import { type Claim, ClusterRecord, LocalStore, isReserved } from "./LocalStore.ts"
import type * as LocalNode from "./node/LocalNode.ts"
import * as Network from "./node/Network.ts"
import * as NodePool from "./node/NodePool.ts"
import { NodeTools } from "./node/NodeTools.ts"
import { MAX_NODES } from "./node/Subnets.ts"
import * as Ports from "./Ports.ts"
import * as Command from "./process/Command.ts"
import * as Component from "./process/Component.ts"
import { type OnProgress, Reached, type Stage } from "./Progress.ts"

export interface LocalClusterOptions {
  /** A DNS label; one live cluster of a name per user. */
  readonly name: string
  /** 0, the default, is a control plane alone, which needs neither root nor Linux. */
  readonly nodes?: number
  /** How soon a lost node is noticed: in about 6 seconds (`fast`, the default), or in Kubernetes' own time (50 seconds). */
  readonly nodeTimings?: keyof typeof Flags.nodeTimings
  /** Resources that every node keeps from pods. Without it every node has all processors and memory of this machine. */
  readonly systemReserved?: Record<string, string>
  /** Image archives that every node gets, besides busybox, pause and CoreDNS. */
  readonly images?: ReadonlyArray<string>
  /** Flags after, and so in place of, those that a program is started with anyway. */
  readonly extraFlags?: Partial<Record<Flags.Program, ReadonlyArray<string>>>
  readonly onProgress?: OnProgress
}

/**
 * A real Kubernetes cluster on this machine, which ends with the scope that made it. Nothing of it remains then; of a
 * process that was killed, the next use of `LocalStore` removes what the kernel has not.
 */
export class LocalCluster extends Context.Service<LocalCluster, {
  readonly name: string
  /** Without the leading `v`. */
  readonly kubernetesVersion: string
  /** The base URL of the API. */
  readonly server: string
  readonly caCertPem: string
  /** An administrator (`system:masters`). */
  readonly adminCertPem: string
  readonly adminKeyPem: string
  /** Self-contained, with one context: `kubeprober-local-<name>`. */
  readonly kubeconfig: string
  readonly kubeconfigPath: string
  readonly issueClientCertificate: (options: {
    readonly user: string
    readonly groups?: ReadonlyArray<string>
    /** A year unless given. */
    readonly validFor?: Duration.Input
  }) => Effect.Effect<KeyPairPem>
  readonly components: {
    readonly etcd: Component.Component
    readonly apiServer: Component.Component
    readonly controllerManager: Component.Component
    readonly scheduler: Component.Component
  }
  readonly nodes: ReadonlyArray<LocalNode.LocalNode>
  /** Runs kubectl as the administrator, and answers its standard output. */
  readonly kubectl: (
    args: ReadonlyArray<string>,
    options?: Command.CommandOptions
  ) => Effect.Effect<string, CommandFailed | BinariesError>
}>()("kubeprober/local/LocalCluster") {
  /** Use in a scope that lives as long as the cluster shall. Several may run side by side. */
  static readonly make = (options: LocalClusterOptions): Effect.Effect<
    LocalCluster["Service"],
    LocalError,
    Scope.Scope | LocalServices
  > => make(options)

  /** A cluster for a suite of tests. */
  static readonly layer = (options: LocalClusterOptions): Layer.Layer<LocalCluster, LocalError, LocalServices> =>
    Layer.effect(LocalCluster, make(options))
}

/** What `Local.layer` provides. */
export type LocalServices =
  | LocalPaths
  | LocalBinaries
  | LocalStore
  | NodeTools
  | FileSystem.FileSystem
  | ChildProcessSpawner.ChildProcessSpawner

const make = Effect.fn("LocalCluster.make")(
  function*(options: LocalClusterOptions) {
    const { name, nodes: count = 0 } = options
    yield* validate(name, count)
    const store = yield* LocalStore
    const binaries = yield* LocalBinaries
    const services = yield* Effect.context<ChildProcessSpawner.ChildProcessSpawner>()
    const createdAt = yield* DateTime.now
    const onProgress: OnProgress = options.onProgress ?? (() => Effect.void)
    const setting: Setting = {
      options,
      onProgress,
      reached: (stage) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const elapsed = Duration.millis(now - DateTime.toEpochMillis(createdAt))
          return onProgress(Reached.make({ cluster: name, stage, elapsed }))
        }),
      claim: Effect.tap(store.claim(name), ({ publish }) => publish(record)),
      timings: Flags.nodeTimings[options.nodeTimings ?? "fast"],
      leash: yield* Component.leash
    }
    const record = new ClusterRecord({ name, pid: process.pid, createdAt, nodes: count })

    const { claim, controlPlane, nodes } = yield* count === 0 ? withoutNodes(setting) : withNodes(setting, count)

    const { admin, credentials, components, server } = controlPlane
    const entry: Kubeconfig.KubeconfigEntry = {
      context: Kubeconfig.contextName(name),
      server,
      ca: credentials.authority.cert,
      client: credentials.admin
    }
    const kubeconfig = Kubeconfig.render([entry])
    const kubeconfigPath = `${claim.directory}/kubeconfig`
    const fs = yield* FileSystem.FileSystem
    yield* fs.writeFileString(kubeconfigPath, kubeconfig, { mode: 0o600 })
    const { gitVersion } = yield* admin.get("/version", Schema.Struct({ gitVersion: Schema.String }))
    const kubernetesVersion = gitVersion.replace(/^v/, "")
    yield* claim.publish(new ClusterRecord({ ...record, ready: { kubernetesVersion, ...entry } }))

    return LocalCluster.of({
      name,
      kubernetesVersion,
      server,
      caCertPem: entry.ca,
      adminCertPem: entry.client.cert,
      adminKeyPem: entry.client.key,
      kubeconfig,
      kubeconfigPath,
      issueClientCertificate: ({ groups = [], user, validFor }) =>
        credentials.authority.issue({
          commonName: user,
          organizations: groups,
          ...(validFor === undefined ? {} : { validFor })
        }),
      components,
      nodes,
      kubectl: (args, commandOptions) =>
        Effect.flatMap(
          binaries.resolve(["kubectl"], onProgress),
          ({ kubectl }) => Command.run([kubectl.path, `--kubeconfig=${kubeconfigPath}`, ...args], commandOptions)
        ).pipe(
          Effect.provideContext(services)
        )
    })
  },
  (effect, { name }) =>
    Effect.catchTag(
      allOrNothing(effect),
      ["PlatformError", "LockFailed"],
      (cause) => Effect.fail(new LocalIoError({ doing: `Starting the local cluster ${name}`, cause }))
    )
)

/**
 * What the effect made is gone before its failure is told, so that its caller can try something else in the same scope:
 * a cluster of the same name without nodes, or other ports.
 */
const allOrNothing = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Effect.scope)
    return yield* Scope.provide(effect, scope).pipe(
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  })

/** What making a cluster of either shape takes. */
interface Setting {
  readonly options: LocalClusterOptions
  readonly onProgress: OnProgress
  readonly reached: (stage: Stage) => Effect.Effect<void>
  readonly claim: Effect.Effect<Claim, ClusterExists | LocalIoError, Scope.Scope>
  readonly timings: Flags.NodeTimings
  readonly leash: Component.Leash
}

/** A control plane on ports of the loopback interface. */
const withoutNodes = Effect.fnUntraced(
  function*({ leash, onProgress, options, reached, timings, ...setting }: Setting) {
    const programs = yield* (yield* LocalBinaries).resolve(Flags.programs, onProgress)
    yield* reached("binaries")
    const claim = yield* setting.claim
    const attempt = allOrNothing(Effect.gen(function*() {
      const controlPlane = yield* ControlPlane.make({
        name: options.name,
        cluster: claim.directory,
        programs,
        extraFlags: options.extraFlags ?? {},
        timings,
        listening: { address: LOOPBACK, ...yield* Ports.free(LOOPBACK, Flags.ports) },
        network: Option.none()
      }, leash)
      yield* controlPlane.ready
      return controlPlane
    }))
    const controlPlane = yield* Effect.retry(attempt, { while: isPortTaken, times: 3 })
    yield* reached("control plane")
    return { claim, controlPlane, nodes: [] }
  }
)

const LOOPBACK = "127.0.0.1"

/** Somebody else took the port between our choosing it and the program's binding it. */
const isPortTaken = (error: { readonly _tag: string }): boolean =>
  error instanceof ComponentExited && error.logTail.includes("address already in use")

/** A control plane and nodes in a network of their own, on the usual ports. */
const withNodes = Effect.fnUntraced(
  function*({ leash, onProgress, options, reached, timings, ...setting }: Setting, count: number) {
    const { name } = options
    const fs = yield* FileSystem.FileSystem
    const { cache } = yield* LocalPaths
    const tools = yield* (yield* NodeTools).resolve
    const programs = yield* (yield* LocalBinaries).resolve(
      [...Flags.programs, "kubelet", "kube-proxy", "coredns"],
      onProgress
    )
    yield* reached("binaries")
    const claim = yield* setting.claim
    const cluster = claim.directory
    const shared = `${cluster}/volumes`
    yield* fs.makeDirectory(shared, { mode: 0o755 })
    const network = yield* Network.make(cluster, leash)
    yield* reached("network")

    const controlPlane = yield* ControlPlane.make({
      name,
      cluster,
      programs,
      extraFlags: options.extraFlags ?? {},
      timings,
      listening: { address: network.addresses.controlPlaneAddress, ...Flags.standardPorts },
      network: Option.some({ enter: network.enter, podCidr: network.addresses.podCidr, shared })
    }, leash)
    const boot = NodePool.boot({
      name,
      cluster,
      cache,
      count,
      network,
      shared,
      tools,
      programs,
      credentials: controlPlane.credentials,
      timings,
      systemReserved: options.systemReserved,
      images: options.images ?? []
    }, leash)
    const [booted] = yield* Effect.all(
      [Effect.tap(boot, reached("images")), Effect.tap(controlPlane.ready, reached("control plane"))],
      { concurrency: "unbounded" }
    )
    yield* controlPlane.whileAllRun(NodePool.join(booted, controlPlane.admin))
    yield* reached("nodes")
    yield* controlPlane.whileAllRun(NodePool.dnsServes(booted, controlPlane.admin))
    yield* reached("dns")
    return { claim, controlPlane, nodes: booted.map(({ node }) => node) }
  }
)

const validate = Effect.fnUntraced(function*(name: string, nodes: number) {
  if (!/^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name) || isReserved(name)) {
    return yield* new InvalidOptions({
      option: "The name of a local cluster",
      value: name,
      expected: "1 to 32 lower-case letters, digits and dashes, that begin with a letter, do not end with a dash, " +
        "and are not reserved (kubeconfig)"
    })
  }
  if (!Number.isInteger(nodes) || nodes < 0 || nodes > MAX_NODES) {
    return yield* new InvalidOptions({
      option: "The number of nodes",
      value: String(nodes),
      expected: `a whole number from 0 to ${MAX_NODES}`
    })
  }
})
