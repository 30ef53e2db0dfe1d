import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { faults } from "../../bench/soak/faults.ts"
import { intervalOf, planOf, probesOf } from "../../bench/soak/plan.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"

describe("the plan of a soak", () => {
  const plan = planOf(probesOf("standard"), 10)
  const usedIn = (id: string) => plan.filter(({ spec }) => spec.checks?.some(({ use }) => use === id))

  it("has every probe that the profile permits, at ten times its rate", () => {
    for (const probe of probesOf("standard")) {
      const own = intervalOf(probe, 10)
      assert.isTrue(
        usedIn(probe.id).some(({ spec }) =>
          spec.policy?.interval !== undefined && Duration.equals(spec.policy.interval, own)
        ),
        probe.id
      )
    }
  })

  it("leaves out what writes to the cluster, and what needs a target", () => {
    assert.deepStrictEqual(usedIn("k8s.namespace.lifecycle"), [])
    assert.isTrue(probesOf("full").every(({ layer }) => layer !== "middleware"))
    assert.isAbove(probesOf("standard").length, probesOf("observe").length)
  })
})

describe("the faults of a soak", () => {
  it("are ten, told apart by name, and never both expected of and excused to the same check", () => {
    assert.strictEqual(new Set(faults.map(({ name }) => name)).size, 10)
    for (const { detectedBy, mayRedden, name } of faults) {
      assert.deepStrictEqual(Object.keys(detectedBy).filter((id) => id in mayRedden), [], name)
    }
  })

  it("are told by codes of probes that the soak runs, which alone can be excused", () => {
    const ids = new Set(probesOf("standard").map(({ id }) => id))
    for (const { detectedBy, mayRedden, name } of faults) {
      assert.deepStrictEqual(
        [...Object.keys(detectedBy), ...Object.keys(mayRedden)].filter((id) => !ids.has(id)),
        [],
        name
      )
      for (const [id, codes] of Object.entries(detectedBy)) {
        const known = catalogue.find((each) => each.id === id)?.codes ?? {}
        assert.isAbove(codes.length, 0, `${name}: ${id}`)
        assert.deepStrictEqual(codes.filter((code) => known[code] === undefined), [], `${name}: ${id}`)
      }
    }
  })
})
