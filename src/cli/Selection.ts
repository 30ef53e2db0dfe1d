/** Which checks of a plan run where nothing of ours is installed, and why the others do not. */
import { Option } from "effect"
import { type Profile, permits } from "../domain/Profile.ts"
import type { Check } from "../probes/Probe.ts"

export interface SelectionOptions {
  readonly profile: Profile
  /** Probes asked for by their full id, whatever they write. */
  readonly named: ReadonlySet<string>
  /** For worker pods. */
  readonly workerImage: Option.Option<string>
}

/** Why the check is left out; nothing when it runs. */
export const reasonNotToRun = ({ probe }: Check, options: SelectionOptions): string | undefined => {
  if (probe.placement === "nodes") return "it works in node agents, which an installed agent has (deploy/)"
  if (options.named.has(probe.id)) return undefined
  if (!permits(options.profile, probe.writes)) {
    return `it writes (${probe.writes}), which profile ${options.profile} does not permit`
  }
  return probe.placement === "workers" && Option.isNone(options.workerImage)
    ? "it works in pods of KubeProber's image; name one that the cluster can pull with --worker-image"
    : undefined
}
