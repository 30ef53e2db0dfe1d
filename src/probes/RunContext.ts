/** What a probe may know of the run it is part of. */
import { Context, type DateTime } from "effect"
import type { Finding } from "../domain/Report.ts"
import type { Need } from "./Needs.ts"

/** A probe that is run together with others, as far as those may know it. */
export interface Planned {
  readonly id: string
  readonly needs: ReadonlyArray<Need>
}

export class RunContext extends Context.Service<RunContext, {
  /** Unique, lower-case, safe in object names and labels. */
  readonly runId: string
  /** Where probes of write level `namespace` create their objects. */
  readonly probeNamespace: string
  /** When whatever this run creates may be swept by others, should the run die. */
  readonly expiresAt: DateTime.Utc
  /** How many pods this run and all others in the cluster may have at once; nothing when nobody counts them. */
  readonly podsAtOnce?: number
  /** The probes of the plan this run is part of; nothing when it runs alone. */
  readonly plan?: ReadonlyArray<Planned>
  /** What this checker said last and stands, as `Report.keyOf` names it; see `Hysteresis`. Nothing when it is not known. */
  readonly standing?: ReadonlySet<string>
  /** What runs that died have left behind and the sweeper cannot remove. */
  readonly leftovers?: ReadonlyArray<Finding>
}>()("kubeprober/probes/RunContext") {}
