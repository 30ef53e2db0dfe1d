/** What a probe returns: what it noticed, and one sentence for the case that all is well. */
import type { Finding } from "../domain/Report.ts"

export interface Outcome {
  /** What was proven, with numbers: `3 of 3 nodes are Ready`. Shown when no finding is worse than PASS. */
  readonly summary: string
  readonly findings: ReadonlyArray<Finding>
}

export const make = (summary: string, findings: Iterable<Finding> = []): Outcome => ({
  summary,
  findings: Array.from(findings)
})
