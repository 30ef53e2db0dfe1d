/** From what a prober's pod looks like to whether it has ended, and how. Pure. */
import { type DateTime, Duration } from "effect"
import { quote } from "../../domain/Redaction.ts"
import type { Finding } from "../../domain/Report.ts"
import type { ContainerStatus, Pod } from "../../infra/kube/resources/core.ts"
import * as Elapsed from "../../probes/Elapsed.ts"
import { jobCodes } from "./jobCodes.ts"

/** The pod has ended: well, or with what is wrong. */
export type Ended =
  | { readonly _tag: "Well" }
  | { readonly _tag: "Badly"; readonly finding: Finding; readonly container?: string | undefined }

const badly = (finding: Finding, container?: string): Ended => ({ _tag: "Badly", finding, container })

/** A scheduler's first "no" may be followed by a node that comes up; this long it is waited for. */
export const UNSCHEDULABLE_AFTER = Duration.seconds(20)

/** Reasons of waiting that do not pass by themselves. ErrImagePull is followed by one of these when it stays. */
const STUCK: ReadonlySet<string> = new Set([
  "ImagePullBackOff",
  "ErrImageNeverPull",
  "InvalidImageName",
  "CreateContainerConfigError",
  "CreateContainerError",
  "RunContainerError",
  "PreStartHookError"
])

/** Reasons of a failed pod that was ended by others (kubelet eviction, preemption, a node that goes or is lost). */
const ENDED_BY_OTHERS: ReadonlySet<string> = new Set([
  "Evicted",
  "Preempting",
  "Shutdown",
  "NodeShutdown",
  "NodeLost",
  "Terminated",
  "OutOfcpu",
  "OutOfmemory"
])

const containersOf = ({ status }: Pod): ReadonlyArray<ContainerStatus> => [
  ...status.initContainerStatuses,
  ...status.containerStatuses
]

const subjectOf = ({ metadata }: Pod) => ({
  kind: "Pod",
  name: metadata.name ?? "",
  ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace })
})

const crash = (pod: Pod): Ended => {
  const failed = containersOf(pod).find(({ state }) => (state.terminated?.exitCode ?? 0) !== 0)
  const terminated = failed?.state.terminated
  if (failed === undefined || terminated === undefined) {
    return badly(jobCodes.PROBER_CRASHED({
      message: `the prober's pod failed: ${pod.status.message ?? pod.status.reason ?? "no reason given"}`,
      subject: subjectOf(pod)
    }))
  }
  const { exitCode, message, reason } = terminated
  const why = reason === undefined || reason === "Error" ? "" : ` (${reason})`
  const last = message === undefined || message.trim() === "" ? "" : `: ${quote(message, 300)}`
  return badly(
    jobCodes.PROBER_CRASHED({
      message: `container ${failed.name} ended with exit code ${exitCode}${why}${last}`,
      subject: subjectOf(pod),
      evidence: { container: failed.name, exitCode, ...(reason === undefined ? {} : { reason }) }
    }),
    failed.name
  )
}

/** How the pod ended, as far as it has. */
export const judge = (pod: Pod, now: DateTime.Utc): Ended | undefined => {
  const { metadata, status } = pod
  const subject = subjectOf(pod)
  const lost = status.conditions.find(({ status, type }) => type === "DisruptionTarget" && status === "True")
  if (status.phase === "Succeeded") return { _tag: "Well" }
  if (lost !== undefined || ENDED_BY_OTHERS.has(status.reason ?? "")) {
    return badly(jobCodes.PROBER_EVICTED({
      message: `the prober's pod was ended by others: ${
        status.message ?? lost?.message ?? status.reason ?? lost?.reason ?? "no reason given"
      }`,
      subject
    }))
  }
  if (status.phase === "Failed") return crash(pod)
  if (metadata.deletionTimestamp !== undefined) {
    return badly(jobCodes.PROBER_EVICTED({ message: "the prober's pod was deleted while it ran", subject }))
  }
  const stuck = containersOf(pod).find(({ state }) => STUCK.has(state.waiting?.reason ?? ""))
  if (stuck?.state.waiting !== undefined) {
    const { message, reason } = stuck.state.waiting
    return badly(jobCodes.PROBER_NOT_STARTED({
      message: `container ${stuck.name} does not start, ${reason}: ${message ?? `image ${stuck.image ?? ""}`}`,
      subject,
      evidence: { container: stuck.name, reason: reason ?? "", image: stuck.image ?? "" }
    }))
  }
  const scheduled = status.conditions.find(({ type }) => type === "PodScheduled")
  if (scheduled?.status === "False" && scheduled.reason !== "SchedulingGated") {
    const since = scheduled.lastTransitionTime ?? metadata.creationTimestamp
    const waited = since === undefined ? Duration.zero : Elapsed.between(since, now)
    if (Duration.isGreaterThanOrEqualTo(waited, UNSCHEDULABLE_AFTER)) {
      return badly(jobCodes.PROBER_UNSCHEDULABLE({
        message: `no node takes the prober's pod for ${Elapsed.text(waited)}: ${
          scheduled.message ?? scheduled.reason ?? ""
        }`,
        subject
      }))
    }
  }
  return undefined
}
