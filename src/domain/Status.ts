/**
 * The verdict of a checker, and how verdicts combine.
 *
 * The five values and their order are the original's: the worst wins when reports merge
 * (PASS < INFO < UNKNOWN < WARN < ERROR).
 */
import { Order, Schema } from "effect"

/** What a checker, a probe or a cluster is said to be, mildest first. */
export const Status = Schema.Literals(["PASS", "INFO", "UNKNOWN", "WARN", "ERROR"])
export type Status = typeof Status.Type

const severity: Record<Status, number> = { PASS: 0, INFO: 1, UNKNOWN: 2, WARN: 3, ERROR: 4 }

/** Mildest first. */
export const order: Order.Order<Status> = Order.mapInput(Order.Number, (status) => severity[status])

/** The worse of the two. PASS is the identity, so statuses form a bounded join-semilattice. */
export const worse = (a: Status, b: Status): Status => severity[a] >= severity[b] ? a : b

/** The worst of any number; PASS of none, because nothing was found wrong. */
export const worst = (statuses: Iterable<Status>): Status => {
  let result: Status = "PASS"
  for (const status of statuses) result = worse(result, status)
  return result
}

/** Whether `status` is at or above `threshold`, as `--fail-on` asks. */
export const isAtLeast = (status: Status, threshold: Status): boolean => severity[status] >= severity[threshold]
