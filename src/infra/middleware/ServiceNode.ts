/** How sockets of Node fail, in the words of {@link ServiceError}. */
import { Duration, Effect } from "effect"
import * as Net from "node:net"
import { ServiceError, type ServiceErrorKind, type ServiceServer } from "./Service.ts"

const KINDS: ReadonlyArray<readonly [RegExp, ServiceErrorKind]> = [
  [/^(ENOTFOUND|EAI_\w+)$/u, "dns"],
  [/^(EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|EADDRNOTAVAIL|EACCES|EPERM)$/u, "unroutable"],
  [/^ETIMEDOUT$/u, "unanswered"],
  [/^ECONNREFUSED$/u, "refused"],
  [/^(ECONNRESET|EPIPE|ECONNABORTED)$/u, "reset"],
  [/^CERT_HAS_EXPIRED$/u, "expired"],
  [
    /^(CERT_\w+|UNABLE_TO_\w+|\w*SELF_SIGNED\w*|ERR_TLS_CERT_ALTNAME_INVALID|INVALID_\w+|HOSTNAME_MISMATCH)$/u,
    "untrusted"
  ],
  [/^(ERR_SSL_\w+|ERR_TLS_\w+|EPROTO|ERR_OSSL\w*)$/u, "tls"]
]

const textOf = (cause: unknown, property: "code" | "message"): string => {
  if (typeof cause !== "object" || cause === null) return property === "message" ? String(cause) : ""
  const value: unknown = Reflect.get(cause, property)
  return typeof value === "string" ? value : ""
}

/** A connection that several addresses refused fails with all of their errors (`AggregateError`). */
const firstOf = (cause: unknown): unknown =>
  cause instanceof AggregateError && cause.errors.length > 0 ? cause.errors[0] : cause

export interface Failures {
  readonly make: (kind: ServiceErrorKind, code: string, detail: string) => ServiceError
  /** What Node or a driver failed with; an error it has no code for is the end of the connection. */
  readonly ofNode: (cause: unknown) => ServiceError
}

export const failures = (service: string, { host, port }: ServiceServer): Failures => {
  const make: Failures["make"] = (kind, code, detail) => new ServiceError({ service, host, port, kind, code, detail })
  return {
    make,
    ofNode: (cause) => {
      const first = firstOf(cause)
      const code = textOf(first, "code")
      const kind = KINDS.find(([pattern]) => pattern.test(code))?.[1] ?? "reset"
      return make(kind, code, textOf(first, "message") || textOf(cause, "message"))
    }
  }
}

/** Whether somebody at the other end has taken the connection: who has, and then says nothing, is to blame for it. */
export const acceptance = (): {
  readonly watch: <S extends Net.Socket>(socket: S) => S
  readonly given: () => boolean
} => {
  let accepted = false
  return {
    watch: (socket) => {
      socket.once("connect", () => {
        accepted = true
      })
      return socket
    },
    given: () => accepted
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
