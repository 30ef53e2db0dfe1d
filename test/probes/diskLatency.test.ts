/** The judge alone; on real nodes it is tested in `pods.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { judge } from "../../src/probes/infrastructure/diskLatency.ts"

const limits = { slow: Duration.millis(10), tooSlow: Duration.millis(100) }

describe("judging a disk", () => {
  it("goes by the 99th percentile", () => {
    const say = (p99: number) => judge(limits, "a", { p50: 1, p99, max: 1000, times: 100 })?.code
    assert.deepStrictEqual([say(9.9), say(10.1), say(101)], [undefined, "DISK_SLOW", "DISK_TOO_SLOW"])
  })
})
