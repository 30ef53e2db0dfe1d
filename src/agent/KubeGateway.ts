/**
 * The managed end of kube access: requests that come over the link go to this cluster's API server, with the agent's
 * own credentials and in the name of whoever asked at the master.
 *
 * The API server authorizes that name: `kubeprober:alice`, of groups `kubeprober:...`. The master is not trusted for
 * more than its word who asks: what may pass at all is judged here again, and none of its headers reach the API server
 * but those of {@link PASSED}.
 */
import { Data, Effect, Layer, Redacted, type Scope } from "effect"
import { type IncomingHttpHeaders, type OutgoingHttpHeaders, type ServerHttp2Stream, constants } from "node:http2"
import { type Readable, pipeline } from "node:stream"
import {
  CALLER_HEADER,
  IDENTITY_PREFIX,
  type KubeCaller,
  type KubeFault,
  type KubeRequest,
  LINK_PREFIX,
  WHOLE_TRAILER,
  answerOf,
  decodeCaller,
  read
} from "../domain/KubeRequest.ts"
import { makeDispatchers, sameIdentity } from "../infra/kube/http/KubeTransport.ts"
import type { Identity, KubeConnection } from "../infra/kube/KubeConnection.ts"
import { StreamHandler } from "../infra/link/Mux.ts"

/** Requests at a time, watches and followed logs among them; below the pool's 68 connections. The next gets a 429. */
const MAX_EXCHANGES = 60

/** Of a question about oneself; real ones have some hundred bytes. */
const MAX_BODY = 64 << 10

/** To the headers of the answer (ms): the API server itself gives up after 60 s (--request-timeout). */
const HEADERS_TIMEOUT = 65_000

/** How long a request's body may take. */
const BODY_TIMEOUT = "10 seconds"

/** Headers that reach the API server. */
const PASSED = ["accept", "accept-encoding", "content-type", "if-none-match", "if-modified-since", "user-agent"]

/** Headers of its answer that go back. None that sets something at the client, and none of one connection. */
const RETURNED = new Set([
  "age",
  "audit-id",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-type",
  "date",
  "etag",
  "expires",
  "last-modified",
  "retry-after",
  "vary",
  "warning",
  "x-kubernetes-pf-flowschema-uid",
  "x-kubernetes-pf-prioritylevel-uid"
])

/** Not passed on, or not answered. */
class GatewayError extends Data.TaggedError("GatewayError")<KubeFault> {}

/** Kube access to the cluster of this connection. */
export const layer = (connection: KubeConnection): Layer.Layer<StreamHandler> =>
  Layer.effect(StreamHandler, make(connection))

/** What an API server answered. */
interface Answer {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly body: Readable
}

const make = Effect.fnUntraced(function*(connection: KubeConnection) {
  const server = new URL(connection.server)
  const prefix = server.pathname.replace(/\/+$/u, "")
  const { dispatcher, renew } = yield* makeDispatchers({
    ...connection,
    // A kubeconfig's own impersonation would contradict ours.
    headers: Object.fromEntries(
      Object.entries(connection.headers ?? {}).filter(([name]) => !name.toLowerCase().startsWith("impersonate-"))
    )
  })
  let exchanges = 0

  const send = Effect.fnUntraced(function*(
    request: KubeRequest,
    method: "GET" | "HEAD" | "POST",
    headers: ReadonlyArray<string>,
    body: Buffer | undefined,
    identity: Identity
  ): Effect.fn.Return<Answer, GatewayError, Scope.Scope> {
    const pool = yield* dispatcher(identity.tls)
    const answer = Effect.tryPromise({
      try: (signal): Promise<Answer> =>
        pool.request({
          origin: server.origin,
          path: `${prefix}${request.path}${request.query}`,
          method,
          headers: identity.authorization === undefined
            ? [...headers]
            : [...headers, "authorization", Redacted.value(identity.authorization)],
          body: body ?? null,
          signal,
          headersTimeout: HEADERS_TIMEOUT,
          bodyTimeout: 0
        }),
      catch: (cause) =>
        new GatewayError({
          status: 503,
          reason: "ServiceUnavailable",
          message: `the agent cannot reach the API server of ${connection.cluster}: ${
            cause instanceof Error ? cause.message : "no reason given"
          }`
        })
    })
    return yield* Effect.acquireRelease(
      answer,
      ({ body }) =>
        Effect.sync(() => {
          // Destroyed before its end, it reports its own abort.
          body.on("error", () => {})
          body.destroy()
        }),
      { interruptible: true }
    )
  })

  const exchange = Effect.fnUntraced(function*(stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    const path = headers[":path"] ?? ""
    const method = headers[":method"] ?? ""
    if (!path.startsWith(`${LINK_PREFIX}/`)) {
      return yield* new GatewayError({ status: 404, reason: "NotFound", message: "the agent serves no such path" })
    }
    const request = yield* Effect.mapError(
      Effect.fromResult(read(method, path.slice(LINK_PREFIX.length))),
      ({ status, why }) => new GatewayError({ status, reason: "Forbidden", message: `the agent refuses: ${why}` })
    )
    const caller = yield* Effect.mapError(
      Effect.fromResult(decodeCaller(headers[CALLER_HEADER])),
      () => new GatewayError({ status: 400, reason: "BadRequest", message: "the master did not say who asks" })
    )
    const body = method === "POST" ? yield* readBody(stream) : undefined
    const sent = headersOf(headers, caller)
    const identify = <E extends { readonly message: string }>(identity: Effect.Effect<Identity, E>) =>
      Effect.mapError(
        identity,
        ({ message }) => new GatewayError({ status: 503, reason: "ServiceUnavailable", message })
      )
    const verb = method === "POST" || method === "HEAD" ? method : "GET"
    const identity = yield* identify(connection.identity)
    let answer = yield* send(request, verb, sent, body, identity)
    if (answer.statusCode === 401) {
      answer.body.resume()
      const renewed = yield* identify(renew(identity))
      if (!sameIdentity(identity, renewed)) answer = yield* send(request, verb, sent, body, renewed)
      // Passed on, it would read as if the caller had to log in again.
      if (answer.statusCode === 401) {
        return yield* new GatewayError({
          status: 503,
          reason: "ServiceUnavailable",
          message: `the API server of ${connection.cluster} refuses the agent's own credentials`
        })
      }
    }
    respond(stream, {
      ":status": answer.statusCode,
      ...Object.fromEntries(
        Object.entries(answer.headers).flatMap(([name, value]) =>
          value !== undefined && RETURNED.has(name) ? [[name, typeof value === "string" ? value : [...value]]] : []
        )
      )
    })
    yield* pour(answer.body, stream)
  })

  return StreamHandler.of({
    handle: Effect.fnUntraced(function*(stream, headers) {
      if (exchanges >= MAX_EXCHANGES) {
        return answerWith(stream, headers.accept, {
          status: 429,
          reason: "TooManyRequests",
          message: `${MAX_EXCHANGES} requests to ${connection.cluster} are in flight already`
        })
      }
      exchanges += 1
      yield* Effect.addFinalizer(() => Effect.sync(() => exchanges -= 1))
      yield* Effect.catch(
        exchange(stream, headers),
        (error) => Effect.sync(() => answerWith(stream, headers.accept, error))
      )
    })
  })
})

/** With a body that is known to be whole when it ends. */
const respond = (stream: ServerHttp2Stream, headers: OutgoingHttpHeaders): void => {
  stream.respond(headers, { waitForTrailers: true })
  stream.once("wantTrailers", () => stream.sendTrailers({ [WHOLE_TRAILER]: "1" }))
}

const answerWith = (stream: ServerHttp2Stream, accept: string | undefined, fault: KubeFault): void => {
  if (stream.destroyed || stream.closed) return
  // A body that broke off after its headers: the reset tells.
  if (stream.headersSent) return stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  const { body, headers, status } = answerOf(fault, accept)
  respond(stream, { ":status": status, ...headers })
  stream.end(body)
}

/** What reaches the API server besides its credentials, as name, value, name, value. */
const headersOf = (headers: IncomingHttpHeaders, caller: KubeCaller): ReadonlyArray<string> => [
  ...PASSED.flatMap((name) => {
    const value = headers[name]
    return typeof value === "string" ? [name, value] : []
  }),
  "impersonate-user",
  encodeName(caller.user),
  ...caller.groups.flatMap((group) => ["impersonate-group", encodeName(group)])
]

/** Header values are bytes; Go reads them as UTF-8, undici writes latin1. */
const encodeName = (name: string): string => Buffer.from(`${IDENTITY_PREFIX}${name}`, "utf8").toString("latin1")

/** A whole body of bounded length, in bounded time. */
const readBody = (stream: ServerHttp2Stream): Effect.Effect<Buffer, GatewayError> =>
  Effect.callback<Buffer, GatewayError>((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const fail = (status: number, message: string) =>
      resume(Effect.fail(new GatewayError({ status, reason: "BadRequest", message })))
    stream.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > MAX_BODY) {
        stream.pause()
        return fail(413, `the body is longer than ${MAX_BODY} bytes`)
      }
      chunks.push(chunk)
    })
    stream.once("end", () => resume(Effect.succeed(Buffer.concat(chunks, size))))
    stream.once("close", () => fail(400, "the body broke off"))
  }).pipe(Effect.timeoutOrElse({
    duration: BODY_TIMEOUT,
    orElse: () =>
      Effect.fail(new GatewayError({ status: 408, reason: "Timeout", message: "the body did not arrive in time" }))
  }))

/** Ends when all has been taken; destroys both ends when one breaks off, which resets the stream. */
const pour = (from: Readable, to: ServerHttp2Stream): Effect.Effect<void> =>
  Effect.callback((resume) => {
    pipeline(from, to, () => resume(Effect.void))
  })
