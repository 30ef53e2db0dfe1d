/**
 * `mw.mysql`: does MySQL (or MariaDB, or a Galera cluster) commit writes, and do its replicas follow?
 *
 * One row a run and server, in a schema of the prober's own: inserted, read, and deleted. Members of a Galera cluster and
 * probers of the same name write to one table at once, so none shares its row. A run that dies in between leaves its row,
 * which a run more than an hour later deletes.
 */
import { Array, Duration, Effect, Option, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { MySql } from "../../infra/middleware/MySql.ts"
import { ServiceError, type ServiceServer, type SqlConnection } from "../../infra/middleware/Service.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Scratch } from "../Scratch.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import {
  Addresses,
  type Look,
  accessOf,
  judgeConnections,
  judgeFailure,
  judgeTime,
  sharedCodes,
  sharedSettings
} from "./service.ts"

export const codes = Codes.make({
  ...sharedCodes,
  PRIMARY_READ_ONLY: Codes.error(
    "A server that should take writes is read-only, or refuses them as one.",
    "Address the primary; if this is the one, `SET GLOBAL read_only = 0` once it is certain that no other is."
  ),
  WRITE_FAILED: Codes.error(
    "A row could not be written, or its deletion was not done; the message has the server's reason.",
    "Look at the server's error log; at the disk's space, and at locks (SHOW ENGINE INNODB STATUS)."
  ),
  WRITE_LOST: Codes.error(
    "A row whose commit was confirmed is not what is read back.",
    "Look for a proxy that sends reads to a replica, and for two primaries behind one address."
  ),
  GALERA_NOT_READY: Codes.error(
    "A member of a Galera cluster is not synced, or not part of the majority, and serves nobody.",
    "Look at wsrep_cluster_status and wsrep_local_state_comment on all members; bootstrap only when no majority is left."
  ),
  GALERA_DONOR: Codes.warn(
    "A member of a Galera cluster is desynced: it hands its data to another one, or was told to.",
    "Nothing, while another member joins; else `SET GLOBAL wsrep_desync = OFF`."
  ),
  REPLICA_STOPPED: Codes.error(
    "A replica does not follow: its I/O thread or its SQL thread does not run.",
    "Look at Last_IO_Error and Last_SQL_Error of SHOW REPLICA STATUS; mend the cause, then START REPLICA."
  ),
  REPLICA_CONNECTING: Codes.warn(
    "A replica is connecting to its source, so how far it is behind is not known.",
    "Look at Last_IO_Error of SHOW REPLICA STATUS when this stays."
  ),
  REPLICA_BEHIND: Codes.warn(
    "A replica is behind its source by more than the WARN limit, without the delay it is told to keep.",
    "Look for long transactions and bulk changes, at the replica's disk, and at parallel appliers."
  ),
  REPLICA_FAR_BEHIND: Codes.error(
    "A replica is behind its source by more than the ERROR limit, without the delay it is told to keep.",
    "Look for long transactions and bulk changes, at the replica's disk, and at parallel appliers."
  ),
  NOT_A_REPLICA: Codes.warn(
    "A server that is listed as a replica follows nobody.",
    "Correct `replicas`, or have it follow the primary (CHANGE REPLICATION SOURCE TO)."
  ),
  SCHEMA_MISSING: Codes.unknown(
    "The probe's schema does not exist.",
    "Make it, for the probe's user alone: the message has the statements."
  )
})

/** It goes into statements as it is. */
const Identifier = Schema.String.check(
  Schema.isPattern(/^[A-Za-z_][A-Za-z0-9_]{0,62}$/u, { message: "a name of letters, digits and underscores" })
)

const Config = Schema.Struct({
  servers: setting(Addresses, {
    default: [],
    description: "Servers that take writes, as host:port: the primary, or members of a Galera cluster; at most 50."
  }),
  replicas: setting(Addresses, { default: [], description: "Replicas, which are only looked at; at most 50." }),
  username: setting(Schema.String.check(Schema.isNonEmpty()), {
    default: "kubeprober",
    description: "The user, who needs SELECT, INSERT, DELETE and CREATE on the schema."
  }),
  ...sharedSettings,
  schema: setting(Identifier, { default: "kubeprober", description: "The schema of the probe's table." }),
  replicaDelay: setting(DurationString, { default: "30s", description: "A replica further behind is a warning." }),
  replicaDelayError: setting(DurationString, { default: "300s", description: "A replica further behind is an error." })
})
type Config = typeof Config.Type

const server = (address: string): Subject => ({ kind: "MySQL", name: address })

/** Numbers of the server's errors (https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html). */
const ERRORS: Readonly<Record<string, (error: ServiceError, subject: Subject) => Finding>> = (() => {
  const as = (code: Codes.Code, advice = "") => (error: ServiceError, subject: Subject) =>
    code({
      message: advice === "" ? error.message : `${error.message}; ${advice}`,
      subject,
      evidence: { errno: error.code }
    })
  const grant = as(checkerCodes.ACCESS_MISSING, "GRANT the probe's user what its description lists")
  return {
    // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
    1040: as(codes.CONNECTIONS_EXHAUSTED),
    1203: as(codes.CONNECTIONS_EXHAUSTED),
    1226: as(codes.CONNECTIONS_EXHAUSTED),
    // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR
    1044: grant,
    1142: grant,
    1143: grant,
    1227: grant,
    // ER_ACCESS_DENIED_ERROR, ER_HOST_IS_BLOCKED, ER_HOST_NOT_PRIVILEGED, ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    1045: as(codes.LOGIN_REFUSED),
    1129: as(codes.LOGIN_REFUSED),
    1130: as(codes.LOGIN_REFUSED),
    1698: as(codes.LOGIN_REFUSED),
    // ER_NOT_SUPPORTED_AUTH_MODE, ER_PLUGIN_IS_NOT_LOADED: the plugin of the user
    1251: as(codes.LOGIN_REFUSED),
    1524: as(codes.LOGIN_REFUSED),
    // ER_MUST_CHANGE_PASSWORD, ER_MUST_CHANGE_PASSWORD_LOGIN
    1820: as(codes.LOGIN_REFUSED, "ALTER USER the probe's user PASSWORD EXPIRE NEVER, with a new password"),
    1862: as(codes.LOGIN_REFUSED, "ALTER USER the probe's user PASSWORD EXPIRE NEVER, with a new password"),
    // ER_ACCOUNT_HAS_BEEN_LOCKED, of MySQL and of MariaDB; ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
    3118: as(codes.LOGIN_REFUSED, "ALTER USER the probe's user ACCOUNT UNLOCK"),
    4151: as(codes.LOGIN_REFUSED, "ALTER USER the probe's user ACCOUNT UNLOCK"),
    3955: as(codes.LOGIN_REFUSED, "ALTER USER the probe's user ACCOUNT UNLOCK"),
    // ER_SECURE_TRANSPORT_REQUIRED
    3159: as(codes.TLS_UNTRUSTED, "set `tls`"),
    // ER_UNKNOWN_COM_ERROR, with which Galera answers all statements of a member that is not ready
    1047: as(codes.GALERA_NOT_READY),
    // ER_BAD_DB_ERROR
    1049: as(codes.SCHEMA_MISSING, "CREATE DATABASE kubeprober; GRANT ALL ON kubeprober.* TO the probe's user"),
    // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE
    1290: as(codes.PRIMARY_READ_ONLY),
    1792: as(codes.PRIMARY_READ_ONLY),
    1836: as(codes.PRIMARY_READ_ONLY)
  }
})()

/** What a failure says of a server. An error that is not listed is one of the write. */
export const judgeError = (error: ServiceError, address: string): Finding => {
  if (error.kind !== "rejected") return judgeFailure(codes, error, server(address))
  const known = ERRORS[error.code]
  return known !== undefined ? known(error, server(address)) : codes.WRITE_FAILED({
    message: error.message,
    subject: server(address),
    evidence: { errno: error.code }
  })
}

const judged = <R>(
  address: string,
  look: Effect.Effect<ReadonlyArray<Finding>, ServiceError | Schema.SchemaError, R>
) =>
  look.pipe(
    Effect.catchTag("ServiceError", (error) => Effect.succeed([judgeError(error, address)])),
    Effect.catchTag("SchemaError", (error) =>
      Effect.succeed([checkerCodes.UNEXPECTED_ANSWER({
        message: `MySQL at ${address}: ${error.message}`,
        subject: server(address)
      })]))
  )

/** What a member of a Galera cluster says of itself; nothing of a server that is none. */
export const judgeGalera = (address: string, status: ReadonlyMap<string, string>): ReadonlyArray<Finding> => {
  const [cluster, state, ready] = ["wsrep_cluster_status", "wsrep_local_state_comment", "wsrep_ready"].map((name) =>
    status.get(name) ?? ""
  )
  // A server with the library and without a cluster says Disconnected, and serves.
  if (cluster === "" || (cluster === "Disconnected" && status.get("wsrep_cluster_size") === "0")) return []
  const occurrence = {
    message: `${address}: wsrep_cluster_status ${cluster}, wsrep_local_state_comment ${state}, wsrep_ready ${ready}`,
    subject: server(address),
    evidence: { cluster: cluster ?? "", state: state ?? "", ready: ready ?? "" }
  }
  if (cluster !== "Primary" || ready !== "ON") return [codes.GALERA_NOT_READY(occurrence)]
  if (state === "Synced") return []
  return [(state?.startsWith("Donor") === true ? codes.GALERA_DONOR : codes.GALERA_NOT_READY)(occurrence)]
}

/** How a replica says that it follows; the names are MySQL's since 8.0.22, older ones and MariaDB's are translated. */
export interface ReplicaStatus {
  readonly source: string
  readonly io: string
  readonly sql: string
  /** Seconds; nothing when it is not known. */
  readonly behind: number | undefined
  /** Seconds it is told to keep. */
  readonly delay: number
  readonly error: string
}

const text = (row: Readonly<Record<string, unknown>>, ...names: ReadonlyArray<string>): string | undefined => {
  const value = names.map((name) => row[name]).find((found) => found !== undefined && found !== null)
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : undefined
}

export const parseReplica = (row: Readonly<Record<string, unknown>>): ReplicaStatus => {
  const behind = text(row, "Seconds_Behind_Source", "Seconds_Behind_Master")
  return {
    source: `${text(row, "Source_Host", "Master_Host") ?? ""}:${text(row, "Source_Port", "Master_Port") ?? ""}`,
    io: text(row, "Replica_IO_Running", "Slave_IO_Running") ?? "",
    sql: text(row, "Replica_SQL_Running", "Slave_SQL_Running") ?? "",
    behind: behind === undefined ? undefined : Number(behind),
    delay: Number(text(row, "SQL_Delay") ?? "0"),
    error: quote(
      [text(row, "Last_IO_Error"), text(row, "Last_SQL_Error")].filter((said) => said !== undefined && said !== "")
        .join("; "),
      400
    )
  }
}

export const judgeReplica = (
  address: string,
  { behind, delay, error, io, source, sql }: ReplicaStatus,
  config: { readonly replicaDelay: Duration.Duration; readonly replicaDelayError: Duration.Duration },
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const subject = server(address)
  const evidence = { source, io, sql, ...(behind === undefined ? {} : { behindSeconds: behind, delaySeconds: delay }) }
  const because = error === "" ? "" : `: ${error}`
  if (io === "No" || sql === "No") {
    return [codes.REPLICA_STOPPED({
      message: `${address} does not follow ${source} (I/O thread ${io}, SQL thread ${sql})${because}`,
      subject,
      evidence
    })]
  }
  // "Connecting", and in MariaDB "Preparing".
  if (io !== "Yes" || behind === undefined) {
    return [(error === "" ? codes.REPLICA_CONNECTING : codes.REPLICA_STOPPED)({
      message: `${address} is not connected to ${source} (I/O thread ${io})${because}`,
      subject,
      evidence
    })]
  }
  const late = Duration.seconds(Math.max(0, behind - delay))
  const [code, limit] = ([
    [codes.REPLICA_FAR_BEHIND, config.replicaDelayError],
    [codes.REPLICA_BEHIND, config.replicaDelay]
  ] as const).find(([code, limit]) => limits.takesLonger(late, limit, { code, subject })) ?? []
  return code === undefined || limit === undefined ? [] : [code({
    message: `${address} is ${Duration.format(late)} behind ${source} (${
      Hysteresis.text(Duration.format(limit), Duration.isGreaterThan(late, limit))
    })`,
    subject,
    evidence
  })]
}

const State = Schema.Struct({
  readOnly: Schema.Finite,
  connections: Schema.Finite
})

const Variable = Schema.Struct({ Variable_name: Schema.String, Value: Schema.String })

const decodeState = Schema.decodeUnknownEffect(State)
const decodeVariables = Schema.decodeUnknownEffect(Schema.Array(Variable))
const decodeTokens = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ token: Schema.String })))

const decodeKeys = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ prober: Schema.String })))

const statusOf = Effect.fnUntraced(function*(connection: SqlConnection) {
  const rows = yield* connection.query(
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected', 'wsrep_cluster_status', 'wsrep_cluster_size', " +
      "'wsrep_local_state_comment', 'wsrep_ready')"
  )
  return new Map((yield* decodeVariables(rows)).map(({ Value, Variable_name }) => [Variable_name, Value] as const))
})

const stateOf = Effect.fnUntraced(function*(connection: SqlConnection) {
  const [row] = yield* connection.query(
    "SELECT @@global.read_only AS readOnly, @@global.max_connections AS connections"
  )
  return yield* decodeState(row)
})

/** ER_NO_SUCH_TABLE */
const NO_TABLE = "1146"
/** ER_PARSE_ERROR: the statement is newer or older than the server. */
const NO_STATEMENT = "1064"

const isRejected = (code: string) => (error: unknown): error is ServiceError =>
  error instanceof ServiceError && error.kind === "rejected" && error.code === code

/** ER_LOCK_WAIT_TIMEOUT, and ER_LOCK_DEADLOCK, with which Galera also answers a write that lost against another member's. */
const CONFLICTS: ReadonlyArray<string> = ["1205", "1213"]

const isConflict = (error: unknown): error is ServiceError => CONFLICTS.some((code) => isRejected(code)(error))

/** A statement, and once more when it met another's: the server undoes it and asks for that. */
export const onceMore = <A, E, R>(statement: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.catchIf(statement, isConflict, () => statement)

/** Rows of dead runs that one run deletes. */
const MAXIMUM_PURGED = 100

/** Of {@link Task.prober}: with a run's name and a server's number it fits into the column's 190 characters. */
const MAXIMUM_PROBER = 100

interface Task {
  readonly config: Config
  readonly limits: Hysteresis.Limits
  readonly access: (address: string) => ServiceServer
  readonly mysql: MySql["Service"]
  /** Whose rows they are. */
  readonly prober: string
  /** The run. */
  readonly token: string
}

/** Delete what dead runs left. Other runs may be at it too, and what remains is the next one's. */
const purge = Effect.fnUntraced(function*({ prober }: Task, table: string, connection: SqlConnection) {
  // By whole keys: a range would lock rows of runs that are under way. The bare name is that of older versions' rows.
  const old = yield* decodeKeys(
    yield* connection.query(
      `SELECT prober FROM ${table} WHERE (prober = ? OR LEFT(prober, CHAR_LENGTH(?)) = ?) ` +
        `AND beat < UTC_TIMESTAMP(3) - INTERVAL 1 HOUR LIMIT ${MAXIMUM_PURGED}`,
      [prober, `${prober}/`, `${prober}/`]
    )
  )
  yield* Effect.forEach(
    old,
    (row) => connection.query(`DELETE FROM ${table} WHERE prober = ?`, [row.prober]),
    { discard: true }
  ).pipe(Effect.catchIf(isConflict, () => Effect.void))
})

/** The row goes in, is read in a transaction of its own, and goes out again. */
const roundTrip = Effect.fnUntraced(
  function*(task: Task, index: number, address: string, connection: SqlConnection) {
    const { config, prober, token } = task
    const key = `${prober}/${token}/${index}`
    const table = `${config.schema}.heartbeat`
    const insert = onceMore(connection.query(
      `INSERT INTO ${table} (prober, token, beat) VALUES (?, ?, UTC_TIMESTAMP(3))`,
      [key, token]
    ))
    // Made when it is missing and not before: a definition goes through every replica and stops a Galera cluster.
    const create = connection.query(
      `CREATE TABLE IF NOT EXISTS ${table} (prober VARCHAR(190) PRIMARY KEY, token VARCHAR(64) NOT NULL, ` +
        "beat DATETIME(3) NOT NULL) ENGINE=InnoDB"
    )
    const [took, tokens] = yield* Stopwatch.timed(Effect.gen(function*() {
      yield* Effect.catchIf(insert, isRejected(NO_TABLE), () => Effect.andThen(create, insert))
      return yield* decodeTokens(yield* connection.query(`SELECT token FROM ${table} WHERE prober = ?`, [key]))
    }))
    const found = tokens[0]?.token
    yield* onceMore(connection.query(`DELETE FROM ${table} WHERE prober = ?`, [key]))
    yield* purge(task, table, connection)
    if (found === token) {
      return judgeTime(codes, server(address), took, config.slow, task.limits)
    }
    return [codes.WRITE_LOST({
      message: `${address} confirmed a row and does not have it`,
      subject: server(address)
    })]
  }
)

/** How many connections are left. */
const roomOf = (task: Task, address: string, status: ReadonlyMap<string, string>, connections: number) =>
  judgeConnections(codes, server(address), Number(status.get("Threads_connected") ?? 0), connections, task.limits)

const lookAtServer = (task: Task, address: string, index: number) =>
  judged(
    address,
    Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.mysql.connect(task.access(address))
      const status = yield* statusOf(connection)
      const galera = judgeGalera(address, status)
      if (galera.some(({ status }) => status === "ERROR")) return galera
      const { connections, readOnly } = yield* stateOf(connection)
      const room = roomOf(task, address, status, connections)
      // A user with more rights could write all the same, and part a replica from its source.
      if (readOnly !== 0) {
        return [
          ...galera,
          ...room,
          codes.PRIMARY_READ_ONLY({
            message: `${address} is read-only (read_only = ${readOnly})`,
            subject: server(address),
            evidence: { readOnly }
          })
        ]
      }
      return [...galera, ...room, ...(yield* judged(address, roundTrip(task, index, address, connection)))]
    }))
  )

const lookAtReplica = (task: Task, address: string) =>
  judged(
    address,
    Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.mysql.connect(task.access(address))
      const { connections } = yield* stateOf(connection)
      const status = yield* statusOf(connection)
      const room = roomOf(task, address, status, connections)
      const rows = yield* connection.query("SHOW REPLICA STATUS").pipe(
        Effect.catchIf(isRejected(NO_STATEMENT), () => connection.query("SHOW SLAVE STATUS")),
        // MariaDB: REPLICA MONITOR; MySQL: REPLICATION CLIENT.
        Effect.asSome,
        Effect.catchIf(isRejected("1227"), () => Effect.succeedNone)
      )
      if (Option.isNone(rows)) {
        return [
          ...room,
          checkerCodes.ACCESS_MISSING({
            message: `${address}: the user may not see how the replica follows; GRANT REPLICATION CLIENT ON *.* ` +
              "(MariaDB: REPLICA MONITOR) to it",
            subject: server(address)
          })
        ]
      }
      if (!Array.isReadonlyArrayNonEmpty(rows.value)) {
        return [
          ...room,
          codes.NOT_A_REPLICA({ message: `${address} follows nobody`, subject: server(address) })
        ]
      }
      return [
        ...room,
        ...rows.value.flatMap((row) => judgeReplica(address, parseReplica(row), task.config, task.limits))
      ]
    }))
  )

/** Servers that are asked together. */
const AT_ONCE = 16

const run = Effect.fnUntraced(function*(config: Config) {
  const { replicas, servers } = config
  if (servers.length + replicas.length === 0) {
    return Outcome.make("", [checkerCodes.NOT_APPLICABLE({ message: "no servers are configured" })])
  }
  const kube = yield* Kube
  const limits = yield* Hysteresis.limits
  const scratch = yield* Scratch
  const mysql = yield* MySql
  const access = yield* accessOf(config, config)
  const look = Effect.gen(function*(): Effect.fn.Return<Look> {
    const token = yield* scratch.name("mysql")
    const task: Task = { config, limits, access, mysql, token, prober: kube.cluster.slice(0, MAXIMUM_PROBER) }
    const findings = yield* Effect.all([
      Effect.forEach(servers, (address, index) => lookAtServer(task, address, index), { concurrency: AT_ONCE }),
      Effect.forEach(replicas, (address) => lookAtReplica(task, address), { concurrency: AT_ONCE })
    ], { concurrency: "unbounded" })
    return {
      summary: `wrote, read and deleted a row on ${counted(servers.length, "server")}; ${
        counted(replicas.length, "replica")
      } follow`,
      findings: findings.flat(2)
    }
  })
  const { findings, summary } = yield* look
  return Outcome.make(summary, findings)
})

export const mysql = Probe.make("mw.mysql", {
  asks: "configured",
  layer: "middleware",
  proves:
    "MySQL commits writes and has connections left, its replicas follow, and members of a Galera cluster are synced.",
  writes: "middleware",
  costs: "No API requests; one connection and about seven statements a server, and one row that is deleted again.",
  needs: [],
  codes,
  config: Config,
  timeout: "60 seconds",
  run
})
