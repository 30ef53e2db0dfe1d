/**
 * Where probers post what they found: the original's `/probe-status`, on plain HTTP inside the cluster.
 *
 * A report counts only while a run of its Probe is open, and only from that run: it carries the run's token, or comes from
 * an address of the run's pod, which is how probers made for the original are known. A pod on the host's network has the
 * node's address, so whatever else is on that network there can report for it without a token.
 */
import {
  Context,
  Data,
  Deferred,
  Duration,
  Effect,
  FiberSet,
  Layer,
  Redacted,
  Result,
  Schema,
  type Scope,
  Semaphore
} from "effect"
import { createHash } from "node:crypto"
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import { Status } from "../../domain/Status.ts"

/** The port that probers of the original know. */
export const REPORT_PORT = 8082
export const REPORT_PATH = "/probe-status"

/** The URL under which probers find the agent of `namespace`, as in the original. */
export const reportUrlIn = (namespace: string): string =>
  `http://probeagent.${namespace}.svc.cluster.local:${REPORT_PORT}${REPORT_PATH}`

/** The most checkers of one run; their reports are held until it ends. */
export const MAX_CHECKERS = 500

/** A full set of the longest messages that are kept, and room for JSON's escapes. */
const MAX_BODY = 1 << 20

/** A report is small and its sender near: who is slower holds a connection for nothing. */
const REQUEST_TIMEOUT = Duration.seconds(10)

/** Connections at a time; the next is dropped unheard. */
const MAX_CONNECTIONS = 256

/** Bodies at a time, so that at most this many are in memory. */
const MAX_BODIES = 32

/**
 * How long a report without a token waits for its pod's address to be known: a prober may be faster than its kubelet,
 * which writes the address down a second or two after the start.
 */
const ADDRESS_WITHIN = Duration.seconds(10)

/** How long a run that ended waits for reports that are on their way. */
const CLOSED_WITHIN = Duration.seconds(2)

/** What a prober said of one checker. */
export interface Said {
  readonly status: Status
  /** Empty when the prober gave none. */
  readonly message: string
}

/** A run that may be reported for. */
export interface OpenRun {
  readonly namespace: string
  readonly probe: string
  readonly token: Redacted.Redacted
}

/** What is reported for one run. */
export interface Inbox {
  /** Every address of the run's pod. Reports that waited for it are decided at once. */
  readonly addresses: (addresses: Iterable<string>) => Effect.Effect<void>
  /** Checkers by name as reported so far, the last word of each. */
  readonly said: Effect.Effect<ReadonlyMap<string, Said>>
  /** Takes no more, once what is on its way has been decided; what was reported in all. */
  readonly close: Effect.Effect<ReadonlyMap<string, Said>>
}

/** The port could not be had. */
export class ReportServerError extends Data.TaggedError("ReportServerError")<{
  readonly address: string
  readonly detail: string
}> {
  override get message(): string {
    return `reports of probers cannot be received on ${this.address}: ${this.detail}; choose another port or free it`
  }
}

export interface ReportServerOptions {
  /** The address to listen on. */
  readonly host: string
  /** {@link REPORT_PORT} in a cluster; 0 for any free one. */
  readonly port: number
}

export class ReportServer extends Context.Service<ReportServer, {
  /** The port that is listened on. */
  readonly port: number
  /** Takes reports for the run until the scope closes. */
  readonly open: (run: OpenRun) => Effect.Effect<Inbox, never, Scope.Scope>
}>()("kubeprober/agent/jobs/ReportServer") {
  static readonly layer = (options: ReportServerOptions): Layer.Layer<ReportServer, ReportServerError> =>
    Layer.effect(ReportServer, make(options))
}

/** Why a report does not count. */
class Refused extends Data.TaggedError("Refused")<{
  readonly status: 400 | 401 | 403 | 404 | 405 | 408 | 413 | 503
  readonly detail: string
}> {
  override get message(): string {
    return this.detail
  }
}

const refuse = (status: Refused["status"], detail: string) => new Refused({ status, detail })

const Name = Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(253))

/** What the original's checkers post. `name` is always there and empty; `lastRun` is not taken from the prober's clock. */
const Body = Schema.fromJsonString(Schema.Struct({
  probeNamespace: Name,
  probeName: Name,
  checkers: Schema.Array(Schema.Struct({
    name: Name,
    status: Schema.String,
    message: Schema.optionalKey(Schema.NullOr(Schema.String))
  })).check(Schema.isMinLength(1), Schema.isMaxLength(MAX_CHECKERS))
}))
const decodeBody = Schema.decodeUnknownEffect(Body)

const isStatus = Schema.is(Status)

interface Reported {
  readonly namespace: string
  readonly probe: string
  readonly checkers: ReadonlyArray<readonly [name: string, said: Said]>
}

/** What a body says, or why it says nothing. */
export const readReport = Effect.fnUntraced(function*(body: string): Effect.fn.Return<Reported, Refused> {
  const { checkers, probeName, probeNamespace } = yield* decodeBody(body).pipe(
    Effect.mapError(({ message }) => refuse(400, `not a report: ${message.slice(0, 1024)}`))
  )
  return {
    namespace: probeNamespace,
    probe: probeName,
    checkers: yield* Effect.forEach(checkers, ({ message, name, status }) => {
      const upper = status.toUpperCase()
      return isStatus(upper)
        ? Effect.succeed([name, { status: upper, message: (message ?? "").trim() }] as const)
        : Effect.fail(refuse(
          400,
          `checker ${JSON.stringify(name)} has the status ${
            JSON.stringify(status.slice(0, 64))
          }; it is one of PASS, INFO, UNKNOWN, WARN, ERROR`
        ))
    })
  }
})

/** As the kernel tells an IPv4 peer of a dual-stack socket, and as Kubernetes writes it. */
const plainAddress = (address: string): string => address.toLowerCase().replace(/^::ffff:(?=\d+\.)/u, "")

const digestOf = (token: string): string => createHash("sha256").update(token).digest("hex")

/** The token a request brings, if any. */
const tokenOf = ({ headers }: IncomingMessage): string | undefined => {
  const { authorization } = headers
  return authorization === undefined ? undefined : authorization.replace(/^Bearer +/iu, "").trim()
}

/** A run that is open. */
interface Window extends OpenRun {
  readonly digest: string
  readonly addresses: Set<string>
  /** Done once addresses are known, and at the end. */
  readonly located: Deferred.Deferred<void>
  readonly said: Map<string, Said>
  /** Reports that may be this run's and are not decided. */
  waiting: number
  /** Done when the last of them is decided, once closing began. */
  readonly idle: Deferred.Deferred<void>
  phase: "open" | "closing" | "closed"
}

const make = Effect.fnUntraced(function*(options: ReportServerOptions) {
  const windows = new Set<Window>()
  const bodies = yield* Semaphore.make(MAX_BODIES)
  const server = yield* listen(options)
  const run = yield* FiberSet.makeRuntime<never>()

  const settle = (window: Window) =>
    window.phase !== "open" && window.waiting === 0 ? Deferred.succeed(window.idle, undefined) : Effect.void

  /** What arrived while a run was open may be that run's, so closing it waits for what is decided within. */
  const holding = <A, E>(deciding: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const held = [...windows].filter(({ phase }) => phase === "open")
        held.forEach((window) => window.waiting++)
        return held
      }),
      () => deciding,
      (held) =>
        Effect.forEach(held, (window) => {
          window.waiting--
          return settle(window)
        }, { discard: true })
    )

  /** Whether the sender's address is one of the run's, once those are known. */
  const isFrom = (window: Window, address: string) =>
    Deferred.await(window.located).pipe(
      Effect.timeoutOption(ADDRESS_WITHIN),
      Effect.map(() => window.addresses.has(address))
    )

  const keep = Effect.fnUntraced(function*(window: Window, { checkers }: Reported) {
    if (window.phase === "closed") return yield* refuse(403, "the run is over")
    const names = new Set([...window.said.keys(), ...checkers.map(([name]) => name)])
    if (names.size > MAX_CHECKERS) return yield* refuse(413, `a run has at most ${MAX_CHECKERS} checkers`)
    for (const [name, said] of checkers) window.said.set(name, said)
    return checkers.length
  })

  const byAddress = (report: Reported, address: string) =>
    Effect.suspend(() => {
      const name = `${report.namespace}/${report.probe}`
      const candidates = [...windows].filter(({ namespace, phase, probe }) =>
        phase !== "closed" && namespace === report.namespace && probe === report.probe
      )
      if (candidates.length === 0) {
        return Effect.fail(refuse(403, `no run of Probe ${name} is open; reports count during a run`))
      }
      return Effect.forEach(candidates, (window) => isFrom(window, address), { concurrency: "unbounded" }).pipe(
        Effect.flatMap((own) => {
          const window = candidates.find((_, index) => own[index])
          return window === undefined
            ? Effect.fail(refuse(
              403,
              `${address} is not the pod of a run of Probe ${name}; ` +
                "report from that pod, or with its KUBEPROBER_REPORT_TOKEN as Authorization: Bearer"
            ))
            : keep(window, report)
        })
      )
    })

  const byToken = Effect.fnUntraced(function*(report: Reported, token: string) {
    const digest = digestOf(token)
    const window = [...windows].find((window) => window.digest === digest && window.phase !== "closed")
    if (window === undefined) return yield* refuse(401, "the token is not that of an open run")
    if (window.namespace !== report.namespace || window.probe !== report.probe) {
      return yield* refuse(403, `the token is not for Probe ${report.namespace}/${report.probe}`)
    }
    return yield* keep(window, report)
  })

  const receive = Effect.fnUntraced(function*(request: IncomingMessage) {
    const token = tokenOf(request)
    const address = plainAddress(request.socket.remoteAddress ?? "")
    const report = yield* readBody(request).pipe(
      Effect.timeoutOrElse({
        duration: REQUEST_TIMEOUT,
        orElse: () => Effect.fail(refuse(408, "the body did not arrive in time"))
      }),
      Effect.flatMap(readReport),
      bodies.withPermits(1)
    )
    return yield* token === undefined ? byAddress(report, address) : byToken(report, token)
  }, holding)

  const answer = Effect.fnUntraced(function*(request: IncomingMessage, response: ServerResponse) {
    const path = (request.url ?? "").split("?")[0]
    const answered = yield* Effect.gen(function*() {
      if (path === "/healthz") return "ok"
      if (path !== REPORT_PATH) return yield* refuse(404, `there is no such path; reports go to ${REPORT_PATH}`)
      if (request.method !== "POST") return yield* refuse(405, "a report is a POST")
      return `accepted ${yield* receive(request)}`
    }).pipe(
      Effect.tapError((refused) =>
        Effect.logInfo("a report was refused").pipe(
          Effect.annotateLogs({ address: request.socket.remoteAddress, reason: refused.message })
        )
      ),
      Effect.result
    )
    if (response.destroyed) return
    const [status, text] = Result.isSuccess(answered)
      ? [200, answered.success] as const
      : [answered.failure.status, answered.failure.detail] as const
    const done = request.complete
    response.writeHead(status, { "content-type": "text/plain; charset=utf-8", ...(!done && { connection: "close" }) })
      .end(`${text}\n`)
  })

  server.on("request", (request, response) => void run(answer(request, response)))
  const bound = server.address()

  return ReportServer.of({
    port: typeof bound === "object" && bound !== null ? bound.port : options.port,
    open: Effect.fnUntraced(function*(openRun) {
      const window: Window = {
        ...openRun,
        digest: digestOf(Redacted.value(openRun.token)),
        addresses: new Set(),
        located: yield* Deferred.make<void>(),
        said: new Map(),
        waiting: 0,
        idle: yield* Deferred.make<void>(),
        phase: "open"
      }
      const close = Effect.gen(function*() {
        if (window.phase === "open") window.phase = "closing"
        yield* Deferred.succeed(window.located, undefined)
        yield* settle(window)
        yield* Effect.timeoutOption(Deferred.await(window.idle), CLOSED_WITHIN)
        window.phase = "closed"
        windows.delete(window)
        return new Map(window.said)
      })
      windows.add(window)
      yield* Effect.addFinalizer(() => Effect.asVoid(close))
      return {
        addresses: (addresses) =>
          Effect.suspend(() => {
            for (const address of addresses) window.addresses.add(plainAddress(address))
            return window.addresses.size === 0 ? Effect.void : Deferred.succeed(window.located, undefined)
          }),
        said: Effect.sync(() => new Map(window.said)),
        close
      }
    })
  })
})

/** The whole body as text. */
const readBody = (request: IncomingMessage): Effect.Effect<string, Refused> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    request.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > MAX_BODY) {
        chunks.length = 0
        request.pause()
        resume(Effect.fail(refuse(413, `a report has at most ${MAX_BODY} bytes`)))
      } else chunks.push(chunk)
    })
    request.on("end", () => resume(Effect.succeed(Buffer.concat(chunks).toString())))
    request.on("error", (cause) => resume(Effect.fail(refuse(400, `the body broke off: ${cause.message}`))))
    request.on("close", () => resume(Effect.fail(refuse(400, "the body broke off"))))
  })

const listen = (options: ReportServerOptions): Effect.Effect<Server, ReportServerError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server, ReportServerError>((resume) => {
      const timeout = Duration.toMillis(REQUEST_TIMEOUT)
      const server = createServer({
        headersTimeout: timeout,
        requestTimeout: timeout,
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: 5000,
        maxHeaderSize: 16 << 10
      })
      server.maxConnections = MAX_CONNECTIONS
      const failed = (cause: Error) =>
        resume(Effect.fail(
          new ReportServerError({ address: `${options.host}:${options.port}`, detail: cause.message })
        ))
      server.once("error", failed)
      server.listen(options.port, options.host, () => {
        server.off("error", failed)
        resume(Effect.succeed(server))
      })
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
