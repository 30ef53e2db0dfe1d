/**
 * What the probes of middleware share: how servers are named, how they are reached, and who is to blame when they are not.
 *
 * Blame, as in the probes of applications: what the server or its host did is the target's (it refused or cut the connection,
 * did not take it or did not answer in time, showed a certificate that has run out, answered with an error). What kept us
 * from asking is ours (the name does not resolve, no route to the host's network, a certificate that we have no authority
 * for, a password that is wrong or lacks a right, a way of logging in that we have not), and so is whatever is not known to
 * be one of these.
 */
import { Duration, Effect, Redacted, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Credentials } from "../../infra/credentials/Credentials.ts"
import type { ServiceError, ServiceServer } from "../../infra/middleware/Service.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import { CredentialRef } from "../CredentialRef.ts"
import * as Hysteresis from "../Hysteresis.ts"
import { optional, setting } from "../Setting.ts"

/** Codes of every probe of middleware; spread into its own. */
export const sharedCodes = {
  CONNECTION_FAILED: Codes.error(
    "The server's host refused the connection, or the server cut it. The address was reached, so this is the target's " +
      "fault, as it is for every client.",
    "Look whether the server runs and at its log; behind a Service, whether it has ready endpoints."
  ),
  NO_ANSWER: Codes.error(
    "The server did not take the connection in time, or took it and then did not answer. A firewall that drops looks the " +
      "same as a host that is gone.",
    "Look at the server's load, disk and log; a process that is stopped or waits for its disk looks like this. Where the " +
      "message says unanswered, look at the host, and at firewalls and network policies before it."
  ),
  CERT_EXPIRED: Codes.error(
    "The server's TLS certificate has expired: who verifies it refuses the connection.",
    "Renew the certificate and have the server load it."
  ),
  CONNECTIONS_HIGH: Codes.warn(
    "85 % or more of the connections the server takes are in use.",
    "Look for clients that do not give connections back; pool them, or raise the server's limit."
  ),
  CONNECTIONS_EXHAUSTED: Codes.error(
    "95 % or more of the connections the server takes are in use, or it refused one for that reason.",
    "Look for clients that do not give connections back; pool them, or raise the server's limit."
  ),
  SLOW: Codes.warn(
    "A round trip worked, and took longer than the limit.",
    "Look at the server's load, its disk, and its log of slow commands."
  ),
  TARGET_UNREACHABLE: Codes.unknown(
    "The server could not be asked: its name does not resolve here, or no route leads to its host's network.",
    "Check the address in the configuration; then name resolution, and routes and firewalls from the prober to it."
  ),
  TLS_UNTRUSTED: Codes.unknown(
    "The server's TLS certificate cannot be verified with the authority the probe has, or the two do not agree on TLS: one " +
      "of them speaks or asks for it alone, or the server refuses the probe's.",
    "Name the authority with `ca` and the certificate's name with `serverName`, or set `tls` as the server does."
  ),
  LOGIN_REFUSED: Codes.unknown(
    "The server does not accept the probe's user name or password, has locked the account, or asks for a way of logging in " +
      "that the probe has not.",
    "Correct the Secret, or make or unlock the user, with a password; the message says which one. A server that takes the " +
      "user over TLS alone may say no more than this: then set `tls`."
  )
} as const

/** A server: `host:port`, an IPv6 address in brackets. */
export const Address = Schema.String.check(
  Schema.isPattern(/^(\[[0-9a-fA-F:.]+\]|[^:\s[\]]+):\d{1,5}$/u, { message: "a server is written host:port" })
)

/** Servers of one check. */
export const Addresses = Schema.Array(Address).check(Schema.isMaxLength(50))

/** Settings of every probe of middleware. */
export const sharedSettings = {
  password: optional(CredentialRef, {
    description: "The user's password, such as {credential: \"shop-db\", key: \"password\"}; none when absent."
  }),
  tls: setting(Schema.Boolean, { default: false, description: "Whether the servers are asked over TLS." }),
  ca: optional(CredentialRef, {
    description: "The authority (PEM) of the servers' certificates; the public ones when absent."
  }),
  serverName: setting(Schema.String, {
    default: "",
    description: "The name to ask for and to verify over TLS; that of the address when empty."
  }),
  slow: setting(DurationString, { default: "1s", description: "A round trip that takes longer is slow." }),
  stepTimeout: setting(DurationString, {
    default: "5s",
    description: "How long connecting, and then each answer, may take before it counts as failed."
  })
}

interface Shared {
  readonly tls: boolean
  readonly ca?: CredentialRef | undefined
  readonly serverName: string
  readonly stepTimeout: Duration.Duration
}

interface User {
  readonly username: string
  readonly password?: CredentialRef | undefined
}

/** `10.0.0.1:6379` as host and port. */
export const parseAddress = (address: string): { readonly host: string; readonly port: number } => {
  const at = address.lastIndexOf(":")
  return { host: address.slice(0, at).replace(/^\[(.*)\]$/u, "$1"), port: Number(address.slice(at + 1)) }
}

/** The reverse. */
export const addressOf = (host: string, port: number | string): string =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`

/** How to reach servers with this configuration. Reads the credentials; do so once a run. */
export const accessOf = Effect.fnUntraced(function*(shared: Shared, { password, username }: User) {
  const credentials = yield* Credentials
  const ca = shared.tls && shared.ca !== undefined ? yield* credentials.read(shared.ca) : undefined
  const secret = password === undefined ? undefined : yield* credentials.read(password)
  return (address: string): ServiceServer => ({
    ...parseAddress(address),
    username: username === "" ? undefined : username,
    password: secret,
    tls: shared.tls
      ? {
        // A certificate is no secret.
        ca: ca === undefined ? undefined : Redacted.value(ca),
        serverName: shared.serverName === "" ? undefined : shared.serverName
      }
      : undefined,
    timeout: shared.stepTimeout
  })
})

/** What a failure that is no answer of the server says of it; see the top of this file. */
export const judgeFailure = (
  codes: Codes.Codes<keyof typeof sharedCodes>,
  error: ServiceError,
  subject: Subject
): Finding => {
  const occurrence = { message: error.message, subject, evidence: { cause: error.kind, code: error.code } }
  switch (error.kind) {
    case "refused":
    case "reset":
      return codes.CONNECTION_FAILED(occurrence)
    case "silent":
    case "unanswered":
      return codes.NO_ANSWER(occurrence)
    case "expired":
      return codes.CERT_EXPIRED(occurrence)
    case "dns":
    case "unroutable":
      return codes.TARGET_UNREACHABLE(occurrence)
    case "login":
      return codes.LOGIN_REFUSED(occurrence)
    case "unreadable":
      return checkerCodes.UNEXPECTED_ANSWER(occurrence)
    case "untrusted":
    case "tls":
      return codes.TLS_UNTRUSTED(occurrence)
    case "driver":
    case "rejected":
    case "unknown":
      return checkerCodes.CHECKER_FAILED(occurrence)
  }
}

/** Shares of the connections a server takes (docs of the catalogue, section middleware). */
const CONNECTIONS_WARN = 0.85
const CONNECTIONS_ERROR = 0.95

/** Whether a server is about to run out of connections. */
export const judgeConnections = (
  codes: Codes.Codes<keyof typeof sharedCodes>,
  subject: Subject,
  used: number,
  limit: number,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const share = limit > 0 ? used / limit : 0
  const [code, most] = ([
    [codes.CONNECTIONS_EXHAUSTED, CONNECTIONS_ERROR],
    [codes.CONNECTIONS_HIGH, CONNECTIONS_WARN]
  ] as const).find(([code, most]) => limits.reaches(share, most, { code, subject })) ?? []
  return code === undefined || most === undefined ? [] : [code({
    message: `${subject.name}: ${used} of ${limit} connections are in use (${
      Hysteresis.text(`${most * 100} %`, share >= most)
    })`,
    subject,
    evidence: { used, limit }
  })]
}

/** Whether a round trip was slow. */
export const judgeTime = (
  codes: Codes.Codes<keyof typeof sharedCodes>,
  subject: Subject,
  took: Duration.Duration,
  limit: Duration.Duration,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> =>
  limits.takesLonger(took, limit, { code: codes.SLOW, subject })
    ? [codes.SLOW({
      message: `${subject.name}: writing and reading back took ${millis(took)} ms (${
        Hysteresis.text(Duration.format(limit), Duration.isGreaterThan(took, limit))
      })`,
      subject,
      evidence: { tookMillis: millis(took), limitMillis: Duration.toMillis(limit) }
    })]
    : []

/** Whole milliseconds. */
export const millis = (duration: Duration.Duration): number => Math.round(Duration.toMillis(duration))

/** What one look at servers found. */
export interface Look {
  readonly summary: string
  readonly findings: ReadonlyArray<Finding>
}
