import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Equal, Schema } from "effect"
import {
  type Finding,
  Finding as FindingSchema,
  MAX_EVIDENCE,
  MAX_EVIDENCE_TEXT,
  MAX_FINDINGS,
  MAX_MESSAGE,
  Report,
  fromFindings,
  worst
} from "../../src/domain/Report.ts"
import * as Status from "../../src/domain/Status.ts"

const startedAt = DateTime.makeUnsafe("2026-01-01T00:00:00Z")

const finding = (status: Status.Status, more: Partial<Finding> = {}): Finding => ({
  status,
  code: `SAYS_${status}`,
  blame: status === "UNKNOWN" ? "checker" : "target",
  message: `this is ${status}`,
  ...more
})

const report = (...findings: ReadonlyArray<Finding>) =>
  fromFindings({ checker: "c", findings, summary: "all 3 nodes are ready", startedAt, duration: 12 })

const Findings = Schema.Array(FindingSchema).check(Schema.isMaxLength(8))

describe("a report", () => {
  it("without findings passes with its summary and no code", () => {
    const { code, message, status } = report()
    assert.deepStrictEqual({ code, message, status }, {
      code: undefined,
      message: "all 3 nodes are ready",
      status: "PASS"
    })
  })

  it("cleans no more findings than it keeps", () => {
    let read = 0
    const counted = Array.from({ length: MAX_FINDINGS + 200 }, (_, number): Finding => ({
      status: "ERROR",
      code: "SAYS_ERROR",
      blame: "target",
      subject: { kind: "Pod", name: String(number).padStart(4, "0") },
      get message() {
        read++
        return "token=secret"
      }
    }))
    const { findings, message, truncated } = report(...counted.toReversed())
    assert.strictEqual(read, MAX_FINDINGS)
    assert.deepStrictEqual({ message, truncated }, { message: "token=REDACTED (and 249 more)", truncated: 200 })
    assert.deepStrictEqual(
      findings.map(({ subject }) => Number(subject?.name)),
      Array.from({ length: MAX_FINDINGS }, (_, number) => number)
    )
  })

  it("carries the worst finding and how many agree that something is wrong", () => {
    const { blame, code, message, status } = report(finding("WARN"), finding("PASS"), finding("ERROR"))
    assert.deepStrictEqual({ blame, code, message, status }, {
      blame: "target",
      code: "SAYS_ERROR",
      message: "this is ERROR (and 1 more)",
      status: "ERROR"
    })
  })

  it("is not softened by what could not be seen", () => {
    assert.strictEqual(report(finding("UNKNOWN"), finding("WARN")).status, "WARN")
  })

  it("is bounded, and says how much was left out", () => {
    const many = report(
      ...Array.from({ length: MAX_FINDINGS + 7 }, () => finding("WARN", { message: "😀".repeat(999) }))
    )
    assert.strictEqual(many.findings.length, MAX_FINDINGS)
    assert.strictEqual(many.truncated, 7)
    for (const message of [many.message, ...many.findings.map((one) => one.message)]) {
      assert.isAtMost(message.length, MAX_MESSAGE)
      assert.isTrue(message.isWellFormed(), "no half of a surrogate pair is left")
    }
  })

  it("shows a terminal no control characters, wherever they come from", () => {
    const nasty = "a\u001b[31mb\u009bc\r\n\u0007d\u007f\te"
    const shown = "a\u{FFFD}[31mb\u{FFFD}c\u{FFFD}\n\u{FFFD}d\u{FFFD}\u{FFFD}e"
    const { findings, message } = report(finding("WARN", {
      message: nasty,
      subject: { kind: nasty, name: nasty, namespace: nasty },
      evidence: { [nasty]: nasty, count: 3, sure: true }
    }))
    assert.strictEqual(message, shown)
    assert.deepStrictEqual(findings, [finding("WARN", {
      message: shown,
      subject: { kind: shown, name: shown, namespace: shown },
      evidence: { [shown]: shown, count: 3, sure: true }
    })])
    assert.strictEqual(
      fromFindings({ checker: "c", findings: [], summary: nasty, startedAt, duration: 1 }).message,
      shown
    )
  })

  it("carries little evidence", () => {
    const facts = Array.from({ length: MAX_EVIDENCE + 5 }, (_, index) => [`fact${index}`, "😀".repeat(400)] as const)
    const [{ evidence = {} } = {}] = report(finding("WARN", { evidence: Object.fromEntries(facts) })).findings
    assert.deepStrictEqual(Object.keys(evidence), facts.slice(0, MAX_EVIDENCE).map(([name]) => name))
    for (const fact of Object.values(evidence)) {
      assert.isAtMost(String(fact).length, MAX_EVIDENCE_TEXT)
      assert.isTrue(String(fact).isWellFormed())
    }
  })

  it.effect.prop(
    "says the same whatever order findings come in",
    { findings: Findings },
    ({ findings }) =>
      Effect.sync(() => {
        const one = report(...findings)
        const other = report(...findings.toReversed())
        assert.deepStrictEqual(
          [other.status, other.code, other.blame],
          [one.status, one.code, one.blame]
        )
        assert.strictEqual(one.status, Status.worst(one.findings.map(({ status }) => status)))
        for (const { blame, status } of one.findings) {
          assert.isFalse(blame === "checker" && Status.isAtLeast(status, "WARN"))
          assert.isFalse(blame === "target" && status === "UNKNOWN")
        }
      })
  )

  it.effect.prop("survives the wire", { report: Report }, ({ report }) =>
    Effect.gen(function*() {
      const Json = Schema.fromJsonString(Schema.toCodecJson(Report))
      const back = yield* Schema.decodeEffect(Json)(yield* Schema.encodeEffect(Json)(report))
      assert.isTrue(Equal.equals(back, report))
    }))

  it("is taken from nobody with more than it may have", () => {
    const long = "x".repeat(50_000)
    const facts = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`${index}`, long]))
    const monstrous = report(...Array.from({ length: 200 }, () =>
      finding("ERROR", {
        message: long,
        subject: { kind: long, name: long, namespace: long },
        evidence: facts
      })))
    const sent = Schema.encodeSync(Report)(monstrous)
    assert.isTrue(Equal.equals(Schema.decodeSync(Report)(sent), monstrous))
    const [first] = sent.findings
    const refused = (changed: object) => Schema.decodeUnknownResult(Report)({ ...sent, ...changed })._tag
    for (
      const changed of [
        { checker: long },
        { message: long },
        { code: `A${"B".repeat(1000)}` },
        { findings: Array.from({ length: MAX_FINDINGS + 1 }, () => first) },
        { findings: [{ ...first, message: long }] },
        { findings: [{ ...first, subject: { kind: "Pod", name: long } }] },
        { findings: [{ ...first, evidence: facts }] },
        { findings: [{ ...first, evidence: { fact: long } }] }
      ]
    ) assert.strictEqual(refused(changed), "Failure", JSON.stringify(Object.keys(changed)))
  })

  it("joins others by the worst", () => {
    assert.strictEqual(worst([report(finding("INFO")), report(), report(finding("UNKNOWN"))]), "UNKNOWN")
  })
})
