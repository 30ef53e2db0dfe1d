import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Round from "../../src/agent/Round.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import type * as Probe from "../../src/probes/Probe.ts"
import { RunContext } from "../../src/probes/RunContext.ts"
import * as ServerTime from "../../src/probes/ServerTime.ts"
import { check, codes, withoutServer } from "./Checks.ts"

/** Lets time pass until it has ended. */
const overTime = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("50 millis")
    return yield* Fiber.join(fiber)
  })

const round = (checks: ReadonlyArray<Probe.Check>, options: Partial<Round.RoundOptions> = {}) => {
  const events: Array<string> = []
  return Round.run({
    checks,
    context: { runId: "test", probeNamespace: "probes", expiresAt: DateTime.makeUnsafe("2026-01-01T00:15:00Z") },
    concurrency: 8,
    ...options,
    onEvent: ({ _tag, check: { name } }) => Effect.sync(() => void events.push(`${_tag} ${name}`))
  }).pipe(
    Effect.map((results) => ({
      events,
      said: results.map(({ report: { checker, code, status } }) => `${checker} ${status} ${code ?? ""}`.trim()),
      results
    })),
    overTime,
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

  it.effect("lets what a check creates expire by the check's own time, though the round may take longer", () =>
    Effect.gen(function*() {
      const expiries: Array<number> = []
      const tells = (id: string, timeout: Duration.Input, takes: Duration.Input) =>
        check(id, () =>
          Effect.gen(function*() {
            const { expiresAt } = yield* RunContext
            expiries.push(Math.floor(DateTime.toEpochMillis(expiresAt) / 60_000))
            yield* Effect.sleep(takes)
            return Outcome.make("fine")
          }), { timeout, writes: "namespace" })
      const context = {
        runId: "test",
        probeNamespace: "probes",
        expiresAt: DateTime.makeUnsafe("1970-01-01T00:40:00Z")
      }
      const checks = [
        tells("a", "9 minutes", "2 minutes"),
        tells("b", "1 minute", "1 second"),
        tells("c", "2 hours", 0)
      ]
      yield* round(checks, { context, concurrency: 1 })
      assert.deepStrictEqual(expiries, [14, 8, 40])
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

/** A check that says one thing after the other, and counts how often it was asked. */
const says = (
  id: string,
  looks: ReadonlyArray<Probe.ProbeOptions<{}, {}, unknown>["run"]>,
  confirm?: Probe.Confirm
) => {
  const asked = { times: 0 }
  const next = check(id, (config) =>
    Effect.suspend(() => {
      const look = looks[Math.min(asked.times, looks.length - 1)]
      asked.times++
      return look === undefined ? Effect.die("no look was given") : look(config)
    }), { confirm })
  return { asked, check: next }
}

const fine = () => Effect.succeed(Outcome.make("fine"))
const broken = () => codes.BROKEN.fail({ message: "down" })
const blind = () => Effect.fail("cannot see")

describe("what is newly red", () => {
  it.effect("is looked at twice, a moment apart, and told once", () =>
    Effect.gen(function*() {
      const { asked, check } = says("a", [broken])
      const before = yield* DateTime.now
      const { events, said } = yield* round([check])
      assert.deepStrictEqual(said, ["a ERROR BROKEN"])
      assert.strictEqual(asked.times, 2)
      assert.deepStrictEqual(events, ["Started a", "Finished a"])
      const took = Duration.toMillis(DateTime.distance(before, yield* DateTime.now))
      assert.isTrue(took >= 300 && took <= 600, `${took} ms`)
    }))

  it.effect("is not red when the second look disagrees, and its children run", () =>
    Effect.gen(function*() {
      const { check } = says("a", [broken, fine])
      const { results, said } = yield* round([check, passes("b", "a")])
      assert.deepStrictEqual(said, ["a INFO NOT_CONFIRMED", "b PASS"])
      assert.include(results[0]?.report.message, "ERROR BROKEN: down")
    }))

  it.effect("is UNKNOWN when the second look could not look, or had no time left", () =>
    Effect.gen(function*() {
      const { check: unseen } = says("a", [broken, blind])
      const slow = says("b", [() => Effect.delay(broken(), "9900 millis")])
      const hangs = says("c", [broken, () => Effect.never])
      const { results, said } = yield* round([unseen, slow.check, hangs.check])
      assert.deepStrictEqual(said, [
        "a UNKNOWN CHECKER_FAILED",
        "b UNKNOWN CONFIRMATION_FAILED",
        "c UNKNOWN CONFIRMATION_FAILED"
      ])
      for (const { report } of results) {
        assert.isTrue(
          report.findings.some(({ code, message }) => code === "CONFIRMATION_FAILED" && /BROKEN/.test(message))
        )
      }
      assert.strictEqual(slow.asked.times, 1)
    }))

  it.effect("takes no more time for both looks than the probe and the round have", () =>
    Effect.gen(function*() {
      const hangs = () => says("c", [broken, () => Effect.never]).check
      const before = yield* DateTime.now
      yield* round([hangs()])
      const between = yield* DateTime.now
      assert.isAtMost(Duration.toSeconds(DateTime.distance(before, between)), 10.1)
      const { said } = yield* round([hangs()], { deadline: DateTime.add(between, { seconds: 2 }) })
      assert.deepStrictEqual(said, ["c UNKNOWN CONFIRMATION_FAILED"])
      assert.isAtMost(Duration.toSeconds(DateTime.distance(between, yield* DateTime.now)), 1.9)
    }))

  it.effect("is not looked at again when it stands already, or when the probe says so", () =>
    Effect.gen(function*() {
      const stands = says("a", [broken, fine])
      const itself = says("b", [broken, fine], "none")
      const byCode = says("c", [broken, fine], { unless: ["BROKEN"] })
      const { said } = yield* round([stands.check, itself.check, byCode.check], {
        standing: new Map([["a", new Set(["BROKEN"])]])
      })
      assert.deepStrictEqual(said, ["a ERROR BROKEN", "b ERROR BROKEN", "c ERROR BROKEN"])
      assert.deepStrictEqual([stands.asked.times, itself.asked.times, byCode.asked.times], [1, 1, 1])
    }))

  it.effect("is looked at again by a time of the cluster that is read anew", () =>
    Effect.gen(function*() {
      const asked: Array<"remembered" | "read"> = []
      const broken = check("a", () =>
        ServerTime.Reading.pipe(
          Effect.tap((reading) =>
            Effect.sync(() => void asked.push(reading === ServerTime.read ? "read" : "remembered"))
          ),
          Effect.andThen(codes.BROKEN.fail({ message: "down" }))
        ))
      yield* Effect.provideService(round([broken]), ServerTime.Reading, Effect.succeedNone)
      assert.deepStrictEqual(asked, ["remembered", "read"])
    }))

  it.effect("lets others run while it waits for its second look", () =>
    Effect.gen(function*() {
      const { events } = yield* round([says("a", [broken]).check, passes("b")], { concurrency: 1 })
      assert.deepStrictEqual(events, ["Started a", "Started b", "Finished b", "Finished a"])
    }))
})

describe("a parent of another round", () => {
  it.effect("that stands at ERROR keeps its children from being run, unless it is asked in this one", () =>
    Effect.gen(function*() {
      const failed = new Map([["p", { checker: "api", status: "ERROR" as const, code: "API_DOWN" }]])
      const { events, results, said } = yield* round([passes("b", "p"), passes("c", "b"), passes("d")], { failed })
      assert.deepStrictEqual(said, ["b UNKNOWN PARENT_FAILED", "c PASS", "d PASS"])
      assert.include(results[0]?.report.message, "api is ERROR (API_DOWN)")
      assert.notInclude(events, "Started b")
      assert.deepStrictEqual((yield* round([passes("b", "p"), passes("p")], { failed })).said, ["b PASS", "p PASS"])
    }))
})
