import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Layer, Option, References, Schema, Stream } from "effect"
import { MAX_RESULTS, ProbeRunSpec, ProbeRunState } from "../../../src/domain/kinds/ProbeRun.ts"
import { ProbeRun } from "../../../src/infra/kube/resources/kubeprober.ts"
import * as RunState from "../../../src/master/fleet/runState.ts"
import * as ProbeRuns from "../../../src/master/ProbeRuns.ts"
import { Registry } from "../../../src/master/Registry.ts"
import { Resources } from "../../../src/master/Resources.ts"
import { until } from "../../link/fixture.ts"
import { type FleetServices, master, record, startAgent } from "./fleetFixture.ts"

const onFleet = <A, E>(effect: Effect.Effect<A, E, FleetServices>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(master)),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )

const ask = Effect.fnUntraced(function*(name: string, spec: ProbeRunSpec) {
  const resources = yield* Resources
  yield* resources.apply(ProbeRun, { metadata: { name }, spec: yield* Schema.encodeEffect(ProbeRunSpec)(spec) })
})

const stateOf = Effect.fnUntraced(function*(name: string) {
  const resources = yield* Resources
  const found = yield* Effect.orDie(resources.get(ProbeRun, name))
  return Option.getOrUndefined(found)?.status
})

/** The state once it is in this phase. */
const reaches = Effect.fnUntraced(function*(name: string, phase: ProbeRunState["phase"]) {
  const services = yield* Effect.context<Resources>()
  const state = Effect.provideContext(stateOf(name), services)
  yield* until(`${name} is ${phase}`, Effect.map(state, (now) => now?.phase === phase))
  return (yield* state) ?? {}
})

const addProbe = Effect.gen(function*() {
  const registry = yield* Registry
  yield* registry.applyProbe("p", {}, {
    checks: [{ name: "one", use: "k8s.node.readiness" }],
    policy: { interval: Duration.minutes(1) },
    clusterSelector: {}
  })
})

describe("ProbeRuns", () => {
  it.live("are run once, and say how it went on every cluster, worst first", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      yield* addProbe
      yield* registry.add("away", {})
      const startedAt = yield* DateTime.now
      const says = (status: "PASS" | "ERROR") => ({ run }: { readonly run: string }) =>
        Stream.succeed(record({ run, probe: "p", checker: "one", status, startedAt }))
      yield* startAgent({ cluster: "broken", runNow: says("ERROR") })
      yield* startAgent({ cluster: "good", runNow: says("PASS") })
      yield* startAgent({ cluster: "hangs" })
      yield* startAgent({ cluster: "silent", runNow: () => Stream.empty })
      const resources = yield* Resources
      const phases = yield* resources.reflect(ProbeRun).pipe(
        Stream.flatMap((event) => Stream.fromIterable(event._tag === "Synced" ? event.items : [event.object])),
        Stream.map(({ status }) => status?.phase),
        Stream.takeUntil((phase) => phase === "Finished"),
        Stream.runCollect,
        Effect.forkScoped({ startImmediately: true })
      )
      yield* ask("all", { probe: "p", clusterSelector: {}, timeout: Duration.seconds(4) })
      const state = yield* reaches("all", "Finished")
      assert.include(yield* Fiber.join(phases), "Running")
      assert.deepStrictEqual(
        state.results?.map(({ checker, cluster, code, status }) => [cluster, checker, status, code]),
        [
          ["broken", "one", "ERROR", "BROKEN"],
          ["away", undefined, "UNKNOWN", undefined],
          ["hangs", undefined, "UNKNOWN", undefined],
          ["silent", undefined, "UNKNOWN", undefined],
          ["good", "one", "PASS", undefined]
        ]
      )
      assert.deepStrictEqual(state.clusters, { selected: 5, finished: 3, unreachable: 2 })
      assert.strictEqual(state.status, "ERROR")
      assert.include(state.message, "the deadline cut the run short on 1 cluster")
    })))

  it.live("that no cluster can run are refused, with the next step", () =>
    onFleet(Effect.gen(function*() {
      yield* addProbe
      yield* ask("unknown-probe", { probe: "nope", clusterSelector: {} })
      assert.include((yield* reaches("unknown-probe", "Refused")).message, "nope")
      yield* ask("nowhere", { probe: "p", clusterSelector: { matchLabels: { env: "none" } } })
      assert.include((yield* reaches("nowhere", "Refused")).message, "labels")
      yield* ask("here", { probe: "p" })
      assert.include((yield* reaches("here", "Refused")).message, "spec.clusterSelector")
      yield* ask("typo", { probe: "p", clusters: ["typo"] })
      const typo = yield* reaches("typo", "Finished")
      assert.strictEqual(typo.status, "UNKNOWN")
      assert.include(typo.message, "no cluster of this name")
    })))

  it.live("that a master before this one has begun end as unknown and are not run again", () =>
    onFleet(Effect.gen(function*() {
      const resources = yield* Resources
      yield* ask("cut", { checks: [{ name: "one", use: "k8s.node.readiness" }], clusters: ["a"] })
      yield* reaches("cut", "Finished")
      // The master that has ended it takes no notice; the next one does.
      const state = yield* Schema.encodeEffect(ProbeRunState)({ phase: "Running", run: "r1" })
      yield* resources.applyStatus(ProbeRun, "cut", state)
      const after = yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Layer.fresh(ProbeRuns.layer))
        return yield* reaches("cut", "Finished")
      }))
      assert.deepStrictEqual([after.status, after.run], ["UNKNOWN", "r1"])
      assert.include(after.message, "history")
    })))

  it.effect("keep the worst results only, and count the others", () =>
    Effect.gen(function*() {
      const startedAt = yield* DateTime.now
      const all = Array.from({ length: 1000 }, (_, index) => index).reduce(
        (tally, index) =>
          RunState.next(tally, {
            _tag: "Reported",
            cluster: `c${index}`,
            record: record({
              run: "r",
              probe: "p",
              checker: "x",
              status: index % 10 === 0 ? "ERROR" : "PASS",
              startedAt
            })
          }),
        RunState.empty
      )
      const { omitted, results = [] } = RunState.stateOf(all)
      assert.strictEqual(results.length, MAX_RESULTS)
      assert.isTrue(results.every(({ status }) => status === "ERROR"))
      assert.strictEqual(omitted, 1000 - MAX_RESULTS)
    }))
})
