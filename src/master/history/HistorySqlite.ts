/**
 * The history in an SQLite file.
 *
 * A delivery is one transaction of at most eight statements, whatever its size: rows travel as one JSON array that
 * `json_each` unfolds. Whether a run changed the shown status is read from its own standing (its row of equal statuses
 * began with it), so deliveries in any order keep the same entries.
 */
import { DateTime, Duration, Effect, Layer, Option, Random, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as CheckerState from "../../domain/CheckerState.ts"
import * as Facts from "../../domain/Facts.ts"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import { Blame, Code, Finding } from "../../domain/Report.ts"
import { MAX_PAGE } from "../../domain/rpc/Fleet.ts"
import { RunRecord } from "../../domain/Run.ts"
import { Status } from "../../domain/Status.ts"
import { Timestamp } from "../../domain/Timestamp.ts"
import { type MigrationFailed, migrate } from "../../infra/sql/Migrations.ts"
import {
  type CellFacts,
  type CellKey,
  type CellState,
  History,
  HistoryError,
  type Recorded,
  type Rollup
} from "../History.ts"

/** How long what is kept. */
export interface Retention {
  /** Names of runs; longer than an agent keeps what it could not deliver (24 hours). */
  readonly ledger: Duration.Duration
  /** Whole reports of runs that failed or changed a status. */
  readonly entries: Duration.Duration
  /** Of these the newest of each checker, so that one that fails every second does not fill the disk. */
  readonly entriesOfCell: number
  readonly rollups: Duration.Duration
}

export const defaultRetention: Retention = {
  ledger: Duration.hours(25),
  entries: Duration.days(30),
  entriesOfCell: 2000,
  rollups: Duration.days(90)
}

/** Width of a rollup. */
export const ROLLUP = Duration.minutes(5)

/** How often what is too old is removed, give or take a tenth. */
const PRUNING = Duration.hours(1)

/** Rows removed, and rows read, in one go: a few milliseconds each, and others get their turn between. */
const CHUNK = 5000

/** Cells whose entries are counted in one go. */
const CELLS = 500

const migrations = {
  "1_history": [
    // Ids are never given twice: rows of a forgotten cell outlive it a little.
    `CREATE TABLE cells (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      cluster TEXT NOT NULL,
      namespace TEXT NOT NULL,
      probe TEXT NOT NULL,
      checker TEXT NOT NULL,
      layer TEXT NOT NULL,
      state TEXT,
      UNIQUE (cluster, namespace, probe, checker)
    )`,
    // Ids grow with time, so the oldest are the first: no index on time is needed.
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, received INTEGER NOT NULL, cell INTEGER NOT NULL, run TEXT NOT NULL)",
    "CREATE UNIQUE INDEX ledger_runs ON ledger (cell, run)",
    `CREATE TABLE entries (
      id INTEGER PRIMARY KEY,
      cell INTEGER NOT NULL,
      started INTEGER NOT NULL,
      received INTEGER NOT NULL,
      record TEXT NOT NULL
    )`,
    "CREATE INDEX entries_cells ON entries (cell, started, id)",
    `CREATE TABLE rollups (
      cell INTEGER NOT NULL,
      start INTEGER NOT NULL,
      pass INTEGER NOT NULL,
      info INTEGER NOT NULL,
      "unknown" INTEGER NOT NULL,
      warn INTEGER NOT NULL,
      error INTEGER NOT NULL,
      longest REAL NOT NULL,
      total REAL NOT NULL,
      PRIMARY KEY (cell, start)
    ) WITHOUT ROWID`,
    "CREATE INDEX rollups_starts ON rollups (start)",
    // Cells whose rows are still to be removed.
    "CREATE TABLE forgotten (cell INTEGER PRIMARY KEY)"
  ],
  "2_facts": [
    "CREATE TABLE facts (cell INTEGER PRIMARY KEY, started INTEGER NOT NULL, findings TEXT NOT NULL)"
  ]
}

const StateText = Schema.fromJsonString(Schema.Struct({
  name: Schema.String,
  status: Status,
  code: Schema.optionalKey(Code),
  blame: Schema.optionalKey(Blame),
  message: Schema.String,
  lastRun: Timestamp,
  since: Timestamp,
  consecutiveFailures: Schema.Natural
}))

const RecordText = Schema.fromJsonString(RunRecord)

const CellRows = Schema.Array(Schema.Struct({
  id: Schema.Int,
  cluster: Schema.String,
  namespace: Schema.String,
  probe: Schema.String,
  checker: Schema.String,
  layer: ProbeLayer,
  state: Schema.NullOr(StateText)
}))

const LedgerRows = Schema.Array(Schema.Struct({ cell: Schema.Int, run: Schema.String }))

const EntryRows = Schema.Array(
  Schema.Struct({ id: Schema.Int, started: Schema.Int, received: Schema.Int, record: RecordText })
)

const RollupRows = Schema.Array(Schema.Struct({
  start: Schema.Int,
  pass: Schema.Int,
  info: Schema.Int,
  unknown: Schema.Int,
  warn: Schema.Int,
  error: Schema.Int,
  longest: Schema.Finite,
  total: Schema.Finite
}))

const FactRows = Schema.Array(Schema.Struct({
  id: Schema.Int,
  cluster: Schema.String,
  namespace: Schema.String,
  probe: Schema.String,
  checker: Schema.String,
  started: Schema.Int,
  findings: Schema.fromJsonString(Schema.Array(Finding))
}))

const IdRows = Schema.Array(Schema.Struct({ id: Schema.Int }))

/** Columns of rollups that count. */
const COUNTED = { PASS: "pass", INFO: "info", UNKNOWN: "unknown", WARN: "warn", ERROR: "error" } as const

const countless = { pass: 0, info: 0, unknown: 0, warn: 0, error: 0, longest: 0, total: 0 }

/** Which of a cluster's cells, as text. No part may hold a NUL: Kubernetes has none in names, and the checker comes last. */
const keyOf = (namespace: string, probe: string, checker: string): string => `${namespace}\0${probe}\0${checker}`

/** Whether a run is kept whole: it failed, could not look, or changed what is shown. */
const isEntry = ({ report, standing }: RunRecord): boolean =>
  [report.status, standing.status].some((status) => status !== "PASS" && status !== "INFO") ||
  DateTime.Equivalence(standing.since, report.startedAt)

/** Requires the only `SqlClient` of its file; with `synchronous: "FULL"`, what was acknowledged survives a power cut. */
export const layer = (
  retention: Partial<Retention> = {}
): Layer.Layer<History, MigrationFailed, SqlClient.SqlClient> =>
  Layer.effect(History, make({ ...defaultRetention, ...retention }))

const make = Effect.fnUntraced(function*(retention: Retention) {
  const sql = yield* SqlClient.SqlClient
  yield* migrate("history", migrations)

  const failed = (operation: HistoryError["operation"]) => (error: SqlError.SqlError | Schema.SchemaError) =>
    new HistoryError({ operation, detail: error.message })

  const rowsOf = <A>(schema: Schema.Codec<A, unknown>, rows: Effect.Effect<unknown, SqlError.SqlError>) =>
    Effect.flatMap(rows, Schema.decodeUnknownEffect(schema))

  /** The cells of these records, made where there are none, by their key. */
  const cellsOf = Effect.fnUntraced(function*(cluster: string, records: ReadonlyArray<RunRecord>) {
    const wanted = new Map(records.map(({ layer, probe, report: { checker } }) => [
      keyOf(probe.namespace, probe.name, checker),
      [probe.namespace, probe.name, checker, layer]
    ]))
    const keys = JSON.stringify([...wanted.values()])
    const find = rowsOf(
      CellRows,
      // CROSS JOIN: the order of the tables is meant.
      sql`SELECT cells.* FROM json_each(${keys}) AS given CROSS JOIN cells
        WHERE cluster = ${cluster} AND namespace = given.value ->> 0 AND probe = given.value ->> 1
          AND checker = given.value ->> 2`
    )
    const known = yield* find
    if (known.length === wanted.size) return known
    yield* sql`INSERT INTO cells (cluster, namespace, probe, checker, layer)
      SELECT ${cluster}, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(${keys}) WHERE true
      ON CONFLICT DO NOTHING`
    return yield* find
  })

  /** Enters the runs in the ledger; says which were not in it. */
  const enter = Effect.fnUntraced(function*(rows: ReadonlyArray<readonly [cell: number, run: string]>, now: number) {
    const entered = yield* rowsOf(
      LedgerRows,
      sql`INSERT INTO ledger (received, cell, run)
        SELECT ${now}, value ->> 0, value ->> 1 FROM json_each(${JSON.stringify(rows)}) WHERE true
        ON CONFLICT DO NOTHING RETURNING cell, run`
    )
    return new Set(entered.map(({ cell, run }) => `${cell} ${run}`))
  })

  /** What a late record tells does not replace what is newer, unless that is dated ahead of our clock. */
  const keepFacts = (told: ReadonlyArray<readonly [cell: number, started: number, findings: string]>, now: number) =>
    told.length === 0 ? Effect.void : sql`INSERT INTO facts (cell, started, findings)
      SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(${JSON.stringify(told)}) WHERE true
      ON CONFLICT DO UPDATE SET started = excluded.started, findings = excluded.findings
        WHERE excluded.started >= started OR started > ${now}`

  const write = Effect.fnUntraced(function*(cluster: string, records: ReadonlyArray<RunRecord>) {
    const time = yield* DateTime.now
    const now = DateTime.toEpochMillis(time)
    const cells = new Map<string, { readonly id: number; cell: CellState | undefined }>()
    for (const row of yield* cellsOf(cluster, records)) {
      const { checker, id, layer, namespace, probe, state } = row
      cells.set(keyOf(namespace, probe, checker), {
        id,
        cell: state === null ? undefined : { cluster, probe: { namespace, name: probe }, checker, layer, state }
      })
    }
    const placed: Array<
      { readonly record: RunRecord; readonly at: { readonly id: number; cell: CellState | undefined } }
    > = []
    for (const record of records) {
      const at = cells.get(keyOf(record.probe.namespace, record.probe.name, record.report.checker))
      if (at === undefined) return yield* Effect.die(new Error("a cell is missing that was just made"))
      placed.push({ record, at })
    }
    const fresh = yield* enter(placed.map(({ at, record }) => [at.id, record.run]), now)

    const recorded: Array<Recorded> = []
    const entries: Array<readonly [cell: number, started: number, record: string]> = []
    const counts = new Map<string, { readonly cell: number; readonly start: number } & typeof countless>()
    const changed = new Map<number, CellState>()
    const facts = new Map<number, readonly [cell: number, started: number, findings: string]>()
    for (const { at, record } of placed) {
      // The first of several in one delivery counts.
      if (!fresh.delete(`${at.id} ${record.run}`)) continue
      const { layer, probe, report, standing } = record
      const previous = at.cell
      const state = CheckerState.make(report, standing)
      // A date ahead of our clock is of one that is, or was, ahead. Agents deliver in the order of their runs.
      const isLatest = previous === undefined || DateTime.isGreaterThan(previous.state.lastRun, time) ||
        CheckerState.latest(previous.state, state) === state
      const cell = isLatest ? { cluster, probe, checker: report.checker, layer, state } : previous
      if (isLatest) {
        at.cell = cell
        changed.set(at.id, cell)
      }
      recorded.push({ cell, previous: Option.map(Option.fromUndefinedOr(previous), ({ state }) => state), isLatest })

      const started = DateTime.toEpochMillis(report.startedAt)
      if (Facts.fromReport(report) !== undefined) {
        facts.set(at.id, [at.id, started, JSON.stringify(report.findings.filter(({ code }) => code === Facts.FACTS))])
      }
      if (isEntry(record)) entries.push([at.id, started, yield* Schema.encodeEffect(RecordText)(record)])
      const start = started - started % Duration.toMillis(ROLLUP)
      const bucket = `${at.id} ${start}`
      const count = counts.get(bucket) ?? { cell: at.id, start, ...countless }
      const column = COUNTED[standing.status]
      counts.set(bucket, {
        ...count,
        [column]: count[column] + 1,
        longest: Math.max(count.longest, report.duration),
        total: count.total + report.duration
      })
    }
    if (recorded.length === 0) return recorded

    const states: Array<readonly [id: number, layer: string, state: string]> = []
    for (const [id, { layer, state }] of changed) {
      states.push([id, layer, yield* Schema.encodeEffect(StateText)(state)])
    }
    yield* sql`UPDATE cells SET layer = value ->> 1, state = value ->> 2 FROM json_each(${JSON.stringify(states)})
      WHERE cells.id = value ->> 0`
    yield* sql`INSERT INTO rollups (cell, start, pass, info, "unknown", warn, error, longest, total)
      SELECT value ->> 'cell', value ->> 'start', value ->> 'pass', value ->> 'info', value ->> 'unknown',
        value ->> 'warn', value ->> 'error', value ->> 'longest', value ->> 'total'
      FROM json_each(${JSON.stringify([...counts.values()])}) WHERE true
      ON CONFLICT DO UPDATE SET pass = pass + excluded.pass, info = info + excluded.info,
        "unknown" = "unknown" + excluded."unknown", warn = warn + excluded.warn, error = error + excluded.error,
        longest = max(longest, excluded.longest), total = total + excluded.total`
    yield* keepFacts([...facts.values()], now)
    if (entries.length > 0) {
      yield* sql`INSERT INTO entries (cell, started, received, record)
        SELECT value ->> 0, value ->> 1, ${now}, value ->> 2 FROM json_each(${JSON.stringify(entries)})`
    }
    return recorded
  })

  const record = Effect.fn("History.record")(function*(cluster: string, records: ReadonlyArray<RunRecord>) {
    if (records.length === 0) return []
    return yield* Effect.mapError(sql.withTransaction(write(cluster, records)), failed("record"))
  })

  const latest = Effect.fn("History.latest")(function*(cluster?: string) {
    const found: Array<CellState> = []
    let last = 0
    while (true) {
      const rows = yield* rowsOf(
        CellRows,
        cluster === undefined
          ? sql`SELECT * FROM cells WHERE id > ${last} ORDER BY id LIMIT ${CHUNK}`
          : sql`SELECT * FROM cells WHERE cluster = ${cluster} AND id > ${last} ORDER BY id LIMIT ${CHUNK}`
      ).pipe(Effect.mapError(failed("read")))
      for (const { checker, cluster, id, layer, namespace, probe, state } of rows) {
        last = id
        if (state !== null) found.push({ cluster, probe: { namespace, name: probe }, checker, layer, state })
      }
      if (rows.length < CHUNK) return found
      yield* Effect.yieldNow
    }
  })

  const facts: History["Service"]["facts"] = Effect.gen(function*() {
    const found: Array<CellFacts> = []
    let last = 0
    while (true) {
      // Some kilobytes each.
      const rows = yield* rowsOf(
        FactRows,
        sql`SELECT cells.id, cluster, namespace, probe, checker, started, findings
          FROM facts CROSS JOIN cells ON cells.id = facts.cell WHERE facts.cell > ${last} ORDER BY facts.cell
          LIMIT ${CELLS}`
      ).pipe(Effect.mapError(failed("read")))
      for (const { checker, cluster, findings, id, namespace, probe, started } of rows) {
        last = id
        const facts = Facts.fromReport({ findings, truncated: 0 })
        if (facts === undefined) continue
        found.push({
          cluster,
          probe: { namespace, name: probe },
          checker,
          startedAt: DateTime.makeUnsafe(started),
          facts
        })
      }
      if (rows.length < CELLS) return found
      yield* Effect.yieldNow
    }
  })

  const idOf = ({ checker, cluster, probe }: CellKey) =>
    sql`(SELECT id FROM cells WHERE cluster = ${cluster} AND namespace = ${probe.namespace} AND probe = ${probe.name}
      AND checker = ${checker})`

  const entries: History["Service"]["entries"] = Effect.fn("History.entries")(function*(cell, options) {
    const cursor = options.after === undefined ? FIRST : fromCursor(options.after)
    if (cursor === undefined) return Option.none()
    const limit = Math.min(options.limit, MAX_PAGE)
    const from = options.from === undefined ? 0 : DateTime.toEpochMillis(options.from)
    const to = options.to === undefined ? Number.MAX_SAFE_INTEGER : DateTime.toEpochMillis(options.to)
    const rows = yield* rowsOf(
      EntryRows,
      sql`SELECT id, started, received, record FROM entries
        WHERE cell = ${idOf(cell)} AND started BETWEEN ${from} AND ${to}
          AND (started, id) < (${cursor.started}, ${cursor.id})
        ORDER BY started DESC, id DESC LIMIT ${limit + 1}`
    ).pipe(Effect.mapError(failed("read")))
    const page = rows.slice(0, limit)
    const last = page.at(-1)
    const items = page.map(({ received, record }) => ({ record, receivedAt: DateTime.makeUnsafe(received) }))
    return Option.some(rows.length > limit && last !== undefined ? { items, next: toCursor(last) } : { items })
  })

  const rollups: History["Service"]["rollups"] = Effect.fn("History.rollups")(function*(cell, { from, to }) {
    const width = Duration.toMillis(ROLLUP)
    const first = DateTime.toEpochMillis(from)
    const rows = yield* rowsOf(
      RollupRows,
      sql`SELECT * FROM rollups
        WHERE cell = ${idOf(cell)} AND start > ${first - width} AND start <= ${DateTime.toEpochMillis(to)}
        ORDER BY start LIMIT ${MAX_PAGE}`
    ).pipe(Effect.mapError(failed("read")))
    return rows.map((row): Rollup => ({
      start: DateTime.makeUnsafe(row.start),
      counts: Object.fromEntries(
        Status.literals.flatMap((status) => row[COUNTED[status]] === 0 ? [] : [[status, row[COUNTED[status]]]])
      ),
      longest: row.longest,
      total: row.total
    }))
  })

  const runs: History["Service"]["runs"] = Effect.fn("History.runs")(function*(cluster) {
    const rows = yield* rowsOf(
      Schema.Array(Schema.Struct({ name: Schema.String, kept: Schema.Int })),
      sql`SELECT run || ' ' || namespace || '/' || probe || ' ' || checker AS name, count(*) AS kept
        FROM cells JOIN ledger ON ledger.cell = cells.id WHERE cluster = ${cluster} GROUP BY name`
    ).pipe(Effect.mapError(failed("read")))
    return new Map(rows.map(({ kept, name }) => [name, kept]))
  })

  /** Removes in small steps until a step finds less than it may take. */
  const inChunks = (remove: Effect.Effect<unknown, SqlError.SqlError>) =>
    sql.withTransaction(Effect.andThen(remove, sql`SELECT changes() AS removed`)).pipe(
      Effect.map(([row]) => Number(row?.["removed"])),
      Effect.tap(() => Effect.yieldNow),
      Effect.repeat({ while: (removed) => removed >= CHUNK })
    )

  /** Removes the rows of forgotten cells. A crash between only delays it. */
  const purge = Effect.gen(function*() {
    const cells = yield* rowsOf(Schema.Array(Schema.Struct({ cell: Schema.Int })), sql`SELECT cell FROM forgotten`)
    for (const { cell } of cells) {
      yield* inChunks(sql`DELETE FROM ledger WHERE id IN (SELECT id FROM ledger WHERE cell = ${cell} LIMIT ${CHUNK})`)
      yield* inChunks(sql`DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE cell = ${cell} LIMIT ${CHUNK})`)
      yield* inChunks(sql`DELETE FROM rollups WHERE cell = ${cell} AND start IN
        (SELECT start FROM rollups WHERE cell = ${cell} LIMIT ${CHUNK})`)
      yield* sql`DELETE FROM facts WHERE cell = ${cell}`
      yield* sql`DELETE FROM forgotten WHERE cell = ${cell}`
    }
  })

  /** Ids grow with time: all before the first row that is young enough. What a clock set back hides waits its turn. */
  const removeOlder = Effect.fnUntraced(function*(table: "ledger" | "entries", oldest: number) {
    const first = yield* rowsOf(
      IdRows,
      sql`SELECT id FROM ${sql(table)} WHERE received >= ${oldest} ORDER BY id LIMIT 1`
    )
    const end = first[0]?.id ?? Number.MAX_SAFE_INTEGER
    yield* inChunks(sql`DELETE FROM ${sql(table)} WHERE id IN (
      SELECT id FROM ${sql(table)} WHERE id < ${end} ORDER BY id LIMIT ${CHUNK})`)
  })

  /** Of each cell all entries but the newest. */
  const removeExcess = Effect.gen(function*() {
    const newest = yield* rowsOf(IdRows, sql`SELECT coalesce(max(id), 0) AS id FROM cells`)
    for (let from = 0; from < (newest[0]?.id ?? 0); from += CELLS) {
      const full = yield* rowsOf(
        IdRows,
        sql`SELECT cell AS id FROM entries WHERE cell > ${from} AND cell <= ${from + CELLS}
          GROUP BY cell HAVING count(*) > ${retention.entriesOfCell}`
      )
      for (const { id } of full) {
        yield* inChunks(sql`DELETE FROM entries WHERE id IN (
          SELECT id FROM entries WHERE cell = ${id} ORDER BY started DESC, id DESC
          LIMIT ${CHUNK} OFFSET ${retention.entriesOfCell})`)
      }
      yield* Effect.yieldNow
    }
  })

  const prune = Effect.fn("History.prune")(function*() {
    const now = DateTime.toEpochMillis(yield* DateTime.now)
    const before = (life: Duration.Duration) => now - Duration.toMillis(life)
    yield* removeOlder("ledger", before(retention.ledger))
    yield* removeOlder("entries", before(retention.entries))
    yield* removeExcess
    yield* inChunks(sql`DELETE FROM rollups WHERE (cell, start) IN (
      SELECT cell, start FROM rollups WHERE start < ${before(retention.rollups)} LIMIT ${CHUNK})`)
    yield* purge
  }, Effect.mapError(failed("prune")))

  const forget: History["Service"]["forget"] = Effect.fn("History.forget")(function*(cluster, keep) {
    const gone = (yield* latest(cluster)).filter((cell) => keep === undefined || !keep(cell))
    if (gone.length === 0 && keep !== undefined) return
    const keys = JSON.stringify(gone.map(({ checker, probe }) => [probe.namespace, probe.name, checker]))
    const ids = keep === undefined
      ? sql`SELECT id FROM cells WHERE cluster = ${cluster}`
      : sql`SELECT cells.id FROM json_each(${keys}) AS given CROSS JOIN cells
          WHERE cluster = ${cluster} AND namespace = given.value ->> 0 AND probe = given.value ->> 1
            AND checker = given.value ->> 2`
    yield* sql.withTransaction(Effect.gen(function*() {
      yield* sql`INSERT INTO forgotten ${ids}`
      yield* sql`DELETE FROM cells WHERE id IN (SELECT cell FROM forgotten)`
    })).pipe(Effect.andThen(purge), Effect.mapError(failed("prune")))
  })

  const pause = Effect.flatMap(
    Random.nextBetween(0.9, 1.1),
    (factor) => Effect.sleep(Duration.millis(Duration.toMillis(PRUNING) * factor))
  )
  yield* prune().pipe(
    // The next round may do what this one could not.
    Effect.catch((error) =>
      Effect.logWarning("the history could not be pruned").pipe(
        Effect.annotateLogs({ detail: error.detail })
      )
    ),
    Effect.andThen(pause),
    Effect.forever,
    Effect.forkScoped
  )

  return History.of({ record, latest, facts, entries, rollups, runs, forget })
})

interface Cursor {
  readonly started: number
  readonly id: number
}

/** Before all entries, newest first. */
const FIRST: Cursor = { started: Number.MAX_SAFE_INTEGER, id: Number.MAX_SAFE_INTEGER }

/** The last entry of a page, opaque to whom it is given. */
const toCursor = ({ id, started }: Cursor): string => Buffer.from(`${started} ${id}`).toString("base64url")

const fromCursor = (text: string): Cursor | undefined => {
  const [, started, id] = /^(\d{1,15}) (\d{1,15})$/.exec(Buffer.from(text, "base64url").toString()) ?? []
  return started === undefined || id === undefined ? undefined : { started: Number(started), id: Number(id) }
}
