import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import * as Round from "../../src/agent/Round.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import type * as Probe from "../../src/probes/Probe.ts"
import { check, codes, withoutServer } from "./Checks.ts"

const round = (checks: ReadonlyArray<Probe.Check>, options: { readonly concurrency?: number } = {}) => {
  const events: Array<string> = []
  return Round.run({
    checks,
    context: { runId: "test", probeNamespace: "probes", expiresAt: DateTime.makeUnsafe("2026-01-01T00:15:00Z") },
    concurrency: options.concurrency ?? 8,
    onEvent: ({ _tag, check: { name } }) => Effect.sync(() => void events.push(`${_tag} ${name}`))
  }).pipe(
    Effect.map((results) => ({
      events,
      said: results.map(({ report: { checker, code, status } }) => `${checker} ${status} ${code ?? ""}`.trim()),
      results
    })),
    withoutServer,
    Effect.scoped
  )
}

const passes = (id: string, ...dependsOn: ReadonlyArray<string>) =>
  check(id, () => Effect.succeed(Outcome.make("fine")), { dependsOn })
const fails = (id: string, ...dependsOn: ReadonlyArray<string>) =>
  check(id, () => codes.BROKEN.fail({ message: "down" }), { dependsOn })
const warns = (id: string) => check(id, () => codes.TIRED.fail({ message: "slow" }))

describe("a round", () => {
  it.effect("runs parents first, and answers in the order asked", () =>
    Effect.gen(function*() {
      const { events, said } = yield* round([passes("c", "b"), passes("b", "a"), passes("a")])
      assert.deepStrictEqual(said, ["c PASS", "b PASS", "a PASS"])
      assert.deepStrictEqual(events, [
        "Started a",
        "Finished a",
        "Started b",
        "Finished b",
        "Started c",
        "Finished c"
      ])
    }))

  it.effect("does not run the children of a parent that is ERROR, and says because of whom", () =>
    Effect.gen(function*() {
      const { events, results, said } = yield* round([fails("a"), passes("b", "a"), passes("c")])
      assert.deepStrictEqual(said, ["a ERROR BROKEN", "b UNKNOWN PARENT_FAILED", "c PASS"])
      assert.include(results[1]?.report.message, "a is ERROR (BROKEN)")
      assert.deepStrictEqual(results[1]?.report.findings[0]?.evidence, { parent: "a", parentCode: "BROKEN" })
      assert.notInclude(events, "Started b")
      assert.include(events, "Finished b")
    }))

  it.effect("runs children of a parent that only warns, or that did not run itself, or is not in the round", () =>
    Effect.gen(function*() {
      const { said } = yield* round([
        warns("a"),
        passes("b", "a"),
        fails("x"),
        passes("y", "x"),
        passes("z", "y"),
        passes("w", "absent")
      ])
      assert.deepStrictEqual(said, [
        "a WARN TIRED",
        "b PASS",
        "x ERROR BROKEN",
        "y UNKNOWN PARENT_FAILED",
        "z PASS",
        "w PASS"
      ])
    }))

  it.effect("ends when probes depend on each other, or on themselves", () =>
    Effect.gen(function*() {
      const { said } = yield* round([passes("a", "b"), passes("b", "a"), passes("c", "c"), passes("d", "a")])
      assert.deepStrictEqual(said, ["a PASS", "b PASS", "c PASS", "d PASS"])
    }))

  it.effect("runs no more checks at a time than allowed, and waiting parents take no place", () =>
    Effect.gen(function*() {
      let running = 0
      let most = 0
      const counted = (id: string, ...dependsOn: ReadonlyArray<string>) =>
        check(id, () =>
          Effect.gen(function*() {
            running++
            most = Math.max(most, running)
            yield* Effect.yieldNow
            running--
            return Outcome.make("fine")
          }), { dependsOn })
      const leaves = Array.from({ length: 10 }, (_, index) => counted(`leaf${index}`))
      yield* round(leaves, { concurrency: 3 })
      assert.strictEqual(most, 3)
      most = 0
      yield* round([counted("c", "b"), counted("b", "a"), counted("a")], { concurrency: 1 })
      assert.strictEqual(most, 1)
    }))

  it.effect("keeps checks of one probe apart by their names, each with the same parents", () =>
    Effect.gen(function*() {
      const named = (name: string): Probe.Check => ({ ...passes("b", "a"), name })
      const { said } = yield* round([fails("a"), named("b-1"), named("b-2")])
      assert.deepStrictEqual(said, ["a ERROR BROKEN", "b-1 UNKNOWN PARENT_FAILED", "b-2 UNKNOWN PARENT_FAILED"])
    }))
})
