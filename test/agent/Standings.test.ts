/** How checkers stand while the agent's clock is put right, on a clock that the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal } from "effect"
import { TestClock } from "effect/testing"
import { Standings } from "../../src/agent/Standings.ts"
import { show } from "../../src/agent/StatusWriter.ts"
import { fromFindings } from "../../src/domain/Report.ts"
import type { Status } from "../../src/domain/Status.ts"

const probe = {
  namespace: "kubeprober",
  name: "probe",
  spec: { checks: [{ name: "it", use: "test.check" }] as const, policy: { interval: Duration.minutes(1) } }
}

/** A run that starts and ends now, and what it says. */
const run = Effect.fnUntraced(function*(status: Status, failureThreshold = 1) {
  const standings = yield* Standings
  const startedAt = yield* DateTime.now
  const report = fromFindings({
    checker: "it",
    findings: status === "PASS" ? [] : [{ status, code: "CODE", blame: "target", message: `it is ${status}` }],
    summary: "all is well",
    startedAt,
    duration: 0
  })
  return yield* standings.take(probe, report, failureThreshold)
})

/** What is kept, and what is shown of it now. */
const seen = Effect.gen(function*() {
  const standings = yield* Standings
  const knowledge = yield* standings.of(probe)
  const now = yield* DateTime.now
  return { kept: knowledge.checkers.get("it"), shown: show(probe, knowledge, now).state.status, now }
})

const noon = Date.parse("2026-03-01T12:00:00Z")
/** Sets the clock, so many minutes from noon. */
const clock = (minutes: number) => TestClock.setTime(noon + minutes * 60_000)

describe("Standings, when the agent's clock is set back", () => {
  for (const minutes of [2, 60]) {
    it.effect(`by ${minutes} minutes, a run after that is what counts, and is kept as it is sent`, () =>
      Effect.gen(function*() {
        yield* clock(0)
        yield* run("PASS")
        yield* clock(-minutes)
        const sent = yield* run("ERROR")
        const { kept, now, shown } = yield* seen
        assert.strictEqual(sent.status, "ERROR")
        assert.strictEqual(kept?.status, "ERROR")
        assert.strictEqual(shown, "ERROR")
        assert.isTrue(Equal.equals(kept?.lastRun, now))
        assert.isTrue(Equal.equals(kept?.since, now))
        yield* clock(1 - minutes)
        yield* run("PASS")
        assert.strictEqual((yield* seen).shown, "PASS")
      }).pipe(Effect.provide(Standings.layerMemory)))
  }

  it.effect("failures in a row go on being counted, and none is of a time to come", () =>
    Effect.gen(function*() {
      yield* clock(0)
      yield* run("ERROR", 3)
      yield* clock(1)
      yield* run("ERROR", 3)
      yield* clock(-30)
      assert.deepInclude(yield* run("ERROR", 3), { status: "ERROR", consecutiveFailures: 3 })
    }).pipe(Effect.provide(Standings.layerMemory)))

  it.effect("a checker that flapped is one that flaps no more once it has been quiet, by the clock as it is now", () =>
    Effect.gen(function*() {
      for (const [minute, status] of (["PASS", "ERROR", "PASS", "ERROR", "PASS", "ERROR", "PASS"] as const).entries()) {
        yield* clock(minute)
        yield* run(status)
      }
      assert.strictEqual((yield* seen).kept?.code, "FLAPPING")
      yield* clock(-60)
      const first = yield* run("PASS")
      assert.strictEqual(first.status, "WARN")
      assert.isTrue(DateTime.isLessThan(first.since, (yield* seen).now))
      yield* clock(-49)
      assert.strictEqual((yield* run("PASS")).status, "PASS")
    }).pipe(Effect.provide(Standings.layerMemory)))

  it.effect("a report that comes late does not replace a later one", () =>
    Effect.gen(function*() {
      yield* clock(0)
      const standings = yield* Standings
      const late = fromFindings({
        checker: "it",
        findings: [],
        summary: "all is well",
        startedAt: yield* DateTime.now,
        duration: 0
      })
      yield* clock(1)
      yield* run("ERROR")
      yield* standings.take(probe, late, 1)
      assert.strictEqual((yield* seen).kept?.status, "ERROR")
    }).pipe(Effect.provide(Standings.layerMemory)))
})
