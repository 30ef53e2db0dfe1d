/**
 * Records deliveries in a history until it is killed, and says the number of each once it is acknowledged. Begins with
 * the one after `acknowledged`, as an agent that repeats what it has no answer for.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { DateTime, Effect, Layer, References, Schema } from "effect"
import { text } from "node:stream/consumers"
import { fromFindings } from "../../../src/domain/Report.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import { History } from "../../../src/master/History.ts"
import * as HistorySqlite from "../../../src/master/history/HistorySqlite.ts"
import { RECORDS, WriterInput, runOf } from "./writerInput.ts"

Effect.gen(function*() {
  const { acknowledged, file } = yield* Schema.decodeEffect(Schema.fromJsonString(WriterInput))(
    yield* Effect.promise(() => text(process.stdin))
  )
  return yield* Effect.gen(function*() {
    const history = yield* History
    for (let delivery = acknowledged + 1;; delivery++) {
      const startedAt = yield* DateTime.now
      yield* history.record(
        "staging",
        Array.from({ length: RECORDS }, (_, checker) => ({
          run: runOf(delivery),
          probe: { namespace: "kubeprober", name: "probe" },
          layer: "kubernetes" as const,
          trigger: "schedule" as const,
          report: fromFindings({
            checker: `checker-${checker}`,
            findings: [{ status: "ERROR", code: "CODE", blame: "target", message: "it is broken" }],
            summary: "",
            startedAt,
            duration: 1
          }),
          standing: { status: "ERROR" as const, since: startedAt, consecutiveFailures: 1 }
        }))
      )
      yield* Effect.sync(() => process.stdout.write(`${delivery}\n`))
    }
  }).pipe(Effect.provide(HistorySqlite.layer().pipe(Layer.provide(Sqlite.layer({ file, synchronous: "FULL" })))))
}).pipe(Effect.provideService(References.MinimumLogLevel, "None"), NodeRuntime.runMain)
