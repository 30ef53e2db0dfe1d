import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, Result, Schema, Struct } from "effect"
import { type Freshness, freshness, shown } from "../../src/domain/Freshness.ts"
import {
  MINIMUM_INTERVAL,
  ProbePolicy,
  RunSchedule,
  interval,
  nextRun,
  plan,
  schedule,
  staleAt
} from "../../src/domain/Policy.ts"
import * as Status from "../../src/domain/Status.ts"

const at = (iso: string) => DateTime.makeUnsafe(iso)
const now = at("2026-06-01T12:00:00Z")

const decode = Schema.decodeUnknownEffect(ProbePolicy)

const scheduleOf = Effect.fnUntraced(function*(policy: unknown) {
  return yield* Effect.fromResult(schedule(yield* decode(policy)))
})

/** The starts a schedule gives from a moment on, each run at once when due. */
const starts = (schedule: RunSchedule, from: DateTime.Utc, count: number, random = 0.5): ReadonlyArray<string> => {
  const found: Array<string> = []
  let last: DateTime.Utc | undefined
  while (found.length < count) {
    const next = nextRun(schedule, { lastStart: last, now: last ?? from, random })
    if (next === undefined) break
    found.push(DateTime.formatIso(next))
    last = next
  }
  return found
}

/** Every kind of schedule. */
const schedules = Effect.all([
  Effect.succeed(interval(Duration.seconds(90))),
  scheduleOf({ runInterval: 30, runIntervalRandom: 10 }),
  scheduleOf({ cron: "*/5 * * * *", timeZone: "Europe/Berlin" }),
  Effect.succeed(RunSchedule.Once()),
  Effect.succeed(RunSchedule.Manual())
])

const Seconds = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))
const Fraction = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 0.999 }))

describe("a policy", () => {
  it.effect("of the original counts minutes and strays as asked, but not too far", () =>
    Effect.gen(function*() {
      assert.isTrue(Equal.equals(
        yield* scheduleOf({ runInterval: 30, runIntervalRandom: 5 }),
        RunSchedule.Interval({ every: Duration.minutes(30), jitter: Duration.minutes(5) })
      ))
      assert.isTrue(Equal.equals(
        yield* scheduleOf({ runInterval: 2, runIntervalRandom: 60 }),
        RunSchedule.Interval({ every: Duration.minutes(2), jitter: Duration.minutes(1) })
      ))
      assert.isTrue(Equal.equals(
        yield* scheduleOf({ runInterval: 90 }),
        RunSchedule.Interval({ every: Duration.minutes(90), jitter: Duration.zero })
      ))
    }))

  it.effect("of the original without an interval runs once", () =>
    Effect.gen(function*() {
      for (const policy of [{}, { runInterval: 0 }, { runInterval: -1 }, { runIntervalRandom: 5 }]) {
        assert.strictEqual((yield* scheduleOf(policy))._tag, "Once", JSON.stringify(policy))
      }
    }))

  it.effect("that says nothing takes what it is given", () =>
    Effect.gen(function*() {
      const usual = interval(Duration.minutes(5))
      assert.deepStrictEqual(schedule(yield* decode({}), usual), Result.succeed(usual))
      assert.deepStrictEqual(
        schedule(yield* decode({ runInterval: 0 }), usual),
        Result.succeed(RunSchedule.Once())
      )
    }))

  it.effect("that is suspended runs only when asked", () =>
    Effect.gen(function*() {
      const manual = yield* scheduleOf({ interval: "1m", suspend: true })
      assert.strictEqual(manual._tag, "Manual")
      assert.isUndefined(nextRun(manual, { now, random: 0 }))
    }))

  it.effect("is refused with a reason people understand", () =>
    Effect.gen(function*() {
      for (
        const [policy, message] of [
          [{ interval: "1m", cron: "* * * * *" }, "choose one of interval, cron and runInterval"],
          [{ interval: "1m", runInterval: 0 }, "choose one of interval, cron and runInterval"],
          [{ timeZone: "Europe/Berlin" }, "timeZone is the zone of cron"],
          [{ interval: "500ms" }, "at least 1s: watch with onChange what must be noticed sooner"],
          [{ interval: "often" }, "\"often\" is not a duration"],
          [{ cron: "@hourly" }, "five fields"],
          [{ cron: "* * * * * *" }, "five fields"],
          [{ timeout: "0s" }, "at least 1ms"]
        ] as const
      ) {
        assert.include((yield* Effect.flip(decode(policy))).message, message, JSON.stringify(policy))
      }
      for (
        const [policy, message] of [
          [{ cron: "61 * * * *" }, "policy.cron \"61 * * * *\" is not a cron expression"],
          [{ cron: "0 0 30 2 *" }, "policy.cron \"0 0 30 2 *\" names a date that never comes"],
          [{ cron: "0 0 * * *", timeZone: "Mars/Olympus" }, "policy.timeZone \"Mars/Olympus\" is not a known time zone"]
        ] as const
      ) {
        const failed = schedule(yield* decode(policy))
        assert.include(Result.isFailure(failed) ? failed.failure.message : "accepted", message)
      }
    }))

  it.effect("becomes a plan, its gaps filled", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        Result.map(plan(yield* decode({})), Struct.omit(["schedule"])),
        Result.succeed({ timeout: Duration.seconds(60), retries: 0, failureThreshold: 1, onChange: true })
      )
      assert.deepStrictEqual(
        Result.map(
          plan(yield* decode({ timeout: "5s", retries: 2, failureThreshold: 3, onChange: false }), {
            timeout: Duration.minutes(30)
          }),
          Struct.omit(["schedule"])
        ),
        Result.succeed({ timeout: Duration.seconds(5), retries: 2, failureThreshold: 3, onChange: false })
      )
    }))

  it.effect.prop("survives being written and read", { policy: ProbePolicy }, ({ policy }) =>
    Effect.gen(function*() {
      const written = yield* Schema.encodeEffect(ProbePolicy)(policy)
      assert.isTrue(Equal.equals(yield* decode(JSON.parse(JSON.stringify(written))), policy))
    }))
})

describe("runs of an interval", () => {
  it.effect.prop(
    "are an interval apart, give or take the jitter",
    { seconds: Seconds, random: Fraction },
    ({ random, seconds }) =>
      Effect.sync(() => {
        const every = Duration.max(Duration.seconds(seconds), MINIMUM_INTERVAL)
        const next = nextRun(interval(every), { lastStart: now, now, random })
        if (next === undefined) return assert.fail("an interval has a next run")
        const gap = Duration.toMillis(DateTime.distance(now, next))
        assert.isAtLeast(gap, 0.9 * Duration.toMillis(every) - 1)
        assert.isAtMost(gap, 1.1 * Duration.toMillis(every) + 1)
      })
  )

  it("use the whole of the jitter, so that what started together drifts apart", () => {
    const gap = (random: number) =>
      Duration.toSeconds(
        DateTime.distance(
          now,
          nextRun(interval(Duration.seconds(100)), { lastStart: now, now, random }) ?? now
        )
      )
    assert.deepStrictEqual([0, 0.5, 0.75].map(gap), [90, 100, 105])
  })

  it("begin soon, but not all at once", () => {
    const first = (random: number) => nextRun(interval(Duration.seconds(100)), { now, random })
    assert.isTrue(Equal.equals(first(0), now))
    assert.isTrue(Equal.equals(first(0.5), DateTime.addDuration(now, Duration.seconds(5))))
  })

  it("that were missed are made up for by one", () => {
    const yesterday = DateTime.subtractDuration(now, Duration.days(1))
    assert.isTrue(Equal.equals(nextRun(interval(Duration.minutes(1)), { lastStart: yesterday, now, random: 0.5 }), now))
  })
})

describe("runs at cron times", () => {
  it.effect("follow the zone's clock", () =>
    Effect.gen(function*() {
      const nightly = yield* scheduleOf({ cron: "30 2 * * *", timeZone: "Asia/Tokyo" })
      assert.deepStrictEqual(starts(nightly, at("2026-06-01T00:00:00Z"), 2), [
        "2026-06-01T17:30:00.000Z",
        "2026-06-02T17:30:00.000Z"
      ])
    }))

  it.effect("are in UTC unless a zone is given", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(starts(yield* scheduleOf({ cron: "0 6 * * *" }), now, 1), ["2026-06-02T06:00:00.000Z"])
    }))

  it.effect("given by the hour happen once when clocks go back", () =>
    Effect.gen(function*() {
      const nightly = yield* scheduleOf({ cron: "30 2 * * *", timeZone: "Europe/Berlin" })
      assert.deepStrictEqual(starts(nightly, at("2026-10-24T12:00:00Z"), 2), [
        "2026-10-25T00:30:00.000Z",
        "2026-10-26T01:30:00.000Z"
      ])
    }))

  it.effect("of every hour go on when clocks go back", () =>
    Effect.gen(function*() {
      const halfHourly = yield* scheduleOf({ cron: "*/30 * * * *", timeZone: "Europe/Berlin" })
      assert.deepStrictEqual(starts(halfHourly, at("2026-10-25T00:00:00Z"), 4), [
        "2026-10-25T00:30:00.000Z",
        "2026-10-25T01:00:00.000Z",
        "2026-10-25T01:30:00.000Z",
        "2026-10-25T02:00:00.000Z"
      ])
    }))

  it.effect("of every hour go on when clocks go forward", () =>
    Effect.gen(function*() {
      const halfHourly = yield* scheduleOf({ cron: "*/30 * * * *", timeZone: "Europe/Berlin" })
      assert.deepStrictEqual(starts(halfHourly, at("2026-03-29T00:00:00Z"), 3), [
        "2026-03-29T00:30:00.000Z",
        "2026-03-29T01:00:00.000Z",
        "2026-03-29T01:30:00.000Z"
      ])
    }))

  it.effect("on 29 February wait for the leap year", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(starts(yield* scheduleOf({ cron: "0 0 29 2 *" }), now, 1), ["2028-02-29T00:00:00.000Z"])
    }))
})

describe("any schedule", () => {
  it.effect.prop(
    "never starts a run in the past",
    { since: Seconds, random: Fraction },
    ({ random, since }) =>
      Effect.gen(function*() {
        const lastStart = DateTime.subtractDuration(now, Duration.seconds(since))
        for (const schedule of yield* schedules) {
          for (const last of [undefined, lastStart]) {
            const next = nextRun(schedule, { lastStart: last, now, random })
            assert.isTrue(next === undefined || DateTime.isGreaterThanOrEqualTo(next, now), schedule._tag)
          }
        }
      })
  )

  it.effect.prop(
    "plans the next run before the last becomes stale",
    { random: Fraction, since: Seconds },
    ({ random, since }) =>
      Effect.gen(function*() {
        const start = DateTime.addDuration(now, Duration.seconds(since))
        for (const schedule of yield* schedules) {
          const next = nextRun(schedule, { lastStart: start, now: start, random })
          const limit = staleAt(schedule, start)
          assert.strictEqual(next === undefined, limit === undefined, schedule._tag)
          if (next !== undefined && limit !== undefined) assert.isTrue(DateTime.isLessThan(next, limit), schedule._tag)
        }
      })
  )

  it("that promises one run gives one", () => {
    assert.deepStrictEqual(starts(RunSchedule.Once(), now, 3), [DateTime.formatIso(now)])
  })
})

describe("freshness", () => {
  const every = interval(Duration.seconds(60))
  const after = (seconds: number, linked = true) =>
    freshness({ schedule: every, lastRun: now, linked, now: DateTime.addDuration(now, Duration.seconds(seconds)) })

  it("ends after twice the interval", () => {
    assert.deepStrictEqual([0, 119, 120, 121].map((seconds) => after(seconds)), ["fresh", "fresh", "fresh", "stale"])
  })

  it.effect("ends for cron when a second time has passed", () =>
    Effect.gen(function*() {
      const daily = yield* scheduleOf({ cron: "0 6 * * *" })
      const lastRun = at("2026-06-01T06:00:01Z")
      const when = (iso: string) => freshness({ schedule: daily, lastRun, linked: true, now: at(iso) })
      assert.strictEqual(when("2026-06-02T08:00:00Z"), "fresh")
      assert.strictEqual(when("2026-06-03T06:00:01Z"), "stale")
    }))

  it("is lost with the link, however young the result", () => {
    assert.strictEqual(after(1, false), "unreachable")
  })

  it("is not there before the first run", () => {
    assert.strictEqual(freshness({ schedule: every, linked: true, now }), "stale")
    assert.strictEqual(freshness({ schedule: RunSchedule.Manual(), linked: true, now }), "stale")
  })

  it("of a single run does not end", () => {
    assert.strictEqual(
      freshness({
        schedule: RunSchedule.Once(),
        lastRun: now,
        linked: true,
        now: DateTime.addDuration(now, Duration.days(1000))
      }),
      "fresh"
    )
  })

  const rank: Record<Freshness, number> = { fresh: 0, stale: 1, unreachable: 2 }

  it.effect.prop(
    "only ever fades with time",
    { early: Seconds, later: Seconds, linked: Schema.Boolean },
    ({ early, later, linked }) =>
      Effect.gen(function*() {
        for (const schedule of yield* schedules) {
          const seen = (seconds: number) =>
            rank[
              freshness({ schedule, lastRun: now, linked, now: DateTime.addDuration(now, Duration.seconds(seconds)) })
            ]
          assert.isAtMost(seen(Math.min(early, later)), seen(Math.max(early, later)), schedule._tag)
        }
      })
  )

  it.effect.prop("lost never makes a status look better, and silence is never PASS", { status: Status.Status }, ({
    status
  }) =>
    Effect.sync(() => {
      assert.strictEqual(shown(status, "fresh"), status)
      for (const lost of ["stale", "unreachable"] as const) {
        assert.isTrue(Status.isAtLeast(shown(status, lost), status))
        assert.isTrue(Status.isAtLeast(shown(status, lost), "UNKNOWN"))
      }
    }))
})
