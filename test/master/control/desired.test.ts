/** One Probe that cannot be followed, or one cluster that breaks, must not keep the master from all others. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Option, References, Schema, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { KubeObject, KubeResource } from "../../../src/infra/kube/KubeResource.ts"
import { Links } from "../../../src/infra/link/Links.ts"
import { Desired } from "../../../src/master/Desired.ts"
import { FleetState } from "../../../src/master/FleetState.ts"
import { Heartbeats } from "../../../src/master/Heartbeats.ts"
import { History } from "../../../src/master/History.ts"
import { Resources } from "../../../src/master/Resources.ts"
import { until } from "../../link/fixture.ts"

const never = () => Effect.never

const nested = (depth: number): unknown => JSON.parse(`${"{\"a\":".repeat(depth)}1${"}".repeat(depth)}`)

const probe = (name: string, given: unknown) => ({
  metadata: { name, generation: 1 },
  spec: { clusterSelector: {}, checks: [{ name: "it", use: "k8s.api.health", with: { given } }] }
})

const cluster = { metadata: { name: "eu-1" }, spec: {} }

/** Objects as an API server hands them out: checked by what its kind can say, and decoded by who asks. */
const resources = (changes: ReadonlyArray<ReturnType<typeof probe>>) =>
  Layer.succeed(Resources, {
    namespace: "default",
    get: never,
    list: never,
    apply: never,
    applyStatus: never,
    remove: never,
    reflect: <A extends KubeObject>(resource: KubeResource<A>) => {
      const decode = (object: unknown) => Effect.orDie(Schema.decodeUnknownEffect(resource.object)(object))
      const there = resource.kind === "Probe" ? [probe("a", 1), probe("evil", nested(2_000))] : [cluster]
      return Stream.fromEffect(Effect.forEach(there, decode)).pipe(
        Stream.map((items) => ({ _tag: "Synced" as const, items })),
        Stream.concat(
          Stream.fromIterable(resource.kind === "Probe" ? changes : []).pipe(
            Stream.mapEffect(decode),
            Stream.map((object) => ({ _tag: "Modified" as const, object }))
          )
        ),
        Stream.concat(Stream.never)
      )
    }
  })

const silently = Effect.provideService(References.MinimumLogLevel, "None")

describe("a Probe that is not valid", () => {
  const namesAfter = (changes: ReadonlyArray<ReturnType<typeof probe>>, expected: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const desired = yield* Desired
      yield* until(
        `${expected.join(" and ")} are wanted`,
        Effect.map(
          desired.of("eu-1"),
          (set) =>
            JSON.stringify(Option.getOrUndefined(set)?.set.probes.map(({ name }) => name)) === JSON.stringify(expected)
        )
      )
    }).pipe(Effect.provide(Layer.fresh(Desired.layer).pipe(Layer.provide(resources(changes)))), silently)

  it.live("is left out, and the others are followed", () => namesAfter([probe("b", 2)], ["a", "b"]))

  it.live("is there once it is mended, and gone once it no longer is", () =>
    namesAfter([probe("evil", 1), probe("a", nested(65))], ["evil"]))
})

describe("a cluster that breaks", () => {
  it.effect("does not keep others from being shown as they are", () =>
    Effect.gen(function*() {
      const changes = yield* SubscriptionRef.make(0)
      let broken = false
      let checks: readonly [string, ...Array<string>] = ["first"]
      const known = (name: string) => ({ name, labels: {}, spec: {}, status: {} })
      const check = (name: string) => ({ name, use: "k8s.api.health" })
      const set = () => {
        const [first, ...rest] = checks
        const spec = { checks: [check(first), ...rest.map(check)] as const, policy: { interval: Duration.minutes(1) } }
        return { hash: "", set: { probes: [{ namespace: "n", name: "p", spec }], extraInfo: {} } }
      }
      const services = Layer.mergeAll(
        Layer.succeed(Desired, {
          cluster: (name) => Effect.succeedSome(known(name)),
          clusters: Effect.succeed([known("bad"), known("good")]),
          probes: Effect.succeed([]),
          of: (name) =>
            Effect.suspend(() => broken && name === "bad" ? Effect.die("it breaks") : Effect.succeedSome(set())),
          changes: Stream.map(SubscriptionRef.changes(changes), () => undefined)
        }),
        Layer.succeed(History, {
          record: never,
          latest: () => Effect.succeed([]),
          facts: Effect.succeed([]),
          entries: never,
          rollups: never,
          runs: never,
          forget: () => Effect.void
        }),
        Heartbeats.layer,
        Links.layer
      )
      yield* Effect.gen(function*() {
        const fleet = yield* FleetState
        const told: Array<string> = []
        const transitions = yield* fleet.transitions({})
        yield* Effect.forkScoped(
          Stream.runForEach(transitions, ({ checker, cluster }) =>
            Effect.sync(() => void told.push(`${cluster} ${checker}`)))
        )
        const change = Effect.andThen(
          SubscriptionRef.update(changes, (number) =>
            number + 1),
          TestClock.adjust(0)
        )
        yield* TestClock.adjust(0)
        broken = true
        yield* change
        checks = ["first", "second"]
        yield* change
        assert.deepStrictEqual(told, ["good second"])
        broken = false
        yield* change
        assert.deepStrictEqual(told, ["good second", "bad second"])
      }).pipe(Effect.provide(Layer.fresh(FleetState.layer).pipe(Layer.provide(services))))
    }).pipe(Effect.scoped, silently))
})
