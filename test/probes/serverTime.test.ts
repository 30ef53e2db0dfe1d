import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Ref } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeTransport from "../../src/infra/kube/http/KubeTransport.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { finalizersStuck } from "../../src/probes/kubernetes/finalizersStuck.ts"
import { workloadsHealth } from "../../src/probes/kubernetes/workloadsHealth.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import * as ServerTime from "../../src/probes/ServerTime.ts"
import { againstClient } from "./againstClient.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (minutes: number) => DateTime.formatIso(DateTime.subtract(NOW, { minutes }))

/** An API server with these lists, by the last part of their path, and no object beside. */
const serving = (lists: Readonly<Record<string, ReadonlyArray<object>>>) =>
  HttpClient.make((request, url) =>
    Effect.sync(() =>
      HttpClientResponse.fromWeb(
        request,
        Response.json({ metadata: {}, items: lists[url.pathname.split("/").at(-1) ?? ""] ?? [] })
      )
    )
  )

const codesOf = Effect.fnUntraced(
  function*(probe: AnyProbe, lists: Parameters<typeof serving>[0], off: { readonly minutes: number }) {
    yield* TestClock.setTime(DateTime.toEpochMillis(DateTime.add(NOW, off)))
    const { findings } = yield* againstClient(probe, serving(lists))
    return findings.map(({ code }) => code)
  }
)

const leases = [{ metadata: { name: "apiserver-a" }, spec: { renewTime: DateTime.formatIso(NOW) } }]

describe("ages are the cluster's, however wrong our clock is", () => {
  it.effect("of deletions", () =>
    Effect.gen(function*() {
      const pods = [{ metadata: { name: "a", namespace: "shop", deletionTimestamp: ago(20) } }]
      for (const minutes of [-90, 0, 90]) {
        assert.deepStrictEqual(yield* codesOf(finalizersStuck, { leases, pods }, { minutes }), ["DELETION_LATE"])
      }
      // Without the cluster's time, ours is what there is.
      assert.deepStrictEqual(yield* codesOf(finalizersStuck, { pods }, { minutes: 0 }), ["DELETION_LATE"])
    }))

  it.effect("of workloads", () =>
    Effect.gen(function*() {
      const deployment = (minutes: number) => ({
        metadata: { name: "web", namespace: "shop", generation: 1, creationTimestamp: ago(60) },
        status: {
          observedGeneration: 1,
          conditions: [{ type: "Available", status: "False", lastTransitionTime: ago(minutes) }]
        }
      })
      for (const minutes of [-90, 0, 90]) {
        const young = { leases, deployments: [deployment(1)] }
        assert.deepStrictEqual(yield* codesOf(workloadsHealth, young, { minutes }), ["WORKLOAD_STARTING"])
        const old = { leases, deployments: [deployment(10)] }
        assert.deepStrictEqual(yield* codesOf(workloadsHealth, old, { minutes }), ["NO_REPLICA_AVAILABLE"])
      }
    }))
})

describe("a prober's memory of the cluster's time", () => {
  const epoch = DateTime.toEpochMillis(NOW)

  /** A prober that remembers, and the time it has now and for how many requests. */
  const prober = Effect.gen(function*() {
    const requests = yield* Ref.make(0)
    /** By how many minutes the cluster's clock is ahead of real time, or that nobody tells. */
    const ahead = yield* Ref.make<number | "refused">(0)
    /** Real time, which the test moves; our own clock follows unless it is set. */
    const real = yield* Ref.make(epoch)
    const client = HttpClient.make(Effect.fnUntraced(function*(request) {
      yield* Ref.update(requests, (count) => count + 1)
      const minutes = yield* Ref.get(ahead)
      if (minutes === "refused") return HttpClientResponse.fromWeb(request, Response.json({}, { status: 403 }))
      const renewTime = DateTime.formatIso(DateTime.add(DateTime.makeUnsafe(yield* Ref.get(real)), { minutes }))
      return HttpClientResponse.fromWeb(
        request,
        Response.json({ metadata: {}, items: [{ metadata: { name: "apiserver-a" }, spec: { renewTime } }] })
      )
    }))
    const transport = yield* KubeTransport.fromHttpClient(client)
    const kube = yield* KubeHttp.fromTransport({ cluster: "test", server: "https://test.invalid", transport })
    const reading = yield* ServerTime.remembered
    const time = Effect.gen(function*() {
      const before = yield* Ref.get(requests)
      const now = yield* ServerTime.now.pipe(
        Effect.provideService(ServerTime.Reading, reading),
        Effect.provideService(Kube, kube)
      )
      return {
        /** Since the start. */
        minutes: Option.getOrUndefined(
          Option.map(now, (at) => Math.round((DateTime.toEpochMillis(at) - epoch) / 60_000))
        ),
        requests: (yield* Ref.get(requests)) - before
      }
    })
    const pass = (seconds: number) =>
      Effect.andThen(Ref.update(real, (at) => at + seconds * 1_000), TestClock.adjust(`${seconds} seconds`))
    yield* TestClock.setTime(epoch)
    return { ahead, pass, time }
  })

  it.effect("asks once a minute while our clock is right", () =>
    Effect.gen(function*() {
      const { pass, time } = yield* prober
      assert.deepStrictEqual(yield* time, { minutes: 0, requests: 1 })
      for (let at = 10; at < 60; at += 10) {
        yield* pass(10)
        assert.strictEqual((yield* time).requests, 0)
      }
      yield* pass(10)
      assert.deepStrictEqual(yield* time, { minutes: 1, requests: 1 })
    }))

  it.effect("asks each time while the clocks differ, and tells the cluster's", () =>
    Effect.gen(function*() {
      const { ahead, pass, time } = yield* prober
      yield* Ref.set(ahead, 30)
      assert.deepStrictEqual(yield* time, { minutes: 30, requests: 1 })
      yield* pass(1)
      assert.deepStrictEqual(yield* time, { minutes: 30, requests: 1 })
    }))

  it.effect("asks again when our clock was set", () =>
    Effect.gen(function*() {
      const { time } = yield* prober
      assert.deepStrictEqual(yield* time, { minutes: 0, requests: 1 })
      yield* TestClock.setTime(epoch - 90 * 60_000)
      assert.deepStrictEqual(yield* time, { minutes: 0, requests: 1 })
    }))

  it.effect("remembers no refusal", () =>
    Effect.gen(function*() {
      const { ahead, time } = yield* prober
      yield* Ref.set(ahead, "refused")
      assert.deepStrictEqual(yield* time, { minutes: undefined, requests: 1 })
      yield* Ref.set(ahead, 0)
      assert.deepStrictEqual(yield* time, { minutes: 0, requests: 1 })
    }))
})
