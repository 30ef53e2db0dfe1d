/** What the agent and the node agents agree on. */
import { Schema } from "effect"

export { NODE_AGENT_NAMESPACE } from "../../probes/workers/Nodes.ts"

/** Labels of the DaemonSet's pods. */
export const NODE_AGENT_SELECTOR = "app.kubernetes.io/name=kubeprober,app.kubernetes.io/component=node"

/** On the node's own network, so that a node whose pods have none can still be asked. Not assigned by IANA. */
export const NODE_AGENT_PORT = 10_450

/** By which name the key is known in a handshake. */
export const PSK_IDENTITY = "kubeprober-node"

/** The Secret that holds the key, in the agent's namespace and in that of the node agents, and where both mount it. */
export const NODE_KEY_SECRET = "kubeprober-node-key"
export const NODE_KEY_FIELD = "key"
export const NODE_KEY_FOLDER = "/etc/kubeprober/node-key"

/** `POST /v1/tasks/<id>`: the input as body; the answer. */
export const taskPath = (id: string): string => `/v1/tasks/${id}`

/** The most bytes of an input and of an answer. */
export const MAX_INPUT = 64 * 1024
export const MAX_ANSWER = 256 * 1024

export const TaskAnswer = Schema.fromJsonString(Schema.Union([
  Schema.Struct({ ok: Schema.Literal(true), output: Schema.Json }),
  Schema.Struct({ ok: Schema.Literal(false), error: Schema.String })
]))
