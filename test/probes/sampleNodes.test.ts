import { assert, describe, it } from "@effect/vitest"
import { DEFAULT_BUDGET } from "../../src/domain/ClusterBudget.ts"
import { choose } from "../../src/probes/workers/SampleNodes.ts"

const names = Array.from({ length: 200 }, (_, index) => `node-${index}`)

describe("nodes that a run looks at", () => {
  it("are all of few, and of many the same for each look of a run", () => {
    assert.deepStrictEqual(choose(["a", "b"], 3, { runId: "x" }), ["a", "b"])
    assert.lengthOf(choose(names, 10, { runId: "x" }), 10)
    assert.deepStrictEqual(choose(names, 10, { runId: "x" }), choose(names, 10, { runId: "x" }))
  })

  it("are others in other runs, so that each has its turn", () => {
    const seen = new Set(Array.from({ length: 200 }, (_, run) => choose(names, 10, { runId: `run-${run}` })).flat())
    assert.strictEqual(seen.size, names.length)
  })

  it("are always those of which something stands", () => {
    const standing = new Set(["DISK_TOO_SLOW /Node/node-77", "DISK_SLOW /Node/node-7"])
    for (let run = 0; run < 20; run++) {
      assert.includeMembers([...choose(names, 3, { runId: `${run}`, standing })], ["node-77", "node-7"])
    }
  })
})

it("the largest probe of the catalogue has room in the default budget of pods, beside another", () =>
  // infra.net.mesh: six pods that answer and six that ask.
  assert.isAtLeast(DEFAULT_BUDGET.pods, 6 + 6 + 2))
