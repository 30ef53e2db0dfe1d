import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { diskLatency, judge } from "../../src/probes/infrastructure/diskLatency.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { healthy } from "../proofs/proof.ts"

const limits = { slow: Duration.millis(10), tooSlow: Duration.millis(100) }

describe("judging a disk", () => {
  it("goes by the 99th percentile", () => {
    const say = (p99: number) => judge(limits, "a", { p50: 1, p99, max: 1000, times: 100 })?.code
    assert.deepStrictEqual([say(9.9), say(10.1), say(101)], [undefined, "DISK_SLOW", "DISK_TOO_SLOW"])
  })
})

layer(WorkerCluster.layer({ name: "disk", nodes: 2 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "infra.disk.latency",
  (it) => {
    it.effect(
      healthy(diskLatency, "measures each node's disk from a pod, with its declared needs alone"),
      () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          const report = yield* run(
            { _tag: "Check", name: "disk", probe: diskLatency, with: { slow: "5s", tooSlow: "10s" } },
            { world: WorkerCluster.world, as: yield* userWith(diskLatency.needs) }
          )
          assert.strictEqual(report.status, "PASS", JSON.stringify(report))
          assert.include(report.message, "2 of 2 nodes")
        })
    )
  }
)
