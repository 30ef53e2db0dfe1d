/** MariaDB servers for tests. */
import { type Duration, Effect, type Scope } from "effect"
import * as Net from "node:net"
import { makeAuthority } from "../../src/local/Certificates.ts"
import * as Ports from "../../src/local/Ports.ts"
import { mint } from "../clusters/Mint.ts"
import { eventually } from "../kube/eventually.ts"
import * as ServerProcess from "./ServerProcess.ts"

const USER = "mysql"
const HOST = "127.0.0.1"

/** Of the users that tests make. */
export const PASSWORD = "s3cret"

export interface MySqlServer {
  readonly port: number
  readonly address: string
  readonly process: ServerProcess.ServerProcess
  /** As the administrator; answers as `mariadb -B -N` does. */
  readonly sql: (statements: string) => Effect.Effect<string>
  /** The same server again, after it was ended. */
  readonly restart: Effect.Effect<void, never, Scope.Scope>
}

/** A data folder as after installation. Copied for each server, which is faster than making it. */
export const template = Effect.gen(function*() {
  const folder = yield* ServerProcess.folder(USER)
  yield* ServerProcess.command(
    USER,
    "mariadb-install-db",
    "--no-defaults",
    `--datadir=${folder}/data`,
    "--auth-root-authentication-method=normal",
    "--skip-test-db"
  )
  return `${folder}/data`
})

export const start = Effect.fnUntraced(function*(
  data: string,
  options: ReadonlyArray<string> = []
): Effect.fn.Return<MySqlServer, never, Scope.Scope> {
  const { port } = yield* Effect.orDie(Ports.free(HOST, ["port"]))
  const folder = yield* ServerProcess.folder(USER)
  yield* ServerProcess.command(USER, "cp", "-r", data, `${folder}/data`)
  const socket = `${folder}/socket`
  const sql = (statements: string) =>
    Effect.map(
      ServerProcess.command(
        USER,
        "mariadb",
        "--no-defaults",
        `--socket=${socket}`,
        "--user=root",
        // Rows below each other have their names beside.
        statements.endsWith("\\G") ? "-B" : "-BN",
        "-e",
        statements
      ),
      (text) => text.trim()
    )
  const run = Effect.gen(function*() {
    const process = yield* ServerProcess.start(
      USER,
      "mariadbd",
      "--no-defaults",
      `--datadir=${folder}/data`,
      `--socket=${socket}`,
      `--pid-file=${folder}/pid`,
      `--port=${port}`,
      `--bind-address=${HOST}`,
      "--skip-name-resolve",
      `--server-id=${port}`,
      "--log-bin=binlog",
      "--innodb-buffer-pool-size=16M",
      "--innodb-log-file-size=4M",
      "--innodb-flush-log-at-trx-commit=0",
      "--performance-schema=OFF",
      ...options
    )
    yield* Effect.orDie(eventually(
      `MariaDB on ${port}`,
      Effect.map(Effect.catchCause(sql("SELECT 1"), () => Effect.succeed("")), (answer) => answer === "1"),
      60
    ))
    return process
  })
  let process = yield* run
  return {
    port,
    address: `${HOST}:${port}`,
    sql,
    process: {
      kill: (signal) => Effect.suspend(() => process.kill(signal)),
      signal: (signal) => Effect.suspend(() => process.signal(signal))
    },
    restart: Effect.map(run, (again) => {
      process = again
    })
  }
})

/** The schema and a user of the probe with no more rights than its description lists. */
export const prepare = (server: MySqlServer) =>
  server.sql(
    `CREATE DATABASE kubeprober; CREATE USER kubeprober@'%' IDENTIFIED BY '${PASSWORD}';` +
      "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON kubeprober.* TO kubeprober@'%';" +
      "GRANT REPLICA MONITOR ON *.* TO kubeprober@'%';"
  )

/** A replica that follows. */
export const replica = Effect.fnUntraced(function*(data: string, source: MySqlServer, settings = "") {
  yield* source.sql(`CREATE OR REPLACE USER repl@'%' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'`)
  const made = yield* start(data, ["--read-only"])
  yield* made.sql(
    `CHANGE MASTER TO MASTER_HOST='${HOST}', MASTER_PORT=${source.port}, MASTER_USER='repl', MASTER_PASSWORD='r', ` +
      `MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1${settings}; START SLAVE`
  )
  yield* follows(made)
  if (settings === "") yield* catchesUp(made, source)
  return made
})

/** Waits until both threads of a replica run. */
export const follows = (replica: MySqlServer) =>
  eventually(
    `the replica ${replica.port} follows`,
    Effect.map(
      replica.sql("SHOW SLAVE STATUS\\G"),
      (text) => /Slave_IO_Running: Yes/u.test(text) && /Slave_SQL_Running: Yes/u.test(text)
    ),
    30
  )

/** Waits until a replica has what its source has committed until now. */
export const catchesUp = Effect.fnUntraced(function*(replica: MySqlServer, source: MySqlServer) {
  const position = yield* source.sql("SELECT @@gtid_binlog_pos")
  yield* replica.sql(`SELECT MASTER_GTID_WAIT('${position}', 30)`)
})

/** Certificates for a server: where it is told to find them, whose they are, and another one. */
export const certificates = Effect.fnUntraced(function*(first: { readonly left: Duration.Input }) {
  const authority = yield* makeAuthority("authority")
  const folder = yield* ServerProcess.folder(USER)
  const write = Effect.fnUntraced(function*({ left }: { readonly left: Duration.Input }) {
    const pair = yield* mint({ commonName: "mysql", age: "300 days", left, issuer: authority })
    yield* ServerProcess.file(USER, `${folder}/tls.crt`, pair.cert)
    yield* ServerProcess.file(USER, `${folder}/tls.key`, pair.key)
  })
  yield* write(first)
  return {
    ca: authority.cert,
    options: [`--ssl-cert=${folder}/tls.crt`, `--ssl-key=${folder}/tls.key`],
    renew: Effect.fnUntraced(function*(server: MySqlServer, options: { readonly left: Duration.Input }) {
      yield* write(options)
      yield* server.sql("FLUSH SSL")
    })
  }
})

/** Connections that do nothing: clients of `mariadb`'s protocol that have been greeted. */
export const idleClients = Effect.fnUntraced(function*(server: MySqlServer, count: number) {
  const sockets: Array<Net.Socket> = []
  const close = Effect.sync(() => {
    for (const socket of sockets.splice(0)) socket.destroy()
  })
  yield* Effect.addFinalizer(() => close)
  const one = Effect.callback<void>((resume) => {
    const socket = Net.connect(server.port, HOST)
    sockets.push(socket)
    socket.on("error", () => {}).once("data", () => resume(Effect.void))
  })
  const add = (more: number) => Effect.forEach(Array.from({ length: more }), () => one, { discard: true })
  yield* add(count)
  return { add, close }
})
