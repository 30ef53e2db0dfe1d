/**
 * What a checker said in one run, and how findings become a verdict.
 *
 * A run of a checker yields findings: one for each thing it noticed, none when all is well. The report carries the
 * worst of them. `blame` keeps the two questions apart that must never be mixed: is the cluster broken, or could we
 * not look?
 */
import { Array, Order, Schema } from "effect"
import { redact, redactFact } from "./Redaction.ts"
import * as Status from "./Status.ts"

/** The most findings a report carries; the rest is counted in `truncated`. */
export const MAX_FINDINGS = 50

/** The longest message, in UTF-16 code units; Kubernetes truncates event messages at 1024 bytes for the same reason. */
export const MAX_MESSAGE = 1024

/** The most facts a finding carries, and the longest text in one, in UTF-16 code units. */
export const MAX_EVIDENCE = 20
export const MAX_EVIDENCE_TEXT = 512

/** A stable upper-case identifier of a kind of finding, documented with its probe and never reworded. */
export const Code = Schema.String.check(
  Schema.isPattern(/^[A-Z][A-Z0-9_]*$/u, { message: "a code is upper-case letters, digits and underscores" })
)
export type Code = typeof Code.Type

/** Whose fault a finding is: the cluster's, or the checker's own (it could not look). */
export const Blame = Schema.Literals(["target", "checker"])
export type Blame = typeof Blame.Type

/** The object a finding is about. `namespace` is absent for cluster-scoped objects. */
export const Subject = Schema.Struct({
  kind: Schema.String,
  name: Schema.String,
  namespace: Schema.optionalKey(Schema.String)
})
export type Subject = typeof Subject.Type

/** Facts that support a finding: small, flat, never a secret. */
export const Evidence = Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite, Schema.Boolean]))
export type Evidence = typeof Evidence.Type

/** One thing a checker noticed. */
export const Finding = Schema.Struct({
  status: Status.Status,
  code: Code,
  blame: Blame,
  message: Schema.String,
  subject: Schema.optionalKey(Subject),
  evidence: Schema.optionalKey(Evidence)
})
export type Finding = typeof Finding.Type

/** The longest name of a checker, or of a code, in UTF-16 code units. Of those that run, none has a third of it. */
export const MAX_NAME = 512

const isShort = (text: string | undefined, maximum: number): boolean => text === undefined || text.length <= maximum

/** As {@link fromFindings} leaves them. */
const isBounded = ({ code, evidence = {}, message, subject }: Finding): boolean => {
  const facts = Object.entries(evidence)
  return isShort(code, MAX_NAME) && isShort(message, MAX_MESSAGE) && facts.length <= MAX_EVIDENCE &&
    [subject?.kind, subject?.name, subject?.namespace].every((text) => isShort(text, MAX_EVIDENCE_TEXT)) &&
    facts.every(([name, fact]) =>
      isShort(name, MAX_EVIDENCE_TEXT) && (typeof fact !== "string" || isShort(fact, MAX_EVIDENCE_TEXT))
    )
}

/** What a checker said in a run, bounded whoever sends it. `duration` is in milliseconds. */
export const Report = Schema.Struct({
  checker: Schema.String.check(Schema.isMaxLength(MAX_NAME)),
  status: Status.Status,
  code: Schema.optionalKey(Code.check(Schema.isMaxLength(MAX_NAME))),
  blame: Schema.optionalKey(Blame),
  message: Schema.String.check(Schema.isMaxLength(MAX_MESSAGE)),
  findings: Schema.Array(
    Finding.check(Schema.makeFilter(isBounded, { expected: "a finding whose texts are no longer than they may be" }))
  ).check(Schema.isMaxLength(MAX_FINDINGS)),
  truncated: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
  startedAt: Schema.DateTimeUtcFromString,
  duration: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
})
export type Report = typeof Report.Type

const whereOf = ({ kind, name, namespace }: Subject): string => `${namespace ?? ""}/${kind}/${name}`

/** Names what a finding says of which object: two looks that give one key have seen the same. */
export const keyOf = ({ code, subject }: Pick<Finding, "code" | "subject">): string =>
  subject === undefined ? code : `${code} ${whereOf(subject)}`

/** Worst first; among equals the target's faults before our own, then by code and subject so that order is stable. */
export const findingOrder: Order.Order<Finding> = Order.combineAll([
  Order.flip(Order.mapInput(Status.order, (finding: Finding) => finding.status)),
  Order.mapInput(Order.String, (finding: Finding) => finding.blame === "target" ? "0" : "1"),
  Order.mapInput(Order.String, (finding: Finding) => finding.code),
  Order.mapInput(
    Order.String,
    ({ subject }: Finding) => subject === undefined ? "" : whereOf(subject)
  )
])

/**
 * Text for people. What comes from a cluster may hold control characters (C0, C1), which a terminal obeys: all but line
 * ends become U+FFFD.
 */
const clean = (text: string, maximum: number): string => {
  const plain = text.replace(/[^\P{Cc}\n]/gu, "\u{FFFD}")
  return plain.length <= maximum ? plain : `${plain.slice(0, maximum - 1).replace(/[\uD800-\uDBFF]$/u, "")}…`
}

/** A message as it may be shown. Redacted first: what is left of a secret that was cut looks like none. */
export const cleanMessage = (message: string): string => clean(redact(message), MAX_MESSAGE)

const cleanFact = (text: string): string => clean(redact(text), MAX_EVIDENCE_TEXT)

const cleanSubject = ({ kind, name, namespace }: Subject): Subject => ({
  kind: cleanFact(kind),
  name: cleanFact(name),
  ...(namespace === undefined ? {} : { namespace: cleanFact(namespace) })
})

const cleanEvidence = (evidence: Evidence): Evidence =>
  Object.fromEntries(
    Object.entries(evidence).slice(0, MAX_EVIDENCE).map((
      [name, fact]
    ) => [cleanFact(name), typeof fact === "string" ? clean(redactFact(name, fact), MAX_EVIDENCE_TEXT) : fact])
  )

const cleanFinding = ({ evidence, message, subject, ...finding }: Finding): Finding => ({
  ...finding,
  message: cleanMessage(message),
  ...(subject === undefined ? {} : { subject: cleanSubject(subject) }),
  ...(evidence === undefined ? {} : { evidence: cleanEvidence(evidence) })
})

/**
 * The two questions kept apart, whatever a probe of anyone's says: a checker's own fault is UNKNOWN, never WARN or ERROR,
 * and UNKNOWN is nobody else's.
 */
const apart = (finding: Finding): Finding =>
  finding.status === "UNKNOWN"
    ? { ...finding, blame: "checker" }
    : finding.blame === "checker" && Status.isAtLeast(finding.status, "WARN")
    ? { ...finding, status: "UNKNOWN" }
    : finding

const isDecisive = (finding: Finding): boolean => finding.status !== "PASS"

/**
 * The verdict of a run from what was noticed.
 *
 * The worst finding gives status, code and blame; the message is its own, followed by how many others agree. An
 * UNKNOWN beside a WARN or ERROR does not soften it: what was seen stays seen. Texts are freed of secrets, cleaned and
 * bounded here, once for all who print or send them.
 */
export const fromFindings = (options: {
  readonly checker: string
  readonly findings: ReadonlyArray<Finding>
  /** Said when nothing is wrong: what was proven, with numbers. */
  readonly summary: string
  readonly startedAt: Report["startedAt"]
  readonly duration: number
}): Report => {
  const all = Array.sort(options.findings.map(apart), findingOrder)
  // Cleaning costs more than all else, so only what is kept is cleaned; the worst is among it.
  const findings = all.slice(0, MAX_FINDINGS).map(cleanFinding)
  const first = findings.find(isDecisive)
  const others = all.filter(isDecisive).length - 1
  return {
    checker: options.checker,
    status: first?.status ?? "PASS",
    ...(first === undefined ? {} : { code: first.code, blame: first.blame }),
    message: first === undefined
      ? cleanMessage(options.summary)
      : cleanMessage(others > 0 ? `${first.message} (and ${others} more)` : first.message),
    findings,
    truncated: all.length - findings.length,
    startedAt: options.startedAt,
    // A clock that was set back meanwhile must not cost the report.
    duration: Math.max(0, options.duration)
  }
}

/** The status of many reports together: the worst of them. */
export const worst = (reports: Iterable<Pick<Report, "status">>): Status.Status =>
  Status.worst(globalThis.Array.from(reports, (report) => report.status))
