/** Every task that worker pods and node agents know. */
import type { Task } from "./Task.ts"
import { apiReady } from "./tasks/apiReady.ts"
import { diskCommits } from "./tasks/diskCommits.ts"
import { dnsLookups } from "./tasks/dnsLookups.ts"
import { httpGets } from "./tasks/httpGets.ts"
import { netPairs } from "./tasks/netPairs.ts"
import { nodeBaseline } from "./tasks/nodeBaseline.ts"
import { nodeKernel } from "./tasks/nodeKernel.ts"
import { nodeResources } from "./tasks/nodeResources.ts"
import { nodeRuntime } from "./tasks/nodeRuntime.ts"

/** A task whose input and output are not known here. */
export type AnyTask = Task<unknown, unknown>

/** Sorted by id. */
export const tasks: ReadonlyArray<AnyTask> = [
  apiReady,
  diskCommits,
  dnsLookups,
  httpGets,
  netPairs,
  nodeBaseline,
  nodeKernel,
  nodeResources,
  nodeRuntime
]
