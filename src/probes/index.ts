/**
 * `kubeprober/probes`: write probes of your own, and read those that come with KubeProber.
 *
 * A module for `kubeprober check --probes FILE` exports a probe by default, a configured one, or an array of these.
 */
export {
  type DeleteOptions,
  Kube,
  type KubeList,
  type LogOptions,
  type Manifest,
  type ObjectRef,
  type RawResponse,
  type ReflectorEvent,
  type Selection,
  type WatchEvent,
  type WriteOptions
} from "../infra/kube/Kube.ts"
export { type KubeCall, KubeError, type KubeErrorReason, isTransient } from "../infra/kube/KubeError.ts"
export * as KubeResource from "../infra/kube/KubeResource.ts"
export * as Resources from "../infra/kube/resources/index.ts"
export { catalogue } from "./Catalogue.ts"
export { checkerCodes } from "./CheckerCodes.ts"
export * as Codes from "./Codes.ts"
export * as Elapsed from "./Elapsed.ts"
export * as Hysteresis from "./Hysteresis.ts"
export * as Needs from "./Needs.ts"
export * as Outcome from "./Outcome.ts"
export * as Probe from "./Probe.ts"
export * as Retry from "./Retry.ts"
export * as Roles from "./Roles.ts"
export { RunContext } from "./RunContext.ts"
export * as Scenario from "./Scenario.ts"
export { EXPIRES_ANNOTATION, RUN_LABEL, Scratch } from "./Scratch.ts"
export * as ServerTime from "./ServerTime.ts"
export { setting } from "./Setting.ts"
export * as Watch from "./Watch.ts"
export { type NodeAnswer, Nodes } from "./workers/Nodes.ts"
export * as Task from "./workers/Task.ts"
export { type Responder, WorkerFault, Workers } from "./workers/Workers.ts"
