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

const IN_NODES = "it works in node agents, which an installed agent has (deploy/)"
const IN_WORKERS = "it works in pods of KubeProber's image; name one that the cluster can pull with --worker-image"

/** Why the check is left out; nothing when it runs. */
export const reasonNotToRun = ({ probe }: Check, options: SelectionOptions): string | undefined => {
  if (probe.placement === "nodes") return IN_NODES
  if (options.named.has(probe.id)) return undefined
  if (!permits(options.profile, probe.writes)) {
    return `it writes (${probe.writes}), which profile ${options.profile} does not permit`
  }
  return probe.placement === "workers" && Option.isNone(options.workerImage)
    ? IN_WORKERS
    : undefined
}

/** A reason, in the words of a count: for one, for several. */
const categories: ReadonlyArray<readonly [(reason: string) => boolean, one: string, several: string]> = [
  [(reason) => reason === IN_WORKERS, "needs --worker-image", "need --worker-image"],
  [
    (reason) => reason === IN_NODES,
    "needs node agents (of an installed `kubeprober agent`)",
    "need node agents (of an installed `kubeprober agent`)"
  ],
  [
    (reason) => reason.startsWith("it writes"),
    "writes more than the profile permits (--profile)",
    "write more than the profile permits (--profile)"
  ],
  [() => true, "for another reason (-o json)", "for other reasons (-o json)"]
]

/** How many were left out for which reason, as {@link reasonNotToRun} gives them: `8 need --worker-image, ...`. */
export const summary = (reasons: ReadonlyArray<string>): string =>
  categories.flatMap(([, one, several], index) => {
    const count = reasons.filter((reason) => categories.findIndex(([fits]) => fits(reason)) === index).length
    return count === 0 ? [] : [`${count} ${count === 1 ? one : several}`]
  }).join(", ")
