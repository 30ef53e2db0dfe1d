/** A master with its state in an SQLite file, and agents that are real up to the probes they run. */
import { NodeServices } from "@effect/platform-node"
import { Context, type DateTime, Effect, FileSystem, Layer, Path, Ref, type Scope, Stream } from "effect"
import type { DesiredSet } from "../../../src/domain/DesiredSet.ts"
import { fromFindings } from "../../../src/domain/Report.ts"
import { Control, type RefusedProbe } from "../../../src/domain/rpc/Control.ts"
import type { RunRecord } from "../../../src/domain/Run.ts"
import type { Status } from "../../../src/domain/Status.ts"
import { ControlHandlers, LinkClient } from "../../../src/infra/link/LinkClient.ts"
import type { Handlers } from "../../../src/infra/link/LinkRpc.ts"
import { LinkServer } from "../../../src/infra/link/LinkServer.ts"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { StreamHandler } from "../../../src/infra/link/Mux.ts"
import * as WebSocketTransport from "../../../src/infra/link/WebSocketTransport.ts"
import { CertificateAuthority } from "../../../src/infra/pki/CertificateAuthority.ts"
import { ClusterIdentity } from "../../../src/infra/pki/ClusterIdentity.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import * as Fleet from "../../../src/master/Fleet.ts"
import * as HistorySqlite from "../../../src/master/history/HistorySqlite.ts"
import { Registry } from "../../../src/master/Registry.ts"
import * as ResourcesSqlite from "../../../src/master/resources/ResourcesSqlite.ts"
import { newIdentity } from "../../link/fixture.ts"
import { memoryStore } from "../../pki/memoryStore.ts"

const state = Layer.unwrap(Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" }), "master.db")
  return Layer.mergeAll(ResourcesSqlite.layer({ namespace: "default" }), HistorySqlite.layer()).pipe(
    Layer.provide(Sqlite.layer({ file }))
  )
})).pipe(Layer.provide(NodeServices.layer))

/** A master. */
export const master = Fleet.layer({ host: "127.0.0.1", port: 0, names: ["127.0.0.1", "localhost"] }).pipe(
  Layer.provideMerge(state),
  Layer.provideMerge(Membership.layerMemory()),
  Layer.provide(JoinTokenStore.layerMemory),
  Layer.provide(CertificateAuthority.layer),
  Layer.provide(memoryStore)
)

/** What an agent does when it is asked to run something. */
export type RunNow = Handlers<typeof Control>["runNow"]

export interface Agent {
  readonly client: LinkClient["Service"]
  readonly identity: ClusterIdentity["Service"]
  /** The set it was last given. */
  readonly desired: Effect.Effect<DesiredSet | undefined>
}

/** An agent until the scope ends; registered with the master when it returns. */
export const startAgent = Effect.fnUntraced(function*(options: {
  readonly cluster: string
  readonly identity?: ClusterIdentity["Service"]
  readonly labels?: Readonly<Record<string, string>>
  readonly clusterUid?: string
  readonly runNow?: RunNow
  /** Which Probes of a set it does not run. */
  readonly refuses?: (desired: DesiredSet) => ReadonlyArray<RefusedProbe>
}) {
  const { port } = yield* LinkServer
  const registry = yield* Registry
  const identity = options.identity ?? (yield* newIdentity)
  const joinToken = options.identity === undefined
    ? (yield* registry.add(options.cluster, options.labels ?? {})).token
    : undefined
  const desired = yield* Ref.make<DesiredSet | undefined>(undefined)
  const control = Layer.succeed(
    ControlHandlers,
    Control.of({
      describe: () => Effect.succeed({ versions: { agent: "test" }, capabilities: [], catalogue: [] }),
      applyProbes: ({ desired: set, hash }) =>
        Effect.as(Ref.set(desired, set), { applied: hash, refused: options.refuses?.(set) ?? [] }),
      runNow: options.runNow ?? (() => Stream.never),
      cancel: () => Effect.succeed({ cancelled: false })
    })
  )
  const context = yield* Layer.build(Layer.fresh(
    LinkClient.layer({ master: `https://127.0.0.1:${port}`, joinToken }).pipe(
      Layer.provide([
        Layer.succeed(ClusterIdentity, identity),
        WebSocketTransport.layer,
        control,
        StreamHandler.layerNone
      ])
    )
  ))
  const client = Context.get(context, LinkClient)
  const { uplink } = yield* client.session
  const welcome = yield* uplink.register({
    clusterUid: options.clusterUid ?? `uid-of-${options.cluster}`,
    boot: "boot",
    versions: { kubernetes: "v1.35.4", agent: "0.1.0" },
    capabilities: []
  })
  return { client, identity, uplink, welcome, desired: Ref.get(desired) }
})

/** What a checker said. */
export const record = (options: {
  readonly run: string
  readonly probe: string
  readonly checker: string
  readonly status?: Status
  readonly startedAt: DateTime.Utc
}): RunRecord => {
  const { checker, probe, run, startedAt, status = "PASS" } = options
  const findings = status === "PASS" ? [] : [{ status, code: "BROKEN", blame: "target" as const, message: "broken" }]
  return {
    run,
    probe: { namespace: "kubeprober", name: probe },
    layer: "kubernetes",
    trigger: "schedule",
    report: fromFindings({ checker, findings, summary: "fine", startedAt, duration: 5 }),
    standing: { status, since: startedAt, consecutiveFailures: status === "PASS" ? 0 : 1 }
  }
}

export type FleetServices = Layer.Success<typeof master> | Scope.Scope
