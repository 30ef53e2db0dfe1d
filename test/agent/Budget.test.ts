/** What probes may use of a cluster together, on a clock that the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Exit, Fiber, Logger, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Budget, type SessionOptions } from "../../src/agent/Budget.ts"
import { FairShare } from "../../src/agent/budget/fairShare.ts"
import { podsOf } from "../../src/agent/budget/podsOf.ts"
import { Bucket } from "../../src/agent/budget/supplies.ts"
import * as Round from "../../src/agent/Round.ts"
import { type Gate, type GatedRequest, KubeGate } from "../../src/infra/kube/KubeGate.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import type { Timed } from "../../src/probes/Probe.ts"
import { check, codes, withoutServer } from "./Checks.ts"

const asks = Schema.Array(Schema.Struct({
  /** Milliseconds since the one before. */
  pause: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2000 })),
  account: Schema.Literals(["a", "b", "c"]),
  amount: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 50 })),
  /** How long what was granted is held before it is spent (ms), or given back. */
  hold: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20_000 })),
  spends: Schema.Boolean
})).check(Schema.isMaxLength(60))

const CAPACITY = 50
const RATE = 0.01

describe("a share of a bucket", () => {
  it.prop("no window sees more than the bucket holds and what flows in, whatever is asked, held and given back", {
    asks
  }, ({ asks }) => {
    const bucket = new Bucket({ capacity: CAPACITY, rate: RATE, now: 0 })
    const share = new FairShare(bucket)
    const spent: Array<readonly [at: number, amount: number]> = []
    let holding: Array<{ readonly due: number; readonly amount: number; readonly spends: boolean }> = []
    let granted = 0
    let now = 0
    const settle = (until: number) => {
      while (true) {
        share.pump(now)
        const next = Math.min(until, now + (share.wait(now) ?? Infinity), ...holding.map(({ due }) => due))
        now = Math.max(now, next)
        for (const { amount, due, spends } of holding) {
          if (due > now) continue
          if (spends) {
            bucket.spend(amount, now)
            spent.push([now, amount])
          } else bucket.giveBack(amount, now)
        }
        holding = holding.filter(({ due }) => due > now)
        share.pump(now)
        if (now >= until || (share.isIdle && holding.length === 0)) return
      }
    }
    let at = 0
    for (const { account, amount, hold, pause, spends } of asks) {
      settle(at += pause)
      now = at
      const grant = () => {
        granted++
        holding.push({ due: now + hold, amount, spends })
      }
      share.enqueue({ account, amount, grant })
    }
    settle(Number.MAX_SAFE_INTEGER)
    assert.strictEqual(granted, asks.length)
    for (const [index, [from]] of spent.entries()) {
      let sum = 0
      for (const [to, amount] of spent.slice(index)) {
        sum += amount
        assert.isAtMost(sum, CAPACITY + (to - from) * RATE + 1e-6)
      }
    }
  })

  it.prop("turns go round: who always asks gets as much as the others, give or take a turn", {
    amounts: Schema.NonEmptyArray(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 30 }))).check(
      Schema.isMaxLength(8)
    )
  }, ({ amounts }) => {
    const bucket = new Bucket({ capacity: 30, rate: 1, now: 0 })
    const share = new FairShare(bucket)
    const got = amounts.map(() => 0)
    let now = 0
    const ask = (index: number) => {
      const amount = amounts[index] ?? 1
      const grant = () => {
        got[index] = (got[index] ?? 0) + amount
        bucket.spend(amount, now)
        share.enqueue({ account: String(index), amount, grant })
      }
      // Two in the queue at any time: an account whose queue is empty has no turn.
      share.enqueue({ account: String(index), amount, grant })
      share.enqueue({ account: String(index), amount, grant })
    }
    for (const index of amounts.keys()) ask(index)
    for (; now < 20_000; now += 10) share.pump(now)
    assert.isAtMost(Math.max(...got) - Math.min(...got), 2 * Math.max(...amounts))
  })
})

it("who asks for little is not kept waiting by the many who ask for much, nor they by it", () => {
  const bucket = new Bucket({ capacity: 750, rate: 0.025, now: 0 })
  const share = new FairShare(bucket)
  let now = 0
  const runs = new Map<string, number>()
  const ask = (account: string, amount: number, pause: number): void => {
    const grant = () => {
      bucket.spend(amount, now)
      runs.set(account, (runs.get(account) ?? 0) + 1)
      due.push({ at: now + pause, ask: () => ask(account, amount, pause) })
    }
    share.enqueue({ account, amount, grant })
  }
  let due: Array<{ readonly at: number; readonly ask: () => void }> = []
  for (let index = 0; index < 200; index++) ask(`absurd-${index}`, 20, 1000)
  ask("modest", 2, 5000)
  for (; now < 600_000; now += 100) {
    const asking = due.filter(({ at }) => at <= now)
    due = due.filter(({ at }) => at > now)
    for (const { ask } of asking) ask()
    share.pump(now)
  }
  // 15,750 requests among 201 are 78 each.
  assert.isAtLeast(runs.get("modest") ?? 0, 35)
  for (let index = 0; index < 200; index++) assert.isAtLeast(runs.get(`absurd-${index}`) ?? 0, 3)
})

const read: GatedRequest = { call: { verb: "get", resource: "nodes" }, stores: false }
const remove: GatedRequest = {
  call: { verb: "delete", resource: "configmaps", namespace: "a", name: "x" },
  stores: true
}
const pod = (name: string): GatedRequest => ({
  call: { verb: "create", resource: "pods", namespace: "a", name },
  stores: true,
  body: { apiVersion: "v1", kind: "Pod", metadata: { name } }
})
const removePod = (name: string): GatedRequest => ({
  call: { verb: "delete", resource: "pods", namespace: "a", name },
  stores: true
})

/** A minute's 60 requests, 30 in a burst; two pods at once, 24 an hour. */
const budget = <A, E>(body: (budget: Budget["Service"]) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.flatMap(Budget, body).pipe(
    Effect.provide(Budget.layer({ requests: 60, pods: 2 })),
    withoutServer,
    Effect.scoped
  )

const sessionOf = (account: string, options: Partial<SessionOptions> = {}): SessionOptions => ({
  account,
  lane: "schedule",
  part: "",
  checks: 1,
  patience: 20_000,
  ...options
})

const times = (gate: Gate, count: number, request: GatedRequest = read) =>
  Effect.forEach(Array.from({ length: count }), () => gate.admit(request), { discard: true })

describe("Budget", () => {
  it.effect("a run that gets no turn in time says which budget, and who uses most of it; one that waits gets its turn", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const logged: Array<string> = []
        const greedy = yield* budget.session(sessionOf("team/greedy"))
        yield* times(greedy, 10)
        const rest = yield* budget.session(sessionOf("team/other", { part: "x" }))
        yield* times(rest, 10)
        const third = yield* budget.session(sessionOf("team/third"))
        yield* times(third, 10)
        const waiting = yield* Effect.forkChild(
          Effect.result(budget.session(sessionOf("team/modest", { patience: 5000 }))).pipe(
            Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))]))
          )
        )
        yield* TestClock.adjust("6 seconds")
        const result = yield* Fiber.join(waiting)
        assert.isTrue(result._tag === "Failure")
        if (result._tag === "Failure") {
          assert.match(
            result.failure.detail,
            /60 API requests a minute \(--budget-requests\) had no room for it within 5 s/u
          )
          assert.match(result.failure.detail, /team\/(greedy|other|third) uses most of it, 10 API requests/u)
        }
        assert.strictEqual(logged.filter((line) => line.includes("is used up, and runs wait")).length, 1)
        const patient = yield* Effect.forkChild(budget.session(sessionOf("team/modest")))
        yield* TestClock.adjust("5 seconds")
        yield* times(yield* Fiber.join(patient), 10)
        const { accounts, requests } = yield* budget.usage
        assert.strictEqual(accounts.length, 4)
        assert.strictEqual(requests.used, 40)
      })
    ))

  it.effect("a run is admitted with what it took the last time, and gives back what it does not need", () =>
    budget((budget) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.flatMap(budget.session(sessionOf("a")), (gate) => times(gate, 2)))
        // 28 are left. Set aside are 2 of them now, and not the 10 of who is not known yet: seven of these fit beside one that is not.
        const known = yield* Effect.forEach(Array.from({ length: 7 }), () =>
          budget.session(sessionOf("a", { patience: 0 })))
        yield* budget.session(sessionOf("b", { patience: 0 }))
        const third = yield* Effect.result(budget.session(sessionOf("c", { lane: "manual", patience: 0 })))
        assert.strictEqual(third._tag, "Failure")
        assert.strictEqual(known.length, 7)
      })
    ))

  it.effect("a run that takes far more than before waits a little in the middle, and then gives its place to others", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const gate = yield* budget.session(sessionOf("a"))
        yield* times(gate, 30)
        const more = yield* Effect.forkChild(Effect.exit(times(gate, 4)))
        yield* TestClock.adjust("4 seconds")
        assert.isTrue(Exit.isSuccess(yield* Fiber.join(more)))
        // Another asks as often; what flows in is shared.
        const other = budget.standing("b")
        yield* Effect.forkScoped(times(other, 100))
        yield* TestClock.adjust(0)
        const refused = yield* Effect.forkChild(Effect.result(times(gate, 20)))
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* Fiber.join(refused))._tag, "Failure")
      })
    ))

  it.effect("deletions wait for nobody, and are paid for afterwards", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const gate = yield* budget.session(sessionOf("a"))
        yield* times(gate, 30)
        yield* times(gate, 20, remove)
        const next = yield* Effect.forkChild(gate.admit(read).pipe(Effect.exit))
        yield* TestClock.adjust("4 seconds")
        assert.isUndefined(next.pollUnsafe())
        yield* TestClock.adjust("2 seconds")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(next)))
        const again = yield* Effect.forkChild(
          budget.session(sessionOf("b", { part: "1", checks: 1, patience: 60_000 }))
        )
        yield* TestClock.adjust("40 seconds")
        yield* Fiber.join(again)
      })
    ))

  it.effect("one who leaves the queue costs nothing", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const gate = budget.standing("a")
        yield* times(gate, 30)
        const leaving = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(gate.admit(read)))
        yield* TestClock.adjust("500 millis")
        yield* Effect.forEach(leaving, Fiber.interrupt)
        const staying = yield* Effect.forkChild(budget.standing("b").admit(read))
        yield* TestClock.adjust("500 millis")
        yield* Fiber.join(staying)
        assert.isFalse((yield* budget.usage).waiting)
      })
    ))

  it.effect("no more pods are there at once than allowed; a deletion and the end of a run make room", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const first = yield* Scope.provide(budget.session(sessionOf("a")), scope)
        yield* first.admit(pod("one"))
        yield* first.admit(pod("two"))
        assert.strictEqual((yield* budget.usage).pods.used, 2)
        const second = yield* budget.session(sessionOf("b"))
        const third = yield* Effect.forkChild(second.admit(pod("three")))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(third.pollUnsafe())
        yield* first.admit(removePod("one"))
        yield* TestClock.adjust(0)
        yield* Fiber.join(third)
        const fourth = yield* Effect.forkChild(second.admit(pod("four")))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(fourth.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust(0)
        yield* Fiber.join(fourth)
        const fifth = yield* Effect.forkChild(Effect.result(second.admit(pod("five"))))
        yield* TestClock.adjust("20 seconds")
        const result = yield* Fiber.join(fifth)
        assert.isTrue(result._tag === "Failure" && result.failure.detail.includes("--budget-pods"))
        const many = { ...pod("x"), body: { apiVersion: "v1", kind: "Pod", spec: { replicas: 3 } } }
        assert.strictEqual((yield* Effect.result(second.admit(many)))._tag, "Failure")
      })
    ))

  it.effect("no more pods are made in an hour than allowed, however soon each is gone", () =>
    budget((budget) =>
      Effect.gen(function*() {
        const gate = yield* budget.session(sessionOf("a", { lane: "job", patience: Duration.toMillis("1 hour") }))
        let made = 0
        yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
          yield* gate.admit(pod("p"))
          made++
          yield* gate.admit(removePod("p"))
          yield* Effect.sleep("2 seconds")
        })))
        yield* Effect.repeat(TestClock.adjust("10 seconds"), { times: 360 })
        assert.isAtLeast(made, 80)
        assert.isAtMost(made, 48 + 48 + 1)
      })
    ))

  it("counts what becomes pods, and no dry run", () => {
    const of = (resource: string, spec: object, group?: string) =>
      podsOf({
        call: { verb: "create", resource, ...(group === undefined ? {} : { group }) },
        stores: true,
        body: { apiVersion: "v1", kind: "X", spec }
      })
    assert.strictEqual(of("pods", {}), 1)
    assert.strictEqual(of("deployments", { replicas: 3 }, "apps"), 3)
    assert.strictEqual(of("jobs", { parallelism: 2 }, "batch"), 2)
    assert.strictEqual(of("daemonsets", {}, "apps"), 1)
    assert.strictEqual(of("configmaps", {}), 0)
    assert.strictEqual(of("pods/eviction", {}), 0)
    assert.strictEqual(podsOf({ ...pod("x"), stores: false }), 0)
    assert.strictEqual(podsOf(removePod("x")), 0)
    assert.strictEqual(
      podsOf({ call: { verb: "patch", resource: "pods" }, stores: true, body: { metadata: { labels: {} } } }),
      0
    )
  })
})

const runOf = (program: Parameters<typeof check>[1], gate: Gate, timed: Timed = "any") =>
  Round.run({
    checks: [check("test.asks", program, { timed })],
    context: { runId: "test", probeNamespace: "probes", expiresAt: DateTime.makeUnsafe("2026-01-01T00:15:00Z") },
    concurrency: 1,
    onEvent: () => Effect.void
  }).pipe(
    Effect.map(([result]) => result?.report),
    Effect.provideService(KubeGate, gate),
    withoutServer,
    Effect.scoped
  )

const ask = Effect.flatMap(KubeGate, ({ admit }) => admit(read))

describe("what a run found while the budget kept it waiting", () => {
  const slow: Gate = { admit: () => Effect.sleep("3 seconds") }
  const inTime = <A, E>(effect: Effect.Effect<A, E>, time: Duration.Input = "20 seconds") =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(effect)
      yield* TestClock.adjust(time)
      return yield* Fiber.join(fiber)
    })

  it.effect("is believed when it is well, and not when it is bad: the waiting may be why", () =>
    Effect.gen(function*() {
      const well = yield* inTime(runOf(() => Effect.as(ask, Outcome.make("fine")), slow))
      assert.strictEqual(well?.status, "PASS")
      const bad = yield* inTime(runOf(() => Effect.andThen(ask, codes.TIRED.fail({ message: "slow" })), slow))
      assert.strictEqual(bad?.code, "BUDGET_EXHAUSTED")
      assert.include(bad?.message, "TIRED: slow")
      const free: Gate = { admit: () => Effect.void }
      const right = yield* inTime(runOf(() => Effect.andThen(ask, codes.TIRED.fail({ message: "slow" })), free))
      assert.strictEqual(right?.code, "TIRED")
    }))

  it.effect("stands where no wait can be why, beside what is not believed", () =>
    Effect.gen(function*() {
      const found = Effect.as(
        ask,
        Outcome.make("", [codes.TIRED({ message: "slow" }), codes.BROKEN({ message: "expired" })])
      )
      const both = yield* inTime(runOf(() => found, slow, ["TIRED"]))
      assert.deepStrictEqual(both?.findings.map(({ code }) => code), ["BROKEN", "BUDGET_EXHAUSTED"])
      assert.strictEqual(both?.status, "ERROR")
      const none = yield* inTime(runOf(() => found, slow, []))
      assert.deepStrictEqual(none?.findings.map(({ code }) => code).toSorted(), ["BROKEN", "TIRED"])
      const any = yield* inTime(runOf(() => found, slow))
      assert.deepStrictEqual(any?.findings.map(({ code }) => code), ["BUDGET_EXHAUSTED"])
    }))

  it.effect("is never a timeout of the probe, nor what the probe made of a request that it gave up", () =>
    Effect.gen(function*() {
      const never: Gate = { admit: () => Effect.never }
      const timedOut = yield* inTime(runOf(() => Effect.as(ask, Outcome.make("fine")), never))
      assert.strictEqual(timedOut?.code, "BUDGET_EXHAUSTED")
      const gaveUp = yield* inTime(
        runOf(() =>
          Effect.andThen(
            Effect.timeoutOption(ask, "1 second"),
            codes.BROKEN.fail({ message: "it does not answer" })
          ), never)
      )
      assert.strictEqual(gaveUp?.code, "BUDGET_EXHAUSTED")
      assert.strictEqual(gaveUp?.status, "UNKNOWN")
    }))
})
