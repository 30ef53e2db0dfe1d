/**
 * The API servers of managed clusters under `/clusters/NAME` of the master's API, for kubectl and anything like it.
 *
 * The master authenticates the caller and asks whether they may reach that cluster at all (`get`, `list`, `watch` of
 * `clusters/proxy`); what they may see in it is the managed cluster's own RBAC to say, of the name the agent
 * impersonates. The master has no credential of any cluster. Nothing is written this way, and no connection opened into a
 * cluster: see `KubeRequest`. Each request leaves one line in the log.
 */
import { Clock, Context, Data, Effect, Layer, Option, Result } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { IncomingHttpHeaders, IncomingHttpStatusHeader, OutgoingHttpHeaders } from "node:http2"
import { Transform, pipeline } from "node:stream"
import {
  CALLER_HEADER,
  type KubeFault,
  type KubeRequest,
  LINK_PREFIX,
  WHOLE_TRAILER,
  answerOf,
  encodeCaller,
  read,
  splitTarget
} from "../domain/KubeRequest.ts"
import { Links } from "../infra/link/Links.ts"
import type { Exchange } from "../infra/link/Mux.ts"
import { Authentication, type Caller, bearerOf } from "./api/Authentication.ts"
import { Authorization } from "./api/Authorization.ts"
import { Registry } from "./Registry.ts"

/** Where clusters are on the master's API. */
export const CLUSTERS_PATH = "/clusters/"

/** Requests to one cluster at a time, so that most of a link's 512 streams stay free. The next gets a 429. */
const MAX_EXCHANGES = 128

/** To the headers of an answer: a little more than the agent gives its API server. */
const HEADERS_TIMEOUT = "75 seconds"

/** For all of an answer that has an end. */
const ANSWER_TIMEOUT = "10 minutes"

/** Who asks must fit in a header of the link beside the others. */
const MAX_CALLER = 32 << 10

/** Headers of the caller that go on. All others stay here: credentials, cookies, impersonation, who forwarded it. */
const PASSED = ["accept", "accept-encoding", "content-type", "if-none-match", "if-modified-since", "user-agent"]

/** Headers of the answer that do not: those of one connection, and what HTTP/2 calls its own. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "set-cookie",
  "transfer-encoding",
  "upgrade"
])

/** What a Kubernetes client is told instead of an answer. */
class AccessError extends Data.TaggedError("AccessError")<KubeFault> {}

export class KubeAccess extends Context.Service<KubeAccess, {
  /** Answers a request whose path begins with {@link CLUSTERS_PATH}. Interrupt it when the caller has gone. */
  readonly handle: (request: IncomingMessage, response: ServerResponse) => Effect.Effect<void>
}>()("kubeprober/master/KubeAccess") {
  static readonly layer: Layer.Layer<KubeAccess, never, Authentication | Authorization | Links | Registry> = Layer
    .effect(KubeAccess, Effect.suspend(() => make))
}

/** What the log says of a request; filled as it becomes known. */
interface Audit {
  user?: string
  cluster?: string
  verb?: string
  path?: string
  status?: number
  bytes: number
  why?: string
}

const make = Effect.gen(function*() {
  const { authenticate } = yield* Authentication
  const { allow } = yield* Authorization
  const links = yield* Links
  const registry = yield* Registry
  const exchanges = new Map<string, number>()

  const admit = (cluster: string) =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        const count = exchanges.get(cluster) ?? 0
        if (count >= MAX_EXCHANGES) {
          return Effect.fail(
            new AccessError({
              status: 429,
              reason: "TooManyRequests",
              message: `${MAX_EXCHANGES} requests to cluster ${cluster} are in flight through this master already`
            })
          )
        }
        exchanges.set(cluster, count + 1)
        return Effect.void
      }),
      () =>
        Effect.sync(() => {
          const count = (exchanges.get(cluster) ?? 1) - 1
          if (count === 0) exchanges.delete(cluster)
          else exchanges.set(cluster, count)
        })
    )

  /** Whether this caller may ask this, and of which cluster. */
  const judge = Effect.fnUntraced(function*(request: IncomingMessage, audit: Audit) {
    const caller = yield* authenticate(bearerOf(request.headers.authorization)).pipe(
      Effect.mapError(({ _tag, message }) => accessErrors[_tag](message))
    )
    audit.user = caller.user
    const { cluster, target } = yield* targetOf(request.url ?? "")
    audit.cluster = cluster
    const asked = yield* Effect.mapError(
      Effect.fromResult(read(request.method ?? "", target)),
      ({ status, why }) =>
        new AccessError({
          status,
          reason: status === 400 ? "BadRequest" : status === 405 ? "MethodNotAllowed" : "Forbidden",
          message: why
        })
    )
    audit.verb = asked.verb
    audit.path = asked.path
    if (request.headers.upgrade !== undefined) {
      return yield* new AccessError({
        status: 403,
        reason: "Forbidden",
        message: "through a master no connection is opened into a cluster; reach the cluster directly for that"
      })
    }
    // A question about oneself reveals no more than an answer would.
    const verb = asked.verb === "create" ? "get" : asked.verb
    yield* allow(caller, { verb, resource: "clusters/proxy", name: cluster }).pipe(
      Effect.mapError(({ _tag, message }) => accessErrors[_tag](message))
    )
    if (Option.isNone(yield* registry.registered(cluster))) {
      return yield* new AccessError({
        status: 404,
        reason: "NotFound",
        message: `this master has no cluster ${cluster}; kubeprober cluster list shows those there are`
      })
    }
    return { caller, cluster, asked }
  })

  const exchange = Effect.fnUntraced(function*(request: IncomingMessage, response: ServerResponse, audit: Audit) {
    const { asked, caller, cluster } = yield* judge(request, audit)
    yield* admit(cluster)
    const headers = yield* headersOf(request, asked, caller)
    const { answer, opened } = yield* Effect.gen(function*() {
      const link = yield* links.find(cluster)
      const opened = yield* link.request(headers)
      send(request, opened)
      return { opened, answer: yield* opened.response }
    }).pipe(
      Effect.mapError(({ message }) => new AccessError({ status: 503, reason: "ServiceUnavailable", message })),
      Effect.timeoutOrElse({
        duration: HEADERS_TIMEOUT,
        orElse: () =>
          Effect.fail(
            new AccessError({
              status: 504,
              reason: "Timeout",
              message: `cluster ${cluster} did not answer in ${HEADERS_TIMEOUT}`
            })
          )
      })
    )
    audit.status = answer[":status"] ?? 502
    response.writeHead(audit.status, answerHeaders(answer))
    // At once: a watch may have nothing to say for a long time.
    response.flushHeaders()
    const poured = pour(opened, response, audit, request.method !== "HEAD")
    yield* asked.isLong ? poured : Effect.timeoutOption(poured, ANSWER_TIMEOUT)
  })

  return KubeAccess.of({
    handle: Effect.fnUntraced(function*(request, response) {
      const began = yield* Clock.currentTimeMillis
      const audit: Audit = { bytes: 0 }
      const gone = Effect.callback<void>((resume) => {
        if (response.closed) resume(Effect.void)
        response.once("close", () => resume(Effect.void))
      })
      yield* exchange(request, response, audit).pipe(
        Effect.scoped,
        Effect.catch((error) =>
          Effect.sync(() => {
            audit.status = error.status
            audit.why = error.message
            answerWith(request, response, error)
          })
        ),
        Effect.raceFirst(gone),
        Effect.ensuring(
          Effect.suspend(() => {
            // Not ended by then, it was cut: the caller must see that it is not whole.
            if (!response.writableEnded) response.destroy()
            return Effect.flatMap(Clock.currentTimeMillis, (now) => record(request, audit, now - began))
          })
        )
      )
    })
  })
})

const record = (request: IncomingMessage, { bytes, cluster, path, status, user, verb, why }: Audit, millis: number) =>
  Effect.logInfo("kube access").pipe(Effect.annotateLogs({
    user: user ?? "unknown",
    cluster: cluster ?? "unknown",
    verb: verb ?? request.method,
    // Without its query, which may hold what a person looked for.
    path: path ?? "unread",
    status: status ?? "none",
    bytes,
    millis,
    address: request.socket.remoteAddress ?? "unknown",
    ...(why === undefined ? {} : { why })
  }))

const accessErrors = {
  Unauthenticated: (message: string) => new AccessError({ status: 401, reason: "Unauthorized", message }),
  Forbidden: (message: string) => new AccessError({ status: 403, reason: "Forbidden", message }),
  Unavailable: (message: string) => new AccessError({ status: 503, reason: "ServiceUnavailable", message })
}

/** `/clusters/NAME/path?query` as its parts. The name is taken as it stands, with nothing encoded in it. */
const targetOf = (url: string) => {
  const [path, query] = splitTarget(url)
  const [, cluster, rest] = /^\/clusters\/([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)(\/.*)$/u.exec(path) ?? []
  return cluster === undefined || rest === undefined || cluster.includes("..")
    ? Effect.fail(
      new AccessError({
        status: 400,
        reason: "BadRequest",
        message: "the path is not like /clusters/NAME/api; give kubectl --server https://MASTER/clusters/NAME"
      })
    )
    : Effect.succeed({ cluster, target: `${rest}${query}` })
}

/** What goes over the link. */
const headersOf = (request: IncomingMessage, asked: KubeRequest, caller: Caller) => {
  const encoded = encodeCaller({ user: caller.user, groups: caller.groups })
  if (Result.isFailure(encoded) || encoded.success.length > MAX_CALLER) {
    return Effect.fail(
      new AccessError({
        status: 431,
        reason: "RequestHeaderFieldsTooLarge",
        message: `${caller.user} is in too many groups to be named to the cluster`
      })
    )
  }
  const headers: OutgoingHttpHeaders = {
    ":method": request.method ?? "GET",
    ":path": `${LINK_PREFIX}${asked.path}${asked.query}`,
    [CALLER_HEADER]: encoded.success
  }
  for (const name of PASSED) {
    const value = request.headers[name]
    if (typeof value === "string") headers[name] = value
  }
  return Effect.succeed(headers)
}

/** The request's body; that of a GET is nobody's and stays here. */
const send = (request: IncomingMessage, { stream }: Exchange): void => {
  if (request.method !== "POST") {
    stream.end()
    return
  }
  pipeline(request, stream, () => {
    // Whether it arrived, the answer says; its half of the stream alone is over.
  })
}

const answerHeaders = (answer: IncomingHttpHeaders & IncomingHttpStatusHeader) =>
  Object.fromEntries(
    Object.entries(answer).filter(([name, value]) =>
      value !== undefined && !name.startsWith(":") && !HOP_BY_HOP.has(name)
    )
  )

/** The answer's body, counted. Ends when all of it is with the caller, or one end broke off: then so does the other. */
const pour = (
  { stream }: Exchange,
  response: ServerResponse,
  audit: Audit,
  hasBody: boolean
): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let isWhole = !hasBody
    stream.once("trailers", (trailers) => {
      isWhole ||= trailers[WHOLE_TRAILER] !== undefined
    })
    const counted = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        audit.bytes += chunk.length
        done(null, chunk)
      },
      flush: (done) => done(isWhole ? null : new Error("the answer broke off"))
    })
    pipeline(stream, counted, response, () => resume(Effect.void))
  })

/** A fault in place of an answer; after its headers, only the end of the connection tells. */
const answerWith = (request: IncomingMessage, response: ServerResponse, fault: KubeFault): void => {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const { body, headers, status } = answerOf(fault, request.headers.accept)
  response.writeHead(status, headers).end(body)
}
