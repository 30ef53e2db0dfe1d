/** What the shell is told. */
import { Data, Runtime } from "effect"
import type { CheckResult, ClusterResult } from "../domain/CheckResult.ts"
import * as Status from "../domain/Status.ts"

/** `never` reports and always ends with 0, unless it could not run or look. */
export type FailOn = "error" | "warn" | "unknown" | "info" | "never"

/** Ends the program with a code after everything was said. Not an error to print. */
export class Exit extends Data.TaggedError("Exit")<{ readonly code: 1 | 2 }> {
  override readonly [Runtime.errorExitCode] = this.code
  override readonly [Runtime.errorReported] = false
}

const thresholds: Record<Exclude<FailOn, "never">, Status.Status> = {
  error: "ERROR",
  warn: "WARN",
  unknown: "UNKNOWN",
  info: "INFO"
}

/** That the API server answers is not yet a look into the cluster. */
const HEALTH = "k8s.api.health"

/** Whether nothing was learned of a cluster beyond its API server's answers. */
const isBlind = ({ reports }: ClusterResult): boolean => {
  const looks = reports.some((report) => report.probe !== HEALTH)
    ? reports.filter((report) => report.probe !== HEALTH)
    : reports
  return looks.every((report) => report.status === "UNKNOWN")
}

/** Whether a status is as bad as asked for. */
export const reaches = (status: Status.Status, failOn: FailOn): boolean =>
  failOn !== "never" && Status.isAtLeast(status, thresholds[failOn])

/**
 * 0: nothing at or above the threshold. 1: something is. 2: could not run, which includes a cluster that could not be
 * looked into at all: a pipeline must not take "could not look" for "all is well".
 */
export const ofResult = (result: CheckResult, failOn: FailOn): 0 | 1 | 2 => {
  if (reaches(result.status, failOn)) return 1
  return result.clusters.some(isBlind) ? 2 : 0
}
