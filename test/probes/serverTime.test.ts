import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { finalizersStuck } from "../../src/probes/kubernetes/finalizersStuck.ts"
import { workloadsHealth } from "../../src/probes/kubernetes/workloadsHealth.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
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
