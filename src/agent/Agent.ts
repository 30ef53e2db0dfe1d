/** The agent as a whole: one cluster's Probes, run and told, for a master or without one. */
import { Context, Effect, Layer, Option, type Redacted, Stream } from "effect"
import { hostname } from "node:os"
import { join } from "node:path"
import { type ClusterBudget, DEFAULT_BUDGET } from "../domain/ClusterBudget.ts"
import type { Profile } from "../domain/Profile.ts"
import { HealthServer } from "../infra/health/HealthServer.ts"
import * as KubeHttp from "../infra/kube/http/KubeHttp.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import type { KubeConnection } from "../infra/kube/KubeConnection.ts"
import { whileLeading } from "../infra/kube/LeaderElection.ts"
import { LinkClient } from "../infra/link/LinkClient.ts"
import * as WebSocketTransport from "../infra/link/WebSocketTransport.ts"
import { ClusterIdentity } from "../infra/pki/ClusterIdentity.ts"
import { CredentialStore } from "../infra/pki/CredentialStore.ts"
import * as Sqlite from "../infra/sql/Sqlite.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import { LEASE, LEASE_TIMES, untilOfNoUse } from "./agentLease.ts"
import { Budget } from "./Budget.ts"
import { ClusterFacts } from "./ClusterFacts.ts"
import * as ControlServer from "./ControlServer.ts"
import { Execution } from "./Execution.ts"
import type { JobRunner } from "./JobRunner.ts"
import type { ReportServerError } from "./jobs/ReportServer.ts"
import * as KubeGateway from "./KubeGateway.ts"
import { NodeKey } from "./nodes/NodeKey.ts"
import * as NoJobs from "./noJobs.ts"
import { Outbox } from "./Outbox.ts"
import { ProbeStore } from "./ProbeStore.ts"
import * as ProbeWorld from "./ProbeWorld.ts"
import { randomSuffix } from "./RunScratch.ts"
import * as Scheduler from "./Scheduler.ts"
import { Standings } from "./Standings.ts"
import { StatusWriter } from "./StatusWriter.ts"
import { Sweeping } from "./Sweeping.ts"
import * as Uplinking from "./Uplinking.ts"
import { Watching } from "./Watching.ts"
import { ownImage } from "./workers/ownImage.ts"

export interface StandaloneOptions {
  readonly connection: KubeConnection
  /** Where Probes are, and what they create. */
  readonly probeNamespace: string
  /** Whether Probes and their statuses are resources of the cluster, or nothing of ours is installed there. */
  readonly mode: "resources" | "memory"
  /** For what the agent keeps over restarts; made when there is none. One agent's alone. */
  readonly stateFolder: string
  /** The catalogue and the user's own modules: what checks may use. */
  readonly available: ReadonlyArray<AnyProbe>
  /** Of the agent. */
  readonly version: string
  /** What its probes may use of the cluster together; {@link DEFAULT_BUDGET} where absent. */
  readonly budget?: Partial<ClusterBudget> | undefined
  /** What probes may write; `standard` with resources, `observe` without. */
  readonly profile?: Profile | undefined
  /** Ids of probes that may run whatever they write: the opt-in of whoever starts the agent. */
  readonly named?: ReadonlySet<string> | undefined
  /** Where Secrets of services that probes ask are mounted; their usual place when absent. */
  readonly credentials?: string | undefined
  /** The image of worker pods; the agent's own when absent, where the agent is a pod of its cluster. */
  readonly workerImage?: string | undefined
  /** Where the key of node agents is mounted; its usual place when absent. */
  readonly nodeKeyFolder?: string | undefined
  /** Runs container probes; without it those are UNKNOWN. */
  readonly jobs?: Layer.Layer<JobRunner, ReportServerError, Kube> | undefined
}

export interface AgentOptions extends StandaloneOptions {
  /** `https://host:port`. */
  readonly master: string
  /** Needed until the agent has a certificate. */
  readonly joinToken?: Redacted.Redacted<string> | undefined
}

/** Both forms. */
export type AnyOptions = StandaloneOptions & Partial<Pick<AgentOptions, "master" | "joinToken">>

const profileOf = ({ mode, profile }: StandaloneOptions): Profile =>
  profile ?? (mode === "resources" ? "standard" : "observe")

/** Worker pods and node agents, as far as this agent can have them. */
const worldOf = Effect.fnUntraced(function*(options: StandaloneOptions) {
  const { credentials, mode, nodeKeyFolder, probeNamespace, workerImage } = options
  if (mode === "memory") {
    return ProbeWorld.make({
      credentials,
      ...(workerImage === undefined ? {} : { workers: Effect.succeed({ image: workerImage }) })
    })
  }
  const nodeKey = yield* Layer.build(NodeKey.layer({ namespace: probeNamespace, folder: nodeKeyFolder }))
  return ProbeWorld.make({
    credentials,
    workers: workerImage === undefined
      ? yield* ownImage({ pod: hostname(), namespace: probeNamespace })
      : Effect.succeed({ image: workerImage }),
    nodes: { key: Context.get(nodeKey, NodeKey).key }
  })
})

/** What runs Probes, whoever they come from. */
const working = (options: StandaloneOptions, outbox: "kept" | "none") => {
  const { available, mode, probeNamespace } = options
  const database = Sqlite.layer({ file: join(options.stateFolder, "agent.db"), synchronous: "FULL" })
  const kept = mode === "memory" || outbox === "kept" ? database : Layer.empty
  const state = mode === "resources"
    ? StatusWriter.layerKubernetes.pipe(Layer.provideMerge(Standings.layerKubernetes(probeNamespace)))
    : Layer.merge(StatusWriter.layerNone, Standings.layerSqlite.pipe(Layer.provide(database)))
  return Scheduler.layer({ available, profile: profileOf(options) }).pipe(
    Layer.provideMerge(Layer.unwrap(Effect.map(worldOf(options), (world) =>
      Execution.layer({
        available,
        probeNamespace,
        profile: profileOf(options),
        named: options.named ?? new Set(),
        inside: mode === "resources",
        world
      })))),
    Layer.provideMerge(Layer.mergeAll(
      Watching.layer,
      state,
      outbox === "kept" ? Outbox.layerSqlite().pipe(Layer.provide(database)) : Outbox.layerNone,
      mode === "resources"
        ? ProbeStore.layerKubernetes({ namespace: probeNamespace, available })
        : ProbeStore.layerMemory({ available }),
      options.jobs ?? NoJobs.layer,
      profileOf(options) === "observe" && (options.named ?? new Set()).size === 0
        ? Sweeping.layerNone
        : Sweeping.layer({ namespace: probeNamespace, available })
    )),
    Layer.provideMerge(Budget.layer({ ...DEFAULT_BUDGET, ...options.budget })),
    Layer.provideMerge(Layer.mergeAll(ClusterFacts.layer({ version: options.version }), kept)),
    Layer.provideMerge(KubeHttp.layer(options.connection))
  )
}

/** Without a master: Probe in, ProbeStatus out. */
export const layerStandalone = (options: StandaloneOptions) => working(options, "none")

/** Linked to a master, for as long as the layer. Fails for an address or a token that cannot be read, and for its files. */
export const layer = (options: AgentOptions) =>
  Uplinking.layer.pipe(
    Layer.provideMerge(LinkClient.layer({ master: options.master, joinToken: options.joinToken })),
    Layer.provide([
      WebSocketTransport.layer,
      KubeGateway.layer(options.connection),
      ControlServer.layer({ available: options.available, probeNamespace: options.probeNamespace }),
      options.mode === "resources"
        ? ClusterIdentity.layer.pipe(Layer.provide(CredentialStore.layerSecrets(options.probeNamespace)))
        : ClusterIdentity.layer.pipe(Layer.provide(CredentialStore.layerFiles(options.stateFolder)))
    ]),
    Layer.provideMerge(working(options, "kept"))
  )

/** What an agent of either form offers. */
const built = (options: AnyOptions) =>
  options.master === undefined
    ? Layer.build(layerStandalone(options))
    : Layer.build(layer({ ...options, master: options.master }))

/**
 * Runs an agent until it is interrupted. Of several with resources in one cluster one works and the others wait, by the
 * Lease {@link LEASE}; they are ready all the same. With a master it works on while the API server takes no renewals, and
 * tells that, for as long as it is the one the master hears (docs/decisions/0015-leading-without-an-api-server.md).
 */
export const run = Effect.fnUntraced(
  function*(
    options: AnyOptions & {
      /** Where `/healthz` and `/readyz` answer. */
      readonly health?: { readonly host: string; readonly port: number } | undefined
    }
  ) {
    let store: ProbeStore["Service"] | undefined
    let client: LinkClient["Service"] | undefined
    /** One that waits for its turn has nothing to do, and does that. */
    const unready = Effect.suspend(() =>
      store === undefined
        ? Effect.succeed(undefined)
        : Effect.map(
          Effect.timeoutOption(Stream.runHead(store.probes), "1 second"),
          Option.match({
            onNone: () => "the Probes of this cluster cannot be read; see the agent's log",
            onSome: () => undefined
          })
        )
    )
    if (options.health !== undefined) yield* Layer.build(HealthServer.layer({ ...options.health, unready }))
    const work = Effect.scoped(Effect.gen(function*() {
      const context = yield* built(options)
      store = Context.get(context, ProbeStore)
      client = Option.getOrUndefined(Context.getOption(context, LinkClient))
      return yield* Effect.never
    })).pipe(Effect.ensuring(Effect.sync(() => {
      store = undefined
      client = undefined
    })))
    if (options.mode === "memory") return yield* work
    return yield* whileLeading({
      lease: { name: LEASE, namespace: options.probeNamespace },
      ...LEASE_TIMES,
      ...(options.master === undefined ? {} : {
        contested: Effect.suspend(() => client === undefined ? Effect.never : untilOfNoUse(client.changes))
      }),
      identity: `${hostname()}-${yield* randomSuffix}`
    }, work).pipe(Effect.provide(KubeHttp.layer(options.connection)))
  },
  Effect.scoped
)
