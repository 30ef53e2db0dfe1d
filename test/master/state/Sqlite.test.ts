import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { migrate } from "../../../src/infra/sql/Migrations.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"

const inFolder = <A, E>(use: (folder: string) => Effect.Effect<A, E, FileSystem.FileSystem>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return yield* use(`${yield* fs.makeTempDirectoryScoped()}/state`)
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const opened = <A, E, R>(file: string, use: Effect.Effect<A, E, R>) =>
  Effect.provide(use, Layer.fresh(Sqlite.layer({ file })))

const table = migrate("numbers", { "1_numbers": ["CREATE TABLE numbers (n INTEGER PRIMARY KEY)"] })
const count = SqlClient.SqlClient.use((sql) => Effect.map(sql`SELECT n FROM numbers`, (rows) => rows.length))

describe("Sqlite", () => {
  it.live("keeps what was committed, for its owner alone", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const file = `${folder}/a.db`
        const modes = yield* opened(
          file,
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* table
            yield* sql`INSERT INTO numbers ${sql.insert([{ n: 1 }, { n: 2 }])}`
            return yield* Effect.forEach(
              [folder, file, `${file}-wal`],
              (path) => Effect.map(fs.stat(path), ({ mode }) => Number(mode) & 0o777)
            )
          })
        )
        assert.deepStrictEqual(modes, [0o700, 0o600, 0o600])
        assert.strictEqual(yield* opened(file, Effect.andThen(table, count)), 2)
      })
    ))

  it.live("undoes a transaction that fails, also an inner one alone", () =>
    inFolder((folder) =>
      opened(
        `${folder}/a.db`,
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* table
          yield* Effect.ignore(
            sql.withTransaction(Effect.andThen(sql`INSERT INTO numbers VALUES (1)`, Effect.fail("no")))
          )
          assert.strictEqual(yield* count, 0)
          yield* sql.withTransaction(Effect.gen(function*() {
            yield* sql`INSERT INTO numbers VALUES (1)`
            const twice = yield* Effect.flip(sql.withTransaction(sql`INSERT INTO numbers VALUES (2), (1)`))
            assert.strictEqual(twice.reason._tag, "ConstraintError")
          }))
          assert.strictEqual(yield* count, 1)
        })
      )
    ))

  it.live("lets transactions of many fibers pass one by one", () =>
    inFolder((folder) =>
      opened(
        `${folder}/a.db`,
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* table
          const next = sql.withTransaction(Effect.gen(function*() {
            const taken = yield* count
            yield* Effect.yieldNow
            yield* sql`INSERT INTO numbers VALUES (${taken + 1})`
          }))
          yield* Effect.all(Array.from({ length: 50 }, () => next), { concurrency: "unbounded" })
          assert.strictEqual(yield* count, 50)
        })
      )
    ))

  it.live("says why a file cannot be used", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        yield* fs.makeDirectory(folder)
        const refusal = (file: string) => Effect.flip(opened(file, Effect.void))
        yield* fs.writeFileString(
          `${folder}/text.db`,
          "no database at all, but long enough to be read as one".repeat(20)
        )
        const damaged = yield* refusal(`${folder}/text.db`)
        assert.strictEqual(damaged.reason, "Damaged")
        assert.match(damaged.message, /text\.db is damaged or not a database: .*; restore a copy/)
        yield* fs.writeFileString(`${folder}/file`, "")
        assert.strictEqual((yield* refusal(`${folder}/file/a.db`)).reason, "Inaccessible")
        const inUse = yield* opened(`${folder}/a.db`, refusal(`${folder}/a.db`))
        assert.strictEqual(inUse.reason, "InUse")
      })
    ))

  it.live("refuses the tables of a newer version", () =>
    inFolder((folder) =>
      opened(
        `${folder}/a.db`,
        Effect.gen(function*() {
          yield* migrate("part", { "1_one": ["CREATE TABLE one (n)"], "2_two": ["CREATE TABLE two (n)"] })
          const refused = yield* Effect.flip(migrate("part", { "1_one": ["CREATE TABLE one (n)"] }))
          assert.match(refused.message, /tables of part .* a newer version/)
          const wrong = yield* Effect.flip(migrate("other", { "1_one": ["CREATE TABLE x (n)", "CREATE NONSENSE"] }))
          assert.match(wrong.message, /tables of other .*syntax error/)
        })
      )
    ))
})
