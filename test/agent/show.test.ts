/** What a ProbeStatus says, at any moment after what its checkers said. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Schema } from "effect"
import type { StoredProbe } from "../../src/agent/ProbeStore.ts"
import { show } from "../../src/agent/StatusWriter.ts"
import type { CheckerState } from "../../src/domain/CheckerState.ts"
import { ProbeStatusSpec, ProbeStatusState } from "../../src/domain/kinds/ProbeStatus.ts"
import type { ProbePolicy } from "../../src/domain/Policy.ts"
import { Status } from "../../src/domain/Status.ts"

const start = DateTime.makeUnsafe("2026-03-01T12:00:00Z")

const probeOf = (policy: ProbePolicy, names: readonly [string, ...Array<string>]): StoredProbe => ({
  namespace: "kubeprober",
  name: "probe",
  spec: { checks: [check(names[0]), ...names.slice(1).map(check)], policy }
})
const check = (name: string) => ({ name, use: "test.check" })

const state = (name: string, status: Status): CheckerState => ({
  name,
  status,
  message: "so it is",
  lastRun: start,
  since: start,
  consecutiveFailures: 0
})

const knowing = (...states: ReadonlyArray<CheckerState>) => ({
  checkers: new Map(states.map((one) => [one.name, one]))
})

const after = (seconds: number) => DateTime.add(start, { seconds })
const minutely: ProbePolicy = { interval: Duration.minutes(1) }

describe("what a ProbeStatus says", () => {
  it.prop(
    "is never PASS or INFO once two intervals have passed, suspended or not, and fits the schema",
    {
      status: Status,
      seconds: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 600 })),
      suspend: Schema.Boolean
    },
    ({ seconds, status, suspend }) => {
      const shown = show(probeOf({ ...minutely, suspend }, ["a"]), knowing(state("a", status)), after(seconds))
      const isStale = seconds > 120
      const [checker] = shown.checkers
      assert.strictEqual(shown.state.status, checker?.status)
      if (isStale) {
        assert.notInclude(["PASS", "INFO"], checker?.status)
        assert.match(checker?.message ?? "", /^no run since 2026-03-01T12:00:00.000Z; that one said/)
      } else assert.strictEqual(checker?.status, status)
      assert.strictEqual(shown.until === undefined, isStale)
      Schema.encodeSync(ProbeStatusSpec)({ checkers: shown.checkers })
      Schema.encodeSync(ProbeStatusState)(shown.state)
    }
  )

  it("a checker that has not run makes it UNKNOWN, however well the others are", () => {
    const shown = show(probeOf(minutely, ["a", "b"]), knowing(state("a", "PASS")), after(1))
    assert.strictEqual(shown.state.status, "UNKNOWN")
    assert.strictEqual(shown.state.message, "b: it has not run yet")
    assert.strictEqual(shown.state.failing, "0/2")
    assert.deepStrictEqual(shown.state.lastRun, start)
  })

  it("a fault that was seen stays, with the note that nobody has looked since", () => {
    const shown = show(probeOf(minutely, ["a"]), knowing(state("a", "ERROR")), after(300))
    assert.strictEqual(shown.state.status, "ERROR")
    assert.match(shown.state.message ?? "", /^a: no run since .*; that one said ERROR: so it is$/)
  })

  it("a Probe with a template that nobody has reported for is UNKNOWN", () => {
    const probe: StoredProbe = {
      namespace: "kubeprober",
      name: "probe",
      spec: { template: { containers: [{ name: "prober", image: "prober" }] } }
    }
    const shown = show(probe, knowing(), after(1))
    assert.deepStrictEqual(shown.state, { status: "UNKNOWN", message: "no checker has reported yet", failing: "0/0" })
    assert.deepStrictEqual(shown.checkers, [])
  })

  it("what ran once stays true", () => {
    const shown = show(probeOf({ runInterval: 0 }, ["a"]), knowing(state("a", "PASS")), after(86_400))
    assert.strictEqual(shown.state.status, "PASS")
    assert.isUndefined(shown.state.staleAt)
  })

  it("a checker that is no longer asked for is gone", () => {
    const shown = show(probeOf(minutely, ["a"]), knowing(state("a", "PASS"), state("b", "ERROR")), after(1))
    assert.strictEqual(shown.state.status, "PASS")
    assert.deepStrictEqual(shown.checkers.map(({ name }) => name), ["a"])
  })
})
