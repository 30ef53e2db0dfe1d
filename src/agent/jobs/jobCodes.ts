/**
 * The codes of container probes: what a prober in a pod said, or why it said nothing. A prober that could not be heard is
 * never the target's fault, so each such code is UNKNOWN.
 */
import type { Finding } from "../../domain/Report.ts"
import type { Status } from "../../domain/Status.ts"
import * as Codes from "../../probes/Codes.ts"

export const jobCodes = Codes.make({
  REPORTED_ERROR: Codes.error(
    "The prober reported ERROR.",
    "Read the prober's message; what it means is the prober's."
  ),
  REPORTED_WARN: Codes.warn("The prober reported WARN.", "Read the prober's message; what it means is the prober's."),
  REPORTED_INFO: Codes.info("The prober reported INFO.", "Nothing to do."),
  REPORTED_UNKNOWN: Codes.unknown(
    "The prober reported UNKNOWN: it ran and could not tell.",
    "Read the prober's message; often it lacks a permission or a setting."
  ),
  PROBER_NOT_CREATED: Codes.unknown(
    "The Job of the run, or its pod, was refused.",
    "Mend what the message names: a missing permission or ServiceAccount, a quota, an admission policy or the template."
  ),
  PROBER_NOT_STARTED: Codes.unknown(
    "A container of the prober's pod could not start.",
    "Correct the image, its pull secret, or the ConfigMap or Secret that the template refers to."
  ),
  PROBER_UNSCHEDULABLE: Codes.unknown(
    "No node takes the prober's pod.",
    "Correct the template's node selector, affinity, tolerations or requests, or make room on the nodes."
  ),
  PROBER_SILENT: Codes.unknown(
    "The prober ended well and reported nothing.",
    "Make the prober post its result to KUBEPROBER_STATUS_REPORT_URL and fail when that fails; check that pods reach it."
  ),
  PROBER_CRASHED: Codes.unknown(
    "The prober ended with an error, or was killed for the memory it used.",
    "Read the exit code and the last lines of its log in the message."
  ),
  PROBER_EVICTED: Codes.unknown(
    "The prober's pod was evicted, preempted or deleted before it ended.",
    "See what the message names; it runs again when it is due."
  ),
  PROBER_TIMED_OUT: Codes.unknown(
    "The prober did not end within the probe's timeout.",
    "See where the prober hangs, or raise policy.timeout of the Probe."
  ),
  PROBER_UNOBSERVED: Codes.unknown(
    "The agent could not watch the prober, so how it ended is not known.",
    "Grant the rule in the message to the agent, or see why the API server did not answer."
  )
})

/** What a prober said as a finding; none for PASS. */
export const reported = (status: Status, message: string): ReadonlyArray<Finding> =>
  status === "PASS" ? [] : [jobCodes[`REPORTED_${status}`]({ message })]
