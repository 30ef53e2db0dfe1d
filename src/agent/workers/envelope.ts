/** How a worker pod is told what to do: environment variables, of which only the token is secret. */
import { Schema } from "effect"

/** The task and its input, as JSON. Nothing in it is secret: it is part of the pod's spec. */
export const TASK_ENV = "KUBEPROBER_TASK"
/** From the run's Secret. */
export const TOKEN_ENV = "KUBEPROBER_RUN_TOKEN"
/** The pod's own name, by the downward API. */
export const POD_ENV = "KUBEPROBER_POD"
/** The node's name, by the downward API. */
export const NODE_ENV = "KUBEPROBER_NODE"

/** Where the container writes its last words; Kubernetes' default path. */
export const TERMINATION_LOG = "/dev/termination-log"

export const Envelope = Schema.fromJsonString(Schema.Struct({ task: Schema.String, input: Schema.Json }))
