import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, FileSystem, Layer, Option, Path, References } from "effect"
import { TestClock } from "effect/testing"
import { Outbox, type OutboxLimits } from "../../src/agent/Outbox.ts"
import * as Sqlite from "../../src/infra/sql/Sqlite.ts"
import { record } from "../master/control/fleetFixture.ts"

const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const result = (number: number) => record({ run: `run-${number}`, probe: "p", checker: "c", startedAt: at })
const results = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => result(from + index))

const file = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  return path.join(yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" }), "agent.db")
})

/** A life of the agent over the same file. */
const life = <A, E>(file: string, use: Effect.Effect<A, E, Outbox>, limits: Partial<OutboxLimits> = {}) =>
  Effect.provide(use, Layer.fresh(Outbox.layerSqlite(limits).pipe(Layer.provide(Sqlite.layer({ file })))))

const all = { records: 1000, bytes: 1 << 20 }
const runsOf = (batch: Option.Option<{ readonly records: ReadonlyArray<{ readonly run: string }> }>) =>
  Option.match(batch, { onNone: () => [], onSome: ({ records }) => records.map(({ run }) => run) })

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

const test = <A, E>(name: string, use: (file: string) => Effect.Effect<A, E>) =>
  it.effect(name, () => Effect.flatMap(file, use).pipe(Effect.scoped, Effect.provide(NodeServices.layer), quietly))

describe("the outbox", () => {
  test("gives the oldest first, until they are acknowledged, over restarts", (file) =>
    Effect.gen(function*() {
      yield* life(
        file,
        Effect.gen(function*() {
          const outbox = yield* Outbox
          yield* outbox.append(results(1, 3))
          yield* outbox.append(results(4, 5))
          const first = yield* outbox.peek({ ...all, records: 2 })
          assert.deepStrictEqual(runsOf(first), ["run-1", "run-2"])
          assert.deepStrictEqual(runsOf(yield* outbox.peek({ ...all, records: 2 })), ["run-1", "run-2"])
          yield* outbox.ack(Option.getOrThrow(first).upTo)
          assert.strictEqual((yield* outbox.size).count, 3)
        })
      )
      yield* life(
        file,
        Effect.gen(function*() {
          const outbox = yield* Outbox
          yield* outbox.pending
          const rest = yield* outbox.peek(all)
          assert.deepStrictEqual(runsOf(rest), ["run-3", "run-4", "run-5"])
          yield* outbox.ack(Option.getOrThrow(rest).upTo)
          // An acknowledgement that comes late forgets nothing newer.
          yield* outbox.append([result(6)])
          yield* outbox.ack(Option.getOrThrow(rest).upTo)
          assert.deepStrictEqual(runsOf(yield* outbox.peek(all)), ["run-6"])
        })
      )
    }))

  test("gives at least one, and no more than asked for", (file) =>
    life(
      file,
      Effect.gen(function*() {
        const outbox = yield* Outbox
        assert.isTrue(Option.isNone(yield* outbox.peek(all)))
        yield* outbox.append(results(1, 10))
        assert.lengthOf(runsOf(yield* outbox.peek({ records: 10, bytes: 1 })), 1)
        const some = runsOf(yield* outbox.peek({ records: 10, bytes: 1500 }))
        assert.isTrue(some.length > 1 && some.length < 10)
      })
    ))

  test("drops the oldest beyond its bounds, and counts them", (file) =>
    life(
      file,
      Effect.gen(function*() {
        const outbox = yield* Outbox
        yield* outbox.append(results(1, 8))
        assert.deepStrictEqual(runsOf(yield* outbox.peek(all)), ["run-4", "run-5", "run-6", "run-7", "run-8"])
        assert.strictEqual(yield* outbox.dropped, 3)
        yield* TestClock.adjust("25 hours")
        yield* outbox.append([result(9)])
        assert.deepStrictEqual(runsOf(yield* outbox.peek(all)), ["run-9"])
        assert.strictEqual(yield* outbox.dropped, 8)
      }),
      { maxRecords: 5 }
    ))
})
