/**
 * `mw.postgres`: does PostgreSQL commit writes, do its standbys follow, and are there transaction ids left?
 *
 * A row is inserted, read and rolled back; then a heartbeat is committed, in one row a prober that is overwritten. The
 * heartbeat keeps the times of its last commits, so that on a standby the first one that is missing says how far it is
 * behind, by the primary's clock alone. A standby that idles because its primary does is not behind.
 */
import { Duration, Effect, Option, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Postgres } from "../../infra/middleware/Postgres.ts"
import { ServiceError, type ServiceServer, type SqlConnection } from "../../infra/middleware/Service.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Scratch } from "../Scratch.ts"
import { Count, setting } from "../Setting.ts"
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
    "A server that should take writes is a standby, or its transactions are read-only.",
    "Address the primary; if this is the one, look at default_transaction_read_only, and at whoever decides on failovers."
  ),
  WRITE_FAILED: Codes.error(
    "A row could not be written, read or committed; the message has the server's reason.",
    "Look at the server's log; at the disk's space, and at locks (pg_stat_activity)."
  ),
  WRITE_LOST: Codes.error(
    "A row that was written or committed is not what is read back.",
    "Look for a proxy that sends reads to a standby, and for two primaries behind one address."
  ),
  NOT_SERVING: Codes.error(
    "The server is starting up, recovering, or shutting down, and takes no connections.",
    "Look at the server's log; recovery after a crash takes as long as there is WAL since the last checkpoint."
  ),
  STANDBY_MISSING: Codes.warn(
    "Fewer standbys stream from the primary than there should be.",
    "Look at the standbys' logs, at primary_conninfo and at pg_hba.conf; set `minimumStandbys` to what is meant to be."
  ),
  STANDBY_BEHIND: Codes.warn(
    "A standby has not replayed what was committed longer ago than the WARN limit.",
    "Look at pg_stat_replication, at queries on the standby that hold up replay, and whether replay is paused."
  ),
  STANDBY_FAR_BEHIND: Codes.error(
    "A standby has not replayed what was committed longer ago than the ERROR limit.",
    "Look at pg_stat_replication, at queries on the standby that hold up replay, and whether replay is paused."
  ),
  REPLAY_PAUSED: Codes.warn(
    "Replay is paused on a standby: it receives and does not show what is committed.",
    "`SELECT pg_wal_replay_resume()` when the reason for the pause is gone."
  ),
  NOT_A_STANDBY: Codes.warn(
    "A server that is listed as a standby is none: it takes writes of its own.",
    "Correct `standbys`; if it was promoted while the primary goes on, stop one of them and rebuild it."
  ),
  XID_AGE_HIGH: Codes.warn(
    "A database's oldest transaction id is older than the WARN limit: vacuum does not keep up.",
    "Look for what holds vacuum up: long transactions, prepared ones, replication slots; then VACUUM (FREEZE)."
  ),
  XID_WRAPAROUND: Codes.error(
    "A database's oldest transaction id is older than the ERROR limit; at 2.1e9 the server refuses every write.",
    "End long transactions and prepared ones, drop dead replication slots, then VACUUM (FREEZE) that database now."
  ),
  DATABASE_MISSING: Codes.unknown(
    "The probe's database does not exist.",
    "Make it, for the probe's user alone: CREATE DATABASE kubeprober OWNER kubeprober."
  )
})

const Config = Schema.Struct({
  servers: setting(Addresses, {
    default: [],
    description: "Servers that take writes, as host:port; several only where each is a primary; at most 50."
  }),
  standbys: setting(Addresses, {
    default: [],
    description: "Standbys of the first of `servers`, which are read; at most 50."
  }),
  username: setting(Schema.String.check(Schema.isNonEmpty()), {
    default: "kubeprober",
    description: "The user, who owns the database, or may use and create tables in its schema public."
  }),
  ...sharedSettings,
  database: setting(Schema.String.check(Schema.isNonEmpty()), {
    default: "kubeprober",
    description: "The database of the probe's table."
  }),
  minimumStandbys: setting(Count, {
    default: 0,
    description:
      "How many standbys should stream from each primary; 0 judges none. The user needs pg_monitor to count them."
  }),
  standbyDelay: setting(DurationString, { default: "30s", description: "A standby further behind is a warning." }),
  standbyDelayError: setting(DurationString, { default: "300s", description: "A standby further behind is an error." }),
  xidWarn: setting(Count, {
    default: 1_200_000_000,
    description: "An age of transaction ids, in transactions, above which is a warning."
  }),
  xidError: setting(Count, {
    default: 1_800_000_000,
    description: "An age of transaction ids, in transactions, above which is an error."
  })
})
type Config = typeof Config.Type

const server = (address: string): Subject => ({ kind: "PostgreSQL", name: address })

/**
 * What PgBouncer says with one SQLSTATE of its own for almost everything (08P01, protocol_violation), by its words: those of
 * its client.c and objects.c.
 */
const POOLER: ReadonlyArray<readonly [words: RegExp, code: Codes.Code]> = [
  [/no such database/u, codes.DATABASE_MISSING],
  [/\b(SSL|TLS)( certificate)? required/u, codes.TLS_UNTRUSTED],
  [/no such user|authentication|auth failed|login rejected/u, codes.LOGIN_REFUSED],
  [/no more connections/u, codes.CONNECTIONS_EXHAUSTED]
]

/** What a failure says of a server, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
export const judgeError = (error: ServiceError, address: string): Finding => {
  const subject = server(address)
  if (error.kind !== "rejected") return judgeFailure(codes, error, subject)
  const occurrence = { message: error.message, subject, evidence: { sqlstate: error.code } }
  switch (error.code) {
    // invalid_password, invalid_authorization_specification
    case "28P01":
    case "28000":
      return codes.LOGIN_REFUSED(occurrence)
    // insufficient_privilege
    case "42501":
      return checkerCodes.ACCESS_MISSING({
        ...occurrence,
        message: `${error.message}; GRANT ALL ON SCHEMA public TO the probe's user, or make it the database's owner`
      })
    // invalid_catalog_name
    case "3D000":
      return codes.DATABASE_MISSING(occurrence)
    // too_many_connections; also of a role or a database alone
    case "53300":
      return codes.CONNECTIONS_EXHAUSTED(occurrence)
    // cannot_connect_now, admin_shutdown, crash_shutdown
    case "57P03":
    case "57P01":
    case "57P02":
      return codes.NOT_SERVING(occurrence)
    // read_only_sql_transaction
    case "25006":
      return codes.PRIMARY_READ_ONLY(occurrence)
    // protocol_violation
    case "08P01": {
      const [, code = codes.WRITE_FAILED] = POOLER.find(([words]) => words.test(error.detail)) ?? []
      return code(
        code === codes.TLS_UNTRUSTED ? { ...occurrence, message: `${error.message}; set \`tls\`` } : occurrence
      )
    }
    default:
      return codes.WRITE_FAILED(occurrence)
  }
}

const judged = <R>(
  address: string,
  look: Effect.Effect<ReadonlyArray<Finding>, ServiceError | Schema.SchemaError, R>
) =>
  look.pipe(
    Effect.catchTag("ServiceError", (error) => Effect.succeed([judgeError(error, address)])),
    Effect.catchTag("SchemaError", (error) =>
      Effect.succeed([checkerCodes.UNEXPECTED_ANSWER({
        message: `PostgreSQL at ${address}: ${error.message}`,
        subject: server(address)
      })]))
  )

const State = Schema.Struct({
  recovery: Schema.Boolean,
  readOnly: Schema.Boolean,
  used: Schema.Finite,
  limit: Schema.Finite,
  xidAge: Schema.Finite,
  xidDatabase: Schema.String
})

/** What a server says of itself. */
export type State = typeof State.Type

/**
 * Connections that are kept for superusers are not for everybody. The age of transaction ids is that of the cluster's oldest
 * database, on a standby as on its primary.
 */
const STATE = `SELECT pg_is_in_recovery() AS recovery,
  current_setting('default_transaction_read_only')::bool AS "readOnly",
  (SELECT sum(numbackends)::int FROM pg_stat_database) AS used,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS "limit",
  age(datfrozenxid)::float8 AS "xidAge", datname AS "xidDatabase"
  FROM pg_database ORDER BY age(datfrozenxid) DESC LIMIT 1`

const decodeState = Schema.decodeUnknownEffect(State)

export const judgeState = (
  address: string,
  { limit, used, xidAge, xidDatabase }: State,
  { xidError, xidWarn }: { readonly xidWarn: number; readonly xidError: number },
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => [
  ...judgeConnections(codes, server(address), used, limit, limits),
  ...(xidAge > xidWarn
    ? [(xidAge > xidError ? codes.XID_WRAPAROUND : codes.XID_AGE_HIGH)({
      message: `${address}: the oldest transaction id of database ${xidDatabase} is ${xidAge} transactions old (limit ${
        xidAge > xidError ? xidError : xidWarn
      }, end 2100000000)`,
      subject: server(address),
      evidence: { database: xidDatabase, age: xidAge }
    })]
    : [])
]

/** Commits that a heartbeat remembers: at a run a minute, more than an hour and a half. */
const BEATS = 100

/** undefined_table */
const NO_TABLE = "42P01"

const isRejected = (code: string) => (error: unknown): error is ServiceError =>
  error instanceof ServiceError && error.kind === "rejected" && error.code === code

interface Task {
  readonly config: Config
  readonly limits: Hysteresis.Limits
  readonly access: (address: string) => ServiceServer & { readonly database: string }
  readonly postgres: Postgres["Service"]
  /** Whose row it is. */
  readonly prober: string
  readonly token: string
}

const decodeTokens = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ token: Schema.String })))

const readToken = (connection: SqlConnection, prober: string) =>
  Effect.flatMap(
    connection.query("SELECT token FROM kubeprober_heartbeat WHERE prober = $1", [prober]),
    decodeTokens
  ).pipe(Effect.map((rows) => rows[0]?.token))

const create = (connection: SqlConnection) =>
  connection.query(
    "CREATE TABLE IF NOT EXISTS kubeprober_heartbeat (prober text PRIMARY KEY, token text NOT NULL, " +
      "beats timestamptz[] NOT NULL)"
  )

/** One row that is rolled back, then the one that stays. */
const roundTrip = Effect.fnUntraced(
  function*({ config, limits, prober, token }: Task, address: string, connection: SqlConnection) {
    const trial = `${token}-rollback`
    const rolledBack = Effect.gen(function*() {
      yield* connection.query("BEGIN")
      yield* connection.query("INSERT INTO kubeprober_heartbeat (prober, token, beats) VALUES ($1, $2, '{}')", [
        trial,
        trial
      ])
      const seen = yield* readToken(connection, trial)
      yield* connection.query("ROLLBACK")
      return seen
    })
    const [took, { committed, seen }] = yield* Stopwatch.timed(Effect.gen(function*() {
      const seen = yield* rolledBack.pipe(
        Effect.catchIf(
          isRejected(NO_TABLE),
          () => Effect.andThen(Effect.andThen(connection.query("ROLLBACK"), create(connection)), rolledBack)
        )
      )
      yield* connection.query(
        "INSERT INTO kubeprober_heartbeat AS h (prober, token, beats) VALUES ($1, $2, ARRAY[clock_timestamp()]) " +
          `ON CONFLICT (prober) DO UPDATE SET token = $2, beats = (clock_timestamp() || h.beats)[1:${BEATS}]`,
        [prober, token]
      )
      return { seen, committed: yield* readToken(connection, prober) }
    }))
    if (seen !== trial || committed === undefined) {
      return [codes.WRITE_LOST({
        message: `${address} ${
          seen === trial ? "committed a heartbeat and does not have it" : "does not show a row to who wrote it"
        }`,
        subject: server(address)
      })]
    }
    return judgeTime(codes, server(address), took, config.slow, limits)
  }
)

const decodeReplication = Schema.decodeUnknownEffect(
  Schema.Tuple([Schema.Struct({ streaming: Schema.Finite, hidden: Schema.Finite })])
)

/** Backups stream too, in state `backup`. Who may not see the state sees the rows without it. */
const judgeStandbys = Effect.fnUntraced(function*(
  address: string,
  connection: SqlConnection,
  { minimumStandbys }: Config
) {
  if (minimumStandbys === 0) return []
  const [{ hidden, streaming }] = yield* Effect.flatMap(
    connection.query(
      "SELECT count(*) FILTER (WHERE state = 'streaming')::int AS streaming, " +
        "count(*) FILTER (WHERE state IS NULL)::int AS hidden FROM pg_stat_replication"
    ),
    decodeReplication
  )
  const subject = server(address)
  if (hidden > 0) {
    return [checkerCodes.ACCESS_MISSING({
      message: `${address}: the user may not see the state of standbys; GRANT pg_monitor TO it`,
      subject
    })]
  }
  return streaming >= minimumStandbys ? [] : [codes.STANDBY_MISSING({
    message: `${streaming} of ${minimumStandbys} standbys stream from ${address}`,
    subject,
    evidence: { streaming, minimum: minimumStandbys }
  })]
})

const lookAtServer = (task: Task, address: string) =>
  judged(
    address,
    Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.postgres.connect(task.access(address))
      const [row] = yield* connection.query(STATE)
      const state = yield* decodeState(row)
      const room = judgeState(address, state, task.config, task.limits)
      if (state.recovery || state.readOnly) {
        const why = state.recovery ? "it is a standby" : "default_transaction_read_only is on"
        return [
          ...room,
          codes.PRIMARY_READ_ONLY({
            message: `${address} takes no writes: ${why}`,
            subject: server(address),
            evidence: { recovery: state.recovery, readOnly: state.readOnly }
          })
        ]
      }
      const standbys = yield* judgeStandbys(address, connection, task.config)
      return [...room, ...standbys, ...(yield* judged(address, roundTrip(task, address, connection)))]
    }))
  )

/** Between two looks of a standby for a commit. */
const POLL = Duration.millis(100)

const decodeStandby = Schema.decodeUnknownEffect(
  Schema.Tuple([Schema.Struct({ recovery: Schema.Boolean, paused: Schema.Boolean })])
)
const decodeBeat = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ token: Schema.String, beat: Schema.NullOr(Schema.String) }))
)
const decodeAge = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ seconds: Schema.NullOr(Schema.Finite) }))
)

/** How long ago the first commit was, by the primary's clock, that a standby with this one as its last does not have. */
const missingSince = Effect.fnUntraced(function*(task: Task, primary: string, beat: string | null) {
  const connection = yield* task.postgres.connect(task.access(primary))
  const [row] = yield* Effect.flatMap(
    connection.query(
      "SELECT extract(epoch FROM clock_timestamp() - min(b))::float8 AS seconds FROM kubeprober_heartbeat, " +
        "unnest(beats) b WHERE prober = $1 AND b > coalesce($2::timestamptz, '-infinity')",
      [task.prober, beat ?? "-infinity"]
    ),
    decodeAge
  )
  return Duration.seconds(row?.seconds ?? 0)
}, Effect.scoped)

/** How far a standby is behind. */
export const judgeDelay = (
  address: string,
  late: Duration.Duration,
  config: { readonly standbyDelay: Duration.Duration; readonly standbyDelayError: Duration.Duration },
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const subject = server(address)
  const seconds = Math.floor(Duration.toSeconds(late))
  const [code, limit] = ([
    [codes.STANDBY_FAR_BEHIND, config.standbyDelayError],
    [codes.STANDBY_BEHIND, config.standbyDelay]
  ] as const).find(([code, limit]) => limits.takesLonger(late, limit, { code, subject })) ?? []
  return code === undefined || limit === undefined ? [] : [code({
    message: `${address} has not replayed what was committed ${Duration.format(Duration.seconds(seconds))} ago (${
      Hysteresis.text(Duration.format(limit), Duration.isGreaterThan(late, limit))
    })`,
    subject,
    evidence: { behindSeconds: seconds }
  })]
}

/** `written` is the primary that has this run's heartbeat; nothing when none has. */
const lookAtStandby = (task: Task, address: string, written: string | undefined) =>
  judged(
    address,
    Effect.scoped(Effect.gen(function*() {
      const { config, prober, token } = task
      const subject = server(address)
      const connection = yield* task.postgres.connect(task.access(address))
      const [row] = yield* connection.query(STATE)
      const { limit, used } = yield* decodeState(row)
      const room = judgeConnections(codes, subject, used, limit, task.limits)
      const [{ paused, recovery }] = yield* Effect.flatMap(
        connection.query(
          "SELECT pg_is_in_recovery() AS recovery, " +
            "CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused"
        ),
        decodeStandby
      )
      if (!recovery) {
        return [
          ...room,
          codes.NOT_A_STANDBY({ message: `${address} is no standby: it takes writes of its own`, subject })
        ]
      }
      const pause = paused
        ? [codes.REPLAY_PAUSED({ message: `replay is paused on ${address}`, subject })]
        : []
      if (written === undefined) return [...room, ...pause]
      const last = Effect.flatMap(
        connection.query("SELECT token, beats[1]::text AS beat FROM kubeprober_heartbeat WHERE prober = $1", [prober]),
        decodeBeat
      ).pipe(
        // Even the table is a commit of the primary's.
        Effect.catchIf(isRejected(NO_TABLE), () => Effect.succeed([])),
        Effect.map((rows) => rows[0])
      )
      const arrived = yield* last.pipe(
        Effect.tap((row) => row?.token === token ? Effect.void : Effect.sleep(POLL)),
        Effect.repeat({ until: (row) => row?.token === token }),
        Effect.timeoutOption(config.stepTimeout)
      )
      if (Option.isSome(arrived)) return [...room, ...pause]
      const late = yield* missingSince(task, written, (yield* last)?.beat ?? null)
      return [...room, ...pause, ...judgeDelay(address, late, config, task.limits)]
    }))
  )

/** Servers that are asked together. */
const AT_ONCE = 16

const run = Effect.fnUntraced(function*(config: Config) {
  const { servers, standbys } = config
  if (servers.length + standbys.length === 0) {
    return Outcome.make("", [checkerCodes.NOT_APPLICABLE({ message: "no servers are configured" })])
  }
  const kube = yield* Kube
  const limits = yield* Hysteresis.limits
  const scratch = yield* Scratch
  const postgres = yield* Postgres
  const access = yield* accessOf(config, config)
  const look = Effect.gen(function*(): Effect.fn.Return<Look> {
    const task: Task = {
      limits,
      config,
      access: (address) => ({ ...access(address), database: config.database }),
      postgres,
      prober: kube.cluster,
      token: yield* scratch.name("postgres")
    }
    const primaries = yield* Effect.forEach(servers, (address) => lookAtServer(task, address), { concurrency: AT_ONCE })
    const [first] = servers
    const written = primaries[0]?.every(({ status }) => status !== "ERROR" && status !== "UNKNOWN") === true
      ? first
      : undefined
    const behind = yield* Effect.forEach(standbys, (address) => lookAtStandby(task, address, written), {
      concurrency: AT_ONCE
    })
    return {
      summary: `committed a heartbeat on ${servers.length} servers; ${standbys.length} standbys follow`,
      findings: [...primaries.flat(), ...behind.flat()]
    }
  })
  const { findings, summary } = yield* look
  return Outcome.make(summary, findings)
})

export const postgres = Probe.make("mw.postgres", {
  asks: "configured",
  layer: "middleware",
  proves:
    "PostgreSQL commits writes, has connections and transaction ids left, and its standbys replay what is committed.",
  writes: "middleware",
  costs:
    "No API requests; one connection and about eight statements a server, and one row a prober that is overwritten.",
  needs: [],
  codes,
  config: Config,
  timeout: "60 seconds",
  run
})
