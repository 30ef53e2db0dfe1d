/** Which nodes a run looks at, when each takes a pod. */
import { Effect, Random } from "effect"
import type { Node } from "../../infra/kube/resources/core.ts"

/**
 * Nodes that can run a pod of Linux now. Others are k8s.node.readiness' business: asking them again would only tell the same
 * slower.
 */
export const usable = (nodes: ReadonlyArray<Node>): ReadonlyArray<string> =>
  nodes.filter(({ metadata, status }) =>
    metadata.deletionTimestamp === undefined &&
    (metadata.labels?.["kubernetes.io/os"] ?? "linux") === "linux" &&
    status.conditions.some(({ status, type }) => type === "Ready" && status === "True")
  ).map(({ metadata }) => metadata.name ?? "").filter((name) => name !== "")

/** All names, or as many as `maximum`, others in each run, so that every node has its turn. */
export const sample = (names: ReadonlyArray<string>, maximum: number): Effect.Effect<ReadonlyArray<string>> =>
  names.length <= maximum
    ? Effect.succeed(names)
    : Effect.map(Random.shuffle(names), (shuffled) => Array.from(shuffled).slice(0, maximum))
