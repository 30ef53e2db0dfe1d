import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Option, References } from "effect"
import * as Facts from "../../../src/domain/Facts.ts"
import { fromFindings } from "../../../src/domain/Report.ts"
import type { RunRecord } from "../../../src/domain/Run.ts"
import { Drift } from "../../../src/master/Drift.ts"
import { FleetState } from "../../../src/master/FleetState.ts"
import { History } from "../../../src/master/History.ts"
import { Registry } from "../../../src/master/Registry.ts"
import { eventually } from "../../clusters/TestCluster.ts"
import { type FleetServices, master, startAgent } from "./fleetFixture.ts"

const onFleet = <A, E>(effect: Effect.Effect<A, E, FleetServices>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(master)),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )

const CHECK = "drift"

/** What a cluster tells of itself. */
const told = (run: string, startedAt: DateTime.Utc, values: Readonly<Record<string, string>>): RunRecord => {
  const report = fromFindings({
    checker: CHECK,
    findings: Facts.toFindings({ values: new Map(Object.entries(values)), critical: new Set() }, new Map()),
    summary: "facts",
    startedAt,
    duration: 1
  })
  return {
    run,
    probe: { namespace: "kubeprober", name: "alike" },
    layer: "kubernetes",
    trigger: "schedule",
    report,
    standing: { status: "PASS", since: startedAt, consecutiveFailures: 0 }
  }
}

const shown = Effect.fnUntraced(function*(cluster: string) {
  const fleet = yield* FleetState
  const cell = Option.getOrUndefined(yield* fleet.row(cluster))?.cells.find(({ checker }) => checker === "drift/fleet")
  return cell && `${cell.status} ${cell.code ?? ""}`.trim()
})

describe("a comparison of clusters", () => {
  it.live("outlives a late record, and counts failures to the Probe's threshold", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const history = yield* History
      yield* registry.applyProbe("alike", {}, {
        checks: [{ name: CHECK, use: "k8s.config.drift" }],
        policy: { interval: Duration.minutes(1), failureThreshold: 2 },
        clusterSelector: {}
      })
      const names = ["a", "b", "c", "d", "e"]
      const agents = yield* Effect.forEach(names, (cluster) => startAgent({ cluster }), { concurrency: 5 })
      yield* Effect.forEach(agents, ({ desired }) => eventually(desired, (set) => set?.probes.length === 1))
      let seq = 0
      const deliver = (index: number, record: RunRecord) => {
        const agent = agents[index]
        return agent === undefined
          ? Effect.die("no such agent")
          : agent.uplink.deliver({ epoch: agent.welcome.epoch, seq: ++seq, records: [record] })
      }
      // All of it lies behind the master's clock: what is dated ahead of it counts by when it came.
      const now = DateTime.subtractDuration(yield* DateTime.now, Duration.seconds(10))
      const later = (seconds: number) => DateTime.addDuration(now, Duration.seconds(seconds))
      for (const [index] of names.entries()) yield* deliver(index, told("r1", now, { "crd/x": "v1" }))
      assert.strictEqual(yield* shown("e"), "PASS")
      assert.strictEqual(yield* shown("a"), "INFO FLEET_TOO_SMALL")
      // One failure of two is no failure yet.
      yield* deliver(4, told("r2", later(1), { "crd/x": "v2" }))
      assert.strictEqual(yield* shown("e"), "INFO FLEET_DRIFTED")
      yield* deliver(4, told("r3", later(2), { "crd/x": "v2" }))
      assert.strictEqual(yield* shown("e"), "WARN FLEET_DRIFTED")
      // What was told before comes late: it is history, and the later facts stand.
      yield* deliver(4, told("r0", later(-1), { "crd/x": "v1" }))
      assert.strictEqual(yield* shown("e"), "WARN FLEET_DRIFTED")
      const facts = yield* history.facts
      assert.deepStrictEqual(
        facts.map(({ cluster, facts }) => [cluster, facts.values.get("crd/x")]).toSorted(),
        [["a", "v1"], ["b", "v1"], ["c", "v1"], ["d", "v1"], ["e", "v2"]]
      )

      // A master that starts again knows the others' facts and how the checker stood.
      const again = yield* Layer.build(Layer.fresh(Drift.layer))
      const derived = yield* Effect.provide(
        Effect.flatMap(Drift, (drift) => drift.derive("e", [told("r4", later(3), { "crd/x": "v2" })])),
        again
      )
      assert.deepStrictEqual(
        derived.map((
          { report, run, standing }
        ) => [run, report.checker, report.code, standing.status, standing.consecutiveFailures]),
        [["r4", "drift/fleet", "FLEET_DRIFTED", "WARN", 3]]
      )
      // Facts of another time count no more.
      const old = DateTime.subtractDuration(now, Duration.hours(49))
      yield* deliver(0, told("r9", old, { "crd/x": "v3" }))
      yield* deliver(4, told("r5", later(4), { "crd/x": "v1" }))
      assert.strictEqual(yield* shown("e"), "PASS")
    })), 60_000)
})
