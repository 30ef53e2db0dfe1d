/** When runs start, on a clock that the test moves. In place of running a Probe, its start is written down. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Ref, References, type Schema, type Scope, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { Execution, type RunRequest } from "../../src/agent/Execution.ts"
import { ProbeStore, type StoredProbe } from "../../src/agent/ProbeStore.ts"
import * as Scheduler from "../../src/agent/Scheduler.ts"
import { Standings } from "../../src/agent/Standings.ts"
import { StatusWriter } from "../../src/agent/StatusWriter.ts"
import { Watching } from "../../src/agent/Watching.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import type { ProbePolicy } from "../../src/domain/Policy.ts"
import { fromFindings } from "../../src/domain/Report.ts"
import { ConfigMap, Node } from "../../src/infra/kube/resources/core.ts"
import * as Watch from "../../src/probes/Watch.ts"
import { check } from "./Checks.ts"
import { desiredOf, hashOf } from "./desired.ts"

const nodes = Watch.of(Node)
const configMaps = Watch.of(ConfigMap)
const fine = () => Effect.succeed({ findings: [], summary: "" })
const available = [
  check("test.nodes", fine, { onChange: [nodes] }).probe,
  check("test.maps", fine, { onChange: [configMaps, nodes] }).probe,
  check("test.writes", fine, { onChange: [nodes], writes: "namespace" }).probe,
  check("test.check", fine).probe
]

const spec = (policy: ProbePolicy): ProbeSpec => ({ checks: [{ name: "it", use: "test.check" }], policy })
const every = (seconds: number): ProbeSpec => spec({ interval: Duration.seconds(seconds) })

/** One life of an agent with the Probes and standings it finds: what it is given, and when it started what. */
const start = Effect.fnUntraced(function*(running: Effect.Effect<void> = Effect.void) {
  const store = yield* ProbeStore
  const standings = yield* Standings
  const starts = yield* Ref.make<ReadonlyArray<{ readonly probe: string; readonly second: number }>>([])
  const execution = Layer.succeed(Execution, {
    run: Effect.fnUntraced(function*({ probe }) {
      const startedAt = yield* DateTime.now
      const second = DateTime.toEpochMillis(startedAt) / 1000
      yield* Ref.update(starts, (before) => [...before, { probe: probe.name, second }])
      yield* running
      yield* standings.finish(probe, { startedAt, current: () => true })
    })
  })
  yield* Layer.build(
    Layer.fresh(Scheduler.layer({ available, profile: "observe" })).pipe(Layer.provide([
      execution,
      Watching.layerNone,
      Layer.succeed(ProbeStore, store),
      Layer.succeed(Standings, standings),
      StatusWriter.layerNone
    ]))
  )
  const settle = TestClock.adjust(0)
  yield* settle
  return {
    apply: (specs: Readonly<Record<string, ProbeSpec>>) => {
      const desired = desiredOf(specs)
      return Effect.andThen(store.apply(hashOf(desired), desired), settle)
    },
    /** Seconds of the starts of a Probe. */
    of: (probe: string) =>
      Effect.map(Ref.get(starts), (all) => all.filter((start) => start.probe === probe).map(({ second }) => second))
  }
})

/** Time passes in steps, for what is woken may take several turns until it sleeps again. */
const pass = (time: Duration.Input, step: Duration.Input = "1 second") =>
  Effect.repeat(TestClock.adjust(step), {
    times: Math.round(
      Duration.toMillis(Duration.fromInputUnsafe(time)) / Duration.toMillis(Duration.fromInputUnsafe(step))
    ) - 1
  })

const agentState = Layer.suspend(() =>
  Layer.fresh(Layer.merge(ProbeStore.layerMemory({ available }), Standings.layerMemory))
)

const test = <E>(name: string, body: () => Effect.Effect<void, E, Layer.Success<typeof agentState> | Scope.Scope>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(agentState)))

describe("Scheduler", () => {
  test("an interval's runs are that far apart, give or take a tenth, and the first comes soon", () =>
    Effect.gen(function*() {
      const agent = yield* start()
      yield* agent.apply({ a: every(60) })
      yield* pass("1 hour")
      const starts = yield* agent.of("a")
      assert.isAtMost(starts[0] ?? Infinity, 6)
      assert.isAtLeast(starts.length, 50)
      assert.isAtMost(starts.length, 70)
      for (const [index, second] of starts.entries()) {
        if (index === 0) continue
        const apart = second - (starts[index - 1] ?? 0)
        assert.isTrue(apart >= 54 && apart <= 66, `${apart} s apart`)
      }
    }))

  test("many Probes that come together do not run together", () =>
    Effect.gen(function*() {
      const agent = yield* start()
      const names = Array.from({ length: 50 }, (_, index) => `p${index}`)
      yield* agent.apply(Object.fromEntries(names.map((name) => [name, every(60)])))
      yield* pass("6 seconds")
      const firsts = (yield* Effect.forEach(names, agent.of)).flatMap(([first]) => first === undefined ? [] : [first])
      assert.strictEqual(firsts.length, 50)
      assert.isAtLeast(new Set(firsts.map(Math.floor)).size, 5)
    }))

  test("cron keeps to its minute in its zone", () =>
    Effect.gen(function*() {
      // The test's clock begins at 1970-01-01T00:00Z, which is 01:00 in Berlin.
      const agent = yield* start()
      yield* agent.apply({ c: spec({ cron: "30 2 * * *", timeZone: "Europe/Berlin" }) })
      yield* pass("3 days", "1 minute")
      assert.deepStrictEqual(yield* agent.of("c"), [5400, 5400 + 86_400, 5400 + 2 * 86_400])
    }))

  test("a changed spec is followed from now on, and an unchanged one is not disturbed", () =>
    Effect.gen(function*() {
      const agent = yield* start()
      yield* agent.apply({ stays: every(600), changes: every(600) })
      yield* pass("2 minutes")
      const before = yield* agent.of("stays")
      assert.strictEqual((yield* agent.of("changes")).length, 1)
      yield* agent.apply({ stays: every(600), changes: every(10) })
      yield* pass("2 minutes")
      assert.deepStrictEqual(yield* agent.of("stays"), before)
      assert.isAtLeast((yield* agent.of("changes")).length, 10)
    }))

  test("a Probe that left runs no more", () =>
    Effect.gen(function*() {
      const agent = yield* start()
      yield* agent.apply({ a: every(10) })
      yield* pass("30 seconds")
      yield* agent.apply({})
      const before = yield* agent.of("a")
      yield* pass("5 minutes")
      assert.isAbove(before.length, 0)
      assert.deepStrictEqual(yield* agent.of("a"), before)
    }))

  test("a suspended Probe does not run, and runs again when it no longer is", () =>
    Effect.gen(function*() {
      const agent = yield* start()
      yield* agent.apply({ a: spec({ interval: Duration.seconds(10), suspend: true }) })
      yield* pass("5 minutes")
      assert.deepStrictEqual(yield* agent.of("a"), [])
      yield* agent.apply({ a: every(10) })
      yield* pass("5 seconds")
      assert.strictEqual((yield* agent.of("a")).length, 1)
    }))

  test("a run that takes longer than the interval does not overlap with the next, nor pile up", () =>
    Effect.gen(function*() {
      const going = yield* Ref.make(0)
      const most = yield* Ref.make(0)
      const agent = yield* start(
        Effect.gen(function*() {
          const now = yield* Ref.updateAndGet(going, (count) => count + 1)
          yield* Ref.update(most, (before) => Math.max(before, now))
          yield* Effect.sleep("35 seconds")
        }).pipe(Effect.ensuring(Ref.update(going, (count) => count - 1)))
      )
      yield* agent.apply({ slow: every(10) })
      yield* pass("10 minutes")
      assert.strictEqual(yield* Ref.get(most), 1)
      const count = (yield* agent.of("slow")).length
      assert.isTrue(count >= 15 && count <= 18, `${count} runs`)
    }))

  test("a new spec waits until the run of the old one has cleaned up", () =>
    Effect.gen(function*() {
      const going = yield* Ref.make(0)
      const most = yield* Ref.make(0)
      const agent = yield* start(
        Effect.gen(function*() {
          const now = yield* Ref.updateAndGet(going, (count) => count + 1)
          yield* Ref.update(most, (before) => Math.max(before, now))
          yield* Effect.sleep("30 seconds")
        }).pipe(Effect.ensuring(Effect.andThen(Effect.sleep("20 seconds"), Ref.update(going, (count) => count - 1))))
      )
      yield* agent.apply({ a: every(60) })
      yield* pass("10 seconds")
      yield* agent.apply({ a: every(61) }).pipe(Effect.forkScoped)
      yield* pass("3 minutes")
      assert.strictEqual(yield* Ref.get(most), 1)
      assert.isAtLeast((yield* agent.of("a")).length, 2)
      // A run that still goes on cleans up on this clock, which stands still when the test has ended.
      yield* agent.apply({})
      yield* pass("1 minute")
      assert.strictEqual(yield* Ref.get(going), 0)
    }))

  test("what runs once runs once, over a restart too, and again when its spec changes", () =>
    Effect.gen(function*() {
      const once = spec({ runInterval: 0 })
      yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* start()
        yield* first.apply({ once })
        yield* pass("1 hour")
        assert.strictEqual((yield* first.of("once")).length, 1)
      }))
      const second = yield* start()
      yield* pass("1 hour")
      assert.deepStrictEqual(yield* second.of("once"), [])
      yield* second.apply({ once: { ...once, layer: "middleware" } })
      yield* pass("1 hour")
      assert.strictEqual((yield* second.of("once")).length, 1)
    }))

  test("starts missed while the agent was away are made up for by one run", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* start()
        yield* first.apply({ a: every(60) })
        yield* pass("30 seconds")
        assert.strictEqual((yield* first.of("a")).length, 1)
      }))
      yield* pass("1 hour")
      const second = yield* start()
      yield* pass("20 seconds")
      assert.strictEqual((yield* second.of("a")).length, 1)
    }))
})

interface Started {
  readonly trigger: string
  readonly only: ReadonlyArray<string> | undefined
  /** Milliseconds. */
  readonly at: number
}

/** An agent whose watched kinds the test changes, and whose checks take as long as it says (ms). */
const watchful = Effect.fnUntraced(function*(
  options: { readonly takes?: Readonly<Record<string, number>>; readonly deaf?: boolean } = {}
) {
  const store = yield* ProbeStore
  const standings = yield* Standings
  const followers = new Map<Watch.Watch, Set<Effect.Effect<void>>>()
  const starts: Array<Started> = []
  const going = new Map<string, number>()
  let overlaps = 0
  const run = Effect.fnUntraced(function*({ onRecord, only, probe, run, trigger }: RunRequest) {
    const startedAt = yield* DateTime.now
    starts.push({
      trigger,
      only: only === undefined ? undefined : [...only],
      at: DateTime.toEpochMillis(startedAt)
    })
    const checks = (probe.spec.checks ?? []).filter(({ name }) => only?.has(name) !== false)
    yield* Effect.forEach(
      checks,
      Effect.fnUntraced(function*({ name }) {
        const count = (going.get(name) ?? 0) + 1
        if (count > 1) overlaps++
        going.set(name, count)
        yield* Effect.sleep(options.takes?.[name] ?? 10)
        going.set(name, count - 1)
        const report = fromFindings({ checker: name, findings: [], summary: "", startedAt, duration: 0 })
        const standing = { status: report.status, since: startedAt, consecutiveFailures: 0 }
        const { name: of, namespace } = probe
        yield* onRecord?.({ run, probe: { namespace, name: of }, layer: "kubernetes", trigger, report, standing }) ??
          Effect.void
      }),
      { concurrency: "unbounded", discard: true }
    )
    yield* standings.finish(probe, { startedAt, part: trigger === "watch", current: () => true })
  })
  yield* Layer.build(
    Layer.fresh(Scheduler.layer({ available, profile: "observe" })).pipe(Layer.provide([
      Layer.succeed(Execution, { run }),
      Layer.succeed(Watching, {
        follow: (watch, onChange) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              followers.set(watch, (followers.get(watch) ?? new Set()).add(onChange))
            }),
            () => Effect.sync(() => followers.get(watch)?.delete(onChange))
          ).pipe(Effect.as(options.deaf === true ? Effect.never : Effect.void)),
        faults: Effect.succeed(new Map())
      }),
      Layer.succeed(ProbeStore, store),
      Layer.succeed(Standings, standings),
      StatusWriter.layerNone
    ]))
  )
  yield* TestClock.adjust(0)
  return {
    apply: (specs: Readonly<Record<string, ProbeSpec>>) => {
      const desired = desiredOf(specs)
      return Effect.andThen(store.apply(hashOf(desired), desired), TestClock.adjust(0))
    },
    change: (watch: Watch.Watch) =>
      Effect.suspend(() => Effect.forEach(followers.get(watch) ?? [], (onChange) => onChange, { discard: true })),
    followed: (watch: Watch.Watch) => followers.get(watch)?.size ?? 0,
    watchRuns: () => starts.filter(({ trigger }) => trigger === "watch"),
    scheduled: () => starts.filter(({ trigger }) => trigger === "schedule"),
    overlaps: () => overlaps
  }
})

const checkOf = (name: string) => ({ name, use: `test.${name}` })
const checksOf = (first: string, ...others: ReadonlyArray<string>): Pick<ProbeSpec, "checks"> => ({
  checks: [checkOf(first), ...others.map(checkOf)]
})
const hourly = (first: string, ...others: ReadonlyArray<string>): ProbeSpec => ({
  ...checksOf(first, ...others),
  policy: { interval: Duration.hours(1) }
})

describe("a Probe that breaks", () => {
  it.effect("does not keep the others from their schedules, and runs itself once it is mended", () =>
    Effect.gen(function*() {
      const stored = (name: string, nested?: Schema.Json): StoredProbe => ({
        namespace: "n",
        name,
        spec: {
          checks: [{ name: "it", use: "test.check", ...(nested === undefined ? {} : { with: { nested } }) }],
          policy: { interval: Duration.seconds(60) }
        }
      })
      const deep: Schema.Json = JSON.parse("[".repeat(50_000) + "]".repeat(50_000))
      const probes = yield* SubscriptionRef.make<ReadonlyArray<StoredProbe>>([stored("a")])
      const store = Layer.succeed(ProbeStore, {
        applied: Effect.succeedNone,
        apply: () => Effect.succeed([]),
        probes: SubscriptionRef.changes(probes)
      })
      const agent = yield* Effect.provide(start(), store)
      yield* pass("10 seconds")
      yield* SubscriptionRef.set(probes, [stored("evil", deep), stored("a"), stored("b")])
      yield* pass("10 seconds")
      yield* SubscriptionRef.set(probes, [stored("evil", deep), stored("a"), stored("c")])
      yield* pass("10 seconds")
      for (const name of ["a", "c"]) assert.lengthOf(yield* agent.of(name), 1, name)
      assert.lengthOf(yield* agent.of("evil"), 0)
      yield* SubscriptionRef.set(probes, [stored("evil", [])])
      yield* pass("10 seconds")
      assert.lengthOf(yield* agent.of("evil"), 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.suspend(() => Layer.fresh(Standings.layerMemory))),
      Effect.provideService(References.MinimumLogLevel, "None")
    ))
})

describe("changes", () => {
  test("re-run at once the checks that watch what changed, alone", () =>
    Effect.gen(function*() {
      const agent = yield* watchful()
      yield* agent.apply({ p: hourly("nodes", "maps", "check") })
      yield* pass("6 seconds", "100 millis")
      assert.strictEqual(agent.scheduled().length, 1)
      assert.deepStrictEqual(agent.watchRuns(), [])
      const at = DateTime.toEpochMillis(yield* DateTime.now)
      yield* agent.change(configMaps)
      yield* pass("1 second", "10 millis")
      assert.deepStrictEqual(agent.watchRuns().map(({ only }) => only), [["maps"]])
      assert.isAtMost((agent.watchRuns()[0]?.at ?? Infinity) - at, 300)
      yield* agent.change(nodes)
      yield* pass("1 second", "10 millis")
      assert.deepStrictEqual(agent.watchRuns().slice(1).map(({ only }) => only).sort(), [["maps"], ["nodes"]])
      // The schedule of the whole is as if nothing had happened.
      yield* pass("50 minutes", "1 second")
      assert.strictEqual(agent.scheduled().length, 1)
      yield* pass("20 minutes", "1 second")
      assert.strictEqual(agent.scheduled().length, 2)
    }))

  test("do not wait for the slow checks of their Probe, and no check overlaps with itself", () =>
    Effect.gen(function*() {
      const agent = yield* watchful({ takes: { check: 60_000, nodes: 400 } })
      yield* agent.apply({ p: { ...checksOf("nodes", "check"), policy: { interval: Duration.seconds(61) } } })
      yield* pass("10 seconds", "100 millis")
      assert.strictEqual(agent.scheduled().length, 1)
      yield* agent.change(nodes)
      yield* pass("200 millis", "10 millis")
      assert.deepStrictEqual(agent.watchRuns().map(({ only }) => only), [["nodes"]])
      for (let count = 0; count < 300; count++) {
        yield* agent.change(nodes)
        yield* pass("1 second", "100 millis")
      }
      assert.strictEqual(agent.overlaps(), 0)
      // Five minutes of changes every second: one run in ten seconds.
      const count = agent.watchRuns().length
      assert.isTrue(count >= 20 && count <= 34, `${count} runs`)
      assert.isAtLeast(agent.scheduled().length, 4)
    }))

  test("are not followed for who runs once, is suspended, wants it not, or may not write", () =>
    Effect.gen(function*() {
      const agent = yield* watchful()
      yield* agent.apply({
        once: { ...checksOf("nodes"), policy: { runInterval: 0 } },
        suspended: { ...checksOf("nodes"), policy: { interval: Duration.hours(1), suspend: true } },
        unwilling: { ...checksOf("nodes"), policy: { interval: Duration.hours(1), onChange: false } },
        writer: hourly("writes")
      })
      yield* pass("10 seconds")
      assert.strictEqual(agent.followed(nodes), 0)
      yield* agent.apply({ p: hourly("nodes") })
      yield* pass("1 second")
      assert.strictEqual(agent.followed(nodes), 1)
      yield* agent.apply({})
      yield* pass("1 second")
      assert.strictEqual(agent.followed(nodes), 0)
    }))

  test("that cannot be watched leave the schedule alone", () =>
    Effect.gen(function*() {
      const agent = yield* watchful({ deaf: true })
      yield* agent.apply({ p: { ...checksOf("nodes"), policy: { interval: Duration.seconds(60) } } })
      yield* pass("10 minutes")
      assert.isAtLeast(agent.scheduled().length, 9)
    }))
})
