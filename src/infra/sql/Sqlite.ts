/**
 * `effect/sql` over `node:sqlite`: one file, one connection, one owner.
 *
 * The driver package of Effect does not run with Effect 4.1, and `node:sqlite` needs nothing installed. Calls are
 * synchronous: keep statements short, and write many rows by one statement over `json_each`.
 */
import { Data, Effect, Layer, Schedule, type Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError, Statement } from "effect/sql"
import { chmodSync, closeSync, mkdirSync, openSync } from "node:fs"
import { dirname } from "node:path"
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"

/** The file cannot be used, and waiting will not mend it. */
export class SqliteError extends Data.TaggedError("SqliteError")<{
  readonly file: string
  /** `Damaged`: not a database, or not a whole one. */
  readonly reason: "InUse" | "ReadOnly" | "Damaged" | "Full" | "Inaccessible"
  readonly detail: string
}> {
  override get message(): string {
    return `the database ${this.file} ${SAYS[this.reason]}: ${this.detail}${NEXT[this.reason]}`
  }
}

const SAYS: Record<SqliteError["reason"], string> = {
  InUse: "is in use by another process",
  ReadOnly: "cannot be written",
  Damaged: "is damaged or not a database",
  Full: "has no room left",
  Inaccessible: "cannot be opened"
}

const NEXT: Record<SqliteError["reason"], string> = {
  InUse: "; stop that process, or name another file",
  ReadOnly: "; give this user the right to write the file and its folder",
  Damaged: "; restore a copy of it, or move it away to begin anew",
  Full: "; make room on its disk",
  Inaccessible: "; check its path and permissions"
}

/** SQLite's result codes (https://www.sqlite.org/rescode.html), the primary ones. */
const reasonOf = (code: number | undefined): SqliteError["reason"] => {
  switch (code) {
    case 5: // SQLITE_BUSY
    case 6: // SQLITE_LOCKED
      return "InUse"
    case 8: // SQLITE_READONLY
      return "ReadOnly"
    case 11: // SQLITE_CORRUPT
    case 26: // SQLITE_NOTADB
      return "Damaged"
    case 13: // SQLITE_FULL
      return "Full"
    default:
      return "Inaccessible"
  }
}

export interface SqliteOptions {
  /** Its folder is made when there is none (mode 0700); the file is readable by its owner alone (0600). */
  readonly file: string
  /**
   * `NORMAL` (default): a commit survives the death of the process at any moment, and may be lost, never torn, when the
   * machine loses power. `FULL`: it survives that too, at the price of one fsync a commit.
   */
  readonly synchronous?: "NORMAL" | "FULL" | undefined
}

/** Statements kept prepared. Ours are a few dozen; the bound is for texts made from lists. */
const PREPARED = 256

/** How long another owner may take to let go: a restart overlaps with the end of the one before. */
const patience = { schedule: Schedule.spaced("100 millis"), times: 50 }

/** Opens the file for this process alone, until the layer's scope ends. */
export const layer = (options: SqliteOptions): Layer.Layer<SqlClient.SqlClient, SqliteError> =>
  Layer.effect(SqlClient.SqlClient, make(options)).pipe(Layer.provide(Reactivity.layer))

export const make: (
  options: SqliteOptions
) => Effect.Effect<SqlClient.SqlClient, SqliteError, Scope.Scope | Reactivity.Reactivity> = Effect.fnUntraced(
  function*(options: SqliteOptions) {
    const database = yield* Effect.acquireRelease(
      Effect.retry(open(options), { ...patience, while: ({ reason }) => reason === "InUse" }),
      (database) => Effect.sync(() => database.close())
    )
    const connection = connectionOf(database)
    const acquirers = SqlClient.makeSqliteAcquirers({
      connection: Effect.succeed(connection),
      semaphore: yield* Semaphore.make(1),
      isTransaction: () => database.isTransaction
    })
    return yield* SqlClient.make({
      ...acquirers,
      compiler: Statement.makeCompilerSqlite(),
      driver: "node:sqlite",
      // A transaction that reads first and writes then would fail with SQLITE_BUSY_SNAPSHOT instead of waiting.
      beginTransaction: "BEGIN IMMEDIATE",
      prepareTransactionControls: true,
      releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
      spanAttributes: [["db.system.name", "sqlite"]]
    })
  }
)

const open = Effect.fnUntraced(function*({ file, synchronous = "NORMAL" }: SqliteOptions) {
  // Not at the top: it costs every command of the CLI 5 ms, and only some keep state.
  const { DatabaseSync } = yield* Effect.promise(() => import("node:sqlite"))
  const failed = (cause: unknown) =>
    new SqliteError({ file, reason: reasonOf(primaryCode(cause)), detail: text(cause) })
  yield* Effect.try({
    try: () => {
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
      // SQLite gives the -wal file the mode of the file itself.
      closeSync(openSync(file, "a", 0o600))
      chmodSync(file, 0o600)
    },
    catch: (cause) =>
      new SqliteError({
        file,
        reason: /EROFS|EACCES/.test(text(cause)) ? "ReadOnly" : "Inaccessible",
        detail: text(cause)
      })
  })
  const database = yield* Effect.try({
    try: () => new DatabaseSync(file, { timeout: 0, enableForeignKeyConstraints: true }),
    catch: failed
  })
  return yield* Effect.try({
    try: () => {
      // The owner keeps things in memory that a second one would make false. The lock goes with the process.
      database.exec("PRAGMA locking_mode = EXCLUSIVE")
      database.exec("PRAGMA journal_mode = WAL")
      database.exec(`PRAGMA synchronous = ${synchronous}`)
      database.exec("BEGIN EXCLUSIVE; COMMIT")
      return database
    },
    catch: failed
  }).pipe(Effect.tapError(() => Effect.sync(() => database.close())))
})

const text = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const primaryCode = (cause: unknown): number | undefined =>
  cause instanceof Error && "errcode" in cause && typeof cause.errcode === "number" ? cause.errcode & 0xff : undefined

/** `node:sqlite` names the result code `errcode`; Effect reads `errno`. */
const numbered = (cause: unknown): unknown =>
  cause instanceof Error && "errcode" in cause ? Object.assign(cause, { errno: cause.errcode }) : cause

const toInput = (value: unknown): SQLInputValue => {
  switch (typeof value) {
    case "string":
    case "number":
    case "bigint":
      return value
    case "boolean":
      return value ? 1 : 0
    default:
      if (value === null || value instanceof Uint8Array) return value
      throw new TypeError(`a parameter is of type ${typeof value}, which SQLite cannot keep`)
  }
}

const connectionOf = (database: DatabaseSync): SqlConnection.Connection => {
  const prepared = new Map<string, StatementSync>()

  /** The least recently used one goes first: a Map keeps the order of insertion. */
  const prepare = (sql: string): StatementSync => {
    const known = prepared.get(sql)
    const statement = known ?? database.prepare(sql)
    if (known !== undefined) prepared.delete(sql)
    else if (prepared.size >= PREPARED) {
      for (const [oldest] of prepared) {
        prepared.delete(oldest)
        break
      }
    }
    prepared.set(sql, statement)
    return statement
  }

  const attempt = <A>(sql: string, run: () => A) =>
    Effect.try({
      try: run,
      catch: (cause) =>
        new SqlError.SqlError({
          reason: SqlError.classifySqliteError(numbered(cause), { message: text(cause), operation: sql.slice(0, 100) })
        })
    })

  const rows = (sql: string, parameters: ReadonlyArray<unknown>, cached = true) =>
    attempt(sql, (): ReadonlyArray<Record<string, unknown>> => {
      const statement = cached ? prepare(sql) : database.prepare(sql)
      statement.setReturnArrays(false)
      return statement.all(...parameters.map(toInput))
    })

  const values = (sql: string, parameters: ReadonlyArray<unknown>, cached = true) =>
    attempt(sql, (): ReadonlyArray<ReadonlyArray<unknown>> => {
      const statement = cached ? prepare(sql) : database.prepare(sql)
      statement.setReturnArrays(true)
      return statement.all(...parameters.map(toInput)).map((row) => Array.isArray(row) ? row : Object.values(row))
    })

  type Transform = (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined
  const transformed = (
    result: Effect.Effect<ReadonlyArray<Record<string, unknown>>, SqlError.SqlError>,
    transform: Transform
  ) => transform === undefined ? result : Effect.map(result, (found) => transform(found))

  return {
    execute: (sql, parameters, transform) => transformed(rows(sql, parameters), transform),
    executeUnprepared: (sql, parameters, transform) => transformed(rows(sql, parameters, false), transform),
    executeRaw: (sql, parameters) => rows(sql, parameters),
    executeValues: (sql, parameters) => values(sql, parameters),
    executeValuesUnprepared: (sql, parameters) => values(sql, parameters, false),
    // Read at once: an open cursor would keep the one connection from everybody. Page what may be long.
    executeStream: (sql, parameters, transform) =>
      Stream.fromIterableEffect(transformed(rows(sql, parameters), transform))
  }
}
