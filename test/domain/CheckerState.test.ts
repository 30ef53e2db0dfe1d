import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, Schema } from "effect"
import { type CheckerState, latest, merge, observe, order, stand, summarize } from "../../src/domain/CheckerState.ts"
import { type CheckerStatus, ProbeStatusSpec, toState } from "../../src/domain/kinds/ProbeStatus.ts"
import { type Report, fromFindings } from "../../src/domain/Report.ts"
import * as Status from "../../src/domain/Status.ts"

const epoch = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const minute = (n: number) => DateTime.addDuration(epoch, Duration.minutes(n))

const report = (at: number, status: Status.Status, checker = "c"): Report =>
  fromFindings({
    checker,
    findings: status === "PASS" ? [] : [{ status, code: "CODE", blame: "target", message: `${status} at ${at}` }],
    summary: `PASS at ${at}`,
    startedAt: minute(at),
    duration: 1
  })

/** A run every so many minutes. */
const follow = (statuses: ReadonlyArray<Status.Status>, failureThreshold = 1, every = 1): CheckerState | undefined =>
  statuses.reduce<CheckerState | undefined>(
    (state, status, at) => observe(state, report(at * every, status), failureThreshold),
    undefined
  )

/** Minutes between runs that are too far apart for a checker to flap. */
const SELDOM = 20

/** Few times and names, so that generated states collide. */
const State = Schema.Struct({
  name: Schema.Literals(["a", "b"]),
  status: Status.Status,
  message: Schema.Literals(["x", "y"]),
  run: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 })),
  since: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 })),
  consecutiveFailures: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 }))
})
const stateOf = ({ run, since, ...rest }: typeof State.Type): CheckerState => ({
  ...rest,
  lastRun: minute(run),
  since: minute(since)
})
const States = Schema.Array(State).check(Schema.isMaxLength(6))

/** Numbers that put a list of at most eight into some order. */
const Shuffle = Schema.Array(Schema.Finite).check(Schema.isMinLength(8), Schema.isMaxLength(8))
const shuffle = <A>(items: ReadonlyArray<A>, keys: ReadonlyArray<number>): ReadonlyArray<A> =>
  items.map((item, index) => ({ item, key: keys[index] ?? 0 })).sort((a, b) => a.key - b.key).map(({ item }) => item)

describe("the state of a checker", () => {
  it.effect.prop("merges as a join-semilattice", { a: States, b: States, c: States }, (generated) =>
    Effect.sync(() => {
      const [a, b, c] = [generated.a, generated.b, generated.c].map((states) => states.map(stateOf))
      if (a === undefined || b === undefined || c === undefined) return assert.fail("three were generated")
      assert.isTrue(Equal.equals(merge(merge(a, b), c), merge(a, merge(b, c))), "associative")
      assert.isTrue(Equal.equals(merge(a, b), merge(b, a)), "commutative")
      assert.isTrue(Equal.equals(merge(a, a), merge(a)), "idempotent")
      assert.isTrue(Equal.equals(merge(a, []), merge(a)), "nothing is the identity")
    }))

  it.effect.prop(
    "is totally ordered",
    {
      a: State,
      b: State,
      differing: Schema.Literals(["name", "status", "message", "run", "since", "consecutiveFailures"])
    },
    ({ a, b, differing }) =>
      Effect.sync(() => {
        // Nearly equal states are those that an incomplete order would take for one.
        const [one, other] = [stateOf(a), stateOf({ ...a, [differing]: b[differing] })]
        assert.strictEqual(order(one, other), order(other, one) === 0 ? 0 : -order(other, one))
        assert.strictEqual(order(one, other) === 0, Equal.equals(one, other))
        assert.isTrue(Equal.equals(latest(one, other), latest(other, one)))
      })
  )

  it.effect.prop(
    "is of the run that started last, in whatever order reports arrive",
    { statuses: Schema.NonEmptyArray(Status.Status).check(Schema.isMaxLength(8)), keys: Shuffle },
    ({ keys, statuses }) =>
      Effect.sync(() => {
        const inOrder = follow(statuses, 1, SELDOM)
        const arrived = shuffle(statuses.map((status, at) => report(at * SELDOM, status)), keys)
          .reduce<CheckerState | undefined>((state, next) => observe(state, next), undefined)
        const verdict = (
          state: CheckerState | undefined
        ) => [state?.status, state?.code, state?.message, state?.lastRun]
        assert.isTrue(Equal.equals(verdict(arrived), verdict(inOrder)))
      })
  )

  it.effect.prop(
    "does not change when a delivery is repeated",
    { statuses: Schema.NonEmptyArray(Status.Status).check(Schema.isMaxLength(8)) },
    ({ statuses }) =>
      Effect.sync(() => {
        const state = follow(statuses)
        for (const [at, status] of statuses.entries()) {
          assert.strictEqual(observe(state, report(at, status)), state)
        }
      })
  )

  it("keeps since when the status began", () => {
    const state = follow(["PASS", "ERROR", "ERROR", "ERROR"])
    assert.isTrue(Equal.equals(state?.since, minute(1)))
    assert.strictEqual(state?.consecutiveFailures, 3)
  })

  it("counts failures in a row, through WARN and ERROR alike", () => {
    assert.strictEqual(follow(["ERROR", "WARN", "ERROR"])?.consecutiveFailures, 3)
    assert.strictEqual(follow(["ERROR", "PASS", "ERROR"])?.consecutiveFailures, 1)
    assert.strictEqual(follow(["ERROR", "INFO"])?.consecutiveFailures, 0)
  })

  it("takes a run that could not look for neither failure nor recovery", () => {
    assert.strictEqual(follow(["ERROR", "UNKNOWN", "ERROR"])?.consecutiveFailures, 2)
    assert.strictEqual(follow(["ERROR", "UNKNOWN"])?.status, "UNKNOWN")
  })

  it("shows a failure below its threshold as INFO, code and all", () => {
    const shown = [1, 2, 3].map((runs) => follow(Array.from({ length: runs }, () => "ERROR" as const), 3))
    assert.deepStrictEqual(shown.map((state) => state?.status), ["INFO", "INFO", "ERROR"])
    assert.deepStrictEqual(shown.map((state) => state?.code), ["CODE", "CODE", "CODE"])
    assert.isTrue(Equal.equals(shown[2]?.since, minute(2)))
    assert.strictEqual(follow(["ERROR", "ERROR", "PASS", "ERROR"], 3)?.status, "INFO")
    assert.strictEqual(follow(["UNKNOWN"], 3)?.status, "UNKNOWN")
  })

  it.effect.prop(
    "never shows a failure as PASS",
    {
      statuses: Schema.NonEmptyArray(Status.Status).check(Schema.isMaxLength(8)),
      threshold: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10 }))
    },
    ({ statuses, threshold }) =>
      Effect.sync(() => {
        const last = statuses.at(-1)
        assert.strictEqual(follow(statuses, threshold, SELDOM)?.status === "PASS", last === "PASS")
      })
  )

  it("needs no history to stand", () => {
    assert.deepStrictEqual(stand(undefined, report(4, "WARN")), {
      status: "WARN",
      since: minute(4),
      consecutiveFailures: 1
    })
  })
})

describe("checkers together", () => {
  const state = (name: string, status: Status.Status, at: number): CheckerState => ({
    name,
    status,
    message: `${name} is ${status}`,
    lastRun: minute(at),
    since: minute(at),
    consecutiveFailures: 0
  })

  it("show the worst, its message and how many fail", () => {
    assert.deepStrictEqual(summarize([state("a", "PASS", 3), state("c", "ERROR", 1), state("b", "ERROR", 2)]), {
      status: "ERROR",
      message: "b: b is ERROR",
      failing: "2/3",
      lastRun: minute(3)
    })
  })

  it("count what fails, not what could not be looked at", () => {
    const { failing, status } = summarize([state("a", "UNKNOWN", 1), state("b", "WARN", 1), state("c", "PASS", 1)])
    assert.deepStrictEqual([failing, status], ["1/3", "WARN"])
    assert.strictEqual(summarize([state("a", "UNKNOWN", 1)]).failing, "0/1")
  })

  it("pass without a message, as in the original", () => {
    assert.strictEqual(summarize([state("a", "PASS", 1)]).message, "")
  })

  it("are UNKNOWN before the first has reported", () => {
    assert.deepStrictEqual(summarize([]), {
      status: "UNKNOWN",
      message: "no checker has reported yet",
      failing: "0/0"
    })
  })
})

describe("a ProbeStatus", () => {
  it.effect("keeps states across being written and read", () =>
    Effect.gen(function*() {
      const states = merge([follow(["PASS", "ERROR"]) ?? assert.fail("two reports make a state")])
      const written = yield* Schema.encodeEffect(ProbeStatusSpec)({ checkers: states })
      const { checkers = [] } = yield* Schema.decodeUnknownEffect(ProbeStatusSpec)(JSON.parse(JSON.stringify(written)))
      assert.isTrue(Equal.equals(checkers.map(toState), states))
    }))

  it("of the original reads as no more than it says", () => {
    const old: CheckerStatus = { name: "old", lastRun: minute(1) }
    assert.strictEqual(toState(old)?.status, "UNKNOWN")
    assert.isUndefined(toState({ name: "never-ran", status: "PASS" }))
  })
})
