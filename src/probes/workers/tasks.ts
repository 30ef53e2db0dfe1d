/** Every task that worker pods and node agents know. */
import type { Task } from "./Task.ts"
import { diskCommits } from "./tasks/diskCommits.ts"
import { dnsLookups } from "./tasks/dnsLookups.ts"
import { httpGets } from "./tasks/httpGets.ts"
import { nodeResources } from "./tasks/nodeResources.ts"

/** A task whose input and output are not known here. */
export type AnyTask = Task<unknown, unknown>

/** Sorted by id. */
export const tasks: ReadonlyArray<AnyTask> = [diskCommits, dnsLookups, httpGets, nodeResources]
