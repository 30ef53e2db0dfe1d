/**
 * Probes to begin with, as data: every probe of the catalogue that asks the cluster and needs no configuration, each at its
 * own interval. `scripts/deploy.ts` writes them.
 */
import { Duration, Schema } from "effect"
import * as ProbeKind from "../src/domain/kinds/Probe.ts"
import { permits } from "../src/domain/Profile.ts"
import { apiVersion } from "../src/infra/kube/KubeResource.ts"
import { catalogue } from "../src/probes/Catalogue.ts"
import type { AnyProbe } from "../src/probes/Probe.ts"
import { onePerInterval } from "./onePerInterval.ts"

const encodeSpec = Schema.encodeSync(ProbeKind.ProbeSpec)

const probesOf = (prefix: string, probes: ReadonlyArray<AnyProbe>) =>
  onePerInterval(probes, { intervalOf: ({ interval }) => interval, checkOf: ({ id }) => ({ name: id, use: id }) }).map((
    { interval, spec }
  ) => ({
    apiVersion: apiVersion(ProbeKind.Probe),
    kind: ProbeKind.Probe.kind,
    metadata: { name: `${prefix}-${Duration.format(interval).replaceAll(" ", "")}` },
    spec: encodeSpec(spec)
  }))

const asked = catalogue.filter(({ asks }) => asks === "cluster")
const isOfNodes = ({ placement }: AnyProbe): boolean => placement === "nodes"
const observing = ({ writes }: AnyProbe): boolean => permits("observe", writes)

/** Manifests by their file below `deploy`, with what is said at the head of it. */
export const starterFiles = {
  "probes/observe.yaml": {
    about: "Probes that store nothing in the cluster.",
    probes: probesOf("observe", asked.filter((probe) => observing(probe) && !isOfNodes(probe)))
  },
  "probes/standard.yaml": {
    about: "Probes that write into the agent's namespace, most of them pods. For agents that run in their cluster.",
    probes: probesOf(
      "standard",
      asked.filter((probe) => permits("standard", probe.writes) && !observing(probe) && !isOfNodes(probe))
    )
  },
  "probes/nodes.yaml": {
    about: "Probes that look at each node from within. For clusters with node agents (../nodes).",
    probes: probesOf("nodes", asked.filter((probe) => permits("standard", probe.writes) && isOfNodes(probe)))
  }
}
