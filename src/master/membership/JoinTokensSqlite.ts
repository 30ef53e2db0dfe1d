/** Join tokens in SQLite: of the secret its hash alone. */
import { DateTime, Effect, Layer, Option, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { JoinTokenStore, KEPT } from "../../infra/pki/JoinTokens.ts"
import { type MigrationFailed, migrate } from "../../infra/sql/Migrations.ts"

const migrations = {
  "1_join_tokens": [
    `CREATE TABLE join_tokens (
      id TEXT PRIMARY KEY,
      cluster TEXT NOT NULL,
      hash TEXT NOT NULL,
      expires INTEGER NOT NULL,
      spent_for TEXT
    ) WITHOUT ROWID`
  ]
}

const Rows = Schema.Array(Schema.Struct({
  id: Schema.String,
  cluster: Schema.String,
  hash: Schema.String,
  expires: Schema.Int,
  spent_for: Schema.NullOr(Schema.String)
}))

/** A failure of the file ends the request that needed it: the interface knows none. */
export const layer: Layer.Layer<JoinTokenStore, MigrationFailed, SqlClient.SqlClient> = Layer.effect(
  JoinTokenStore,
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* migrate("join_tokens", migrations)

    return JoinTokenStore.of({
      insert: Effect.fn("JoinTokenStore.insert")(function*({ cluster, expiresAt, hash, id, spentFor }) {
        const expired = DateTime.toEpochMillis(DateTime.subtractDuration(yield* DateTime.now, KEPT))
        const expires = DateTime.toEpochMillis(expiresAt)
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* sql`DELETE FROM join_tokens WHERE expires <= ${expired}`
          yield* sql`INSERT INTO join_tokens ${sql.insert({ id, cluster, hash, expires, spent_for: spentFor ?? null })}`
        }))
      }, Effect.orDie),
      find: Effect.fn("JoinTokenStore.find")(function*(id) {
        const rows = yield* Schema.decodeUnknownEffect(Rows)(yield* sql`SELECT * FROM join_tokens WHERE id = ${id}`)
        return Option.map(Option.fromUndefinedOr(rows[0]), ({ cluster, expires, hash, id, spent_for }) => ({
          id,
          cluster,
          hash,
          expiresAt: DateTime.makeUnsafe(expires),
          spentFor: spent_for ?? undefined
        }))
      }, Effect.orDie),
      spend: Effect.fn("JoinTokenStore.spend")(function*(id, key) {
        const [row] = yield* sql`UPDATE join_tokens SET spent_for = coalesce(spent_for, ${key}) WHERE id = ${id}
          RETURNING spent_for`
        return typeof row?.["spent_for"] === "string" ? Option.some(row["spent_for"]) : Option.none()
      }, Effect.orDie)
    })
  })
)
