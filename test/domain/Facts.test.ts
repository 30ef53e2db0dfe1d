import { assert, describe, it } from "@effect/vitest"
import { DateTime, Schema } from "effect"
import * as Facts from "../../src/domain/Facts.ts"
import { fromFindings } from "../../src/domain/Report.ts"

const facts = (values: Readonly<Record<string, string>>, unseen: ReadonlyArray<string> = []): Facts.Facts => ({
  values: new Map(Object.entries(values)),
  critical: new Set(Object.keys(values).filter((key) => key.startsWith("critical/"))),
  unseen: new Set(unseen)
})

const tallyOf = (all: Iterable<Facts.Facts>) => {
  const tally = new Facts.Tally()
  for (const each of all) tally.add(each)
  return tally
}

const said = ({ actual, expected, key }: Facts.Deviation) =>
  `${key} ${expected ?? Facts.ABSENT} ${actual ?? Facts.ABSENT}`

/** Few keys, values and families, so that clusters agree and differ often. A family is not looked at now and then. */
const Cluster = Schema.Struct({
  values: Schema.Record(
    Schema.Literals(["a/1", "a/2", "b/1", "critical/1"]),
    Schema.Literals(["x", "y", "-"])
  ),
  unseen: Schema.Array(Schema.Literals(["a", "b"])).check(Schema.isMaxLength(1))
})
const Fleet = Schema.Array(Cluster).check(Schema.isMaxLength(12))

const read = (fleet: typeof Fleet.Type): ReadonlyArray<Facts.Facts> =>
  fleet.map(({ unseen, values }) =>
    facts(
      Object.fromEntries(
        Object.entries(values).filter(([key, value]) =>
          value !== "-" && !unseen.some((family) => family === Facts.familyOf(key))
        )
      ),
      unseen
    )
  )

/** The same by the definition: every key of everybody, counted anew. */
const byDefinition = (all: ReadonlyArray<Facts.Facts>, own: Facts.Facts): ReadonlyArray<string> => {
  const keys = [...new Set(all.flatMap(({ values }) => [...values.keys()]))].toSorted()
  return keys.flatMap((key) => {
    const looked = all.filter(({ unseen }) => !unseen.has(Facts.familyOf(key)))
    if (looked.length < Facts.MIN_CLUSTERS || !looked.includes(own)) return []
    const values = looked.map(({ values }) => values.get(key))
    const expected = values.find((value) => values.filter((other) => other === value).length * 2 > values.length)
    const isDecided = values.filter((value) => value === expected).length * 2 > values.length
    return isDecided && own.values.get(key) !== expected
      ? [said({ key, expected, actual: own.values.get(key), critical: false })]
      : []
  })
}

describe("facts", () => {
  it("travel in findings and come back the same", () => {
    const values = Object.fromEntries(
      Array.from({ length: 95 }, (_, index) => [`${index % 3 === 0 ? "critical" : "plain"}/${index}`, `value ${index}`])
    )
    const sent = facts(values, ["node"])
    const findings = Facts.toFindings(sent, new Map([["node", "the cluster has no node"]]))
    const report = fromFindings({
      checker: "drift",
      findings,
      summary: "95 facts",
      startedAt: DateTime.makeUnsafe(0),
      duration: 1
    })
    assert.strictEqual(report.status, "PASS")
    assert.strictEqual(report.message, "95 facts")
    const come = Facts.fromReport(report)
    assert.deepStrictEqual(
      [...come?.values ?? []].toSorted(([a], [b]) => a < b ? -1 : 1),
      [...sent.values].toSorted(([a], [b]) => a < b ? -1 : 1)
    )
    assert.deepStrictEqual([...come?.critical ?? []].toSorted(), [...sent.critical].toSorted())
    assert.deepStrictEqual(come?.unseen, sent.unseen)
    // A part of the facts would make the rest look absent.
    assert.isUndefined(Facts.fromReport({ ...report, truncated: 1 }))
    assert.isUndefined(Facts.fromReport({ findings: [], truncated: 0 }))
  })

  it("differ from a baseline where it says something of their family", () => {
    const held = (baseline: Readonly<Record<string, string>>, unseen: ReadonlyArray<string> = []) =>
      Facts.againstBaseline(
        facts({ "crd/a": "v1", "crd/b": "v1", "kubernetes/version": "v1.35.4" }, unseen),
        baseline,
        (key) => key === "crd/b"
      )
    const differs = (baseline: Readonly<Record<string, string>>) => held(baseline).deviations.map(said)
    assert.deepStrictEqual(differs({ "kubernetes/version": "v1.35.4" }), [])
    assert.deepStrictEqual(differs({ "kubernetes/version": "v1.34.0" }), ["kubernetes/version v1.34.0 v1.35.4"])
    assert.deepStrictEqual(differs({ "crd/a": "v1", "crd/b": "v1", "crd/c": "v1" }), ["crd/c v1 absent"])
    assert.deepStrictEqual(differs({ "crd/a": "v1" }), ["crd/b absent v1"])
    assert.deepStrictEqual(differs({ "crd/a": "absent", "crd/b": "v1" }), ["crd/a absent v1"])
    assert.deepStrictEqual(differs({ "crd/*": "absent", "crd/a": "v1" }), ["crd/b absent v1"])
    assert.deepStrictEqual(differs({ "webhook/*": "absent", "webhook/x": "absent" }), [])
    assert.deepStrictEqual(held({ "crd/b": "v2" }).deviations.map(({ critical, key }) => [key, critical]), [
      ["crd/a", false],
      ["crd/b", true]
    ])
    assert.deepStrictEqual(held({ "node/os": "Debian" }, ["node"]), { deviations: [], unseen: ["node/os"] })
  })
})

describe("a majority", () => {
  it.prop("is what more than half of those that looked have, in whatever order they are counted", [
    Fleet,
    Schema.Array(Schema.Int)
  ], ([fleet, order]) => {
    const all = read(fleet)
    const tally = tallyOf(all)
    const shuffled = tallyOf(
      all.map((each, index) => [order[index] ?? 0, each] as const).toSorted(([a], [b]) => a - b).map(([, each]) => each)
    )
    for (const own of all) {
      assert.deepStrictEqual(tally.deviations(own).map(said), byDefinition(all, own))
      assert.deepStrictEqual(shuffled.deviations(own), tally.deviations(own))
    }
  })

  it.prop("forgets who left as if they had never been there", [Fleet, Fleet], ([fleet, others]) => {
    const all = read(fleet)
    const gone = read(others)
    const tally = tallyOf([...gone, ...all])
    for (const each of gone) tally.remove(each)
    assert.strictEqual(tally.size, all.length)
    for (const own of all) assert.deepStrictEqual(tally.deviations(own), tallyOf(all).deviations(own))
  })

  it.prop("never blames a cluster that is like most", [Cluster, Schema.Array(Cluster).check(Schema.isMaxLength(4))], ([
    one,
    odd
  ]) => {
    const [same] = read([one])
    if (same === undefined) return
    const tally = tallyOf([...Array.from({ length: 5 }, () => same), ...read(odd)])
    // Families that odd clusters look at and this one does not are theirs to be alike in.
    assert.deepStrictEqual(tally.deviations(same), [])
  })

  it("needs five clusters, and more than half of them", () => {
    const x = facts({ "a/1": "x" })
    const y = facts({ "a/1": "y" })
    assert.deepStrictEqual(tallyOf([x, x, x, y]).deviations(y), [])
    assert.deepStrictEqual(tallyOf([x, x, x, y, y]).deviations(y), [
      { key: "a/1", expected: "x", actual: "y", critical: false, agree: 3, of: 5 }
    ])
    assert.deepStrictEqual(tallyOf([x, x, x, y, y, y]).deviations(y), [])
    const critical = facts({ "critical/1": "x" })
    const without = facts({})
    assert.deepStrictEqual(tallyOf([critical, critical, critical, critical, without]).deviations(without), [
      { key: "critical/1", expected: "x", actual: undefined, critical: true, agree: 4, of: 5 }
    ])
    assert.deepStrictEqual(tallyOf([critical, without, without, without, without]).deviations(critical), [
      { key: "critical/1", expected: undefined, actual: "x", critical: true, agree: 4, of: 5 }
    ])
  })
})
