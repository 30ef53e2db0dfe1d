/** How sockets of Node fail, in the words of {@link ServiceError}. */
import { Duration, Effect } from "effect"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import { codeOf, foremostOf, socketFaultOf } from "../net/socketFault.ts"
import { ServiceError, type ServiceErrorKind, type ServiceServer } from "./Service.ts"

/** The drivers' words for a connection that has ended: pg, ioredis, mysql2. */
const ENDED = new RegExp(
  "^Connection (terminated|is closed|lost)|is not queryable$|" +
    "^Command aborted due to connection close|^Stream isn't writeable|" +
    "^Can't (add new command when connection is in closed state|write in closed state)",
  "u"
)

const textOf = (cause: unknown): string => {
  if (typeof cause !== "object" || cause === null) return String(cause)
  const message: unknown = Reflect.get(cause, "message")
  return typeof message === "string" ? message : ""
}

const kindOf = (cause: unknown): ServiceErrorKind => {
  if (cause instanceof UnreadableAnswer) return "unreadable"
  const code = codeOf(cause)
  // mysql2's own, for a socket that ended.
  if (code === "PROTOCOL_CONNECTION_LOST" || (code === "" && ENDED.test(textOf(cause)))) return "reset"
  const fault = socketFaultOf(code)
  return fault === "protocol" ? "unknown" : fault
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
      return make(kindOf(foremost), codeOf(foremost), textOf(foremost) || textOf(cause))
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
        socket.destroy(new UnreadableAnswer(textOf(cause), { cause }))
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
  Effect.tryPromise({ try: load, catch: (cause) => make("driver", codeOf(cause), textOf(cause)) })
