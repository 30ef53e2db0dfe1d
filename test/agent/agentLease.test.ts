import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { LEASE_TIMES, untilOfNoUse } from "../../src/agent/agentLease.ts"
import { Superseded } from "../../src/domain/rpc/Uplink.ts"
import { LinkStatus, type Session } from "../../src/infra/link/LinkClient.ts"
import { LinkClosed, PeerGone, PeerLeft } from "../../src/infra/link/LinkError.ts"

const LASTS = Duration.toMillis(Duration.fromInputUnsafe(LEASE_TIMES.leaseDuration))

const linked = Effect.map(DateTime.now, (since) => LinkStatus.Linked({ session: {} as Session, since }))
const waiting = (reason: PeerGone | PeerLeft) =>
  Effect.map(
    DateTime.now,
    (until) => LinkStatus.Waiting({ because: new LinkClosed({ peer: "master", reason }), until })
  )
const broke = waiting(new PeerGone({ detail: "the network" }))

/** Whether it has ended, after each of these. */
const endedAfter = Effect.fnUntraced(function*(...steps: ReadonlyArray<Effect.Effect<LinkStatus> | number>) {
  const status = yield* SubscriptionRef.make<LinkStatus>(yield* linked)
  const fiber = yield* Effect.forkChild(untilOfNoUse(SubscriptionRef.changes(status)))
  yield* TestClock.adjust(0)
  return yield* Effect.forEach(steps, (step) =>
    Effect.gen(function*() {
      if (typeof step === "number") yield* TestClock.adjust(step)
      else yield* SubscriptionRef.set(status, yield* step)
      yield* TestClock.adjust(0)
      return fiber.pollUnsafe() !== undefined
    })).pipe(Effect.ensuring(Fiber.interrupt(fiber)))
})

describe("an agent that cannot renew its lease", () => {
  it.effect("works on for as long as it has a link, which may break for a while", () =>
    Effect.gen(function*() {
      const ended = yield* endedAfter(10 * LASTS, broke, LASTS - 1, linked, 10 * LASTS, broke, LASTS - 1)
      assert.deepStrictEqual(ended, ended.map(() => false))
    }))

  it.effect("ends when it has had none for as long as the lease lasts, however often it dialled", () =>
    Effect.gen(function*() {
      const dialling = Effect.succeed(LinkStatus.Connecting())
      const ended = yield* endedAfter(broke, LASTS / 2, dialling, broke, dialling, LASTS / 2)
      assert.deepStrictEqual(ended, [false, false, false, false, false, true])
    }))

  it.effect("ends at once when another agent of the cluster has linked", () =>
    Effect.gen(function*() {
      const superseded = waiting(new PeerLeft({ farewell: new Superseded({ epoch: 1, current: 2 }) }))
      assert.deepStrictEqual(yield* endedAfter(LASTS, superseded), [false, true])
    }))
})
