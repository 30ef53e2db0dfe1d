/** {@link Postgres} with pg, one connection a session. */
import { Effect, Redacted } from "effect"
import * as Net from "node:net"
import { Postgres } from "./Postgres.ts"
import { messages } from "./postgresMessages.ts"
import type { ServiceError, ServiceServer } from "./Service.ts"
import { acceptance, failures, guarded, isStumble, loaded, tlsOptions, withinTimeout } from "./ServiceNode.ts"

/** Five characters, the first a digit or a capital: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const SQLSTATE = /^[0-9A-Z]{5}$/u

/** What the server's errors have and Node's do not. */
const stateOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "severity" in cause && "code" in cause && typeof cause.code === "string" &&
    SQLSTATE.test(cause.code)
    ? cause.code
    : undefined

/** What pg says of a login that it cannot do: a mechanism or a password that it does not have; GSSAPI and SSPI (7, 8, 9). */
const LOGIN = /^SASL:|^Unknown authenticationOk message type/u

/** What pg says of messages that nobody sends, or not then. */
const UNREADABLE = /^received invalid response: |^Received unexpected \w+ message/u

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const connect = Effect.fn("Postgres.connect")(function*(server: ServiceServer & { readonly database: string }) {
  const failed = failures("PostgreSQL", server)
  const { default: driver } = yield* loaded(() => import("pg"), failed)
  const progress = acceptance(server)
  // What ended the connection; what was asked on it then fails with less.
  let why: unknown
  const failure = (cause: unknown): ServiceError => {
    const state = stateOf(cause)
    if (state !== undefined) return failed.make("rejected", state, messageOf(cause))
    const first = why ?? cause
    const message = messageOf(first)
    if (LOGIN.test(message)) {
      return failed.make("login", "", `the server asks for a login that the probe has not (${message})`)
    }
    if (isStumble(first) || UNREADABLE.test(message)) return failed.make("unreadable", "", message)
    if (/SSL/u.test(message) && !(first instanceof Error && "code" in first)) return failed.make("tls", "", message)
    return failed.ofNode(first)
  }

  const { database, host, password, port, tls, username } = server
  const user = username ?? "kubeprober"
  const socket = new Net.Socket()
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const made = new driver.Client({
        host,
        port,
        database,
        // With TLS, PostgreSQL's messages begin inside of it.
        stream: () => progress.watch(guarded(socket, tls === undefined ? messages() : undefined)),
        user,
        // An empty one as such would be none to pg, which then looks into the environment and ~/.pgpass.
        password: () => password === undefined ? "" : Redacted.value(password),
        ssl: tls === undefined ? false : tlsOptions(server),
        // Else the environment would say (PGSSLNEGOTIATION).
        sslnegotiation: "postgres"
      })
      // All that is told before the login, where pg also sends what the environment has (PGOPTIONS).
      Object.assign(made, { getStartupConf: () => ({ user, database, application_name: "kubeprober" }) })
      const connection: unknown = Reflect.get(made, "connection")
      if (!(connection instanceof driver.Connection)) throw new TypeError("pg's client has no connection")
      // From here on its stream is that of TLS.
      connection.on("sslconnect", () => guarded(connection.stream, messages()))
      return made.on("error", (error) => {
        why ??= error
      })
    }),
    // A server that hangs answers no goodbye either.
    (made) =>
      Effect.promise(() => made.end()).pipe(
        Effect.timeoutOption("500 millis"),
        Effect.andThen(Effect.sync(() => socket.destroy()))
      )
  )
  yield* Effect.callback<void, ServiceError>((resume) => {
    const fail = (error: unknown) => resume(Effect.fail(failure(error)))
    // Some failures of a login are told by this event alone.
    client.once("error", fail)
    client.connect((error: unknown) => error === null || error === undefined ? resume(Effect.void) : fail(error))
  }).pipe(withinTimeout(server, failed, "connect", progress.kind))
  return {
    query: (statement: string, parameters: ReadonlyArray<string | number> = []) =>
      Effect.tryPromise({ try: () => client.query(statement, [...parameters]), catch: failure }).pipe(
        withinTimeout(server, failed, statement.split(" ", 2).join(" ")),
        Effect.map(({ rows }) => rows)
      )
  }
})

/** Stateless: each session ends with its scope. */
export const service = Postgres.of({ connect })
