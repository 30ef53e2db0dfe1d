/** {@link MySql} with mysql2, one connection a session. */
import { Effect, Redacted } from "effect"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { MySql } from "./MySql.ts"
import type { Row, ServiceError, ServiceServer } from "./Service.ts"
import { acceptance, failures, guarded, isStumble, loaded, withinTimeout } from "./ServiceNode.ts"

/** Numbers from here on are the client's own (`CR_*`): what it says, not the server. */
const CLIENT_ERRORS = 2000
const CLIENT_ERRORS_END = 3000

/** The server's answer, as mysql2 hands it on. */
const numberOf = (cause: unknown): number | undefined => {
  if (!(cause instanceof Error) || !("errno" in cause) || !("sqlState" in cause)) return undefined
  const { errno } = cause
  return typeof errno === "number" && errno > 0 && !(errno >= CLIENT_ERRORS && errno < CLIENT_ERRORS_END)
    ? errno
    : undefined
}

const codeOf = (cause: unknown): unknown => cause instanceof Error && "code" in cause ? cause.code : undefined

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Why Node did not accept the certificate: mysql2 gives all failures of TLS one code of its own, over Node's. */
const refusalOf = (connection: object): string | undefined => {
  const stream: unknown = Reflect.get(connection, "stream")
  // Typed as an Error, and Node's code of it (`onConnectSecure`).
  const refusal: unknown = stream instanceof Tls.TLSSocket ? stream.authorizationError : undefined
  return typeof refusal === "string" ? refusal : undefined
}

/** Node's words for what OpenSSL refused, or was told by an alert. */
const OPENSSL = /SSL routines:|\balert\b|\bEPROTO\b/u

const isRow = (value: unknown): value is Row => typeof value === "object" && value !== null && !Array.isArray(value)

const connect = Effect.fn("MySql.connect")(function*(server: ServiceServer) {
  const failed = failures("MySQL", server)
  const { default: driver } = yield* loaded(() => import("mysql2"), failed)
  const progress = acceptance(server)
  // What ended the connection between statements; the next one then says only that it has ended.
  let why: unknown
  const failure = (cause: unknown): ServiceError => {
    const number = numberOf(cause)
    if (number !== undefined) {
      return failed.make("rejected", String(number), messageOf(cause))
    }
    const message = messageOf(cause)
    if (isStumble(cause)) return failed.make("unreadable", "", message)
    switch (codeOf(cause)) {
      case "HANDSHAKE_NO_SSL_SUPPORT":
        return failed.make("tls", "", "the server offers no TLS")
      case "HANDSHAKE_SSL_ERROR": {
        const refusal = refusalOf(connection)
        if (refusal !== undefined) return failed.ofNode(Object.assign(new Error(message), { code: refusal }))
        return failed.make(OPENSSL.test(message) ? "tls" : "reset", "", message)
      }
      // A plugin that mysql2 has not, or one that cannot do what the server wants of it; a password in plain text.
      case "AUTH_SWITCH_PLUGIN_ERROR":
      case "MYSQL_CLEAR_PASSWORD_NOT_ENABLED":
        return failed.make("login", "", message)
      case "HANDSHAKE_UNKNOWN_ERROR":
      case "PROTOCOL_UNEXPECTED_PACKET":
      case "PROTOCOL_ERROR":
        return failed.make("unreadable", "", message)
      default: {
        const ended = failed.ofNode(cause)
        if (ended.kind !== "reset" || why === undefined || why === cause) return ended
        const told = failure(why)
        return told.kind === "unknown" ? ended : told
      }
    }
  }

  const { host, password, port, tls, username } = server
  const name = tls?.serverName ?? host
  const connection = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const socket = guarded(progress.watch(Net.connect({ host, port }).setNoDelay(true)))
      const made = driver.createConnection({
        // The connection is the stream's; this is the name that the certificate is verified for.
        host: name,
        port,
        stream: () => socket,
        // The deadline is ours.
        connectTimeout: 0,
        supportBigNumbers: true,
        bigNumberStrings: false,
        ...(username === undefined ? {} : { user: username }),
        ...(password === undefined ? {} : { password: Redacted.value(password) }),
        ...(tls === undefined ? {} : {
          ssl: {
            rejectUnauthorized: true,
            // mysql2 cannot verify an address: then whoever has a certificate of the authority is the server.
            verifyIdentity: Net.isIP(name) === 0,
            ...(tls.ca === undefined ? {} : { ca: tls.ca })
          }
        })
      })
      const startTls: unknown = Reflect.get(made, "startTLS")
      if (typeof startTls !== "function") throw new TypeError("mysql2's connection has no startTLS")
      Object.assign(made, {
        startTLS: (done: unknown) => {
          Reflect.apply(startTls, made, [done])
          const stream: unknown = Reflect.get(made, "stream")
          if (stream instanceof Tls.TLSSocket) guarded(stream)
        }
      })
      // Of a connection lost between statements the next one tells; nobody listening would end the process.
      return made.on("error", (error) => {
        why ??= error
      })
    }),
    (made) => Effect.sync(() => made.destroy())
  )

  const callback = <A>(ask: (done: (error: unknown, value: A) => void) => void) =>
    Effect.callback<A, ServiceError>((resume) =>
      ask((error, value) =>
        resume(error === null || error === undefined ? Effect.succeed(value) : Effect.fail(failure(error)))
      )
    )

  yield* callback<void>((done) => connection.connect((error) => done(error))).pipe(
    withinTimeout(server, failed, "connect", progress.kind)
  )
  return {
    query: (statement: string, parameters: ReadonlyArray<string | number> = []) =>
      callback<unknown>((done) => connection.query(statement, [...parameters], (error, rows) => done(error, rows)))
        .pipe(
          withinTimeout(server, failed, statement.split(" ", 2).join(" ")),
          Effect.map((rows) => Array.isArray(rows) ? rows.filter(isRow) : [])
        )
  }
})

/** Stateless: each session ends with its scope. */
export const service = MySql.of({ connect })
