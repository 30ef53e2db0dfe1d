/**
 * The master's port for people and services, HTTPS: the fleet's procedures, kube access and health.
 *
 * - `POST /v1/rpc`: Effect RPC, newline-delimited JSON; answers stream.
 * - `/clusters/NAME/...`: the API of a managed cluster, see {@link KubeAccess}.
 * - `GET /healthz`, `GET /readyz`: without authentication; they tell nothing but themselves.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { ByteSize, Context, Data, Duration, Effect, FiberSet, FileSystem, Layer, Redacted, Schema } from "effect"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { X509Certificate, createPrivateKey } from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { type Server, createServer } from "node:https"
import { Fleet, RPC_PATH, Unauthenticated } from "../../domain/rpc/Fleet.ts"
import { CertificateAuthority, SERVER_CERTIFICATE_LIFE } from "../../infra/pki/CertificateAuthority.ts"
import { CLUSTERS_PATH, KubeAccess } from "../KubeAccess.ts"
import { bearerOf } from "./Authentication.ts"
import { layerFleetAccess } from "./Authorization.ts"
import * as FleetHandlers from "./FleetHandlers.ts"

export interface ApiServerOptions {
  /** The address to listen on. */
  readonly host: string
  /** 0 for any free one. */
  readonly port: number
  /** DNS names and IP addresses by which callers reach this port; they go into a certificate of the master's authority. */
  readonly names: ReadonlyArray<string>
  /** A certificate of somebody else's instead, PEM files; read again every {@link REREAD}. */
  readonly files?: { readonly certificate: string; readonly key: string } | undefined
}

/** The port cannot be served. */
export class ApiServerError extends Data.TaggedError("ApiServerError")<{
  readonly address: string
  readonly detail: string
}> {
  override get message(): string {
    return `the API cannot be served at ${this.address}: ${this.detail}`
  }
}

/** Connections at a time; each may hold a stream. The next is dropped unheard. */
const CONNECTIONS = 2048

/** Bytes of a call. The largest is a Probe with its container template. */
const MAX_BODY = ByteSize.fromInputUnsafe("1 MiB")

const MAX_HEADERS = 16 << 10

/** To complete a TLS handshake, and to send a request's headers. */
const HANDSHAKE_TIMEOUT = 10_000

/** To send a whole request. An answer may go on as long as somebody reads. */
const REQUEST_TIMEOUT = 60_000

/** Above the 60 s of common balancers, so that they close idle connections and not we under them. */
const KEEP_ALIVE = 65_000

/** A caller that is gone without a word shows in about 40 s more (libuv: ten probes, one a second). */
const TCP_KEEP_ALIVE = 30_000

/** How soon a certificate that was replaced in its file is used. */
const REREAD = "1 minute"

/** How long calls in flight may go on at the end. Streams are cut by then. */
const DRAIN = "2 seconds"

export class ApiServer extends Context.Service<ApiServer, {
  /** The port that is listened on. */
  readonly port: number
  /** What its certificate is signed by, PEM; absent for a certificate from files. */
  readonly ca: string | undefined
}>()("kubeprober/master/ApiServer") {
  static readonly layer = (options: ApiServerOptions) =>
    Layer.effect(ApiServer, make(options)).pipe(
      Layer.provide([FleetHandlers.layer, layerFleetAccess, RpcSerialization.layerNdjson])
    )
}

const make = Effect.fnUntraced(function*(options: ApiServerOptions) {
  const kubeAccess = yield* KubeAccess
  const scope = yield* Effect.scope
  const rpc = yield* RpcServer.toHttpEffect(Fleet, { disableFatalDefects: true, disableTracing: true })
  const onCall = yield* NodeHttpServer.makeHandler(
    Effect.provideService(rpc, HttpIncomingMessage.MaxBodySize, MAX_BODY),
    { scope }
  )
  const run = yield* FiberSet.makeRuntime<never>()
  const { ca, server } = yield* listen(options)

  server.on("request", (request, response) => {
    const path = pathOf(request)
    if (path.startsWith(CLUSTERS_PATH)) {
      run(supervised(kubeAccess.handle(request, response)))
    } else if (path === RPC_PATH) {
      const refusal = refusalOf(request)
      if (refusal === undefined) onCall(request, response)
      else answer(response, ...refusal)
    } else if (path === "/healthz" || path === "/readyz") {
      const isRead = request.method === "GET" || request.method === "HEAD"
      answer(response, isRead ? 200 : 405, { status: isRead ? "ok" : "only GET" })
    } else answer(response, 404, { error: "there is no such path; the API is POST /v1/rpc and /clusters/NAME/..." })
  })
  const address = server.address()
  return ApiServer.of({
    port: typeof address === "object" && address !== null ? address.port : options.port,
    ca
  })
})

const supervised = (effect: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.ignoreCause(effect, { log: "Error", message: "the API failed at a request" })

const pathOf = ({ url = "/" }: IncomingMessage): string =>
  url.slice(0, url.indexOf("?") < 0 ? undefined : url.indexOf("?"))

const encodeUnauthenticated = Schema.encodeSync(Unauthenticated)

/** Why a call is not even read. What else is wrong with it its answer tells. */
const refusalOf = ({ headers, method }: IncomingMessage): readonly [status: number, body: object] | undefined => {
  if (method !== "POST") return [405, { error: "calls are POST" }]
  if (bearerOf(headers.authorization) === undefined) {
    const error = new Unauthenticated({ detail: "there is no bearer token (header Authorization: Bearer ...)" })
    return [401, { ...encodeUnauthenticated(error), error: error.message }]
  }
  return Number(headers["content-length"] ?? 0) > ByteSize.toNumberUnsafe(MAX_BODY)
    ? [413, { error: `a call has at most ${ByteSize.toNumberUnsafe(MAX_BODY)} bytes` }]
    : undefined
}

const answer = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, {
    "content-type": "application/json",
    ...(status === 401 && { "www-authenticate": "Bearer" }),
    // What the request still sends is not read.
    ...(status >= 400 && { connection: "close" })
  }).end(`${JSON.stringify(body)}\n`)
}

/** The listening server, with a certificate that is renewed in time. */
const listen = Effect.fnUntraced(function*({ files, host, names, port }: ApiServerOptions) {
  const authority = yield* CertificateAuthority
  const fs = yield* FileSystem.FileSystem
  const failed = ({ message }: { readonly message: string }) =>
    new ApiServerError({ address: `${host}:${port}`, detail: message })
  const material = files === undefined
    ? Effect.map(authority.issueServer(names), ({ authorities, certificate, key }) => ({
      cert: certificate + authorities,
      key: Redacted.value(key)
    }))
    : Effect.mapError(
      Effect.all({ cert: fs.readFileString(files.certificate), key: fs.readFileString(files.key) }),
      failed
    )
  const tls = yield* material
  const server = yield* Effect.acquireRelease(
    Effect.flatMap(serverOf(tls, failed), (server) =>
      Effect.callback<Server, ApiServerError>((resume) => {
        const refuse = (cause: Error) => resume(Effect.fail(failed(cause)))
        server.once("error", refuse)
        server.listen(port, host, () => {
          server.off("error", refuse)
          resume(Effect.succeed(server))
        })
      })),
    close
  )
  yield* material.pipe(
    Effect.flatMap((renewed) =>
      Effect.try({
        try: () => {
          ensurePair(renewed)
          server.setSecureContext(renewed)
        },
        catch: asFailure(failed)
      })
    ),
    Effect.catch((error) => Effect.logWarning(`the certificate was not renewed: ${error.message}`)),
    Effect.delay(files === undefined ? Duration.times(SERVER_CERTIFICATE_LIFE, 2 / 3) : REREAD),
    Effect.forever,
    Effect.forkScoped
  )
  return { server, ca: files === undefined ? authority.certificate : undefined }
})

const asFailure = (failed: (error: Error) => ApiServerError) => (cause: unknown): ApiServerError =>
  failed(cause instanceof Error ? cause : new Error("no reason given"))

/**
 * Of a pair of files one may be replaced before the other, and either be read while it is being written: empty, which Node
 * takes for "no certificate", and then no handshake succeeds.
 */
const ensurePair = ({ cert, key }: { readonly cert: string; readonly key: string }): void => {
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
    throw new Error("the key is not the certificate's")
  }
}

/** Fails for a key that is none, or another certificate's. */
const serverOf = (
  tls: { readonly cert: string; readonly key: string },
  failed: (error: Error) => ApiServerError
): Effect.Effect<Server, ApiServerError> =>
  Effect.try({
    try: () => {
      ensurePair(tls)
      const server = createServer({
        ...tls,
        minVersion: "TLSv1.2",
        handshakeTimeout: HANDSHAKE_TIMEOUT,
        headersTimeout: HANDSHAKE_TIMEOUT,
        requestTimeout: REQUEST_TIMEOUT,
        keepAliveTimeout: KEEP_ALIVE,
        keepAlive: true,
        keepAliveInitialDelay: TCP_KEEP_ALIVE,
        maxHeaderSize: MAX_HEADERS
      })
      server.maxConnections = CONNECTIONS
      return server
    },
    catch: asFailure(failed)
  })

/** Takes no more connections, and gives the calls in flight a moment. */
const close = (server: Server): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    server.close(() => resume(Effect.void))
    server.closeIdleConnections()
  }).pipe(
    Effect.timeoutOption(DRAIN),
    Effect.andThen(Effect.sync(() => server.closeAllConnections()))
  )
