/** Which nodes a run looks at, when each takes a pod. */
import type { Effect } from "effect"
import type { Node } from "../../infra/kube/resources/core.ts"
import { RunContext } from "../RunContext.ts"
import { isVirtual } from "./virtualNode.ts"

/**
 * Nodes of Linux that can run a pod now. Others are k8s.node.readiness' business: asking them again would only tell the same
 * slower. A cordoned node is left out as well unless `cordoned` says otherwise: it is being emptied, and a pod of ours would
 * be in the way of that, or be ended by it.
 */
export const usable = (
  nodes: ReadonlyArray<Node>,
  options: { readonly cordoned?: boolean } = {}
): ReadonlyArray<string> =>
  nodes.filter((node) => {
    const { metadata, spec, status } = node
    return metadata.deletionTimestamp === undefined &&
      (metadata.labels?.["kubernetes.io/os"] ?? "linux") === "linux" &&
      (options.cordoned === true || !spec.unschedulable) && !isVirtual(node) &&
      status.conditions.some(({ status, type }) => type === "Ready" && status === "True")
  }).map(({ metadata }) => metadata.name ?? "").filter((name) => name !== "")

/** FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), finished as murmur3 does: an order of names that nobody can foresee. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
}

/** Pure; use {@link sample}. */
export const choose = (
  names: ReadonlyArray<string>,
  maximum: number,
  run: { readonly runId: string; readonly standing?: ReadonlySet<string> | undefined }
): ReadonlyArray<string> => {
  if (names.length <= maximum) return names
  const told = [...run.standing ?? []]
  const stands = new Set(names.filter((name) => told.some((key) => key.endsWith(`/${name}`))))
  const order = new Map(names.map((name) => [name, hash(`${run.runId}/${name}`)]))
  return names.toSorted((a, b) =>
    Number(stands.has(b)) - Number(stands.has(a)) || (order.get(a) ?? 0) - (order.get(b) ?? 0)
  ).slice(0, maximum)
}

/**
 * All names, or as many as `maximum`, others in each run, so that every node has its turn. A second look of the same run is at
 * the same ones, and what a finding stands against is always among them: a fault that is merely not looked at is not gone.
 */
export const sample = (
  names: ReadonlyArray<string>,
  maximum: number
): Effect.Effect<ReadonlyArray<string>, never, RunContext> => RunContext.useSync((run) => choose(names, maximum, run))
