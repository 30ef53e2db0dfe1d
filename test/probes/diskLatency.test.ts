/** The judge and the measure on this machine's disk; on real nodes they are tested in `pods.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { keyOf } from "../../src/domain/Report.ts"
import * as DiskNode from "../../src/infra/host/DiskNode.ts"
import * as Hysteresis from "../../src/probes/Hysteresis.ts"
import { judge } from "../../src/probes/infrastructure/diskLatency.ts"
import { measured, middle } from "../../src/probes/workers/tasks/diskCommits.ts"

const limits = { slow: Duration.millis(10), tooSlow: Duration.millis(100) }

const say = (p99: number, ...standing: ReadonlyArray<string>) =>
  judge(
    limits,
    "a",
    { p50: 1, p99, max: 1000, times: 100 },
    Hysteresis.make(new Set(standing.map((code) => keyOf({ code, subject: { kind: "Node", name: "a" } }))))
  )?.code

const millis = (values: ReadonlyArray<number>) => values.map((value) => Duration.millis(value))

describe("judging a disk", () => {
  it("goes by the 99th percentile", () => {
    assert.deepStrictEqual([say(9.9), say(10.1), say(101)], [undefined, "DISK_SLOW", "DISK_TOO_SLOW"])
  })

  it("calls it fast again when it is clear of the limit", () => {
    assert.deepStrictEqual([say(9.5, "DISK_SLOW"), say(8.9, "DISK_SLOW")], ["DISK_SLOW", undefined])
    assert.deepStrictEqual([say(95, "DISK_TOO_SLOW"), say(85, "DISK_TOO_SLOW")], ["DISK_TOO_SLOW", "DISK_SLOW"])
  })

  it("goes by the middle one of its rounds", () => {
    const round = (p99: number) => ({ p50: 1, p99, max: p99, times: 100 })
    assert.strictEqual(middle([round(29), round(3), round(4)]).p99, 4)
    assert.strictEqual(middle([round(29), round(3), round(27)]).p99, 27)
    assert.strictEqual(middle([round(29)]).p99, 29)
  })

  it("does not count the time in which the pod had no processor", () => {
    const quick = Array.from({ length: 98 }, () => 1)
    assert.strictEqual(measured({ took: millis([...quick, 29, 30]), own: millis([...quick, 27, 28]) }).p99, 2)
    assert.strictEqual(measured({ took: millis([...quick, 29, 30]), own: millis([...quick, 1, 1]) }).p99, 28)
  })
})

describe("committing to this machine's disk", () => {
  const commits = (times: number, within: Duration.Duration) =>
    Effect.acquireUseRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "kubeprober-disk-"))),
      (folder) =>
        Effect.map(DiskNode.service.commits({ folder, times, bytes: 4096, within }), (done) => ({
          ...done,
          left: readdirSync(folder)
        })),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )

  it.live("tells of each commit, and leaves nothing", () =>
    Effect.gen(function*() {
      const { left, own, took } = yield* commits(5, Duration.infinity)
      assert.deepStrictEqual([took.length, own.length, left], [5, 5, []])
      assert.isTrue([...took, ...own].every((each) => Duration.toMillis(each) > 0))
    }))

  it.live("begins no more in time, and at least one", () =>
    Effect.map(commits(1_000_000, Duration.zero), ({ took }) => assert.lengthOf(took, 1)))
})
