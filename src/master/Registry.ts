/**
 * The fleet's clusters and probes: who is in it, under which labels, and what their agents tell.
 */
import { Context, type DateTime, type Effect, type Option, type Redacted } from "effect"
import type { ClusterSpec } from "../domain/kinds/Cluster.ts"
import type { ProbeSpec } from "../domain/kinds/Probe.ts"
import type { AlreadyEnrolled, ClusterNotFound, ClusterView } from "../domain/rpc/Fleet.ts"
import type { ResourcesError } from "./Resources.ts"

/** A cluster as desired: what the Distributor selects by. */
export interface RegisteredCluster {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly spec: ClusterSpec
}

/** A Probe as desired. */
export interface RegisteredProbe {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly generation: number
  readonly spec: ProbeSpec
}

export class Registry extends Context.Service<Registry, {
  /** By name. Read from memory, which follows the resources. */
  readonly clusters: Effect.Effect<ReadonlyArray<ClusterView>>
  readonly cluster: (name: string) => Effect.Effect<ClusterView, ClusterNotFound>
  readonly registered: (name: string) => Effect.Effect<Option.Option<RegisteredCluster>>
  /** By name. */
  readonly probes: Effect.Effect<ReadonlyArray<RegisteredProbe>>
  /** Makes the Cluster when it is not there, and a join token for it. */
  readonly add: (
    cluster: string,
    labels: Readonly<Record<string, string>>
  ) => Effect.Effect<
    { readonly token: Redacted.Redacted<string>; readonly expiresAt: DateTime.Utc },
    AlreadyEnrolled | ResourcesError
  >
  /** Sets (a text) and removes (null) labels. */
  readonly label: (
    cluster: string,
    labels: Readonly<Record<string, string | null>>
  ) => Effect.Effect<ClusterView, ClusterNotFound | ResourcesError>
  readonly revoke: (cluster: string) => Effect.Effect<void, ClusterNotFound | ResourcesError>
  /** Revokes, and forgets the cluster and all that is known of it. */
  readonly remove: (cluster: string) => Effect.Effect<void, ClusterNotFound | ResourcesError>
  readonly applyProbe: (
    name: string,
    labels: Readonly<Record<string, string>>,
    spec: ProbeSpec
  ) => Effect.Effect<RegisteredProbe, ResourcesError>
  /** False when there was none. */
  readonly deleteProbe: (name: string) => Effect.Effect<boolean, ResourcesError>
}>()("kubeprober/master/Registry") {}
