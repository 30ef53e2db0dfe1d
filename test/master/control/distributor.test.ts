/** What an agent refuses it is given again, for the reason may pass. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, References, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { Control } from "../../../src/domain/rpc/Control.ts"
import type { Handlers } from "../../../src/infra/link/LinkRpc.ts"
import { type Link, Links } from "../../../src/infra/link/Links.ts"
import { Desired } from "../../../src/master/Desired.ts"
import * as Distributor from "../../../src/master/Distributor.ts"
import { Heartbeats } from "../../../src/master/Heartbeats.ts"

const HASH = "0".repeat(64)
const never = () => Effect.never
const refused = { probe: { namespace: "n", name: "p" }, reason: "the webhook is down" }

describe("the distribution of Probes", () => {
  it.effect("gives a set again while some of it is refused, now and then, and not when all of it is taken", () =>
    Effect.gen(function*() {
      let given = 0
      let webhook: "down" | "up" = "down"
      const changes = yield* SubscriptionRef.make(0)
      const desired = Layer.succeed(Desired, {
        cluster: () => Effect.succeedNone,
        clusters: Effect.succeed([]),
        probes: Effect.succeed([]),
        of: () => Effect.succeedSome({ hash: HASH, set: { probes: [], extraInfo: {} } }),
        changes: Stream.map(SubscriptionRef.changes(changes), () => undefined)
      })
      // The one procedure that is called here; the types of a client's are conditional on options that nobody gives.
      const control: { readonly applyProbes: Handlers<typeof Control>["applyProbes"] } = {
        applyProbes: () =>
          Effect.sync(() => {
            given++
            return { applied: HASH, refused: webhook === "down" ? [refused] : [] }
          })
      }
      const link: Link = {
        cluster: "a",
        uid: "u",
        epoch: 1,
        since: yield* DateTime.now,
        address: "",
        control: control as unknown as Link["control"],
        request: never,
        closed: Effect.never,
        streams: Effect.succeed(0),
        close: () => Effect.void
      }
      yield* Effect.gen(function*() {
        const heartbeats = yield* Heartbeats
        const beat = DateTime.now.pipe(
          Effect.flatMap((at) =>
            heartbeats.hear("a", (known) => ({
              refused: [],
              ...known,
              epoch: 1,
              at,
              clusterUid: "uid",
              versions: {},
              applied: HASH
            }))
          ),
          Effect.andThen(TestClock.adjust("10 seconds"))
        )
        const beats = (count: number) => Effect.repeat(beat, { times: count - 1 })
        yield* (yield* Links).hold(link)
        yield* TestClock.adjust("1 second")
        yield* beats(6)
        assert.strictEqual(given, 1)
        yield* beats(12)
        assert.strictEqual(given, 2)
        webhook = "up"
        yield* beats(12)
        assert.strictEqual(given, 3)
        yield* beats(60)
        assert.strictEqual(given, 3)
      }).pipe(
        Effect.provide(Distributor.layer.pipe(
          Layer.provideMerge(Layer.mergeAll(desired, Heartbeats.layer, Links.layer))
        ))
      )
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")))
})
