/** What services that probes ask over the network have in common: how they are reached, and how that fails. */
import { Data, type Duration, type Effect, type Redacted } from "effect"

/** How one server is reached, and as whom. */
export interface ServiceServer {
  /** Name or IP address, without brackets. */
  readonly host: string
  readonly port: number
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted<string> | undefined
  /** Without it, nothing is encrypted. */
  readonly tls?: ServiceTls | undefined
  /** For connecting and logging in, and then for each answer. */
  readonly timeout: Duration.Duration
}

export interface ServiceTls {
  /** PEM; Node's own roots when absent. */
  readonly ca?: string | undefined
  /** The name to ask for and verify, when it is not `host`. */
  readonly serverName?: string | undefined
}

/**
 * Why there is no answer.
 *
 * - `driver`: the client library could not be loaded
 * - `dns`, `unroutable`: the name does not resolve (or nobody says whether it does), there is no way to the host's network
 * - `unanswered`: nobody accepts or refuses the connection, also because the host is not found on its own network
 * - `refused`, `reset`, `silent`: the host refuses the connection, the server ends it, or says nothing in time
 * - `expired`, `untrusted`, `tls`: the certificate has run out, is not trusted, or the two do not agree on TLS
 * - `login`: the server asks for a way of logging in that the client has not, or for a password where none is configured
 * - `rejected`: the server answered with an error
 * - `unreadable`: what came is not the service's protocol
 * - `unknown`: none of these, such as a lack of our own (file descriptors, ports); nothing is known of the server
 */
export type ServiceErrorKind =
  | "driver"
  | "dns"
  | "unroutable"
  | "unanswered"
  | "refused"
  | "reset"
  | "silent"
  | "expired"
  | "untrusted"
  | "tls"
  | "login"
  | "rejected"
  | "unreadable"
  | "unknown"

/** No answer, or an error as the answer. */
export class ServiceError extends Data.TaggedError("ServiceError")<{
  /** As in `Redis`. */
  readonly service: string
  readonly host: string
  readonly port: number
  readonly kind: ServiceErrorKind
  /**
   * For `rejected` the server's own: the first word of an error of Redis, the number of one of MySQL, the SQLSTATE of one
   * of PostgreSQL. Else Node's, or empty.
   */
  readonly code: string
  /** The words of the server or of Node, without secrets. */
  readonly detail: string
}> {
  override get message(): string {
    return `${this.service} at ${this.host}:${this.port}: ${this.kind}${
      this.code === "" ? "" : ` (${this.code})`
    }, ${this.detail}`
  }
}

/** A row as the driver gives it; decode it. */
export type Row = Readonly<Record<string, unknown>>

/** One session of a database. */
export interface SqlConnection {
  /** One statement, with its parameters; no rows for those that have none. */
  readonly query: (
    statement: string,
    parameters?: ReadonlyArray<string | number>
  ) => Effect.Effect<ReadonlyArray<Row>, ServiceError>
}
