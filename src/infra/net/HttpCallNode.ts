/** {@link HttpCall} with Node's sockets, TLS and HTTP/1.1. */
import { DateTime, Duration, Effect, Layer, Redacted, Result, type Scope } from "effect"
import * as Http from "node:http"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import * as Tls from "node:tls"
import * as Zlib from "node:zlib"
import type { ShownCertificate } from "../tls/TlsPeer.ts"
import { chainOf } from "../tls/TlsPeerNode.ts"
import * as Dial from "./DialNode.ts"
import { type HttpAnswer, HttpCall, type HttpRequest } from "./HttpCall.ts"
import { NetError, type NetStage } from "./NetError.ts"
import { codeOf } from "./socketFault.ts"

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** Those that say who asks, whether or not they are redacted, and whom. */
const ONE_ORIGIN: ReadonlySet<string> = new Set(["authorization", "cookie", "host", "proxy-authorization"])

const reveal = (value: string | Redacted.Redacted<string>): string =>
  Redacted.isRedacted(value) ? Redacted.value(value) : value

const portOf = (url: URL): number => url.port === "" ? url.protocol === "https:" ? 443 : 80 : Number(url.port)

const hostOf = (url: URL): string => url.hostname.replace(/^\[(.*)\]$/u, "$1")

/** What OpenSSL and Node call it, in words. */
const UNTRUSTED: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "its certificate, or that of its issuer, has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed and not trusted here",
  SELF_SIGNED_CERT_IN_CHAIN: "the authority at the end of its chain is not trusted here",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the issuer of its certificate is not trusted here",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "it does not show the issuer of its certificate, which is not trusted here"
}

const why = (code: string, name: string, shown: ShownCertificate | undefined): string =>
  code === "ERR_TLS_CERT_ALTNAME_INVALID"
    ? `its certificate (${
      shown === undefined || shown.subject === "" ? "without a subject" : shown.subject
    }) is not for ${name}`
    : UNTRUSTED[code] ?? `its certificate is not trusted: ${code}`

const HTTP2_ONLY = "the server speaks HTTP/2 only, which is not asked here"

/** Alerts by which a server says that it wants what is not offered here: nothing is known of what is behind it. */
const UNOFFERED: ReadonlyArray<readonly [code: RegExp, detail: string]> = [
  [/NO_APPLICATION_PROTOCOL/u, HTTP2_ONLY],
  [/CERTIFICATE_REQUIRED/u, "the server wants a client certificate, which is not shown here"]
]

/** Whether an answer that is no HTTP/1.1 is the beginning of HTTP/2: a SETTINGS frame of stream 0 (RFC 9113, 3.4 and 4.1). */
const isHttp2 = (error: NodeJS.ErrnoException): boolean => {
  const packet: unknown = Reflect.get(error, "rawPacket")
  return Buffer.isBuffer(packet) && packet.length >= 9 && packet[3] === 4 && packet.readUInt32BE(5) === 0
}

/** {@link Dial.failure}, but for what the other side may well do and we cannot answer. */
const failure = (target: string, stage: NetStage) => (error: NodeJS.ErrnoException): NetError => {
  const detail = isHttp2(error) ? HTTP2_ONLY : UNOFFERED.find(([code]) => code.test(error.code ?? ""))?.[1]
  return detail === undefined
    ? Dial.failure(target, stage)(error)
    : new NetError({ target, stage, kind: "unknown", code: error.code, detail })
}

/** Servers send what is stored compressed although nobody asked for it (RFC 9110, 8.4.1). */
const decoderOf = (encoding: string | undefined): Duplex | undefined => {
  switch (encoding?.trim().toLowerCase()) {
    case "gzip":
    case "x-gzip":
      // The end of what is cut is told by the connection.
      return Zlib.createGunzip({ finishFlush: Zlib.constants.Z_SYNC_FLUSH })
    case "deflate":
      return Zlib.createInflate({ finishFlush: Zlib.constants.Z_SYNC_FLUSH })
    case "br":
      return Zlib.createBrotliDecompress({ finishFlush: Zlib.constants.BROTLI_OPERATION_FLUSH })
    case "zstd":
      return Zlib.createZstdDecompress({ finishFlush: Zlib.constants.ZSTD_e_flush })
    default:
      return undefined
  }
}

/** Of an answer; more than any server or proxy sends, and Node's own limit is 16 KiB. */
const MAXIMUM_HEADERS = 256 * 1024

const handshake = Effect.fnUntraced(function*(
  socket: Net.Socket,
  { tls = {}, url }: HttpRequest
): Effect.fn.Return<readonly [Tls.TLSSocket, ReadonlyArray<ShownCertificate>], NetError, Scope.Scope> {
  const target = Dial.hostPort(hostOf(url), portOf(url))
  const name = tls.serverName ?? hostOf(url)
  // Made and only then waited for: what is acquired cannot be interrupted, and a server may never answer.
  const secure = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Tls.connect({
        socket,
        host: name,
        ...(Net.isIP(name) === 0 ? { servername: name } : {}),
        ...(tls.ca === undefined
          ? {}
          : { ca: tls.publicToo === true ? [tls.ca, ...Tls.getCACertificates("default")] : tls.ca }),
        ALPNProtocols: ["http/1.1"],
        // Judged below, where the certificate is at hand to tell of.
        rejectUnauthorized: false
      }).on("error", () => {
        // Whoever waits listens too; without a listener Node would end the process.
      })
    ),
    (session) => Effect.sync(() => session.destroy())
  )
  yield* Effect.callback<void, NetError>((resume) => {
    secure.once("error", (error) => resume(Effect.fail(failure(target, "handshake")(error))))
    secure.once("close", () =>
      resume(
        Effect.fail(
          new NetError({
            target,
            stage: "handshake",
            kind: "reset",
            detail: "the connection ended before the TLS handshake did"
          })
        )
      ))
    secure.once("secureConnect", () => resume(Effect.void))
  })
  const read = chainOf(secure.getPeerX509Certificate())
  if (Result.isFailure(read)) {
    return yield* new NetError({ target, stage: "handshake", kind: "tls", detail: read.failure })
  }
  const chain = read.success
  if (!secure.authorized && tls.insecure !== true) {
    const [certificate] = chain
    // Declared an Error, and the error's code in fact.
    const code = String(secure.authorizationError)
    return yield* new NetError({
      target,
      stage: "handshake",
      kind: "tls",
      code,
      detail: why(code, name, certificate),
      certificate
    })
  }
  return [secure, chain]
})

interface Exchanged {
  readonly status: number
  readonly headers: Http.IncomingHttpHeaders
  readonly body: Buffer
  readonly truncated: boolean
  /** Since the request was sent, by the clock of the caller. */
  readonly firstByte: Duration.Duration
}

/** One request and its answer over a connection that stands. */
const exchange = Effect.fnUntraced(function*(
  socket: Net.Socket,
  request: HttpRequest,
  headers: Readonly<Record<string, string>>
): Effect.fn.Return<Exchanged, NetError> {
  const { maximumBody, method, url } = request
  const target = Dial.hostPort(hostOf(url), portOf(url))
  const sent = yield* DateTime.now
  const context = yield* Effect.context<never>()
  const now = Effect.runSyncWith(context)
  return yield* Effect.callback<Exchanged, NetError>((resume) => {
    /** Ends what still sends, receives or decodes. */
    const ending = new AbortController()
    // Ended first: whoever is resumed goes on at once, and what is ended tells of errors of its own.
    const settle = (result: Effect.Effect<Exchanged, NetError>) => {
      if (ending.signal.aborted) return
      ending.abort()
      resume(result)
    }
    const fail = (error: NodeJS.ErrnoException) => settle(Effect.fail(failure(target, "answer")(error)))
    try {
      const body = request.body === undefined ? undefined : Buffer.from(reveal(request.body))
      const outgoing = Http.request({
        createConnection: () => socket,
        method,
        path: `${url.pathname}${url.search}`,
        setHost: false,
        maxHeaderSize: MAXIMUM_HEADERS,
        // What browsers read too, such as line ends without a carriage return. There is one answer a connection.
        insecureHTTPParser: true,
        headers: {
          host: url.host,
          "user-agent": "kubeprober",
          accept: "*/*",
          "accept-encoding": "identity",
          ...(body === undefined ? {} : { "content-length": String(body.length) }),
          ...headers
        }
      })
      outgoing.on("error", fail)
      ending.signal.addEventListener("abort", () => outgoing.destroy())
      outgoing.once("response", (incoming) => {
        const firstByte = DateTime.distance(sent, now(DateTime.now))
        const chunks: Array<Buffer> = []
        let size = 0
        const answer = (truncated: boolean) =>
          settle(Effect.succeed({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: Buffer.concat(chunks).subarray(0, maximumBody),
            truncated,
            firstByte
          }))
        const hasBody = method !== "HEAD" && incoming.statusCode !== 204 && incoming.statusCode !== 304
        const decoder = hasBody ? decoderOf(incoming.headers["content-encoding"]) : undefined
        // A decoder goes on with what it has, which may be a thousand times as much, after its source has ended.
        ending.signal.addEventListener("abort", () => {
          incoming.destroy()
          decoder?.destroy()
        })
        const content = decoder === undefined ? incoming : incoming.pipe(decoder)
        content.on("data", (chunk: Buffer) => {
          if (ending.signal.aborted) return
          chunks.push(chunk)
          size += chunk.length
          if (size > maximumBody) answer(true)
        })
        decoder?.on("error", ({ message }) => {
          fail(Object.assign(new Error(`the body is not ${incoming.headers["content-encoding"]}: ${message}`), {
            code: "ERR_HTTP_CONTENT_ENCODING"
          }))
        })
        incoming.on("error", fail)
        incoming.once(
          "aborted",
          () => fail(Object.assign(new Error("the connection ended within the answer"), { code: "ECONNRESET" }))
        )
        content.once("end", () => answer(false))
      })
      outgoing.end(body)
    } catch (error) {
      // Header values and methods that HTTP does not know, of which the other side has heard nothing; their texts are not
      // repeated. Node's code is not this error's: an answer that is no HTTP may have it too.
      const why = codeOf(error)
      fail(new Error(`the request cannot be sent as HTTP${why === "" ? "" : ` (${why})`}`))
    }
    return Effect.sync(() => ending.abort())
  })
})

const joined = (headers: Http.IncomingHttpHeaders): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]]
    )
  )

const headersFor = (request: HttpRequest): Readonly<Record<string, string>> => {
  const cookie = request.cookies?.of(request.url) ?? ""
  return Object.fromEntries([
    ...(cookie === "" ? [] : [["cookie", cookie] as const]),
    ...Object.entries(request.headers ?? {}).map(([name, value]) => [name.toLowerCase(), reveal(value)] as const)
  ])
}

/** Where a redirect leads; nothing when it is an answer. */
const redirected = (request: HttpRequest, { headers, status }: Exchanged): HttpRequest | undefined => {
  if (request.redirects <= 0 || !REDIRECTS.has(status) || headers.location === undefined) return undefined
  const url = URL.parse(headers.location, request.url.href)
  if (url === null || !/^https?:$/u.test(url.protocol)) return undefined
  // As browsers do it (https://fetch.spec.whatwg.org/#http-redirect-fetch).
  const becomesGet = status === 303 ? request.method !== "HEAD" : status < 303 && request.method === "POST"
  const sameOrigin = url.origin === request.url.origin
  // What is in a body may be secret, so it goes to nobody else.
  if (!sameOrigin && !becomesGet && request.body !== undefined) return undefined
  const kept = Object.entries(request.headers ?? {}).filter(([name, value]) =>
    (sameOrigin || !(Redacted.isRedacted(value) || ONE_ORIGIN.has(name.toLowerCase()))) &&
    !(becomesGet && name.toLowerCase().startsWith("content-"))
  )
  return {
    ...request,
    url,
    method: becomesGet ? "GET" : request.method,
    headers: Object.fromEntries(kept),
    body: becomesGet ? undefined : request.body,
    redirects: request.redirects - 1,
    // A name given for one server is not the name of another, and who leads to the public is not of the public.
    tls: sameOrigin ? request.tls : { ...request.tls, serverName: undefined, publicToo: true }
  }
}

const follow = (
  request: HttpRequest,
  onStage: (stage: NetStage) => void,
  before: number
): Effect.Effect<Omit<HttpAnswer, "timings"> & { timings: Omit<HttpAnswer["timings"], "total"> }, NetError> =>
  Effect.scoped(Effect.gen(function*() {
    const { url } = request
    const connected = yield* Dial.connect({ ...request, host: hostOf(url), port: portOf(url) }, onStage)
    if (url.protocol === "https:") onStage("handshake")
    const [tookHandshake, [socket, certificates]] = url.protocol === "https:"
      ? yield* Effect.timed(handshake(connected.socket, request))
      : [Duration.zero, [connected.socket, []]] as const
    onStage("answer")
    const answer = yield* exchange(socket, request, headersFor(request))
    request.cookies?.keep(url, answer.headers["set-cookie"] ?? [])
    const next = redirected(request, answer)
    if (next !== undefined) return { _tag: "Next", next } as const
    return {
      _tag: "Answer",
      answer: {
        url,
        address: connected.address,
        status: answer.status,
        headers: joined(answer.headers),
        body: answer.body.toString("utf8"),
        truncated: answer.truncated,
        redirects: before,
        certificates,
        timings: {
          name: connected.name,
          connect: connected.connect,
          handshake: tookHandshake,
          firstByte: answer.firstByte
        }
      }
    } as const
  })).pipe(
    Effect.flatMap((step) =>
      step._tag === "Next" ? follow(step.next, onStage, before + 1) : Effect.succeed(step.answer)
    )
  )

/** Stateless: each exchange has a connection of its own. */
export const service = HttpCall.of({
  send: Effect.fn("HttpCall.send")(function*(request) {
    let stage: NetStage = "name"
    const target = Dial.hostPort(hostOf(request.url), portOf(request.url))
    const [total, answer] = yield* follow(request, (reached) => stage = reached, 0).pipe(
      Effect.timed,
      Effect.timeoutOrElse({
        duration: request.timeout,
        orElse: Dial.tooLate(target, () => stage, request.timeout)
      })
    )
    return { ...answer, timings: { ...answer.timings, total } }
  })
})

export const layer = Layer.succeed(HttpCall, service)
