import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Schema } from "effect"
import * as Confirmation from "../../src/agent/Confirmation.ts"
import { type CheckerState, observe } from "../../src/domain/CheckerState.ts"
import { type Finding, MAX_FINDINGS, type Report, fromFindings, keyOf } from "../../src/domain/Report.ts"
import * as Status from "../../src/domain/Status.ts"
import type { Confirm } from "../../src/probes/Probe.ts"

const STATUS = { A: "ERROR", B: "WARN", C: "INFO", D: "UNKNOWN", E: "ERROR" } as const
const Code = Schema.Literals(["A", "B", "C", "D", "E"])

/** Few codes and objects, so that two looks often see the same. */
const Seen = Schema.Struct({ code: Code, on: Schema.Literals(["x", "y", ""]) })
const Look = Schema.Array(Seen).check(Schema.isMaxLength(4))
const Keys = Schema.Array(Seen).check(Schema.isMaxLength(3))

const findingOf = ({ code, on }: typeof Seen.Type): Finding => ({
  status: STATUS[code],
  code,
  blame: STATUS[code] === "UNKNOWN" ? "checker" : "target",
  message: `${code} of ${on}`,
  ...(on === "" ? {} : { subject: { kind: "Pod", name: on } })
})

const reportOf = (findings: ReadonlyArray<Finding>, minute = 0): Report =>
  fromFindings({
    checker: "c",
    findings,
    summary: "all is well",
    startedAt: DateTime.makeUnsafe(minute * 60_000),
    duration: 2
  })

const look = (seen: typeof Look.Type) => reportOf(seen.map(findingOf))

const both = (
  first: Report,
  second: Confirmation.Second,
  standing: ReadonlySet<string> = new Set(),
  confirm: Confirm = "rerun"
) => {
  const faults = Confirmation.unconfirmed(first, standing, confirm)
  return { faults, said: Confirmation.conclude(first, second, { faults, confirm }) }
}

const isRed = ({ status }: Pick<Finding, "status">) => Status.isAtLeast(status, "WARN")
const redKeys = (report: Report) => new Set(report.findings.filter(isRed).map(keyOf))
const codes = (report: Report) => report.findings.map(keyOf)

const red: typeof Seen.Type = { code: "A", on: "x" }

describe("two looks", () => {
  it("make red what both saw", () => {
    const { said } = both(look([red]), look([red]))
    assert.deepStrictEqual([said.status, codes(said), said.duration], ["ERROR", ["A /Pod/x"], 4])
  })

  it("are the second and a quote of the first when they disagree", () => {
    const { said } = both(look([red]), look([]))
    assert.deepStrictEqual([said.status, said.code, said.blame], ["INFO", "NOT_CONFIRMED", "target"])
    assert.strictEqual(said.message, "seen once, and not a moment later: ERROR A: A of x")
    assert.deepStrictEqual(said.findings[0]?.evidence, { status: "ERROR", code: "A" })
    const other = both(look([red]), look([{ code: "B", on: "y" }])).said
    assert.deepStrictEqual([other.status, codes(other)], ["WARN", ["B /Pod/y", "NOT_CONFIRMED /Pod/x"]])
  })

  it("are the second when an object has only got worse, or better but not well", () => {
    for (const [first, second] of [["B", "A"], ["A", "B"]] as const) {
      const { said } = both(look([{ code: first, on: "x" }]), look([{ code: second, on: "x" }]))
      assert.deepStrictEqual(codes(said), [`${second} /Pod/x`])
    }
  })

  it("neither confirm nor hide what the second could not look at", () => {
    for (const second of [look([{ code: "D", on: "" }]), { impossible: "no time" }]) {
      const { said } = both(look([red]), second)
      assert.deepStrictEqual([said.status, said.blame], ["UNKNOWN", "checker"])
      assert.include(said.findings.map(({ code }) => code), "CONFIRMATION_FAILED")
      assert.include(said.findings.find(({ code }) => code === "CONFIRMATION_FAILED")?.message, "ERROR A: A of x")
    }
  })

  it("are confirmed by the next run when the second could not look", () => {
    const { said } = both(look([red]), { impossible: "no time" })
    const state: CheckerState = observe(undefined, said)
    assert.deepStrictEqual(Confirmation.unconfirmed(look([red]), new Set(state.memory?.standing), "rerun"), [])
  })

  it("keep what stands when the second could not look, and believe it when it did", () => {
    const first = look([red, { code: "B", on: "y" }])
    const standing = new Set(["B /Pod/y"])
    assert.deepStrictEqual(redKeys(both(first, look([{ code: "D", on: "" }]), standing).said), standing)
    assert.deepStrictEqual(redKeys(both(first, look([]), standing).said), new Set())
  })

  it("are not taken for what a probe has confirmed by itself", () => {
    const confirm: Confirm = { unless: ["B"] }
    const first = look([red, { code: "B", on: "y" }])
    const { faults, said } = both(first, look([]), new Set(), confirm)
    assert.deepStrictEqual(faults.map(keyOf), ["A /Pod/x"])
    assert.deepStrictEqual(codes(said), ["B /Pod/y", "NOT_CONFIRMED /Pod/x"])
    assert.deepStrictEqual(Confirmation.unconfirmed(first, new Set(), "none"), [])
  })

  it("quote nothing that may lie beyond what a report carries", () => {
    const many = Array.from({ length: MAX_FINDINGS + 5 }, (_, index): Finding => ({
      ...findingOf({ code: "A", on: "x" }),
      subject: { kind: "Pod", name: `${index}` }
    }))
    const { said } = both(look([{ code: "B", on: "x" }]), reportOf(many))
    assert.strictEqual(said.findings.length, MAX_FINDINGS)
    assert.strictEqual(said.truncated, 5)
    assert.isTrue(said.findings.every(({ code }) => code === "A"))
  })

  it.effect.prop(
    "are red only for what stood before, what both saw, or what the second saw in a first that was red too",
    { first: Look, second: Look, standing: Keys },
    (given) =>
      Effect.sync(() => {
        const [first, second] = [look(given.first), look(given.second)]
        const standing = new Set(given.standing.map((seen) => keyOf(findingOf(seen))))
        const { faults, said } = both(first, second, standing)
        if (faults.length === 0) return
        assert.isTrue(isRed(first))
        const [once, twice] = [redKeys(first), redKeys(second)]
        for (const key of redKeys(said)) assert.isTrue(twice.has(key) || (once.has(key) && standing.has(key)), key)
        // A fault only the first saw is never red.
        for (const fault of faults) if (!twice.has(keyOf(fault))) assert.isFalse(redKeys(said).has(keyOf(fault)))
      })
  )

  it.effect.prop(
    "never lose a fault: it is red or quoted; and are never green when the second was not",
    { first: Look, second: Look, standing: Keys },
    (given) =>
      Effect.sync(() => {
        const [first, second] = [look(given.first), look(given.second)]
        const standing = new Set(given.standing.map((seen) => keyOf(findingOf(seen))))
        const { faults, said } = both(first, second, standing)
        if (faults.length === 0) return
        const quoted = new Set(
          said.findings.filter(({ code }) => code === "NOT_CONFIRMED" || code === "CONFIRMATION_FAILED").map((
            finding
          ) => keyOf({ ...finding, code: String(finding.evidence?.["code"]) }))
        )
        for (const fault of faults) {
          assert.isTrue(
            redKeys(said).has(keyOf(fault)) || quoted.has(keyOf(fault)) ||
              said.findings.some((finding) =>
                isRed(finding) && finding.subject !== undefined && finding.subject.name === fault.subject?.name
              )
          )
        }
        assert.isTrue(Status.isAtLeast(said.status, second.status))
        assert.notStrictEqual(said.status, "PASS")
        // A blind look never makes red less than UNKNOWN.
        if (second.findings.some(({ status }) => status === "UNKNOWN")) {
          assert.isTrue(Status.isAtLeast(said.status, "UNKNOWN"))
        }
      })
  )

  it.effect.prop("agree with themselves", { first: Look, standing: Keys }, (given) =>
    Effect.sync(() => {
      const first = look(given.first)
      const standing = new Set(given.standing.map((seen) => keyOf(findingOf(seen))))
      assert.deepStrictEqual(redKeys(both(first, first, standing).said), redKeys(first))
    }))
})
