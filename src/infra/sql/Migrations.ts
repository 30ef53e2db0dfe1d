/**
 * Brings the tables of one part of a database up to date when its layer is built.
 *
 * Each part counts its own migrations in a table of its own, so parts that share a file do not know of each other.
 */
import { Data, Effect } from "effect"
import { Migrator, SqlClient } from "effect/sql"

/** The tables of a part are not as this version needs them. Nothing was changed. */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  readonly part: string
  readonly detail: string
}> {
  override get message(): string {
    return `the tables of ${this.part} could not be brought up to date: ${this.detail}`
  }
}

/** By number from 1, each a list of statements. What was released is never changed, only followed. */
export type Migrations = Readonly<Record<`${number}_${string}`, ReadonlyArray<string>>>

/** Runs those that have not run yet, all or none. Refuses tables of a newer version. */
export const migrate = Effect.fn("Migrations.migrate")(
  function*(part: string, migrations: Migrations) {
    const sql = yield* SqlClient.SqlClient
    const table = `${part}_migrations`
    const steps = Object.entries(migrations).map(([name, statements]) =>
      [name, Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })] as const
    )
    yield* Migrator.make({})({ table, loader: Migrator.fromRecord(Object.fromEntries(steps)) })
    const [last] = yield* sql`SELECT max(migration_id) AS id FROM ${sql(table)}`
    if (Number(last?.["id"] ?? 0) > steps.length) {
      return yield* new MigrationFailed({ part, detail: "a newer version of kubeprober wrote them; use that version" })
    }
  },
  (effect, part) =>
    Effect.mapError(effect, (error) =>
      error._tag === "MigrationFailed"
        ? error
        : new MigrationFailed({
          part,
          detail: "cause" in error && error.cause instanceof Error ? error.cause.message : error.message
        }))
)
