/**
 * What the master has not acknowledged yet, in a file: survives the agent's death and a master that is away, for a day.
 *
 * Bounded by age, number and size. What is dropped is dropped oldest first, counted and logged.
 */
import { Clock, Context, DateTime, Effect, Latch, Layer, Option, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { RunRecord } from "../domain/Run.ts"
import { type MigrationFailed, type Migrations, migrate } from "../infra/sql/Migrations.ts"

export interface OutboxLimits {
  readonly maxAgeMillis: number
  readonly maxRecords: number
  readonly maxBytes: number
}

/** A day; at 100 checks a minute that is 144,000 records of some hundred bytes. */
export const defaultLimits: OutboxLimits = {
  maxAgeMillis: 24 * 3_600_000,
  maxRecords: 250_000,
  maxBytes: 256 << 20
}

/** Records in the order they were made, and the number to acknowledge them by. */
export interface Batch {
  readonly records: ReadonlyArray<RunRecord>
  readonly upTo: number
}

export class Outbox extends Context.Service<Outbox, {
  /** Durable when it returns. A disk that is full loses records, not runs: that is logged. */
  readonly append: (records: ReadonlyArray<RunRecord>) => Effect.Effect<void>
  /** The oldest, at most `records` of them and, beyond the first, at most `bytes` of JSON. None when there are none. */
  readonly peek: (most: { readonly records: number; readonly bytes: number }) => Effect.Effect<Option.Option<Batch>>
  /** Forgets records up to and with this number. */
  readonly ack: (upTo: number) => Effect.Effect<void>
  /** Waits until there is something. */
  readonly pending: Effect.Effect<void>
  readonly size: Effect.Effect<{ readonly count: number; readonly oldest?: DateTime.Utc }>
  /** Records given up since the agent started. */
  readonly dropped: Effect.Effect<number>
}>()("kubeprober/agent/Outbox") {
  static readonly layerSqlite = (
    limits: Partial<OutboxLimits> = {}
  ): Layer.Layer<Outbox, MigrationFailed | SqlError.SqlError | Schema.SchemaError, SqlClient.SqlClient> =>
    Layer.effect(Outbox, make({ ...defaultLimits, ...limits }))

  /** Where there is no master. */
  static readonly layerNone: Layer.Layer<Outbox> = Layer.succeed(Outbox, {
    append: () => Effect.void,
    peek: () => Effect.succeedNone,
    ack: () => Effect.void,
    pending: Effect.never,
    size: Effect.succeed({ count: 0 }),
    dropped: Effect.succeed(0)
  })
}

const migrations: Migrations = {
  "1_outbox": [
    // AUTOINCREMENT: a number is never given twice, so that a late acknowledgement forgets nothing newer.
    `CREATE TABLE outbox (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      made INTEGER NOT NULL,
      bytes INTEGER NOT NULL,
      record TEXT NOT NULL
    )`
  ]
}

const RecordText = Schema.fromJsonString(RunRecord)
const encodeRecord = Schema.encodeEffect(RecordText)
const decodeRecord = Schema.decodeUnknownOption(RecordText)
const decodeTotals = Schema.decodeUnknownEffect(
  Schema.Tuple([Schema.Struct({ count: Schema.Int, bytes: Schema.Int })])
)
const decodeRows = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ id: Schema.Int, made: Schema.Int, bytes: Schema.Int, record: Schema.String }))
)
const decodeOldest = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ id: Schema.Int, made: Schema.Int, bytes: Schema.Int }))
)

/** How many of the oldest are looked at when room is made. */
const DROP_PAGE = 1000

const make = Effect.fnUntraced(function*(limits: OutboxLimits) {
  const sql = yield* SqlClient.SqlClient
  yield* migrate("outbox", migrations)
  const totals = sql`SELECT count(*) AS count, coalesce(sum(bytes), 0) AS bytes FROM outbox`.pipe(
    Effect.flatMap(decodeTotals)
  )
  // This process alone has the file, so counting once is enough.
  let [{ bytes, count }] = yield* totals
  let dropped = 0
  const filled = yield* Latch.make(count > 0)

  const recount = Effect.gen(function*() {
    const [now] = yield* totals
    count = now.count
    bytes = now.bytes
    yield* count > 0 ? filled.open : filled.close
  })

  /** Makes room: the oldest go, by age, number and size. */
  const trim = Effect.gen(function*() {
    const expired = (yield* Clock.currentTimeMillis) - limits.maxAgeMillis
    while (count > 0) {
      const oldest = yield* Effect.flatMap(
        sql`SELECT id, made, bytes FROM outbox ORDER BY id LIMIT ${DROP_PAGE}`,
        decodeOldest
      )
      let upTo: number | undefined
      let gone = 0
      let lighter = 0
      for (const row of oldest) {
        const tooMany = count - gone > limits.maxRecords || bytes - lighter > limits.maxBytes
        if (row.made >= expired && !tooMany) break
        upTo = row.id
        gone++
        lighter += row.bytes
      }
      if (upTo === undefined) return
      yield* sql`DELETE FROM outbox WHERE id <= ${upTo}`
      count -= gone
      bytes -= lighter
      dropped += gone
      yield* Effect.logWarning("undelivered results were dropped: the master was away for too long").pipe(
        Effect.annotateLogs({ records: gone, sinceStart: dropped })
      )
      if (gone < oldest.length) return
    }
  })

  const told = (what: string) => (error: { readonly message: string }) =>
    Effect.logError(`${what}: ${error.message}; check the state folder's disk`)

  const append = Effect.fn("Outbox.append")(
    function*(records: ReadonlyArray<RunRecord>) {
      if (records.length === 0) return
      const texts = yield* Effect.forEach(records, (record) => encodeRecord(record))
      const rows = texts.map((record) => ({ bytes: Buffer.byteLength(record), record }))
      const now = yield* Clock.currentTimeMillis
      yield* sql`INSERT INTO outbox (made, bytes, record)
      SELECT ${now}, json_extract(value, '$.bytes'), json_extract(value, '$.record')
      FROM json_each(${JSON.stringify(rows)}) ORDER BY key`
      count += rows.length
      for (const row of rows) bytes += row.bytes
      yield* filled.open
      yield* trim
    },
    Effect.catch(told("results could not be kept for the master")),
    Effect.uninterruptible
  )

  const peek = Effect.fn("Outbox.peek")(
    function*(most: { readonly records: number; readonly bytes: number }) {
      yield* trim
      const rows = yield* Effect.flatMap(
        sql`SELECT id, made, bytes, record FROM outbox ORDER BY id LIMIT ${most.records}`,
        decodeRows
      )
      const records: Array<RunRecord> = []
      let size = 0
      let upTo: number | undefined
      for (const row of rows) {
        size += row.bytes
        if (upTo !== undefined && size > most.bytes) break
        upTo = row.id
        const record = decodeRecord(row.record)
        // Of another version, or damaged: nothing that anyone could still read.
        if (Option.isSome(record)) records.push(record.value)
        else yield* Effect.logError("a kept result cannot be read and is left out")
      }
      if (upTo === undefined) yield* recount
      return Option.map(Option.fromNullishOr(upTo), (last): Batch => ({ records, upTo: last }))
    },
    Effect.catch((error) => Effect.as(told("kept results could not be read")(error), Option.none<Batch>()))
  )

  const ack = Effect.fn("Outbox.ack")(
    function*(upTo: number) {
      yield* sql`DELETE FROM outbox WHERE id <= ${upTo}`
      yield* recount
    },
    Effect.catch(told("acknowledged results could not be removed")),
    Effect.uninterruptible
  )

  return Outbox.of({
    append,
    peek,
    ack,
    pending: filled.await,
    size: sql`SELECT id, made, bytes FROM outbox ORDER BY id LIMIT 1`.pipe(
      Effect.flatMap(decodeOldest),
      Effect.orElseSucceed(() => []),
      Effect.map(([oldest]) => ({
        count,
        ...(oldest === undefined ? {} : { oldest: DateTime.makeUnsafe(oldest.made) })
      }))
    ),
    dropped: Effect.sync(() => dropped)
  })
})
