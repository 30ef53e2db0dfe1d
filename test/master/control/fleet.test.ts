import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Layer, Option, References, Stream } from "effect"
import type { ProbeSpec } from "../../../src/domain/kinds/Probe.ts"
import { LinkStatus } from "../../../src/infra/link/LinkClient.ts"
import { Links } from "../../../src/infra/link/Links.ts"
import { FleetRuns } from "../../../src/master/FleetRuns.ts"
import { FleetState } from "../../../src/master/FleetState.ts"
import { History } from "../../../src/master/History.ts"
import { Registry } from "../../../src/master/Registry.ts"
import { eventually, until } from "../../link/fixture.ts"
import { type FleetServices, master, record, startAgent } from "./fleetFixture.ts"

const checks = (...names: ReadonlyArray<string>): ProbeSpec => {
  const [first = "x", ...rest] = names
  const check = (name: string) => ({ name, use: "k8s.node.readiness" })
  return { checks: [check(first), ...rest.map(check)], policy: { interval: Duration.minutes(1) } }
}

const everywhere = { clusterSelector: {} }

const onFleet = <A, E>(effect: Effect.Effect<A, E, FleetServices>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(master)),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )

const namesOf = (desired: { readonly probes: ReadonlyArray<{ readonly name: string }> } | undefined) =>
  desired?.probes.map(({ name }) => name) ?? []

const cellOf = Effect.fnUntraced(function*(cluster: string, checker: string) {
  const fleet = yield* FleetState
  const row = Option.getOrUndefined(yield* fleet.row(cluster))
  return row?.cells.find((cell) => cell.checker === checker)
})

const shows = (cluster: string, checker: string, status: string, freshness: string) =>
  Effect.gen(function*() {
    const services = yield* Effect.context<FleetState>()
    yield* until(
      `${cluster} ${checker} ${status} ${freshness}`,
      Effect.map(
        Effect.provideContext(cellOf(cluster, checker), services),
        (cell) => cell?.status === status && cell.freshness === freshness
      )
    )
  })

describe("a fleet", () => {
  it.live("gives each cluster the Probes that its labels ask for, and follows every change", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const a = yield* startAgent({ cluster: "a", labels: { "probe/by-label": "true" } })
      const b = yield* startAgent({ cluster: "b", labels: { env: "prod" } })
      yield* registry.applyProbe("by-label", {}, checks("one"))
      yield* registry.applyProbe("by-selector", {}, {
        ...checks("two"),
        clusterSelector: { matchLabels: { env: "prod" } }
      })
      yield* until("a has its own", Effect.map(a.desired, (set) => namesOf(set).join() === "by-label"))
      yield* until("b has its own", Effect.map(b.desired, (set) => namesOf(set).join() === "by-selector"))

      yield* registry.label("a", { env: "prod", "probe/by-label": null })
      yield* until("a follows its labels", Effect.map(a.desired, (set) => namesOf(set).join() === "by-selector"))
      yield* registry.deleteProbe("by-selector")
      yield* until("a has none", Effect.map(a.desired, (set) => set !== undefined && set.probes.length === 0))
    })))

  it.live("gives a cluster that was away what it missed", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const identity = yield* Effect.scoped(Effect.map(startAgent({ cluster: "a" }), ({ identity }) => identity))
      yield* registry.applyProbe("late", {}, { ...checks("one"), ...everywhere })
      const back = yield* startAgent({ cluster: "a", identity })
      yield* until("it has it", Effect.map(back.desired, (set) => namesOf(set).join() === "late"))
    })))

  it.live("shows nothing as green that it cannot vouch for", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const fleet = yield* FleetState
      yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
      yield* Effect.scoped(Effect.gen(function*() {
        const agent = yield* startAgent({ cluster: "a" })
        yield* shows("a", "one", "UNKNOWN", "stale")
        const changes = yield* fleet.transitions({})
        const seen = yield* Effect.forkChild(Stream.runCollect(Stream.take(changes, 1)))
        const startedAt = yield* DateTime.now
        const delivery = {
          epoch: agent.welcome.epoch,
          seq: 1,
          records: [record({ run: "r1", probe: "p", checker: "one", startedAt })]
        }
        yield* agent.uplink.deliver(delivery)
        yield* shows("a", "one", "PASS", "fresh")
        const [change] = yield* Fiber.join(seen)
        assert.deepStrictEqual([change?.from, change?.to, change?.checker], ["UNKNOWN", "PASS", "one"])
        // Delivered again, as after a lost answer, it is kept once.
        yield* agent.uplink.deliver({ ...delivery, seq: 2 })
        assert.deepStrictEqual([...yield* (yield* History).runs("a")], [["r1 kubeprober/p one", 1]])
      }))
      yield* shows("a", "one", "UNKNOWN", "unreachable")
      const row = Option.getOrThrow(yield* fleet.row("a"))
      assert.deepStrictEqual([row.linked, row.status], [false, "UNKNOWN"])
    })), 30_000)

  it.live(
    "does not go on showing as green a Probe that was changed to one the agent refuses, and says why",
    () =>
      onFleet(Effect.gen(function*() {
        const registry = yield* Registry
        const agent = yield* startAgent({
          cluster: "a",
          refuses: ({ probes }) =>
            probes.filter(({ spec }) => (spec.checks ?? []).length > 1)
              .map(({ name, namespace }) => ({ probe: { name, namespace }, reason: "one check is enough" }))
        })
        yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
        const startedAt = yield* DateTime.now
        yield* agent.uplink.deliver({
          epoch: agent.welcome.epoch,
          seq: 1,
          records: [record({ run: "r1", probe: "p", checker: "one", startedAt })]
        })
        yield* shows("a", "one", "PASS", "fresh")
        const changes = yield* (yield* FleetState).transitions({})
        const told = yield* Effect.forkChild(
          Stream.runHead(Stream.filter(changes, ({ checker, to }) => checker === "one" && to === "UNKNOWN"))
        )
        yield* registry.applyProbe("p", {}, { ...checks("one", "two"), ...everywhere })
        for (const checker of ["one", "two"]) {
          yield* shows("a", checker, "UNKNOWN", "stale")
          // Until the agent has answered, a checker that is new has not run yet.
          yield* eventually(
            Effect.filterOrFail(cellOf("a", checker), (cell) => cell?.message.endsWith("one check is enough") === true)
          )
        }
        assert.strictEqual(Option.getOrThrow(yield* Fiber.join(told)).from, "PASS")
        yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
        yield* shows("a", "one", "PASS", "fresh")
      })),
    30_000
  )

  it.live("keeps a fault that was seen, also without a link", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
      yield* Effect.scoped(Effect.gen(function*() {
        const { uplink, welcome } = yield* startAgent({ cluster: "a" })
        const startedAt = yield* DateTime.now
        const broken = record({ run: "r1", probe: "p", checker: "one", status: "ERROR", startedAt })
        yield* uplink.deliver({ epoch: welcome.epoch, seq: 1, records: [broken] })
        yield* shows("a", "one", "ERROR", "fresh")
      }))
      yield* shows("a", "one", "ERROR", "unreachable")
    })))

  it.live("forgets what no Probe asks for any more", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const history = yield* History
      yield* registry.applyProbe("p", {}, { ...checks("one", "two"), ...everywhere })
      const { uplink, welcome } = yield* startAgent({ cluster: "a" })
      const startedAt = yield* DateTime.now
      const records = ["one", "two"].map((checker) => record({ run: "r1", probe: "p", checker, startedAt }))
      yield* uplink.deliver({ epoch: welcome.epoch, seq: 1, records })
      yield* shows("a", "two", "PASS", "fresh")
      yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
      yield* until(
        "it is gone",
        Effect.map(Effect.orDie(history.latest("a")), (cells) => cells.map(({ checker }) => checker).join() === "one")
      )
      assert.isUndefined(yield* cellOf("a", "two"))
    })))

  it.live("refuses another cluster under a name that is taken, until it is added again", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const identity = yield* Effect.scoped(Effect.map(startAgent({ cluster: "a" }), ({ identity }) => identity))
      const refused = yield* Effect.flip(startAgent({ cluster: "a", identity, clusterUid: "another" }))
      assert.strictEqual(refused._tag, "ClusterMismatch")
      // Nothing may be asked of a cluster that is not the one of this name.
      const links = yield* Links
      yield* until("its link is dropped", Effect.map(links.size, (size) => size === 0))
      assert.strictEqual((yield* Effect.flip(registry.add("a", {})))._tag, "AlreadyEnrolled")
      yield* registry.revoke("a")
      // A token that was lost before anybody enrolled with it is replaced by another.
      yield* registry.add("a", {})
      yield* registry.add("a", {})
      const { welcome } = yield* startAgent({ cluster: "a", clusterUid: "another" })
      assert.strictEqual(welcome.cluster, "a")
    })))

  it.live("drops a revoked cluster at once", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const links = yield* Links
      const { client } = yield* startAgent({ cluster: "a" })
      assert.isUndefined((yield* registry.cluster("a")).revoked)
      yield* registry.revoke("a")
      assert.isTrue((yield* registry.cluster("a")).revoked)
      yield* until("it is unlinked", Effect.map(links.size, (size) => size === 0))
      const waiting = yield* eventually(Effect.filterOrFail(client.status, LinkStatus.$is("Waiting"), () => "linked"))
      assert.include(waiting.because.message, "revoked")
    })))

  it.live("runs on many clusters at once; those that hang or are away delay no other", () =>
    onFleet(Effect.gen(function*() {
      const registry = yield* Registry
      const runs = yield* FleetRuns
      yield* registry.applyProbe("p", {}, { ...checks("one"), ...everywhere })
      yield* registry.add("away", {})
      const startedAt = yield* DateTime.now
      yield* startAgent({
        cluster: "good",
        runNow: ({ run }) => Stream.succeed(record({ run, probe: "p", checker: "one", startedAt }))
      })
      yield* startAgent({ cluster: "hangs" })
      const target = { _tag: "Probe", probe: { namespace: "kubeprober", name: "p" } } as const
      const events = yield* Stream.runCollect(
        runs.run({ filter: {}, target, timeout: Duration.seconds(2) })
      )
      const [started, ...rest] = events
      assert.deepStrictEqual(started?._tag === "Started" ? started.clusters : [], ["away", "good", "hangs"])
      const ended = new Map(rest.flatMap((event) => event._tag === "Ended" ? [[event.cluster, event.outcome]] : []))
      assert.deepStrictEqual(Object.fromEntries(ended), {
        away: "unreachable",
        good: "finished",
        hangs: "timed-out"
      })
      assert.deepStrictEqual(
        rest.flatMap((event) => event._tag === "Reported" ? [[event.cluster, event.record.report.status]] : []),
        [["good", "PASS"]]
      )
      const unknown = { _tag: "Probe", probe: { namespace: "kubeprober", name: "nope" } } as const
      const refused = yield* Effect.flip(
        Stream.runDrain(runs.run({ filter: {}, target: unknown, timeout: Duration.seconds(2) }))
      )
      assert.strictEqual(refused._tag, "ProbeNotFound")
    })))
})
