import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, FileSystem, Layer, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as CheckerState from "../../../src/domain/CheckerState.ts"
import { fromFindings } from "../../../src/domain/Report.ts"
import type { RunRecord } from "../../../src/domain/Run.ts"
import { Status } from "../../../src/domain/Status.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import { type CellKey, type CellState, History } from "../../../src/master/History.ts"
import * as HistorySqlite from "../../../src/master/history/HistorySqlite.ts"

const at = (file: string, retention: Partial<HistorySqlite.Retention> = {}) =>
  Layer.fresh(HistorySqlite.layer(retention).pipe(Layer.provide(Sqlite.layer({ file }))))

const inFile = <A, E>(use: (file: string) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return yield* use(`${yield* fs.makeTempDirectoryScoped()}/history.db`)
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const fresh = <A, E>(use: Effect.Effect<A, E, History>, retention: Partial<HistorySqlite.Retention> = {}) =>
  inFile((file) => Effect.provide(use, at(file, retention)))

const epoch = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const minute = (n: number) => DateTime.addDuration(epoch, Duration.minutes(n))

interface Told {
  readonly run: string
  readonly minute: number
  readonly status: Status
  readonly checker?: string
  /** When the row of this status began; with this run when absent. */
  readonly since?: number
}

const recordOf = ({ checker = "checker", minute: started, run, since = started, status }: Told): RunRecord => ({
  run,
  probe: { namespace: "kubeprober", name: "probe" },
  layer: "kubernetes",
  trigger: "schedule",
  report: fromFindings({
    checker,
    findings: status === "PASS" ? [] : [{ status, code: "CODE", blame: "target", message: `${status} in ${run}` }],
    summary: "all is well",
    startedAt: minute(started),
    duration: 10
  }),
  standing: { status, since: minute(since), consecutiveFailures: status === "WARN" || status === "ERROR" ? 1 : 0 }
})

const cell = (checker = "checker", cluster = "staging"): CellKey => ({
  cluster,
  probe: { namespace: "kubeprober", name: "probe" },
  checker
})

/** Few runs and minutes, so that what is generated repeats and collides. A run has one report. */
const Runs = Schema.Array(Schema.Struct({
  minute: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 })),
  checker: Schema.Literals(["a", "b"]),
  status: Status
})).check(Schema.isMaxLength(12))
const toRecords = (runs: typeof Runs.Type) => runs.map((told, n) => recordOf({ ...told, run: `run-${n}` }))

/** Which record comes when, in which delivery: repetitions and any order. */
const Deliveries = Schema.Array(
  Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 11 }))).check(Schema.isMaxLength(8))
).check(Schema.isMaxLength(6))

const everything = Effect.gen(function*() {
  const history = yield* History
  const from = minute(-60)
  const to = minute(120)
  return {
    latest: [...(yield* history.latest())].sort((a, b) => a.checker < b.checker ? -1 : 1),
    runs: new Map([...(yield* history.runs("staging"))].sort()),
    rollups: yield* Effect.forEach(["a", "b"], (checker) => history.rollups(cell(checker), { from, to })),
    entries: yield* Effect.forEach(
      ["a", "b"],
      (checker) =>
        Effect.map(
          history.entries(cell(checker), { limit: 100 }),
          (page) => Option.getOrThrow(page).items.map(({ record }) => record.run).sort()
        )
    )
  }
})

describe("History in SQLite", () => {
  it.live.prop(
    "ends the same whatever the order, grouping and repetition of deliveries",
    { runs: Runs, deliveries: Deliveries },
    ({ deliveries, runs }) =>
      Effect.gen(function*() {
        const records = toRecords(runs)
        const inOrder = yield* fresh(Effect.gen(function*() {
          const history = yield* History
          for (const record of records) assert.lengthOf(yield* history.record("staging", [record]), 1)
          return yield* everything
        }))
        const shuffled = yield* fresh(Effect.gen(function*() {
          const history = yield* History
          let recorded = 0
          const deliver = (batch: ReadonlyArray<RunRecord>) =>
            Effect.map(history.record("staging", batch), ({ length }) => recorded += length)
          for (const delivery of deliveries) {
            yield* deliver(delivery.flatMap((n) => records[n] ?? []))
          }
          yield* deliver(records.toReversed())
          assert.strictEqual(recorded, records.length)
          return yield* everything
        }))
        assert.isTrue(Equal.equals(shuffled, inOrder), JSON.stringify({ shuffled, inOrder }))
        assert.isTrue([...inOrder.runs.values()].every((kept) => kept === 1))
        assert.strictEqual(inOrder.runs.size, records.length)
        const expected = CheckerState.merge(records.map(({ report, standing }) => CheckerState.make(report, standing)))
        assert.isTrue(Equal.equals(inOrder.latest.map(({ state }) => state), expected))
        const counted = inOrder.rollups.flat().flatMap(({ counts }) => Object.values(counts))
        assert.strictEqual(counted.reduce((sum, count) => sum + count, 0), records.length)
      }),
    { arbitrary: { runs: 30 } }
  )

  it.effect("keeps no state of a clock that was ahead once a later delivery is of the right time", () =>
    fresh(Effect.gen(function*() {
      const history = yield* History
      yield* TestClock.setTime(DateTime.toEpochMillis(minute(3)))
      const [ahead] = yield* history.record("staging", [recordOf({ run: "r1", minute: 5, status: "PASS" })])
      assert.isTrue(ahead?.isLatest)
      const [right] = yield* history.record("staging", [recordOf({ run: "r2", minute: 3, status: "ERROR" })])
      assert.isTrue(right?.isLatest)
      // What is late by a clock that is right stays history.
      const [late] = yield* history.record("staging", [recordOf({ run: "r0", minute: 2, status: "PASS" })])
      assert.isFalse(late?.isLatest)
      assert.deepStrictEqual((yield* history.latest()).map(({ state }) => state.status), ["ERROR"])
    })))

  it.live("tells of each record what it was before and whether it is the latest", () =>
    fresh(Effect.gen(function*() {
      const history = yield* History
      const [first] = yield* history.record("staging", [recordOf({ run: "r1", minute: 10, status: "PASS" })])
      assert.isTrue(first !== undefined && Option.isNone(first.previous) && first.isLatest)
      const answer = yield* history.record("staging", [
        recordOf({ run: "r1", minute: 10, status: "PASS" }),
        recordOf({ run: "r3", minute: 30, status: "ERROR" }),
        recordOf({ run: "r2", minute: 20, status: "WARN" }),
        recordOf({ run: "r3", minute: 30, status: "ERROR" })
      ])
      const told = answer.map(({ cell, isLatest, previous }) => [
        cell.state.status,
        isLatest,
        Option.getOrUndefined(Option.map(previous, ({ status }) => status))
      ])
      assert.deepStrictEqual(told, [["ERROR", true, "PASS"], ["ERROR", false, "ERROR"]])
      // The same run of another cluster is another one.
      assert.lengthOf(yield* history.record("other", [recordOf({ run: "r1", minute: 10, status: "PASS" })]), 1)
    })))

  it.live("keeps whole what failed, could not look or changed the status, and counts the rest", () =>
    fresh(Effect.gen(function*() {
      const history = yield* History
      const told: ReadonlyArray<Told> = [
        { run: "first", minute: 0, status: "PASS" },
        { run: "second", minute: 1, status: "PASS", since: 0 },
        { run: "third", minute: 2, status: "PASS", since: 0 },
        { run: "red", minute: 5, status: "ERROR" },
        { run: "still", minute: 6, status: "ERROR", since: 5 },
        { run: "blind", minute: 7, status: "UNKNOWN" },
        { run: "green", minute: 10, status: "PASS" },
        { run: "quiet", minute: 11, status: "PASS", since: 10 }
      ]
      const before = yield* DateTime.now
      yield* history.record("staging", told.map(recordOf))
      const all = Option.getOrThrow(yield* history.entries(cell(), { limit: 100 }))
      assert.deepStrictEqual(all.items.map(({ record }) => record.run), ["green", "blind", "still", "red", "first"])
      assert.deepStrictEqual(all.items[3]?.record, recordOf({ run: "red", minute: 5, status: "ERROR" }))
      assert.isTrue(all.items.every(({ receivedAt }) => DateTime.isGreaterThanOrEqualTo(receivedAt, before)))

      const pages: Array<string> = []
      let after: string | undefined
      do {
        const page = Option.getOrThrow(yield* history.entries(cell(), { limit: 2, after }))
        pages.push(page.items.map(({ record }) => record.run).join())
        after = page.next
      } while (after !== undefined)
      assert.deepStrictEqual(pages, ["green,blind", "still,red", "first"])
      const between = yield* history.entries(cell(), { from: minute(5), to: minute(6), limit: 100 })
      assert.deepStrictEqual(Option.getOrThrow(between).items.map(({ record }) => record.run), ["still", "red"])
      for (const foreign of ["", "nonsense", Buffer.from("1 2 3").toString("base64url")]) {
        assert.isTrue(Option.isNone(yield* history.entries(cell(), { limit: 2, after: foreign })), foreign)
      }
      assert.deepStrictEqual(Option.getOrThrow(yield* history.entries(cell("absent"), { limit: 2 })), { items: [] })

      const rollups = yield* history.rollups(cell(), { from: minute(2), to: minute(10) })
      assert.deepStrictEqual(rollups, [
        { start: minute(0), counts: { PASS: 3 }, longest: 10, total: 30 },
        { start: minute(5), counts: { UNKNOWN: 1, ERROR: 2 }, longest: 10, total: 30 },
        { start: minute(10), counts: { PASS: 2 }, longest: 10, total: 20 }
      ])
    })))

  it.live("is the same after a restart", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const records = toRecords([
          { minute: 1, checker: "a", status: "ERROR" },
          { minute: 2, checker: "a", status: "PASS" },
          { minute: 1, checker: "b", status: "UNKNOWN" }
        ])
        const before = yield* Effect.andThen(History.use((it) => it.record("staging", records)), everything).pipe(
          Effect.provide(at(file))
        )
        assert.isTrue(Equal.equals(yield* Effect.provide(everything, at(file)), before))
      })
    ))

  it.live("forgets cells of a cluster, or all of it, and takes them anew", () =>
    fresh(Effect.gen(function*() {
      const history = yield* History
      const records = ["a", "b", "c"].map((checker) => recordOf({ run: "r", minute: 1, status: "ERROR", checker }))
      yield* history.record("staging", records)
      yield* history.record("other", records)
      yield* history.forget("staging", ({ checker }) => checker === "a")
      const names = (cells: ReadonlyArray<CellState>) => cells.map(({ checker }) => checker).sort()
      assert.deepStrictEqual(names(yield* history.latest("staging")), ["a"])
      assert.strictEqual((yield* history.runs("staging")).size, 1)
      assert.deepStrictEqual(Option.getOrThrow(yield* history.entries(cell("b"), { limit: 9 })).items, [])
      yield* history.forget("staging")
      assert.deepStrictEqual(yield* history.latest("staging"), [])
      assert.deepStrictEqual(names(yield* history.latest()), ["a", "b", "c"])
      assert.lengthOf(yield* history.record("staging", records), 3)
      assert.lengthOf(yield* history.rollups(cell("b"), { from: minute(0), to: minute(9) }), 1)
    })))

  it.effect("removes what is too old by itself, each kind in its time", () =>
    fresh(
      Effect.gen(function*() {
        const history = yield* History
        const now = yield* DateTime.now
        const started = DateTime.distance(epoch, now)
        const told = { minute: Duration.toMinutes(started), status: "ERROR" as const }
        const records = Array.from({ length: 5 }, (_, n) => recordOf({ ...told, run: `r${n}` }))
        yield* history.record("staging", records)
        const kept = Effect.all({
          ledger: Effect.map(history.runs("staging"), ({ size }) => size),
          entries: Effect.map(history.entries(cell(), { limit: 9 }), (page) => Option.getOrThrow(page).items.length),
          rollups: Effect.map(
            history.rollups(cell(), { from: DateTime.subtractDuration(now, "1 day"), to: now }),
            ({ length }) => length
          )
        })
        // Pruning is due at the new time, and is done a few turns later.
        const settled = (expected: Effect.Success<typeof kept>) =>
          kept.pipe(
            Effect.tap(() => Effect.yieldNow),
            Effect.repeat({ until: Equal.equals(expected), times: 1000 }),
            Effect.tap((last) => Effect.sync(() => assert.deepStrictEqual(last, expected)))
          )
        yield* settled({ ledger: 5, entries: 5, rollups: 1 })
        yield* TestClock.adjust("2 hours")
        yield* settled({ ledger: 5, entries: 3, rollups: 1 })
        yield* TestClock.adjust("24 hours")
        yield* TestClock.adjust("2 hours")
        yield* settled({ ledger: 0, entries: 3, rollups: 1 })
        yield* TestClock.adjust("30 days")
        yield* settled({ ledger: 0, entries: 0, rollups: 1 })
        yield* TestClock.adjust("61 days")
        yield* settled({ ledger: 0, entries: 0, rollups: 0 })
        // What is shown now is never too old.
        assert.lengthOf(yield* history.latest("staging"), 1)
      }),
      { entriesOfCell: 3 }
    ))
})
