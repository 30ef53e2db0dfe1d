/**
 * A whole fleet in this process: a master, and an agent for each connection, over the real link on the loopback interface.
 * Nothing of ours is installed in the clusters.
 */
import { Context, type Duration, Effect, FileSystem, Layer, Option, Path, References, Schema } from "effect"
import * as Agent from "../agent/Agent.ts"
import * as Connection from "../client/Connection.ts"
import { FleetClient } from "../client/FleetClient.ts"
import type { ClusterBudget } from "../domain/ClusterBudget.ts"
import type { Check } from "../domain/kinds/Probe.ts"
import { ProbeLayer } from "../domain/ProbeLayer.ts"
import type { Profile } from "../domain/Profile.ts"
import type { KubeConnection } from "../infra/kube/KubeConnection.ts"
import { LinkServer } from "../infra/link/LinkServer.ts"
import { CREDENTIAL } from "../infra/pki/ClusterIdentity.ts"
import { ApiServer } from "../master/api/ApiServer.ts"
import * as Master from "../master/Master.ts"
import { catalogue } from "../probes/Catalogue.ts"
import type { AnyProbe, Check as PlannedCheck } from "../probes/Probe.ts"
import { Failure } from "./Failure.ts"
import type { ProbeManifest } from "./Manifests.ts"
import { announce } from "./MasterProcess.ts"
import { DRY_RUN_NAMESPACE } from "./probeNamespaces.ts"
import { version } from "./version.ts"

export interface EmbeddedFleetOptions {
  readonly connections: ReadonlyArray<KubeConnection>
  /** What to run everywhere. */
  readonly probes: ReadonlyArray<ProbeManifest>
  /** Probes of the user's own modules. */
  readonly own: ReadonlyArray<AnyProbe>
  readonly profile: Profile
  /** The folder of credentials, the same for all clusters. */
  readonly credentials?: Option.Option<string> | undefined
  /** For worker pods. */
  readonly workerImage: Option.Option<string>
  /** Of each agent; the default where absent. */
  readonly budget?: ClusterBudget | undefined
  /** Where probes create objects and send dry-run creates. */
  readonly probeNamespace: Option.Option<string>
  /** Keeps the history over restarts; gone with the scope when absent. */
  readonly state: Option.Option<string>
  readonly apiPort: number
}

/** The fleet, once every agent is on its way. */
export interface EmbeddedFleet {
  readonly fleet: FleetClient["Service"]
  /** The master's API. */
  readonly server: string
}

const HOST = "127.0.0.1"

/** The name of a cluster from that of its context: what a label may hold, and no name twice. */
export const clusterNames = (connections: ReadonlyArray<Pick<KubeConnection, "cluster">>): ReadonlyArray<string> => {
  const taken = new Set<string>()
  return connections.map(({ cluster }) => {
    const plain = cluster.toLowerCase().replaceAll(/[^a-z0-9-]+/gu, "-").slice(-60).replaceAll(/^-+|-+$/gu, "") ||
      "cluster"
    let name = plain
    for (let number = 2; taken.has(name); number++) name = `${plain.slice(0, 58)}-${number}`
    taken.add(name)
    return name
  })
}

const isJsonObject = Schema.is(Schema.Record(Schema.String, Schema.Json))

const checkOf = (check: PlannedCheck): Check => ({
  name: check.name,
  use: check.probe.id,
  ...(isJsonObject(check.with) && Object.keys(check.with).length > 0 ? { with: check.with } : {})
})

/** The plan as Probes: one a layer, run everywhere at this interval. */
export const probesOf = (
  checks: ReadonlyArray<PlannedCheck>,
  interval: Duration.Duration
): ReadonlyArray<ProbeManifest> =>
  ProbeLayer.literals.flatMap((layer) => {
    const [first, ...rest] = checks.filter(({ probe }) => probe.layer === layer).map(checkOf)
    return first === undefined ? [] : [{
      name: layer,
      labels: {},
      spec: { layer, checks: [first, ...rest], policy: { interval }, clusterSelector: {} }
    }]
  })

/** The master's and the agents' own words would tear the table: only what went wrong is said, unless more was asked for. */
const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    References.MinimumLogLevel,
    (level) => level === "Info" ? Effect.provideService(effect, References.MinimumLogLevel, "Error") : effect
  )

/** Starts it; the scope ends it. */
export const start = Effect.fn("EmbeddedFleet.start")(function*(options: EmbeddedFleetOptions) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const state = Option.isSome(options.state)
    ? path.resolve(options.state.value)
    : yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-up-" })

  const names = [HOST, "localhost"]
  const master = yield* Layer.build(Master.layerEmbedded({
    state,
    link: { host: HOST, port: 0, names },
    api: { host: HOST, port: options.apiPort, names }
  }))
  const { ca, port } = Context.get(master, ApiServer)
  const server = `https://${HOST}:${port}`
  const link = `https://${HOST}:${Context.get(master, LinkServer).port}`
  yield* announce({ server, ca, link, state })
  const connection = yield* Connection.resolve({
    server: Option.some(server),
    tokenFile: Option.some(path.join(state, Master.TOKEN_FILE)),
    caFile: Option.none()
  })
  const fleet = Context.get(
    yield* Layer.build(FleetClient.layer({ ...connection, ...(ca === undefined ? {} : { ca }) })),
    FleetClient
  )
  yield* Effect.forEach(
    options.probes,
    ({ labels, name, spec }) =>
      fleet.applyProbe({ name, labels, spec: { ...spec, clusterSelector: spec.clusterSelector ?? {} } })
  )

  const clusters = clusterNames(options.connections)
  yield* Effect.forEach(options.connections, (cluster, index) =>
    Effect.gen(function*() {
      const name = clusters[index] ?? cluster.cluster
      const stateFolder = path.join(state, "agents", name)
      const invite = fleet.createJoinToken({ cluster: name, labels: {} })
      // Of a kept state: its certificate may have run out meanwhile, and another cluster may have the context's name.
      const { token: joinToken } = yield* invite.pipe(
        Effect.catchTag("AlreadyEnrolled", () => Effect.andThen(fleet.revoke({ cluster: name }), invite))
      )
      const fs = yield* FileSystem.FileSystem
      yield* fs.remove(path.join(stateFolder, `${CREDENTIAL}.pem`), { force: true })
      yield* Layer.build(Layer.fresh(Agent.layer({
        connection: { ...cluster, cluster: name },
        probeNamespace: Option.getOrElse(options.probeNamespace, () => DRY_RUN_NAMESPACE),
        mode: "memory",
        stateFolder,
        available: [...catalogue, ...options.own],
        version,
        budget: options.budget,
        profile: options.profile,
        credentials: Option.getOrUndefined(options.credentials ?? Option.none()),
        ...Option.match(options.workerImage, { onNone: () => ({}), onSome: (workerImage) => ({ workerImage }) }),
        master: link,
        joinToken
      }))).pipe(
        Effect.mapError((error) => new Failure({ reason: `the agent for ${name}: ${error.message}` }))
      )
    }), { concurrency: 16, discard: true })
  return { fleet, server } satisfies EmbeddedFleet
}, quiet)
