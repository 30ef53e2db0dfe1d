/**
 * HTTP to one API server: one connection pool, the current credentials on every request.
 *
 * HTTP/1.1 with keep-alive rather than HTTP/2: a lost or stalled connection then takes one request or watch with it, not
 * all of them, and 200 requests in a row still share one connection.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Clock, Effect, Redacted, Ref, type Scope, Semaphore, Stream } from "effect"
import { type HttpClient, type HttpClientError, HttpClientRequest, type HttpClientResponse } from "effect/http"
import type { PeerCertificate } from "node:tls"
import type { Dispatcher } from "undici"
import { ADDRESS_ATTEMPT } from "../../net/addressAttempt.ts"
import type { CredentialsUnavailable, Identity, KubeConnection, TlsSettings } from "../KubeConnection.ts"

type Execute<R = never> = (
  request: HttpClientRequest.HttpClientRequest
) => Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError | CredentialsUnavailable, R>

/** What the Kube client needs of HTTP. Any `HttpClient` will do, such as one over a tunnel. */
export interface KubeTransport {
  readonly execute: Execute
  /** Over a connection of its own, as a client has that is new; it ends with the scope. */
  readonly executeAlone: Execute<Scope.Scope>
  /** `host:port` of the proxy that is asked in the server's place. */
  readonly proxy?: string | undefined
  /** Requests sent so far. */
  readonly requests: Effect.Effect<number>
}

/** Over a client that adds the credentials itself. */
export const fromHttpClient = Effect.fnUntraced(
  function*(client: HttpClient.HttpClient): Effect.fn.Return<KubeTransport> {
    const sent = yield* Ref.make(0)
    const execute: KubeTransport["execute"] = (request) =>
      Effect.andThen(Ref.update(sent, (count) => count + 1), client.execute(request))
    return { execute, executeAlone: execute, requests: Ref.get(sent) }
  }
)

/** Connections to one cluster at most: requests beyond it wait. 64 for streams and for requests in their turn, 4 for others. */
const CONNECTIONS = 68
const CONNECT_TIMEOUT = 5_000
/** Below the API server's own 90 s (apiserver pkg/server/secure_serving.go, IdleTimeout) and common balancers' 60 s. */
const KEEP_ALIVE = 55_000
/** First TCP keep-alive after 30 s of silence; libuv then sends one a second, ten in all, so a dead peer shows in 40 s. */
const TCP_KEEP_ALIVE = 30_000
/** How long a retired pool may finish what it has in flight. Watches end by themselves sooner. */
const DRAIN = "10 minutes"

/** Renewed credentials that are refused too stand this long (ms): a hundred refusals do not start a hundred plugins. */
const FAILURE_TTL = 5_000

interface Generation {
  readonly tls: TlsSettings
  readonly agent: Dispatcher
}

const sameSecret = (a: Redacted.Redacted<string> | undefined, b: Redacted.Redacted<string> | undefined): boolean =>
  a === b || a !== undefined && b !== undefined && Redacted.value(a) === Redacted.value(b)

const sameTls = (a: TlsSettings, b: TlsSettings): boolean =>
  a === b || a.ca === b.ca && a.cert === b.cert && a.serverName === b.serverName && a.insecure === b.insecure &&
    sameSecret(a.key, b.key)

/** Whether they show the same to a server. */
export const sameIdentity = (a: Identity, b: Identity): boolean =>
  sameTls(a.tls, b.tls) && sameSecret(a.authorization, b.authorization)

/** The pools of a connection, for what is no Effect HTTP: requests with several values of a header, bytes as they come. */
export interface KubeDispatchers {
  /** The pool for this TLS identity. What it had before finishes on the old one. */
  readonly dispatcher: (settings: TlsSettings) => Effect.Effect<Dispatcher>
  /** One that nobody else uses, for the scope. */
  readonly alone: (settings: TlsSettings) => Effect.Effect<Dispatcher, never, Scope.Scope>
  /** Who we are instead of `refused`: others may have renewed it since, or just now in vain. */
  readonly renew: (refused: Identity) => Effect.Effect<Identity, CredentialsUnavailable>
}

/** Pools for `connection`, closed with the scope. Connect only when first used. */
export const makeDispatchers = Effect.fnUntraced(
  function*(connection: KubeConnection): Effect.fn.Return<KubeDispatchers, never, Scope.Scope> {
    const undici = yield* Effect.promise(() => import("undici"))
    const tls = yield* Effect.promise(() => import("node:tls"))
    const net = yield* Effect.promise(() => import("node:net"))
    const scope = yield* Effect.scope
    const server = new URL(connection.server)
    const open = new Set<Dispatcher>()
    yield* Effect.addFinalizer(() =>
      Effect.forEach(open, (agent) => Effect.promise(() => agent.destroy()), { discard: true })
    )

    const connectOptions = (settings: TlsSettings) => {
      // The same name for every replica of the server, also for those addressed by IP (`raw` with `server`).
      const name = settings.serverName ?? server.hostname.replace(/^\[(.*)\]$/, "$1")
      return {
        timeout: CONNECT_TIMEOUT,
        keepAliveInitialDelay: TCP_KEEP_ALIVE,
        autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT,
        ...(server.protocol === "https:" && {
          // Without a CA of its own a cluster is trusted like any web server, as kubectl does: by the system's roots.
          ca: settings.ca ?? [...tls.getCACertificates("default"), ...tls.getCACertificates("system")],
          ...(settings.cert !== undefined && { cert: settings.cert }),
          ...(settings.key !== undefined && { key: Redacted.value(settings.key) }),
          ...(net.isIP(name) === 0 && { servername: name }),
          rejectUnauthorized: settings.insecure !== true,
          checkServerIdentity: (_: string, certificate: PeerCertificate) => tls.checkServerIdentity(name, certificate)
        })
      }
    }

    const makePool = (settings: TlsSettings): Dispatcher => {
      const options = {
        allowH2: false,
        connections: CONNECTIONS,
        pipelining: 1,
        keepAliveTimeout: KEEP_ALIVE,
        keepAliveMaxTimeout: KEEP_ALIVE
      }
      const connect = connectOptions(settings)
      if (connection.proxy === undefined) return new undici.Agent({ ...options, connect })
      const uri = Redacted.value(connection.proxy)
      return uri.startsWith("socks5:")
        ? new undici.Socks5ProxyAgent(uri, { ...options, requestTls: connect })
        : new undici.ProxyAgent({ ...options, uri, requestTls: connect, proxyTls: { timeout: CONNECT_TIMEOUT } })
    }

    /** Effect's headers have one value a name; these may have several. */
    const makeAgent = (settings: TlsSettings): Dispatcher => {
      const pool = makePool(settings)
      const { headers } = connection
      if (headers === undefined) return pool
      const more = Object.entries(headers).flatMap(([name, value]) =>
        typeof value === "string" ? [[name, value] as const] : value.map((each) => [name, each] as const)
      )
      return pool.compose((dispatch) => (options, handler) =>
        dispatch({ ...options, headers: [...flat(options.headers), ...more.flat()] }, handler)
      )
    }

    const retire = (agent: Dispatcher) =>
      Effect.promise(() => agent.close()).pipe(
        Effect.timeoutOrElse({ duration: DRAIN, orElse: () => Effect.promise(() => agent.destroy()) }),
        Effect.ensuring(Effect.sync(() => open.delete(agent))),
        Effect.forkIn(scope)
      )

    const alone = (settings: TlsSettings) =>
      Effect.acquireRelease(
        Effect.sync(() => makeAgent(settings)),
        (agent) => Effect.promise(() => agent.destroy())
      )

    const current = yield* Ref.make<Generation | undefined>(undefined)
    const rotation = yield* Semaphore.make(1)
    const dispatcher = Effect.fnUntraced(function*(settings: TlsSettings) {
      const now = yield* Ref.get(current)
      if (now !== undefined && sameTls(now.tls, settings)) return now.agent
      return yield* rotation.withPermits(1)(Effect.gen(function*() {
        const previous = yield* Ref.get(current)
        if (previous !== undefined && sameTls(previous.tls, settings)) return previous.agent
        const agent = makeAgent(settings)
        open.add(agent)
        yield* Ref.set(current, { tls: settings, agent })
        if (previous !== undefined) yield* retire(previous.agent)
        return agent
      }))
    })

    const renewal = yield* Semaphore.make(1)
    let renewedAt = -Infinity
    const renew = Effect.fnUntraced(function*(refused: Identity) {
      const now = yield* connection.identity
      if (!sameIdentity(now, refused) || (yield* Clock.currentTimeMillis) - renewedAt < FAILURE_TTL) return now
      yield* connection.refresh
      const renewed = yield* connection.identity
      renewedAt = yield* Clock.currentTimeMillis
      return renewed
    }, renewal.withPermits(1))

    return { dispatcher, alone, renew }
  }
)

/** A pool for `connection`, closed with the scope. Connects only when first used. */
export const make = Effect.fnUntraced(
  function*(connection: KubeConnection): Effect.fn.Return<KubeTransport, never, Scope.Scope> {
    const { alone, dispatcher, renew } = yield* makeDispatchers(connection)
    const clients = new WeakMap<Dispatcher, HttpClient.HttpClient>()
    const clientOf = Effect.fnUntraced(function*(agent: Dispatcher) {
      const known = clients.get(agent)
      if (known !== undefined) return known
      const client = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, agent)
      clients.set(agent, client)
      return client
    })

    const sent = yield* Ref.make(0)
    const sendOver = Effect.fnUntraced(
      function*(agent: Dispatcher, request: HttpClientRequest.HttpClientRequest, identity: Identity) {
        const client = yield* clientOf(agent)
        yield* Ref.update(sent, (count) => count + 1)
        return yield* client.execute(HttpClientRequest.setHeaders(request, {
          ...(identity.authorization !== undefined && { authorization: Redacted.value(identity.authorization) })
        }))
      }
    )
    const send = (request: HttpClientRequest.HttpClientRequest, identity: Identity) =>
      Effect.flatMap(dispatcher(identity.tls), (agent) => sendOver(agent, request, identity)).pipe(
        Effect.retry({ times: 1, while: isClosed })
      )
    const sendAlone = (request: HttpClientRequest.HttpClientRequest, identity: Identity) =>
      Effect.flatMap(alone(identity.tls), (agent) => sendOver(agent, request, identity))

    /** With credentials that are renewed when the server does not accept them. */
    const authenticated = <R>(
      send: (
        request: HttpClientRequest.HttpClientRequest,
        identity: Identity
      ) => Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError, R>
    ) =>
      Effect.fnUntraced(function*(request: HttpClientRequest.HttpClientRequest) {
        const identity = yield* connection.identity
        const response = yield* send(request, identity)
        if (response.status !== 401) return response
        const renewed = yield* renew(identity)
        if (sameIdentity(identity, renewed)) return response
        yield* Effect.ignore(Stream.runDrain(response.stream))
        return yield* send(request, renewed)
      })

    return {
      execute: authenticated(send),
      executeAlone: authenticated(sendAlone),
      // Without what may be secret in it.
      proxy: connection.proxy === undefined ? undefined : new URL(Redacted.value(connection.proxy)).host,
      requests: Ref.get(sent)
    }
  }
)

/** Any of undici's forms of headers as name, value, name, value. */
const flat = (headers: Dispatcher.DispatchOptions["headers"]): Array<string> => {
  if (headers === undefined || headers === null) return []
  if (Array.isArray(headers)) return headers.flat().flatMap((each) => each ?? [])
  const entries = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
  return entries.flatMap(([name, value]) => [value ?? []].flat().flatMap((each) => [name, String(each)]))
}

/** The pool was retired between the look at it and its use: nothing was sent. */
const isClosed = (error: HttpClientError.HttpClientError | CredentialsUnavailable): boolean =>
  error._tag === "HttpClientError" && error.reason._tag === "TransportError" &&
  error.reason.cause instanceof Error && "code" in error.reason.cause && error.reason.cause.code === "UND_ERR_CLOSED"
