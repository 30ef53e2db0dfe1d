/**
 * Confirmed before red: a WARN or ERROR that did not stand before is looked at once more, and what two looks say together
 * is the verdict. Pure; {@link Round} looks.
 *
 * | first look            | second look                | said                                                        |
 * | --------------------- | -------------------------- | ----------------------------------------------------------- |
 * | nothing new is red    | is not made                | the first                                                   |
 * | a new fault           | the same fault             | the second: the fault is confirmed                          |
 * | a new fault           | not this fault             | the second, and INFO NOT_CONFIRMED that quotes the first    |
 * | a new fault           | could not look, even if    | the second, and UNKNOWN CONFIRMATION_FAILED that quotes the |
 * |                       | only at a part, or was not | first: neither confirmed nor hidden                         |
 * |                       | made for want of time      |                                                             |
 * | a new fault           | another of the same object | the second: the object is bad, and by now so                |
 * | also one that stands  | could not look             | that fault too: what was seen stays seen                    |
 *
 * A fault is its code and its object. One that could not be confirmed stands from then on (see `CheckerState`), so the
 * next run that sees it confirms it.
 */
import { type Finding, type Report, fromFindings, keyOf } from "../domain/Report.ts"
import * as Status from "../domain/Status.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { Confirm } from "../probes/Probe.ts"

const isRed = ({ status }: Pick<Finding, "status">): boolean => Status.isAtLeast(status, "WARN")

const confirmsItself = (confirm: Confirm, code: string): boolean =>
  confirm === "none" || (confirm !== "rerun" && confirm.unless.includes(code))

/** The faults of a first look that take a second one, given what stands already. */
export const unconfirmed = (
  first: Pick<Report, "findings">,
  standing: ReadonlySet<string>,
  confirm: Confirm
): ReadonlyArray<Finding> =>
  first.findings.filter((finding) =>
    isRed(finding) && !standing.has(keyOf(finding)) && !confirmsItself(confirm, finding.code)
  )

const quote = ({ code, status, subject }: Finding) => ({
  ...(subject === undefined ? {} : { subject }),
  evidence: { status, code }
})

const notConfirmed = (fault: Finding): Finding =>
  checkerCodes.NOT_CONFIRMED({
    message: `seen once, and not a moment later: ${fault.status} ${fault.code}: ${fault.message}`,
    ...quote(fault)
  })

const confirmationFailed = (fault: Finding, why: string): Finding =>
  checkerCodes.CONFIRMATION_FAILED({
    message: `seen once, and the second look could not look (${why}): ${fault.status} ${fault.code}: ${fault.message}`,
    ...quote(fault)
  })

/** The object of a finding, whatever is said of it; without one, what is said. */
const objectOf = ({ code, subject }: Finding): string => keyOf(subject === undefined ? { code } : { code: "", subject })

/** Why there was no second look, in the place of one. */
export type Second = Report | { readonly impossible: string }

/** What two looks say together. `faults` are those of the first that took the second, as {@link unconfirmed} tells them. */
export const conclude = (
  first: Report,
  second: Second,
  { confirm, faults }: { readonly faults: ReadonlyArray<Finding>; readonly confirm: Confirm }
): Report => {
  const made = "impossible" in second ? undefined : second
  const seen = made?.findings ?? []
  const again = new Set(seen.filter(isRed).map(keyOf))
  const objects = new Set(seen.filter(isRed).map(objectOf))
  const blind = "impossible" in second ? second.impossible : seen.find(({ status }) => status === "UNKNOWN")?.code
  const missing = faults.filter((fault) => !again.has(keyOf(fault)) && !objects.has(objectOf(fault)))
  const missed = new Set(missing.map(keyOf))
  // What stands or was confirmed by the probe itself was seen; a second look takes it back only when it could see it.
  const kept = first.findings.filter((finding) =>
    isRed(finding) && !again.has(keyOf(finding)) && !objects.has(objectOf(finding)) && !missed.has(keyOf(finding)) &&
    (blind !== undefined || confirmsItself(confirm, finding.code))
  )
  const quoted = missing.map((fault) => blind === undefined ? notConfirmed(fault) : confirmationFailed(fault, blind))
  const concluded = fromFindings({
    checker: first.checker,
    // Among more faults than a report carries this one may well be.
    findings: [...seen, ...kept, ...(made !== undefined && made.truncated > 0 ? [] : quoted)],
    summary: made?.message ?? "",
    startedAt: first.startedAt,
    duration: first.duration + (made?.duration ?? 0)
  })
  return { ...concluded, truncated: concluded.truncated + (made?.truncated ?? 0) }
}
