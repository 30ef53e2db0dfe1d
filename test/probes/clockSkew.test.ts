import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, DateTime, Duration, Effect, Schedule, Schema } from "effect"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import { formatMicroTime } from "../../src/infra/kube/KubeResource.ts"
import { Lease } from "../../src/infra/kube/resources/coordination.ts"
import {
  ClockSkewConfig,
  type Observed,
  agreed,
  clockSkew,
  isEnough,
  judge
} from "../../src/probes/infrastructure/clockSkew.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, faults, healthy } from "../proofs/proof.ts"

const config = Schema.decodeSync(ClockSkewConfig)({})

const node = (name: string, ...offsets: ReadonlyArray<number>): Observed => ({
  subject: { kind: "Node", name },
  isServer: false,
  offsets
})
const server = (...offsets: ReadonlyArray<number>): Observed => ({
  subject: { kind: "Lease", name: "apiserver-1", namespace: "kube-system" },
  isServer: true,
  offsets
})
const five = (offset: number) => [offset, offset - 8, offset - 3, offset - 2000, offset]

const says = (...seen: ReadonlyArray<Observed>) =>
  judge(config)(seen).findings.map(({ code, status, subject }) => `${status} ${code} ${subject?.name ?? ""}`.trim())

describe("judging clocks", () => {
  it("takes small differences and one late delivery for what they are", () => {
    assert.deepStrictEqual(says(node("a", -5), node("b", -40), server(-2)), [])
    assert.deepStrictEqual(says(node("a", ...five(-5)), server(-2)), [])
  })

  it("blames the clock that differs from most", () => {
    assert.deepStrictEqual(says(node("a", ...five(3000)), node("b", -4), server(-2)), ["ERROR CLOCK_SKEW a"])
    assert.deepStrictEqual(says(node("a", ...five(-900)), node("b", -4), server(-2)), ["WARN CLOCK_SKEW_SMALL a"])
    assert.deepStrictEqual(says(node("a", -4), server(...five(5000))), ["ERROR CLOCK_SKEW apiserver-1"])
  })

  it("blames ours when the others agree", () => {
    assert.deepStrictEqual(says(node("a", ...five(3000)), node("b", ...five(3010)), server(...five(2990))), [
      "UNKNOWN PROBER_CLOCK_OFF"
    ])
    assert.deepStrictEqual(says(node("a", ...five(3000)), node("b", ...five(3010)), node("c", ...five(9000))), [
      "ERROR CLOCK_SKEW c",
      "UNKNOWN PROBER_CLOCK_OFF"
    ])
  })

  it("blames nobody when there are two clocks only", () =>
    assert.deepStrictEqual(says(node("a", ...five(3000))), ["UNKNOWN CLOCKS_DISAGREE a"]))

  it("does not pass over clocks it could not read", () => {
    assert.deepStrictEqual(says(node("a"), node("b", -4)), ["UNKNOWN CLOCK_UNREAD a"])
    assert.deepStrictEqual(says(node("a", 3000, 3000), node("b", -4), server(-4)), ["UNKNOWN CLOCK_UNREAD a"])
    assert.deepStrictEqual(says(server(-4)), ["INFO NOT_APPLICABLE"])
    assert.deepStrictEqual(says(), ["INFO NOT_APPLICABLE"])
  })

  it("prefers the API server's time between equally many", () => {
    const clock = (offset: number, isServer = false) => ({ offset, isServer })
    assert.strictEqual(agreed([clock(5000), clock(5001), clock(-1, true)], 500), -1)
    assert.strictEqual(agreed([clock(5000, true), clock(-1), clock(5001)], 500), 5000)
    assert.strictEqual(agreed([], 500), 0)
  })

  it("watches longer only where a clock differs", () => {
    assert.isFalse(isEnough(config, [node("a", -3), node("b")]))
    assert.isTrue(isEnough(config, [node("a", -3), node("b", -3)]))
    assert.isFalse(isEnough(config, [node("a", -3), node("b", 2000, 2000)]))
    assert.isTrue(isEnough(config, [node("a", -3), server(-3), node("b", ...five(2000))]))
  })

  it("watches longer where all arrive late, until it is seen whether that lasts", () => {
    const late = [node("a", -900), node("b", -900)]
    assert.deepStrictEqual(says(...late), ["UNKNOWN PROBER_CLOCK_OFF"])
    assert.isFalse(isEnough(config, late))
    const recovered = [node("a", -900, -3, -2), node("b", -900, -3, -3)]
    assert.isTrue(isEnough(config, recovered))
    assert.deepStrictEqual(says(...recovered), [])
    assert.isTrue(isEnough(config, [node("a", ...five(-900)), node("b", ...five(-900))]))
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Nodes of the test cluster renew each second, its API server every 10. */
const quick = Probe.configure(clockSkew, { samples: 3, window: "20s" })

/** Our clock, wrong by so much; time passes as ever. */
const withClockOff = (millis: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Clock.clockWith((clock) => {
    const nanos = BigInt(millis) * 1_000_000n
    return Effect.provideService(effect, Clock.Clock, {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
      currentTimeNanos: Effect.map(clock.currentTimeNanos, (now) => now + nanos),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => clock.sleep(duration)
    })
  })

/**
 * A fake kubelet: it renews the lease of a node whose own kubelet is stopped, as that kubelet's user and by a clock that is
 * off by so much. A real kubelet cannot be given another clock here: it asks the kernel, past any library.
 */
const renewing = (kube: Kube["Service"], name: string, off: Duration.Input) =>
  Effect.gen(function*() {
    const renewTime = DateTime.addDuration(yield* DateTime.now, Duration.fromInputUnsafe(off))
    yield* kube.patch(Lease, { name, namespace: "kube-node-lease" }, {
      spec: { renewTime: formatMicroTime(renewTime) }
    })
  }).pipe(Effect.repeat(Schedule.spaced("700 millis")), Effect.forkScoped)

const second = Effect.map(TestCluster, ({ cluster }) => {
  const found = cluster.nodes[1]
  if (found === undefined) throw new Error("the cluster has two nodes")
  return found
})

describe("infra.clock.skew", () => {
  layer(TestCluster.layer({ name: "clock-skew", nodes: 2 }), { excludeTestServices: true, timeout: "180 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(clockSkew, "passes on nodes whose kubelets renew, with no rights but to list and watch"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            const report = yield* run(clockSkew, { as: yield* userWith(clockSkew.needs) })
            assert.strictEqual(verdict(report), "PASS", report.message)
            assert.match(report.message, /^3 clocks .* within \d{1,3} ms$/)
            const withoutServers = yield* run(clockSkew, { as: yield* userWith(clockSkew.needs, { optional: false }) })
            assert.strictEqual(verdict(withoutServers), "PASS", withoutServers.message)
            assert.match(withoutServers.message, /^2 clocks/)
          })
      )

      it.effect(
        blind(clockSkew, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (
              const lacking of clockSkew.needs.filter(({ optional }) => !optional)
            ) {
              const report = yield* run(clockSkew, {
                as: yield* userWith(clockSkew.needs.filter((need) => need !== lacking))
              })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      blindToAll(it, clockSkew)

      it.effect(
        blind(clockSkew, "PROBER_CLOCK_OFF", "is UNKNOWN when its own clock is off, and blames no node"),
        () =>
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const [ahead, behind] = yield* Effect.all([
              withClockOff(5_000)(run(quick)),
              // What renewals need to come here makes our clock seem less behind than it is.
              withClockOff(-5_500)(run(quick))
            ], { concurrency: 2 })
            for (const [report, where] of [[ahead, "ahead of"], [behind, "behind"]] as const) {
              assert.notInclude(
                report.findings.map(({ status }) => status),
                "ERROR",
                report.message
              )
              const [ours] = report.findings.filter(({ code }) => code === "PROBER_CLOCK_OFF")
              assert.strictEqual(ours?.blame, "checker", report.message)
              assert.match(ours?.message ?? "", new RegExp(`own clock is 5.\\d s ${where}`))
            }
          })
      )

      it.effect(
        faults(
          clockSkew,
          "sees a node whose leases are renewed by a clock 3 s ahead, and 0.9 s behind (a fake kubelet)",
          "CLOCK_SKEW",
          "CLOCK_SKEW_SMALL"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kubeAs, run, userWith } = yield* TestCluster
            // Without the API server among the clocks, for which a run waits up to 10 s.
            const prober = yield* userWith(clockSkew.needs, { optional: false })
            const { kubelet, name } = yield* second
            const as = yield* kubeAs(
              yield* cluster.issueClientCertificate({ user: `system:node:${name}`, groups: ["system:nodes"] })
            )
            yield* kubelet.kill
            for (
              const [off, expected, text] of [
                ["3 seconds", "ERROR CLOCK_SKEW", "s ahead of"],
                ["-900 millis", "WARN CLOCK_SKEW_SMALL", "s behind"]
              ] as const
            ) {
              yield* Effect.scoped(Effect.gen(function*() {
                yield* renewing(as, name, off)
                const report = yield* run(quick, { as: prober })
                assert.strictEqual(verdict(report), expected, report.message)
                assert.deepStrictEqual(
                  report.findings.map(({ subject }) => subject),
                  [{ kind: "Node", name }]
                )
                assert.include(report.message, text)
              }))
            }
            yield* Effect.orDie(kubelet.start)
            yield* eventually(run(quick, { as: prober }), (report) => verdict(report) === "PASS")
          })
      )

      it.effect(
        blind(clockSkew, "CLOCK_UNREAD", "is UNKNOWN of a node whose kubelet is dead, and ends in time"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            const prober = yield* userWith(clockSkew.needs, { optional: false })
            const { kubelet, name } = yield* second
            yield* kubelet.kill
            const report = yield* run(Probe.configure(clockSkew, { samples: 3, window: "8s" }), { as: prober })
            assert.strictEqual(verdict(report), "UNKNOWN CLOCK_UNREAD", report.message)
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject), [{ kind: "Node", name }])
            assert.isBelow(report.duration, 20_000)
            yield* Effect.orDie(kubelet.start)
            yield* eventually(run(quick, { as: prober }), (report) => verdict(report) === "PASS")
          })
      )
    }
  )
})
