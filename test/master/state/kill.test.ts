import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, FileSystem, Layer, Option, Random, Schema } from "effect"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import { History } from "../../../src/master/History.ts"
import * as HistorySqlite from "../../../src/master/history/HistorySqlite.ts"
import * as Program from "../../link/process.ts"
import { RECORDS, runOf } from "./writerInput.ts"

const writer = new URL("writer.main.ts", import.meta.url)

describe("kill -9 of a master that records", () => {
  it.live("ten times at any moment: all that was acknowledged is there, once, and nothing is there in part", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* fs.makeTempDirectoryScoped()}/history.db`
      let acknowledged = 0
      for (let life = 0; life < 10; life++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const program = yield* Program.start(writer, { file, acknowledged })
          const deliveries = yield* Random.nextIntBetween(1, 30)
          for (let n = 0; n < deliveries; n++) acknowledged = yield* program.next(Schema.Int)
          // Somewhere in one of the next deliveries.
          yield* Effect.sleep(yield* Random.nextBetween(0, 15))
          yield* program.kill
        }))
      }

      yield* Effect.gen(function*() {
        const history = yield* History
        const runs = yield* history.runs("staging")
        const found = new Map<string, number>()
        for (const [name, kept] of runs) {
          assert.strictEqual(kept, 1, name)
          const run = name.split(" ")[0] ?? ""
          found.set(run, (found.get(run) ?? 0) + 1)
        }
        for (let delivery = 1; delivery <= acknowledged; delivery++) {
          assert.strictEqual(found.get(runOf(delivery)), RECORDS, `delivery ${delivery} of ${acknowledged}`)
        }
        assert.deepStrictEqual([...new Set(found.values())], [RECORDS])

        // Every table tells the same.
        const now = yield* DateTime.now
        const cell = { cluster: "staging", probe: { namespace: "kubeprober", name: "probe" }, checker: "checker-0" }
        const rollups = yield* history.rollups(cell, {
          from: DateTime.subtractDuration(now, "1 day"),
          to: now
        })
        assert.strictEqual(rollups.reduce((sum, { counts }) => sum + (counts.ERROR ?? 0), 0), found.size)
        let entries = 0
        let after: string | undefined
        do {
          const page = Option.getOrThrow(yield* history.entries(cell, { limit: 1000, after }))
          entries += page.items.length
          after = page.next
        } while (after !== undefined)
        assert.strictEqual(entries, found.size)
        assert.lengthOf(yield* history.latest("staging"), RECORDS)
      }).pipe(Effect.provide(HistorySqlite.layer().pipe(Layer.provide(Sqlite.layer({ file })))))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
