/** How sockets of Node fail, in the words of {@link ServiceError}. */
import { Duration, Effect } from "effect"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import { ServiceError, type ServiceErrorKind, type ServiceServer } from "./Service.ts"

/**
 * By Node's codes. A host that its own network does not find (no answer to ARP, so EHOSTUNREACH) is what one looks like that
 * is switched off. Codes that are not here, such as EMFILE or EADDRNOTAVAIL, say nothing of the server.
 */
const KINDS: ReadonlyArray<readonly [RegExp, ServiceErrorKind]> = [
  [/^(ENOTFOUND|EAI_\w+)$/u, "dns"],
  [/^(ENETUNREACH|ENETDOWN|EACCES|EPERM)$/u, "unroutable"],
  [/^(ETIMEDOUT|EHOSTUNREACH|EHOSTDOWN)$/u, "unanswered"],
  [/^ECONNREFUSED$/u, "refused"],
  // What is written to a socket that the other side has closed fails with Node's own codes.
  [
    /^(ECONNRESET|EPIPE|ECONNABORTED|PROTOCOL_CONNECTION_LOST|ERR_STREAM_(DESTROYED|WRITE_AFTER_END)|ERR_SOCKET_CLOSED)$/u,
    "reset"
  ],
  [/^CERT_HAS_EXPIRED$/u, "expired"],
  [
    /^(CERT_\w+|UNABLE_TO_\w+|\w*SELF_SIGNED\w*|ERR_TLS_CERT_ALTNAME_INVALID|INVALID_\w+|HOSTNAME_MISMATCH)$/u,
    "untrusted"
  ],
  // Alerts have a slash: ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE.
  [/^(ERR_SSL_.+|ERR_TLS_\w+|EPROTO|ERR_OSSL.*)$/u, "tls"]
]

/** The drivers' words for a connection that has ended: pg, ioredis, mysql2. */
const ENDED = new RegExp(
  "^Connection (terminated|is closed|lost)|is not queryable$|" +
    "^Command aborted due to connection close|^Stream isn't writeable|" +
    "^Can't (add new command when connection is in closed state|write in closed state)",
  "u"
)

const textOf = (cause: unknown, property: "code" | "message"): string => {
  if (typeof cause !== "object" || cause === null) return property === "message" ? String(cause) : ""
  const value: unknown = Reflect.get(cause, property)
  return typeof value === "string" ? value : ""
}

const kindOf = (cause: unknown): ServiceErrorKind =>
  cause instanceof UnreadableAnswer
    ? "unreadable"
    : KINDS.find(([pattern]) => pattern.test(textOf(cause, "code")))?.[1] ??
      (textOf(cause, "code") === "" && ENDED.test(textOf(cause, "message")) ? "reset" : "unknown")

/** Which of the failures of several addresses says the most of the server. */
const TELLING: ReadonlyArray<ServiceErrorKind> = ["refused", "reset", "unanswered"]

/** A connection that failed at several addresses fails with all of their errors (`AggregateError`). */
const foremostOf = (cause: unknown): unknown => {
  if (!(cause instanceof AggregateError) || cause.errors.length === 0) return cause
  const errors: ReadonlyArray<unknown> = cause.errors
  const telling = TELLING.map((kind) => errors.find((error) => kindOf(error) === kind))
  return telling.find((error) => error !== undefined) ?? errors[0]
}

export interface Failures {
  readonly make: (kind: ServiceErrorKind, code: string, detail: string) => ServiceError
  /** What Node or a driver failed with. */
  readonly ofNode: (cause: unknown) => ServiceError
}

export const failures = (service: string, { host, port }: ServiceServer): Failures => {
  const make: Failures["make"] = (kind, code, detail) => new ServiceError({ service, host, port, kind, code, detail })
  return {
    make,
    ofNode: (cause) => {
      const foremost = foremostOf(cause)
      return make(kindOf(foremost), textOf(foremost, "code"), textOf(foremost, "message") || textOf(cause, "message"))
    }
  }
}

/** What a server sent that is not its protocol, with the words of who read it. */
export class UnreadableAnswer extends Error {}

/** Whether a driver stumbled over what it read: it says so with what JavaScript throws, not with an error of its own. */
export const isStumble = (cause: unknown): boolean =>
  cause instanceof UnreadableAnswer || cause instanceof TypeError || cause instanceof RangeError

/** Bytes that a server may send in one session. What probes ask for is a few kilobytes, and 200 nodes of Redis below one MiB. */
const MAXIMUM_ANSWERS = 8 * 1024 * 1024

/** What has come so far as pieces that a driver can read; throws when it cannot. */
export type Sieve = (chunk: Buffer) => ReadonlyArray<Buffer>

/**
 * Drivers read in a socket's listeners, where what they throw would end the process, and gather what is not whole yet
 * without limit. Here either ends the connection instead, as an error of its socket. Call before data can come.
 */
export const guarded = <S extends Duplex>(socket: S, sieve: Sieve = (chunk) => [chunk]): S => {
  const emit = socket.emit.bind(socket)
  let bytes = 0
  return Object.assign(socket, {
    emit: (event: string | symbol, ...rest: ReadonlyArray<unknown>): boolean => {
      if (event !== "data") return Reflect.apply(emit, socket, [event, ...rest])
      // What ended the connection came before this.
      if (socket.destroyed) return false
      const [chunk] = rest
      if (!Buffer.isBuffer(chunk)) return Reflect.apply(emit, socket, [event, ...rest])
      bytes += chunk.length
      try {
        if (bytes > MAXIMUM_ANSWERS) throw new Error(`more than ${MAXIMUM_ANSWERS} bytes came`)
        for (const piece of sieve(chunk)) if (!socket.destroyed) Reflect.apply(emit, socket, [event, piece])
        return true
      } catch (cause) {
        socket.destroy(new UnreadableAnswer(textOf(cause, "message"), { cause }))
        return true
      }
    }
  })
}

/** How far connecting came, which says who is to blame when it goes no further. */
export const acceptance = ({ host }: ServiceServer): {
  readonly watch: <S extends Net.Socket>(socket: S) => S
  /** Of a connection that is not there in time. */
  readonly kind: () => ServiceErrorKind
} => {
  let accepted = false
  let resolved = Net.isIP(host) !== 0
  return {
    watch: (socket) => {
      socket.once("lookup", () => {
        resolved = true
      }).once("connect", () => {
        accepted = true
      })
      return socket
    },
    kind: () => accepted ? "silent" : resolved ? "unanswered" : "dns"
  }
}

/** Fails when it takes longer than the server's timeout. */
export const withinTimeout = (
  { timeout }: ServiceServer,
  { make }: Failures,
  what: string,
  kind: () => ServiceErrorKind = () => "silent"
) =>
<A, R>(effect: Effect.Effect<A, ServiceError, R>): Effect.Effect<A, ServiceError, R> =>
  Effect.timeoutOrElse(effect, {
    duration: timeout,
    orElse: () => Effect.fail(make(kind(), "", `${what}: nothing within ${Duration.format(timeout)}`))
  })

/** Options of `tls.connect` for a server; a name is asked for only where it is one (RFC 6066, 3). */
export const tlsOptions = ({ host, tls }: ServiceServer) => {
  const name = tls?.serverName ?? host
  return {
    rejectUnauthorized: true,
    ...(tls?.ca === undefined ? {} : { ca: tls.ca }),
    ...(Net.isIP(name) === 0 ? { servername: name } : {})
  }
}

/** The drivers are loaded when the first probe asks for one. */
export const loaded = <A>(load: () => Promise<A>, { make }: Failures): Effect.Effect<A, ServiceError> =>
  Effect.tryPromise({ try: load, catch: (cause) => make("driver", textOf(cause, "code"), textOf(cause, "message")) })
