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
 * Calls fail with the errors of the contract, with `Unauthenticated` and `Forbidden`, and with `RpcClientError` when the
 * master cannot be reached or broke off. Nothing is tried again: `createJoinToken` and `run` are not to be repeated unasked.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Context, Effect, Layer, Redacted } from "effect"
import { type HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import * as Client from "effect/http/HttpClient"
import { RpcClient, type RpcClientError, type RpcGroup, RpcSerialization } from "effect/rpc"
import { Fleet, RPC_PATH } from "../domain/rpc/Fleet.ts"

export interface FleetClientOptions {
  /** `https://host:port`. */
  readonly server: string
  /** The bearer token; an effect is run for every request, for tokens that are renewed. */
  readonly token: Redacted.Redacted<string> | Effect.Effect<Redacted.Redacted<string>, { readonly message: string }>
  /** Authorities its certificate may be signed by, PEM. Those of the system when absent. */
  readonly ca?: string | undefined
}

export class FleetClient extends Context.Service<
  FleetClient,
  RpcClient.RpcClient<RpcGroup.Rpcs<typeof Fleet>, RpcClientError.RpcClientError>
>()(
  "kubeprober/client/FleetClient"
) {
  /** Connects with the first call. Connections are kept for the next one. */
  static readonly layer = (options: FleetClientOptions): Layer.Layer<FleetClient> =>
    Layer.effect(FleetClient, RpcClient.make(Fleet, { disableTracing: true })).pipe(
      Layer.provide(Layer.effect(RpcClient.Protocol, protocol(options))),
      Layer.provide(RpcSerialization.layerNdjson),
      Layer.provide(NodeHttpClient.layerNodeHttpNoAgent),
      Layer.provide(agent(options))
    )
}

/** A dead master shows on an idle stream: probes of the connection begin after this silence (ms). */
const KEEP_ALIVE = 30_000

const agent = ({ ca }: FleetClientOptions) =>
  NodeHttpClient.layerAgentOptions({
    keepAlive: true,
    keepAliveMsecs: KEEP_ALIVE,
    ...(ca === undefined ? {} : { ca })
  })

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
