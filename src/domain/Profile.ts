/**
 * What a probe writes, and which of that an operator lets it do.
 *
 * `nothing` and `dry-run` store no object; `namespace` writes into the probe namespace only; `cluster` creates
 * cluster-scoped objects; `middleware` writes data into a service of the user's. The last two are opt-in by name: of who
 * runs `kubeprober check --probe ID`, or of who starts the agent with `--allow ID`. That a Probe names a check is no such
 * opt-in, because Probes may come from a master whose people have no say over the cluster or its services.
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

/** Whether a probe may run: by the profile, or because it is named. */
export const mayRun = (
  probe: { readonly id: string; readonly writes: WriteLevel },
  by: { readonly profile: Profile; readonly named: ReadonlySet<string> }
): boolean => permits(by.profile, probe.writes) || by.named.has(probe.id)
