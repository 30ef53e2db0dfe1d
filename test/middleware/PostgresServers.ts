/** PostgreSQL servers for tests. */
import { NodeServices } from "@effect/platform-node"
import { type Duration, Effect, FileSystem, type Scope } from "effect"
import { makeAuthority } from "../../src/local/Certificates.ts"
import * as Ports from "../../src/local/Ports.ts"
import { mint } from "../clusters/Mint.ts"
import { eventually } from "../kube/eventually.ts"
import * as ServerProcess from "./ServerProcess.ts"

const USER = "postgres"
const HOST = "127.0.0.1"

/** Of the probe's user. */
export const PASSWORD = "s3cret"

export interface PostgresServer {
  readonly port: number
  readonly address: string
  readonly data: string
  /** As the administrator; answers rows without headings. */
  readonly sql: (statement: string, database?: string) => Effect.Effect<string>
  readonly kill: Effect.Effect<void>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Starts it after it was ended. */
  readonly restart: Effect.Effect<void, never, Scope.Scope>
}

/** Debian keeps the programs of each version out of PATH. */
const programs = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const versions = yield* fs.readDirectory("/usr/lib/postgresql")
  const newest = versions.toSorted((a, b) => Number(b) - Number(a))[0]
  return `/usr/lib/postgresql/${newest}/bin`
}).pipe(Effect.orDie, Effect.provide(NodeServices.layer))

const open = Effect.fnUntraced(function*(data: string, options: ReadonlyArray<string>) {
  const bin = yield* programs
  const { port } = yield* Effect.orDie(Ports.free(HOST, ["port"]))
  const folder = yield* ServerProcess.folder(USER)
  const sql = (statement: string, database = "postgres") =>
    Effect.map(
      ServerProcess.command(
        USER,
        `${bin}/psql`,
        "-h",
        folder,
        "-p",
        String(port),
        "-U",
        "postgres",
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        statement,
        database
      ),
      (text) => text.trim()
    )
  const run = Effect.gen(function*() {
    const process = yield* ServerProcess.start(
      USER,
      `${bin}/postgres`,
      "-D",
      data,
      "-p",
      String(port),
      "-c",
      `listen_addresses=${HOST}`,
      "-c",
      `unix_socket_directories=${folder}`,
      "-c",
      "fsync=off",
      "-c",
      "shared_buffers=16MB",
      ...options.flatMap((option) => ["-c", option])
    )
    yield* Effect.orDie(eventually(
      `PostgreSQL on ${port}`,
      Effect.map(Effect.catchCause(sql("SELECT 1"), () => Effect.succeed("")), (answer) => answer === "1"),
      60
    ))
    return process
  })
  let process = yield* run
  const server: PostgresServer = {
    port,
    address: `${HOST}:${port}`,
    data,
    sql,
    // SIGINT ends it without waiting for its clients.
    kill: Effect.suspend(() => process.kill("SIGINT")),
    signal: (signal) => Effect.suspend(() => process.signal(signal)),
    restart: Effect.map(run, (again) => {
      process = again
    })
  }
  return server
})

/** A server with the probe's database and user. */
export const start = Effect.fnUntraced(function*(
  options: ReadonlyArray<string> = []
): Effect.fn.Return<PostgresServer, never, Scope.Scope> {
  const bin = yield* programs
  const folder = yield* ServerProcess.folder(USER)
  const data = `${folder}/data`
  yield* ServerProcess.command(USER, `${bin}/initdb`, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
  yield* ServerProcess.file(
    USER,
    `${data}/pg_hba.conf`,
    [
      "local all all trust",
      `host replication repl ${HOST}/32 trust`,
      `host all gssuser ${HOST}/32 gss`,
      `host all all ${HOST}/32 scram-sha-256`,
      ""
    ].join("\n")
  )
  const server = yield* open(data, options)
  yield* server.sql(`CREATE ROLE kubeprober LOGIN PASSWORD '${PASSWORD}'`)
  yield* server.sql("CREATE ROLE repl REPLICATION LOGIN")
  yield* server.sql("CREATE DATABASE kubeprober OWNER kubeprober")
  return server
})

/** A standby that streams. */
export const standby = Effect.fnUntraced(function*(
  primary: PostgresServer,
  options: ReadonlyArray<string> = []
): Effect.fn.Return<PostgresServer, never, Scope.Scope> {
  const bin = yield* programs
  const folder = yield* ServerProcess.folder(USER)
  const data = `${folder}/data`
  yield* ServerProcess.command(
    USER,
    `${bin}/pg_basebackup`,
    "-h",
    HOST,
    "-p",
    String(primary.port),
    "-U",
    "repl",
    "-D",
    data,
    "-R",
    "--checkpoint=fast",
    "--no-sync"
  )
  const server = yield* open(data, options)
  yield* Effect.orDie(eventually(
    "streaming",
    Effect.map(
      server.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"),
      (count) => count === "1"
    )
  ))
  return server
})

/**
 * Ages transaction ids: the next one is far ahead, as after as many transactions. The server must be ended, and is after
 * it; vacuum must be told to leave them (`autovacuum_freeze_max_age`).
 */
export const age = Effect.fnUntraced(function*(server: PostgresServer, transactions: number) {
  const bin = yield* programs
  yield* ServerProcess.command(USER, `${bin}/pg_resetwal`, "-x", String(transactions), server.data)
  // The status of the new ids is in a file of zeros that the server would have made on its way (32 pages a file).
  const perPage = 8192 * 4
  const name = Math.floor(transactions / (perPage * 32)).toString(16).toUpperCase().padStart(4, "0")
  yield* ServerProcess.command(USER, "dd", "if=/dev/zero", `of=${server.data}/pg_xact/${name}`, "bs=8192", "count=32")
})

/** Sessions that do nothing; they last as long as the scope. */
export const idleSessions = (server: PostgresServer, count: number) =>
  Effect.forEach(
    Array.from({ length: count }),
    () => Effect.forkScoped(Effect.ignoreCause(server.sql("SELECT pg_sleep(600)", "kubeprober"))),
    { discard: true }
  )

/** A transaction in the probe's database that has done this and goes on, as long as the scope. */
export const holding = Effect.fnUntraced(function*(server: PostgresServer, statement: string) {
  const sleeping = "query LIKE '%pg_sleep(599)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'"
  yield* Effect.addFinalizer(() =>
    Effect.asVoid(server.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${sleeping}`))
  )
  yield* Effect.forkScoped(
    Effect.ignoreCause(server.sql(`BEGIN; ${statement}; SELECT pg_sleep(599); COMMIT`, "kubeprober"))
  )
  yield* Effect.orDie(eventually(
    statement,
    Effect.map(server.sql(`SELECT count(*) FROM pg_stat_activity WHERE ${sleeping}`), (count) => count === "1")
  ))
})

/** Gives a server a certificate, or another one; the authority, PEM. */
export const certificates = Effect.gen(function*() {
  const authority = yield* makeAuthority("authority")
  return {
    ca: authority.cert,
    give: Effect.fnUntraced(function*(server: PostgresServer, options: { readonly left: Duration.Input }) {
      const pair = yield* mint({ commonName: "postgres", age: "300 days", left: options.left, issuer: authority })
      yield* ServerProcess.file(USER, `${server.data}/server.crt`, pair.cert)
      yield* ServerProcess.file(USER, `${server.data}/server.key`, pair.key)
      yield* server.sql("ALTER SYSTEM SET ssl = on")
      yield* server.sql("SELECT pg_reload_conf()")
      yield* eventually("TLS", Effect.map(server.sql("SHOW ssl"), (ssl) => ssl === "on"))
    })
  }
})
