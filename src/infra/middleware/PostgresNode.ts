/** {@link Postgres} with pg, one connection a session. */
import { Effect, Redacted } from "effect"
import * as Net from "node:net"
import { Postgres } from "./Postgres.ts"
import type { ServiceError, ServiceServer } from "./Service.ts"
import { acceptance, failures, loaded, tlsOptions, withinTimeout } from "./ServiceNode.ts"

/** Five characters, the first a digit or a capital: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const SQLSTATE = /^[0-9A-Z]{5}$/u

/** What the server's errors have and Node's do not. */
const stateOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "severity" in cause && "code" in cause && typeof cause.code === "string" &&
    SQLSTATE.test(cause.code)
    ? cause.code
    : undefined

const connect = Effect.fn("Postgres.connect")(function*(server: ServiceServer & { readonly database: string }) {
  const failed = failures("PostgreSQL", server)
  const { default: driver } = yield* loaded(() => import("pg"), failed)
  const accepted = acceptance()
  // What ended the connection; what was asked on it then fails with less.
  let why: unknown
  const failure = (cause: unknown): ServiceError => {
    const state = stateOf(cause)
    const message = cause instanceof Error ? cause.message : String(cause)
    if (state !== undefined) return failed.make("rejected", state, message)
    if (/SSL/u.test(message) && !(cause instanceof Error && "code" in cause)) return failed.make("tls", "", message)
    return failed.ofNode(why ?? cause)
  }

  const { database, host, password, port, tls, username } = server
  const socket = new Net.Socket()
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const made = new driver.Client({
        host,
        port,
        database,
        stream: () => accepted.watch(socket),
        application_name: "kubeprober",
        // Only what is configured: not what happens to be in the environment or in ~/.pgpass.
        user: username ?? "kubeprober",
        password: password === undefined ? "" : Redacted.value(password),
        ssl: tls === undefined ? false : tlsOptions(server)
      })
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
  yield* Effect.tryPromise({ try: () => client.connect(), catch: failure }).pipe(
    withinTimeout(server, failed, "connect", () => accepted.given() ? "silent" : "unanswered")
  )
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
