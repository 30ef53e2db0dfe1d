/**
 * Pods of KubeProber's own image that do a probe's work inside the cluster, each for one run.
 *
 * A worker pod is restricted (https://kubernetes.io/docs/concepts/security/pod-security-standards/), has no token of the
 * API, ends by itself (`activeDeadlineSeconds`) and is deleted when the run ends. What it found comes back in its
 * termination message, sealed with the run's own token: no network path from the pod to the agent is needed, so that a
 * broken network is a finding and not a silence.
 */
import { Context, Data, type DateTime, type Duration, type Effect } from "effect"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import * as Needs from "../Needs.ts"
import type { Task } from "./Task.ts"

/** What a probe that uses {@link Workers} needs, besides its own needs. */
export const needs: ReadonlyArray<Needs.Need> = [
  ...Needs.verbs(["create", "get", "list", "watch", "delete"], "pods", { namespace: Needs.probeNamespace }),
  // It goes with its owner: who may delete Secrets may delete others'.
  ...Needs.create("secrets", { namespace: Needs.probeNamespace }),
  ...Needs.verbs(["create", "delete"], "configmaps", { namespace: Needs.probeNamespace }),
  ...Needs.list("events", { group: "events.k8s.io", namespace: Needs.probeNamespace })
]

/** The credential that a pod with `apiToken` has: keys `token`, `ca.crt` and `namespace`. */
export const API_CREDENTIAL = "kubernetes-api"

/** Where a pod goes. */
export interface WorkerPlace {
  /** A node by name; the scheduler stays in the path (node affinity on `metadata.name`). Any node when absent. */
  readonly node?: string | undefined
  /** Part of the pod's name, so that people know what it is for: a DNS label of at most 30 characters. */
  readonly name?: string | undefined
  /** Labels besides those of the run. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** From creation to the end, pulling included. */
  readonly within?: Duration.Input | undefined
  /** Gives the pod the credential {@link API_CREDENTIAL}; only for tasks that ask the API themselves. */
  readonly apiToken?: boolean | undefined
}

/** When a pod reached each stage, by the cluster's own clocks; absent where it did not, or where nobody said. */
export interface WorkerTimes {
  readonly created: DateTime.Utc
  readonly scheduled?: DateTime.Utc | undefined
  /** The sandbox (network) is set up: condition `PodReadyToStartContainers`. */
  readonly sandbox?: DateTime.Utc | undefined
  readonly started?: DateTime.Utc | undefined
  readonly finished?: DateTime.Utc | undefined
}

export interface Worked<Output> {
  readonly output: Output
  readonly pod: string
  readonly node: string
  readonly times: WorkerTimes
}

/** A pod that answers until the run ends. It replies to HTTP, and to TCP and UDP echo, on {@link port}. */
export interface Responder {
  readonly pod: string
  readonly node: string
  readonly ip: string
  /** HTTP: `GET /` answers `{"pod": …}` as JSON. */
  readonly port: number
  /** TCP and UDP: what comes in goes out. */
  readonly echoPort: number
  readonly times: WorkerTimes
}

/**
 * At which stage a pod failed. `Unavailable`: no image is known for workers here. `Admission`: the API server refused the
 * pod. `Unscheduled`: no node took it. `NotTakenUp`: its node's kubelet has said nothing of it. `ImagePull`, `Sandbox`
 * (network and cgroups), `NotStarted` (container), `Unready` (it runs, and its kubelet cannot reach it), `Crash`, `Evicted`. `Silent`: it ended, or ran out of time, without a result. `Forged`: the result's seal is not the run's.
 * `Task`: it ran, and the task failed with this message.
 */
export type WorkerStage =
  | "Unavailable"
  | "Admission"
  | "Unscheduled"
  | "NotTakenUp"
  | "ImagePull"
  | "Sandbox"
  | "NotStarted"
  | "Unready"
  | "Crash"
  | "Evicted"
  | "Silent"
  | "Forged"
  | "Task"

/** A pod did not do its work. UNKNOWN unless a probe says that this is what it looks for. */
export class WorkerFault extends Data.TaggedError("WorkerFault")<{
  readonly stage: WorkerStage
  readonly detail: string
  readonly pod?: string | undefined
  readonly node?: string | undefined
  readonly times?: WorkerTimes | undefined
}> {
  override get message(): string {
    const on = this.node === undefined ? "" : ` on node ${this.node}`
    return `${this.pod === undefined ? "a worker pod" : `worker pod ${this.pod}`}${on}: ${this.detail}`
  }
}

export class Workers extends Context.Service<Workers, {
  /** The image, pull policy and so on of worker pods, for probes that make workloads of their own from it. */
  readonly image: Effect.Effect<WorkerImage, WorkerFault>
  /** Runs a task in a new pod and waits for its result. The pod is gone when the run ends, at the latest. */
  readonly run: <Input, Output>(
    task: Task<Input, Output>,
    input: Input,
    place?: WorkerPlace
  ) => Effect.Effect<Worked<Output>, WorkerFault | KubeError>
  /** Starts a pod that answers, and waits until it is Ready. */
  readonly respond: (place?: WorkerPlace) => Effect.Effect<Responder, WorkerFault | KubeError>
}>()("kubeprober/probes/Workers") {}

/** What containers of a probe's own workloads are made of. Fields are those of a container in a pod's spec. */
export interface WorkerImage {
  readonly image: string
  readonly imagePullPolicy: "Always" | "IfNotPresent" | "Never"
  readonly imagePullSecrets: ReadonlyArray<{ readonly name: string }>
  /** Arguments of a container that answers as {@link Responder} does, on its ports. */
  readonly respondArgs: ReadonlyArray<string>
  readonly port: number
  readonly echoPort: number
  /** Restricted: `securityContext` of the pod and of the container. */
  readonly podSecurityContext: Readonly<Record<string, unknown>>
  readonly containerSecurityContext: Readonly<Record<string, unknown>>
}
