/**
 * The fleet's clusters and probes: who is in it, under which labels, and what their agents tell.
 */
import { Context, type DateTime, Effect, Layer, Option, type Redacted, Schema } from "effect"
import { ClusterSpec } from "../domain/kinds/Cluster.ts"
import { ProbeSpec } from "../domain/kinds/Probe.ts"
import { AlreadyEnrolled, ClusterNotFound, type ClusterView } from "../domain/rpc/Fleet.ts"
import { Cluster, Probe } from "../infra/kube/resources/kubeprober.ts"
import { Membership } from "../infra/link/Membership.ts"
import { JoinTokens } from "../infra/pki/JoinTokens.ts"
import { ClusterStatuses } from "./ClusterStatuses.ts"
import { Desired, type KnownCluster } from "./Desired.ts"
import { Drift } from "./Drift.ts"
import { FleetState } from "./FleetState.ts"
import { Heartbeats } from "./Heartbeats.ts"
import { History } from "./History.ts"
import { Resources, ResourcesError } from "./Resources.ts"

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
}>()("kubeprober/master/Registry") {
  static readonly layer = Layer.effect(Registry, Effect.suspend(() => make))
}

const encodeProbeSpec = Schema.encodeEffect(ProbeSpec)
const encodeClusterSpec = Schema.encodeEffect(ClusterSpec)

const make = Effect.gen(function*() {
  const desired = yield* Desired
  const drift = yield* Drift
  const heartbeats = yield* Heartbeats
  const history = yield* History
  const membership = yield* Membership
  const resources = yield* Resources
  const state = yield* FleetState
  const statuses = yield* ClusterStatuses
  const tokens = yield* JoinTokens

  const isRevoked = (cluster: string) =>
    membership.find(cluster).pipe(
      Effect.as(false),
      Effect.catchTags({ Revoked: () => Effect.succeed(true), UnknownCluster: () => Effect.succeed(false) })
    )

  const viewOf = Effect.fnUntraced(function*(cluster: KnownCluster): Effect.fn.Return<ClusterView> {
    const row = yield* state.row(cluster.name)
    return {
      name: cluster.name,
      labels: cluster.labels,
      status: Option.match(row, { onNone: () => "UNKNOWN" as const, onSome: ({ status }) => status }),
      state: yield* statuses.of(cluster),
      ...(yield* isRevoked(cluster.name)) ? { revoked: true } : {}
    }
  })

  const find = Effect.fnUntraced(function*(name: string) {
    const cluster = yield* desired.cluster(name)
    return Option.isSome(cluster) ? cluster.value : yield* new ClusterNotFound({ cluster: name })
  })

  /** Waits until what was written is what is followed, so that who wrote it can read it. */
  const writeCluster = Effect.fnUntraced(function*(
    name: string,
    labels: Readonly<Record<string, string>>,
    spec: ClusterSpec
  ) {
    const encoded = yield* encodeClusterSpec(spec).pipe(Effect.mapError(invalid("apply", "Cluster", name)))
    return yield* resources.apply(Cluster, { metadata: { name, labels }, spec: encoded })
  })

  const add = Effect.fn("Registry.add")(function*(cluster: string, labels: Readonly<Record<string, string>>) {
    const member = yield* Effect.option(membership.find(cluster))
    const current = yield* desired.cluster(cluster)
    // A member that no cluster has linked as yet may be given another token: the first may be lost or expired.
    const bound = Option.isNone(current) ? undefined : (yield* statuses.of(current.value)).clusterUid
    if (Option.isSome(member) && bound !== undefined) return yield* new AlreadyEnrolled({ cluster })
    const known = yield* resources.get(Cluster, cluster)
    const before = Option.getOrUndefined(known)
    yield* writeCluster(cluster, { ...before?.metadata.labels, ...labels }, before?.spec ?? {})
    yield* membership.add(cluster)
    // Whoever enrols next may be another cluster.
    yield* statuses.unbind(cluster)
    return yield* tokens.issue(cluster)
  })

  const label = Effect.fn("Registry.label")(function*(
    name: string,
    labels: Readonly<Record<string, string | null>>
  ) {
    const known = yield* resources.get(Cluster, name)
    if (Option.isNone(known)) return yield* new ClusterNotFound({ cluster: name })
    const merged = Object.entries({ ...known.value.metadata.labels, ...labels })
      .filter((entry): entry is [string, string] => entry[1] !== null)
    const { metadata, spec = {} } = yield* writeCluster(name, Object.fromEntries(merged), known.value.spec ?? {})
    const status = Option.match(yield* desired.cluster(name), { onNone: () => ({}), onSome: ({ status }) => status })
    return yield* viewOf({ name, labels: metadata.labels ?? {}, spec, status })
  })

  const revoke = Effect.fn("Registry.revoke")(function*(cluster: string) {
    yield* find(cluster)
    if (!(yield* membership.revoke(cluster))) return yield* new ClusterNotFound({ cluster })
  })

  const remove = Effect.fn("Registry.remove")(function*(cluster: string) {
    const expelled = yield* membership.remove(cluster)
    const removed = yield* resources.remove(Cluster, cluster)
    if (!expelled && !removed) return yield* new ClusterNotFound({ cluster })
    yield* state.forget(cluster)
    yield* drift.forget(cluster)
    yield* heartbeats.forget(cluster)
    yield* Effect.catch(history.forget(cluster), (error) => Effect.logWarning(error.message))
  })

  const applyProbe = Effect.fn("Registry.applyProbe")(function*(
    name: string,
    labels: Readonly<Record<string, string>>,
    spec: ProbeSpec
  ): Effect.fn.Return<RegisteredProbe, ResourcesError> {
    const encoded = yield* encodeProbeSpec(spec).pipe(Effect.mapError(invalid("apply", "Probe", name)))
    const { metadata, spec: stored } = yield* resources.apply(Probe, { metadata: { name, labels }, spec: encoded })
    return { name, labels: metadata.labels ?? {}, generation: metadata.generation ?? 0, spec: stored ?? spec }
  })

  return Registry.of({
    clusters: Effect.flatMap(desired.clusters, (clusters) => Effect.forEach(clusters, viewOf)),
    cluster: (name) => Effect.flatMap(find(name), viewOf),
    registered: desired.cluster,
    probes: desired.probes,
    add,
    label,
    revoke,
    remove,
    applyProbe,
    deleteProbe: Effect.fn("Registry.deleteProbe")((name) => resources.remove(Probe, name))
  })
})

const invalid = (operation: string, kind: string, name: string) => ({ message }: Schema.SchemaError): ResourcesError =>
  new ResourcesError({ operation, kind, name, reason: "Invalid", detail: message })
