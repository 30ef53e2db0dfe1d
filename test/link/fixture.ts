/**
 * A master and agents as they are, over TLS on the loopback interface. Only what each does for the other is the test's.
 */
import { Context, Effect, Layer, Option, type Redacted, References, Schedule, type Scope, Stream } from "effect"
import { Control } from "../../src/domain/rpc/Control.ts"
import { Uplink } from "../../src/domain/rpc/Uplink.ts"
import { Admission, type AdmissionLimits, defaultLimits } from "../../src/infra/link/Admission.ts"
import { Enrolments } from "../../src/infra/link/Enrolments.ts"
import { ControlHandlers, LinkClient, type LinkFailure, LinkStatus } from "../../src/infra/link/LinkClient.ts"
import { Links } from "../../src/infra/link/Links.ts"
import { LinkServer, UplinkHandlers } from "../../src/infra/link/LinkServer.ts"
import { Membership } from "../../src/infra/link/Membership.ts"
import { StreamHandler } from "../../src/infra/link/Mux.ts"
import * as WebSocketTransport from "../../src/infra/link/WebSocketTransport.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { ClusterIdentity } from "../../src/infra/pki/ClusterIdentity.ts"
import { JoinTokenStore, JoinTokens } from "../../src/infra/pki/JoinTokens.ts"
import { memoryStore } from "../pki/memoryStore.ts"

/** What outlives a master's process: its authority, its join tokens and its members. */
export const masterState = Layer.mergeAll(JoinTokens.layer, Membership.layerMemory()).pipe(
  Layer.provideMerge(Layer.merge(JoinTokenStore.layerMemory, CertificateAuthority.layer)),
  Layer.provide(memoryStore)
)

/** Acknowledges what it is sent; registering never ends. */
const uplinkHandlers = Layer.succeed(UplinkHandlers, {
  of: () =>
    Uplink.of({
      register: () => Effect.never,
      heartbeat: () => Effect.succeed({}),
      deliver: ({ epoch, seq }) => Effect.succeed({ epoch, seq })
    })
})

/** An agent that says who it is; whose `applyProbes` has a bug, and whose `cancel` and `runNow` never end. */
const controlHandlers = (name: string) =>
  Layer.succeed(
    ControlHandlers,
    Control.of({
      describe: () => Effect.succeed({ versions: { agent: name }, capabilities: [], catalogue: [] }),
      applyProbes: () => Effect.die(new Error("a bug in the agent")),
      runNow: () => Stream.never,
      cancel: () => Effect.never
    })
  )

export interface MasterOptions {
  readonly port?: number
  readonly limits?: Partial<AdmissionLimits>
}

/**
 * Milliseconds within which what happens at once is seen on the busiest machine. What waits for a silent peer to be
 * taken for dead takes 9 seconds or more.
 */
export const AT_ONCE = 8_000

/** A master until the scope ends. */
export const startMaster = Effect.fnUntraced(function*(options: MasterOptions = {}) {
  const context = yield* Layer.build(Layer.fresh(
    LinkServer.layer({ host: "127.0.0.1", port: options.port ?? 0, names: ["127.0.0.1", "localhost"] }).pipe(
      Layer.provideMerge(Links.layer),
      Layer.provide([
        Enrolments.layer,
        Admission.layer({ ...defaultLimits, ...options.limits }),
        WebSocketTransport.layer,
        uplinkHandlers
      ])
    )
  ))
  return { port: Context.get(context, LinkServer).port, links: Context.get(context, Links) }
})

export interface AgentOptions {
  readonly port: number
  readonly token?: Redacted.Redacted<string> | undefined
  /** What its `describe` answers. */
  readonly name?: string
  /** What it keeps over restarts; a new one when absent. */
  readonly identity?: ClusterIdentity["Service"]
  readonly streams?: StreamHandler["Service"]
}

/** An agent until the scope ends. */
export const startAgent = Effect.fnUntraced(function*(options: AgentOptions) {
  const identity = options.identity ?? (yield* newIdentity)
  const context = yield* Layer.build(Layer.fresh(
    LinkClient.layer({ master: `https://127.0.0.1:${options.port}`, joinToken: options.token }).pipe(
      Layer.provide([
        Layer.succeed(ClusterIdentity, identity),
        WebSocketTransport.layer,
        controlHandlers(options.name ?? "agent"),
        options.streams === undefined ? StreamHandler.layerNone : Layer.succeed(StreamHandler, options.streams)
      ])
    )
  ))
  return { identity, client: Context.get(context, LinkClient) }
})

/** An identity that knows nothing yet. */
export const newIdentity = Effect.map(
  Layer.build(Layer.fresh(ClusterIdentity.layer.pipe(Layer.provide(memoryStore)))),
  Context.get(ClusterIdentity)
)

/** Adds a cluster to the master and makes a join token for it. */
export const invite = Effect.fnUntraced(function*(cluster: string) {
  yield* (yield* Membership).add(cluster)
  return (yield* (yield* JoinTokens).issue(cluster)).token
})

/** A master and one linked agent. */
export const linked = Effect.fnUntraced(function*(cluster: string, options: Omit<AgentOptions, "port" | "token"> = {}) {
  const master = yield* startMaster()
  const token = yield* invite(cluster)
  const agent = yield* startAgent({ ...options, port: master.port, token })
  const session = yield* agent.client.session
  const link = yield* eventually(master.links.find(cluster))
  return { master, agent, session, link, token }
})

/** Why an agent has no link, once it has tried. */
export const failureOf = (client: LinkClient["Service"]): Effect.Effect<LinkFailure> =>
  client.changes.pipe(
    Stream.filter(LinkStatus.$is("Waiting")),
    Stream.runHead,
    Effect.map(Option.getOrThrow),
    Effect.map(({ because }) => because)
  )

/** Tries until it succeeds; the test fails with the last failure after 15 s. */
export const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(effect, Schedule.max([Schedule.spaced("20 millis"), Schedule.during("15 seconds")]))

/** Checks until the condition holds. */
export const until = (what: string, condition: Effect.Effect<boolean>): Effect.Effect<void> =>
  eventually(Effect.filterOrFail(condition, (holds) => holds, () => `never: ${what}`)).pipe(
    Effect.orDie,
    Effect.asVoid
  )

/** Runs a test on a fresh master state, without its logs. */
export const withState = <A, E>(
  effect: Effect.Effect<A, E, Layer.Success<typeof masterState> | Scope.Scope>
): Effect.Effect<A, E | Layer.Error<typeof masterState>> =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(masterState)),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )
