/** From what a pod of one container looks like to how far it came. Pure. */
import type { DateTime } from "effect"
import type { ContainerStatus, Pod } from "../../infra/kube/resources/core.ts"
import type { WorkerStage, WorkerTimes } from "./Workers.ts"

/** Reasons of waiting for an image (kubelet pkg/kubelet/images/types.go). */
const PULLING: ReadonlySet<string> = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "ErrImageNeverPull",
  "InvalidImageName",
  "ImageInspectError",
  "RegistryUnavailable"
])

/**
 * Of these, those that trying again does not change, beside an image that there is not. After others the kubelet does, 10
 * seconds later and then ever later.
 */
const PULL_FAILED: ReadonlySet<string> = new Set(["ErrImageNeverPull", "InvalidImageName"])

/**
 * Whether a pod waits for an image that there is not: no registry could have one of this name, or the one that was asked has
 * answered that it does not. Whoever named the image is to blame then, and neither the node nor the way to the registry. In the
 * words of the kubelet, containerd (`code = NotFound`) and registries (https://distribution.github.io/distribution/spec/api/).
 *
 * @param detail as {@link sight} tells it at stage `ImagePull`.
 */
export const isNoSuchImage = (detail: string): boolean =>
  detail.startsWith("InvalidImageName") || /code = NotFound\b|\b(manifest|name) unknown\b/u.test(detail)

/** Reasons of waiting for what the container is made of. */
const NOT_STARTED: ReadonlySet<string> = new Set([
  "CreateContainerConfigError",
  "CreateContainerError",
  "RunContainerError",
  "CrashLoopBackOff"
])

/** Where a pod is: still on its way, or at its end. */
export type PodSight =
  /** `stage` is where it would be said to have failed if time were up now. */
  | { readonly _tag: "OnItsWay"; readonly stage: WorkerStage; readonly detail: string }
  /** Its container runs; `ready` as its readiness probe says. */
  | { readonly _tag: "Running"; readonly ready: boolean }
  | { readonly _tag: "Ended"; readonly message: string | undefined; readonly exitCode: number; readonly reason: string }
  | { readonly _tag: "Failed"; readonly stage: WorkerStage; readonly detail: string }

const conditionOf = ({ status }: Pod, type: string) => status.conditions.find((condition) => condition.type === type)

const trueSince = (pod: Pod, type: string): DateTime.Utc | undefined => {
  const condition = conditionOf(pod, type)
  return condition?.status === "True" ? condition.lastTransitionTime : undefined
}

/** When the pod reached each stage, as it tells now. */
export const timesOf = (pod: Pod, created: DateTime.Utc): WorkerTimes => {
  const state = pod.status.containerStatuses[0]?.state
  return {
    created: pod.metadata.creationTimestamp ?? created,
    scheduled: trueSince(pod, "PodScheduled"),
    sandbox: trueSince(pod, "PodReadyToStartContainers"),
    started: state?.running?.startedAt ?? state?.terminated?.startedAt,
    finished: state?.terminated?.finishedAt
  }
}

const waiting = (container: ContainerStatus, { status }: Pod): PodSight => {
  const { message, reason = "" } = container.state.waiting ?? {}
  const detail = message === undefined ? reason : `${reason}: ${message}`
  if (PULL_FAILED.has(reason) || (PULLING.has(reason) && isNoSuchImage(detail))) {
    return { _tag: "Failed", stage: "ImagePull", detail }
  }
  if (PULLING.has(reason)) return { _tag: "OnItsWay", stage: "ImagePull", detail }
  if (reason === "CreateContainerConfigError") return { _tag: "OnItsWay", stage: "NotStarted", detail }
  if (NOT_STARTED.has(reason)) return { _tag: "Failed", stage: "NotStarted", detail }
  const sandbox = status.conditions.find(({ type }) => type === "PodReadyToStartContainers")
  return sandbox?.status === "True"
    ? { _tag: "OnItsWay", stage: "NotStarted", detail: "its sandbox is ready and its container has not started" }
    : { _tag: "OnItsWay", stage: "Sandbox", detail: "its sandbox (network, cgroups) was not set up" }
}

/** What the pod's status says. */
export const sight = (pod: Pod): PodSight => {
  const { metadata, status } = pod
  const [container] = status.containerStatuses
  const terminated = container?.state.terminated
  if (terminated !== undefined) {
    return {
      _tag: "Ended",
      message: terminated.message,
      exitCode: terminated.exitCode,
      reason: terminated.reason ?? ""
    }
  }
  if (status.phase === "Failed" || metadata.deletionTimestamp !== undefined) {
    const detail = status.message ?? status.reason ?? "it was deleted while it ran"
    return { _tag: "Failed", stage: "Evicted", detail: `ended by others: ${detail}` }
  }
  if (container?.state.running !== undefined) return { _tag: "Running", ready: container.ready }
  const scheduled = conditionOf(pod, "PodScheduled")
  if (scheduled?.status !== "True") {
    return {
      _tag: "OnItsWay",
      stage: "Unscheduled",
      detail: scheduled?.message ?? "the scheduler has said nothing of it"
    }
  }
  if (container !== undefined) return waiting(container, pod)
  return { _tag: "OnItsWay", stage: "NotTakenUp", detail: "its kubelet has not taken it up" }
}
