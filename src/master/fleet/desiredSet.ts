/** Which Probes a cluster is to run, and the hash by which master and agent tell whether they mean the same. */
import { createHash } from "node:crypto"
import { attaches } from "../../domain/ClusterSelector.ts"
import { type ContentHash, type DesiredSet, MAX_PROBES, canonical } from "../../domain/DesiredSet.ts"
import type { RegisteredCluster, RegisteredProbe } from "../Registry.ts"

/** Where Probes are in a managed cluster unless its Cluster says otherwise; the original's default. */
export const PROBE_NAMESPACE = "kubeprober"

/** A desired set with its name. */
export interface Desired {
  readonly hash: ContentHash
  readonly set: DesiredSet
}

/** A number of 0 to 99 that is always the same for a Probe and a cluster, and spread evenly over clusters. */
const bucketOf = (probe: string, cluster: string): number =>
  createHash("sha256").update(`${probe}/${cluster}`).digest().readUInt32BE(0) % 100

/** Whether a cluster has its turn in the Probe's rollout. */
const isReached = ({ name, spec }: RegisteredProbe, cluster: string): boolean =>
  bucketOf(name, cluster) < (spec.rollout?.percent ?? 100)

/** The namespace of Probes in this cluster. */
export const probeNamespaceOf = ({ spec }: RegisteredCluster): string => {
  const given = spec.clusterConfig?.probeNamespaces ?? ""
  return given === "" ? PROBE_NAMESPACE : given
}

/** What the cluster is to run. Beyond {@link MAX_PROBES} the last by name are left out. */
export const desiredSetOf = (cluster: RegisteredCluster, probes: ReadonlyArray<RegisteredProbe>): Desired => {
  const namespace = probeNamespaceOf(cluster)
  const set: DesiredSet = {
    probes: probes
      .filter((probe) =>
        attaches({ name: probe.name, clusterSelector: probe.spec.clusterSelector }, cluster.labels) &&
        isReached(probe, cluster.name)
      )
      .toSorted((a, b) => a.name < b.name ? -1 : 1)
      .slice(0, MAX_PROBES)
      .map(({ name, spec }) => ({ namespace, name, spec })),
    extraInfo: Object.fromEntries((cluster.spec.extraInfo ?? []).map(({ name, value = "" }) => [name, value]))
  }
  return { hash: createHash("sha256").update(canonical(set)).digest("hex"), set }
}
