import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, Schema } from "effect"
import { CONFIRMATION_FAILED, type CheckerState, observe, stand } from "../../src/domain/CheckerState.ts"
import { FLAPPING, MAX_TURNS, MOST_TURNS, QUIET, WINDOW, verdictOf } from "../../src/domain/Flapping.ts"
import { ProbeStatusSpec, toState } from "../../src/domain/kinds/ProbeStatus.ts"
import { type Finding, MAX_FINDINGS, MAX_MESSAGE, type Report, fromFindings } from "../../src/domain/Report.ts"
import * as Status from "../../src/domain/Status.ts"
import { checkerCodes } from "../../src/probes/CheckerCodes.ts"

const epoch = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const at = (minutes: number) => DateTime.addDuration(epoch, Duration.minutes(minutes))

const finding = (status: Status.Status, name?: string): Finding => ({
  status,
  code: "CODE",
  blame: status === "UNKNOWN" ? "checker" : "target",
  message: status,
  ...(name === undefined ? {} : { subject: { kind: "Pod", name, namespace: "n" } })
})

const reportOf = (minutes: number, findings: ReadonlyArray<Finding>): Report =>
  fromFindings({ checker: "c", findings, summary: "fine", startedAt: at(minutes), duration: 1 })

const report = (minutes: number, status: Status.Status): Report =>
  reportOf(minutes, status === "PASS" ? [] : [finding(status)])

/** One run a minute. */
const follow = (
  statuses: ReadonlyArray<Status.Status>,
  { every = 1, from, threshold = 1 }: {
    readonly every?: number
    readonly from?: CheckerState | undefined
    readonly threshold?: number
  } = {}
): ReadonlyArray<CheckerState> => {
  let state = from
  const start = from === undefined ? 0 : Duration.toMinutes(DateTime.distance(epoch, from.lastRun)) + every
  return statuses.map((status, index) => {
    state = observe(state, report(start + index * every, status), threshold)
    return state
  })
}

const last = (states: ReadonlyArray<CheckerState>): CheckerState => states.at(-1) ?? assert.fail("no state")

const Statuses = Schema.Array(Status.Status).check(Schema.isMinLength(1), Schema.isMaxLength(60))
const Threshold = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 }))

/** Through the resource and back, as when the agent is started anew. */
const restarted = (state: CheckerState): CheckerState => {
  const written = JSON.stringify(Schema.encodeSync(ProbeStatusSpec)({ checkers: [state] }))
  const [checker] = Schema.decodeUnknownSync(ProbeStatusSpec)(JSON.parse(written)).checkers ?? []
  return (checker === undefined ? undefined : toState(checker)) ?? assert.fail("the checker was not kept")
}

describe("a checker that goes between good and bad", () => {
  it("is WARN FLAPPING when it is bad for the third time, with how often, since when and the worst", () => {
    const states = follow(["PASS", "ERROR", "PASS", "WARN", "PASS", "ERROR", "PASS"])
    assert.deepStrictEqual(states.map(({ status }) => status), [
      "PASS",
      "ERROR",
      "PASS",
      "WARN",
      "PASS",
      "WARN",
      "WARN"
    ])
    assert.deepStrictEqual(states.map(({ code }) => code), [
      undefined,
      "CODE",
      undefined,
      "CODE",
      undefined,
      FLAPPING,
      FLAPPING
    ])
    const { blame, message } = last(states)
    assert.strictEqual(blame, "target")
    assert.include(
      message,
      "6 times since 2026-01-01 00:01:00 UTC, at worst ERROR CODE; ends after 10m without another change; " +
        "the last run said PASS: fine"
    )
  })

  it("is its own self again after a while without a turn, and a fault that has come to stay is an ERROR again", () => {
    const flapping = last(follow(["PASS", "ERROR", "PASS", "ERROR", "PASS", "ERROR"]))
    assert.strictEqual(flapping.code, FLAPPING)
    const quiet = Duration.toMinutes(QUIET)
    const broken = follow(Array.from({ length: quiet + 1 }, () => "ERROR" as const), { from: flapping })
    assert.deepStrictEqual(broken.slice(0, quiet).map(({ code }) => code), broken.slice(0, quiet).map(() => FLAPPING))
    assert.deepStrictEqual([last(broken).status, last(broken).code], ["ERROR", "CODE"])
    const healed = follow(Array.from({ length: quiet + 1 }, () => "PASS" as const), { from: flapping })
    // The healing was a turn of its own.
    assert.strictEqual(last(healed).code, FLAPPING)
    assert.strictEqual(last(follow(["PASS"], { from: last(healed) })).status, "PASS")
  })

  it("flaps no sooner for a turn after it was quiet, though the window still holds the old ones", () => {
    const quiet = Array.from({ length: Duration.toMinutes(QUIET) + 2 }, () => "PASS" as const)
    const calm = last(follow([...["PASS", "ERROR", "PASS", "ERROR", "PASS"] as const, ...quiet]))
    assert.strictEqual(calm.status, "PASS")
    assert.strictEqual(last(follow(["ERROR"], { from: calm })).code, FLAPPING)
    const later = last(follow(["PASS"], { from: calm, every: Duration.toMinutes(WINDOW) }))
    assert.deepStrictEqual(follow(["ERROR"], { from: later }).map(({ code }) => code), ["CODE"])
  })

  it("does not flap when it turns too slowly", () => {
    const statuses = Array.from({ length: 20 }, (_, index) => index % 2 === 0 ? "PASS" as const : "ERROR" as const)
    for (const { code, status } of follow(statuses, { every: 11 })) assert.strictEqual(code === FLAPPING, false, status)
  })

  it("does not flap below its failure threshold, where nothing bounces", () => {
    const statuses = Array.from({ length: 20 }, (_, index) => index % 2 === 0 ? "PASS" as const : "ERROR" as const)
    assert.deepStrictEqual(
      [...new Set(follow(statuses, { threshold: 2 }).map(({ status }) => status))],
      ["PASS", "INFO"]
    )
  })

  it("shows at once when it cannot look, and flaps on when it can", () => {
    const states = follow(["PASS", "ERROR", "PASS", "ERROR", "PASS", "ERROR", "UNKNOWN", "PASS"])
    assert.deepStrictEqual(states.slice(5).map(({ status }) => status), ["WARN", "UNKNOWN", "WARN"])
  })

  it.effect.prop(
    "stays what it is while its verdict is one",
    { statuses: Statuses, bad: Schema.Boolean },
    (given) =>
      Effect.sync(() => {
        const statuses = given.statuses.filter((status) => verdictOf(status) !== (given.bad ? "good" : "bad"))
        assert.deepStrictEqual(follow(statuses).map(({ status }) => status), statuses)
      })
  )

  it.effect.prop(
    "shows what the run said, or WARN FLAPPING after enough turns, and never a failure as PASS or INFO",
    { statuses: Statuses },
    ({ statuses }) =>
      Effect.sync(() => {
        let turns = 0
        let verdict: "good" | "bad" | undefined
        follow(statuses).forEach(({ code, status }, index) => {
          const said = statuses[index] ?? "PASS"
          const next = verdictOf(said) ?? verdict
          if (verdict !== undefined && next !== verdict) turns++
          verdict = next
          if (code === FLAPPING) {
            assert.strictEqual(status, "WARN")
            assert.notStrictEqual(said, "UNKNOWN")
            assert.isAbove(turns, MOST_TURNS)
          } else assert.strictEqual(status, said)
        })
      })
  )

  it.effect.prop(
    "goes on after a restart as if there had been none, in bounded memory",
    { statuses: Statuses, later: Statuses, threshold: Threshold },
    ({ later, statuses, threshold }) =>
      Effect.sync(() => {
        const before = last(follow(statuses, { threshold }))
        const through = follow(later, { from: before, threshold })
        const anew = follow(later, { from: restarted(before), threshold })
        assert.isTrue(Equal.equals(through, anew))
        for (const { memory, message } of through) {
          assert.isAtMost(memory?.turns?.length ?? 0, MAX_TURNS)
          assert.isAtMost(message.length, MAX_MESSAGE)
        }
      })
  )

  it.effect.prop(
    "turns as often with runs that could not look between as without",
    { statuses: Statuses },
    ({ statuses }) =>
      Effect.sync(() => {
        const steps = statuses.map((status, index) => report(index, status))
        const turns = (reports: ReadonlyArray<Report>) =>
          reports.reduce<CheckerState | undefined>((state, next) => observe(state, next), undefined)?.memory?.turns
            ?.map(({ at }) => at)
        const seen = turns(steps.filter(({ status }) => status !== "UNKNOWN"))
        const all = turns(steps)
        // The newest is kept whatever its age, older ones by the age they have at the last run, which may be a blind one.
        assert.isTrue(Equal.equals(all ?? [], (seen ?? []).slice(-(all ?? []).length)))
      })
  )

  it("needs no more than its own standing to be shown by a master", () => {
    const before = last(follow(["PASS", "ERROR", "PASS", "ERROR", "PASS"]))
    const standing = stand(before, report(5, "ERROR"))
    assert.deepStrictEqual([standing.status, standing.flapping?.turns, standing.flapping?.worst], ["WARN", 5, "ERROR"])
  })
})

describe("what stands", () => {
  const standing = (...reports: ReadonlyArray<Report>) =>
    reports.reduce<CheckerState | undefined>((state, next) => observe(state, next), undefined)?.memory?.standing

  it("is every WARN and ERROR by code and object, until a run looked and did not find it", () => {
    const both = reportOf(0, [finding("ERROR", "a"), finding("WARN", "b"), finding("INFO", "c")])
    assert.deepStrictEqual(standing(both), ["CODE n/Pod/a", "CODE n/Pod/b"])
    assert.deepStrictEqual(standing(both, reportOf(1, [finding("WARN", "b")])), ["CODE n/Pod/b"])
    assert.isUndefined(standing(both, report(1, "PASS")))
  })

  it("stands on while the checker is blind, not while it only misses an object", () => {
    const red = reportOf(0, [finding("ERROR", "a")])
    assert.deepStrictEqual(standing(red, report(1, "UNKNOWN"), report(2, "UNKNOWN")), ["CODE n/Pod/a"])
    assert.isUndefined(standing(red, reportOf(1, [finding("UNKNOWN", "b")])))
  })

  it("is what was seen once and could not be looked at again", () => {
    const subject = { kind: "Pod", name: "a", namespace: "n" }
    const seen = checkerCodes.CONFIRMATION_FAILED({ message: "m", subject, evidence: { code: "CODE" } })
    assert.strictEqual(seen.code, CONFIRMATION_FAILED)
    assert.strictEqual(checkerCodes.FLAPPING.code, FLAPPING)
    assert.strictEqual(checkerCodes.FLAPPING.spec.status, "WARN")
    assert.deepStrictEqual(standing(reportOf(0, [seen])), ["CODE n/Pod/a"])
  })

  it.effect.prop(
    "is bounded",
    { names: Schema.Array(Schema.String), later: Schema.Array(Schema.String) },
    (given) =>
      Effect.sync(() => {
        const of = (minutes: number, names: ReadonlyArray<string>) =>
          reportOf(
            minutes,
            [...names, ...Array.from({ length: 60 }, (_, index) => `${index}`)].map((name) => finding("WARN", name))
          )
        assert.isAtMost(standing(of(0, given.names), of(1, given.later))?.length ?? 0, MAX_FINDINGS)
      })
  )
})
