/**
 * Every node, seen from itself: tasks run by the node agents, a DaemonSet without a shell and without privileges that
 * reads `/proc`, `/sys` and a few files of its node.
 *
 * A node whose agent is missing or does not answer is in the result, with the reason: silence is never taken for health.
 * Virtual nodes (`virtualNode.ts`) have no machine to look at and no agent, and are left out.
 */
import { Context, type Effect } from "effect"
import type { Finding } from "../../domain/Report.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import type { Node } from "../../infra/kube/resources/core.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Needs from "../Needs.ts"
import * as ServerTime from "../ServerTime.ts"
import type { Task } from "./Task.ts"

/** Where the node agents are. They read files of their nodes, which the Pod Security Standard of the probe namespace forbids. */
export const NODE_AGENT_NAMESPACE = "kubeprober-nodes"

/** What a probe that uses {@link Nodes} needs. */
export const needs: ReadonlyArray<Needs.Need> = [
  ...Needs.list("nodes"),
  ...Needs.list("pods", { namespace: NODE_AGENT_NAMESPACE }),
  ...ServerTime.needs
]

/** What one node said. */
export type NodeAnswer<Output> =
  | { readonly _tag: "Answered"; readonly node: string; readonly output: Output }
  /**
   * `missing`: no agent runs there. `unreachable`: it does not answer. `failed`: it answered that the task failed. `unasked`:
   * the probe's time was over before its turn came. `joining`: one of the first two, of a node so young that its agent may
   * still be starting.
   */
  | {
    readonly _tag: "Silent"
    readonly node: string
    readonly why: "missing" | "unreachable" | "failed" | "unasked" | "joining"
    readonly detail: string
  }

export class Nodes extends Context.Service<Nodes, {
  /**
   * Runs the task on every node, or on those named; one answer a node. Ends before the probe's time does, with what has
   * been answered by then. `all`: the Nodes of the cluster, where the probe has just read them; read when absent.
   */
  readonly run: <Input, Output>(
    task: Task<Input, Output>,
    input: Input,
    options?: {
      readonly nodes?: ReadonlyArray<string> | undefined
      readonly all?: ReadonlyArray<Node> | undefined
    }
  ) => Effect.Effect<ReadonlyArray<NodeAnswer<Output>>, KubeError>
}>()("kubeprober/probes/Nodes") {}

/**
 * What is to be said of nodes that did not answer: each is UNKNOWN by name, and those that are only joining
 * are mentioned. When no node
 * has an agent, none is installed, and that is said once.
 */
export const silenceOf = (answers: ReadonlyArray<NodeAnswer<unknown>>): ReadonlyArray<Finding> => {
  const silent = answers.flatMap((answer) => answer._tag === "Silent" ? [answer] : [])
  if (silent.length > 1 && silent.length === answers.length && silent.every(({ why }) => why === "missing")) {
    return [checkerCodes.NODE_SILENT({
      message: `none of the ${silent.length} nodes has a node agent; install the DaemonSet kubeprober-node`,
      evidence: { nodes: silent.length, why: "missing" }
    })]
  }
  return silent.map(({ detail, node, why }) =>
    (why === "joining" ? checkerCodes.NODE_AGENT_STARTING : checkerCodes.NODE_SILENT)({
      message: detail,
      subject: { kind: "Node", name: node },
      evidence: { why }
    })
  )
}
