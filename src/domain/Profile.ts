/**
 * What a probe writes, and which of that an operator lets it do.
 *
 * `nothing` and `dry-run` store no object; `namespace` writes into the probe namespace only; `cluster` creates
 * cluster-scoped objects; `middleware` writes data into a service of the user's. The last two are opt-in by name.
 */
import { Schema } from "effect"

/** The most a probe ever writes. */
export const WriteLevel = Schema.Literals(["nothing", "dry-run", "namespace", "cluster", "middleware"])
export type WriteLevel = typeof WriteLevel.Type

/** How much an operator permits: `observe` stores nothing, `standard` writes into the probe namespace, `full` permits all. */
export const Profile = Schema.Literals(["observe", "standard", "full"])
export type Profile = typeof Profile.Type

const permitted: Record<Profile, ReadonlySet<WriteLevel>> = {
  observe: new Set(["nothing", "dry-run"]),
  standard: new Set(["nothing", "dry-run", "namespace"]),
  full: new Set(WriteLevel.literals)
}

/** Whether `profile` lets a probe of this write level run without being named. */
export const permits = (profile: Profile, level: WriteLevel): boolean => permitted[profile].has(level)
