/**
 * The fleet's procedures from another process: typed calls to a master over HTTPS.
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const fleet = yield* FleetClient
 *   return yield* fleet.matrix({ filter: { layers: ["kubernetes"] } })
 * }).pipe(Effect.provide(FleetClient.layer({ server: "https://master.example:9443", token, ca })))
 * ```
 *
 * Calls fail with the errors of the contract, with `Unauthenticated` and `Forbidden`, and with {@link MasterUnreachable} when
 * the master cannot be reached or broke off. Nothing is tried again: `createJoinToken` and `run` are not to be repeated unasked.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Cause, Context, Data, Duration, Effect, Layer, Predicate, Redacted, Stream } from "effect"
import { type HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import * as Client from "effect/http/HttpClient"
import { RpcClient, type RpcGroup, RpcSerialization } from "effect/rpc"
import { Agent, type AgentOptions } from "node:https"
import { Fleet, RPC_PATH } from "../domain/rpc/Fleet.ts"

export interface FleetClientOptions {
  /** `https://host:port`. */
  readonly server: string
  /** The bearer token; an effect is run for every request, for tokens that are renewed. */
  readonly token: Redacted.Redacted<string> | Effect.Effect<Redacted.Redacted<string>, { readonly message: string }>
  /** Authorities its certificate may be signed by, PEM. Those of the system when absent. */
  readonly ca?: string | undefined
  /** 10 seconds when absent. Calls themselves have no time limit: some stream for as long as they are read. */
  readonly connectTimeout?: Duration.Input | undefined
}

/** No answer of a master: it cannot be reached, something else answered, or it broke off. What was asked may have been done. */
export class MasterUnreachable extends Data.TaggedError("MasterUnreachable")<{
  readonly server: string
  readonly detail: string
}> {
  override get message(): string {
    return `the master at ${this.server} does not answer: ${this.detail}`
  }
}

type Calls = RpcClient.RpcClient<RpcGroup.Rpcs<typeof Fleet>, MasterUnreachable>

export class FleetClient extends Context.Service<FleetClient, Calls>()("kubeprober/client/FleetClient") {
  /** Connects with the first call. Connections are kept for the next one. */
  static readonly layer = (options: FleetClientOptions): Layer.Layer<FleetClient> =>
    Layer.effect(FleetClient, make(options)).pipe(
      Layer.provide(Layer.effect(RpcClient.Protocol, protocol(options))),
      Layer.provide(RpcSerialization.layerNdjson),
      Layer.provide(NodeHttpClient.layerNodeHttpNoAgent),
      Layer.provide(agent(options))
    )
}

const make = Effect.fnUntraced(function*({ server }: FleetClientOptions) {
  const calls = yield* RpcClient.make(Fleet, { flatten: true, disableTracing: true })
  const call: (tag: string, payload: unknown, options: unknown) => unknown = calls as never
  const explained = Array.from(Fleet.requests.keys(), (tag) => [
    tag,
    (payload: unknown, options: unknown) => explain(call(tag, payload, options), server)
  ])
  // The same methods with `MasterUnreachable` in place of `RpcClientError`, which TypeScript cannot follow through the names.
  return Object.fromEntries(explained) as Calls
})

const explain = (call: unknown, server: string): unknown =>
  Stream.isStream(call)
    ? Stream.catchCause(call, (cause) => Stream.failCause(explainCause(cause, server)))
    : Effect.isEffect(call)
    ? Effect.catchCause(call, (cause) => Effect.failCause(explainCause(cause, server)))
    : call

/** A master that stops interrupts what it is asked, which is not to be taken for an interruption of the caller. */
const explainCause = (cause: Cause.Cause<unknown>, server: string): Cause.Cause<unknown> => {
  if (Cause.hasInterruptsOnly(cause)) {
    return Cause.fail(new MasterUnreachable({ server, detail: "it stopped before it had answered" }))
  }
  return Cause.map(
    cause,
    (error) =>
      Predicate.isTagged(error, "RpcClientError") ? new MasterUnreachable({ server, detail: detailOf(error) }) : error
  )
}

/** What went wrong first: the others only say where. */
const detailOf = (error: unknown): string => {
  const found: Array<string> = []
  let current = error
  for (let depth = 0; depth < 8 && Predicate.isObjectKeyword(current); depth += 1) {
    if (Predicate.hasProperty(current, "description") && typeof current.description === "string") {
      found.push(current.description)
    } else if (current instanceof Error && current.message !== "") found.push(current.message)
    else if (Predicate.hasProperty(current, "code") && typeof current.code === "string") found.push(current.code)
    current = Predicate.hasProperty(current, "reason")
      ? current.reason
      : Predicate.hasProperty(current, "cause")
      ? current.cause
      : undefined
  }
  return found.at(-1) ?? "no reason given"
}

/** A dead master shows on an idle stream: probes of the connection begin after this silence (ms). */
const KEEP_ALIVE = 30_000

/** A connection that is not encrypted by then will not be: the operating system alone waits for minutes. */
const CONNECT_TIMEOUT = "10 seconds"

/** An agent whose connections are there in time or fail. */
class PromptAgent extends Agent {
  readonly connectTimeout: number

  constructor(options: AgentOptions, connectTimeout: number) {
    super(options)
    this.connectTimeout = connectTimeout
  }

  override createConnection(...args: Parameters<Agent["createConnection"]>): ReturnType<Agent["createConnection"]> {
    const socket = super.createConnection(...args)
    const timer = setTimeout(
      () => socket?.destroy(new Error(`there was no TLS connection after ${this.connectTimeout} ms`)),
      this.connectTimeout
    )
    socket?.once("secureConnect", () => clearTimeout(timer)).once("close", () => clearTimeout(timer))
    return socket
  }
}

const agent = ({ ca, connectTimeout = CONNECT_TIMEOUT }: FleetClientOptions) =>
  Layer.effect(
    NodeHttpClient.HttpAgent,
    Effect.gen(function*() {
      const { http } = yield* NodeHttpClient.makeAgent()
      const https = yield* Effect.acquireRelease(
        Effect.sync(() =>
          new PromptAgent(
            { keepAlive: true, keepAliveMsecs: KEEP_ALIVE, ...(ca === undefined ? {} : { ca }) },
            Duration.toMillis(connectTimeout)
          )
        ),
        (agent) => Effect.sync(() => agent.destroy())
      )
      return { http, https }
    })
  )

const protocol = Effect.fnUntraced(function*({ server, token }: FleetClientOptions) {
  const client = yield* Client.HttpClient
  // What is no answer to a call is somebody else's, such as a proxy's.
  return yield* RpcClient.makeProtocolHttp(Client.filterStatusOk(authorized(client, server, token)))
})

const authorized = (
  client: HttpClient.HttpClient,
  server: string,
  token: FleetClientOptions["token"]
): HttpClient.HttpClient =>
  Client.mapRequestEffect(client, (request) =>
    Effect.map(
      Redacted.isRedacted(token)
        ? Effect.succeed(token)
        : Effect.mapError(token, ({ message }) =>
          new HttpClientError.HttpClientError({
            reason: new HttpClientError.TransportError({ request, description: message })
          })),
      (value) =>
        request.pipe(
          HttpClientRequest.setUrl(new URL(RPC_PATH, server)),
          HttpClientRequest.bearerToken(value)
        )
    ))
