/**
 * What a failed connection says, by the code that Node, libuv or OpenSSL gives its error: one table for whoever speaks over
 * sockets, each of whom puts it in words of its own.
 */

/**
 * `dns`: the name has no address, or nobody tells it. `unroutable`: no route leads there, or something on our side forbids
 * it. `unanswered`: nobody is at the address. `refused`: the port is closed. `reset`: the connection was cut. `expired`: a
 * certificate is out of date; `untrusted`: it is not to be trusted for another reason; `tls`: no session came about, whatever
 * the certificates. `protocol`: what came is not HTTP. `unknown`: none of these, such as EMFILE or EADDRNOTAVAIL; it says
 * nothing of the other side.
 */
export type SocketFault =
  | "dns"
  | "unroutable"
  | "unanswered"
  | "refused"
  | "reset"
  | "expired"
  | "untrusted"
  | "tls"
  | "protocol"
  | "unknown"

/** In the words of most who tell of it, for whom one silence and one distrust is like another; the rest is each one's own. */
export const IN_SHORT = {
  dns: "dns",
  unanswered: "timeout",
  refused: "refused",
  reset: "reset",
  expired: "tls",
  untrusted: "tls",
  tls: "tls",
  unknown: "unknown"
} as const

const FAULTS: ReadonlyArray<readonly [RegExp, SocketFault]> = [
  [/^(ENOTFOUND|EAI_\w+)$/u, "dns"],
  [/^(ENETUNREACH|ENETDOWN|EACCES|EPERM)$/u, "unroutable"],
  // A host that its own network does not find (no answer to ARP, so EHOSTUNREACH) is what one looks like that is off.
  [/^(ETIMEDOUT|EHOSTUNREACH|EHOSTDOWN|UND_ERR_CONNECT_TIMEOUT)$/u, "unanswered"],
  [/^ECONNREFUSED$/u, "refused"],
  // What is written to a socket that the other side has closed fails with Node's own codes.
  [
    /^(ECONNRESET|EPIPE|ECONNABORTED|ERR_STREAM_(DESTROYED|WRITE_AFTER_END)|ERR_SOCKET_CLOSED|UND_ERR_SOCKET)$/u,
    "reset"
  ],
  [/^CERT_HAS_EXPIRED$/u, "expired"],
  // OpenSSL's verification codes (X509_V_ERR_* as Node names them).
  [
    /^(CERT_\w+|UNABLE_TO_\w+|\w*SELF_SIGNED\w*|ERR_TLS_CERT_\w+|INVALID_(CA|PURPOSE)|HOSTNAME_MISMATCH)$/u,
    "untrusted"
  ],
  // Alerts of the other side have a slash: ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE.
  [/^(ERR_SSL_.+|ERR_TLS_\w+|ERR_OSSL_\w+|EPROTO)$/u, "tls"],
  [/^(HPE_\w+|ERR_HTTP_\w+)$/u, "protocol"]
]

export const socketFaultOf = (code: string): SocketFault =>
  FAULTS.find(([pattern]) => pattern.test(code))?.[1] ?? "unknown"

/** What the thrown has as its `code`; empty without one. */
export const codeOf = (thrown: unknown): string => {
  const code: unknown = typeof thrown === "object" && thrown !== null ? Reflect.get(thrown, "code") : undefined
  return typeof code === "string" ? code : ""
}

/** Which of the failures of several addresses says the most of the other side. */
const TELLING: ReadonlyArray<SocketFault> = ["refused", "reset", "unanswered"]

/** A connection that failed at several addresses fails with all of their errors (`AggregateError`): the one to go by. */
export const foremostOf = (thrown: unknown): unknown => {
  if (!(thrown instanceof AggregateError) || thrown.errors.length === 0) return thrown
  const errors: ReadonlyArray<unknown> = thrown.errors
  const telling = TELLING.map((fault) => errors.find((error) => socketFaultOf(codeOf(error)) === fault))
  return telling.find((error) => error !== undefined) ?? errors[0]
}
