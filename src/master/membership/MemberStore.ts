/**
 * Where members outlive the master: a table of SQLite, or one Lease a cluster in the managing one.
 *
 * Not in the Cluster's status: that belongs to the Registry, who replaces it whole, and whoever may write a status could
 * let a revoked cluster back in. A Lease says what it is for (which master holds the link), numbers the links in
 * `leaseTransitions`, and goes with its Cluster, whose property it is.
 */
import { Context, Data, Effect, Layer, Option, Schedule, Schema, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { GROUP, VERSION } from "../../domain/kinds/Kind.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, isTransient } from "../../infra/kube/KubeError.ts"
import { Lease } from "../../infra/kube/resources/coordination.ts"
import type { Member } from "../../infra/link/Membership.ts"
import { type MigrationFailed, migrate } from "../../infra/sql/Migrations.ts"

/** A member as it is kept. */
export interface StoredMember extends Member {
  /** Uid of its Cluster resource; absent until that was seen. */
  readonly resource: string | undefined
}

/** What is kept of a cluster now, and the number of the change that made it so. */
export interface Stored {
  readonly member: StoredMember
  readonly version: number
}

export type StoreEvent =
  | { readonly _tag: "Synced"; readonly members: ReadonlyArray<Stored> }
  | { readonly _tag: "Changed" | "Removed"; readonly stored: Stored }

/** The store could not be read or written. */
export class MemberStoreError extends Data.TaggedError("MemberStoreError")<{
  readonly cluster?: string | undefined
  readonly detail: string
}> {
  override get message(): string {
    const what = this.cluster === undefined ? "the list of members" : `the membership of cluster ${this.cluster}`
    return `${what} could not be read or written: ${this.detail}`
  }
}

export class MemberStore extends Context.Service<MemberStore, {
  readonly find: (cluster: string) => Effect.Effect<Option.Option<Stored>, MemberStoreError>
  /** In one step: what is kept from now on, none to keep nothing. The same object again writes nothing. */
  readonly modify: (
    cluster: string,
    change: (known: StoredMember | undefined) => StoredMember | undefined
  ) => Effect.Effect<Option.Option<Stored>, MemberStoreError>
  /** All members, then the changes of other masters (and our own, again). */
  readonly follow: Stream.Stream<StoreEvent, MemberStoreError>
}>()("kubeprober/master/MemberStore") {
  static readonly layerSqlite: Layer.Layer<MemberStore, MigrationFailed, SqlClient.SqlClient> = Layer.effect(
    MemberStore,
    Effect.suspend(() => makeSqlite)
  )

  /** Needs get, list, watch, create, patch and delete on Leases of `namespace`, where the Clusters are. */
  static readonly layerLeases = (options: { readonly namespace: string }): Layer.Layer<MemberStore, never, Kube> =>
    Layer.effect(MemberStore, makeLeases(options))
}

const migrations = {
  "1_members": [
    `CREATE TABLE members (
      cluster TEXT PRIMARY KEY,
      uid TEXT NOT NULL,
      revoked INTEGER NOT NULL,
      epoch INTEGER NOT NULL,
      resource TEXT,
      version INTEGER NOT NULL
    ) WITHOUT ROWID`
  ]
}

const Rows = Schema.Array(Schema.Struct({
  cluster: Schema.String,
  uid: Schema.String,
  revoked: Schema.Literals([0, 1]),
  epoch: Schema.Int,
  resource: Schema.NullOr(Schema.String),
  version: Schema.Int
}))

const makeSqlite = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* migrate("members", migrations)

  const toStored = ({ cluster, epoch, resource, revoked, uid, version }: (typeof Rows.Type)[number]): Stored => ({
    member: { cluster, uid, revoked: revoked === 1, epoch, resource: resource ?? undefined },
    version
  })
  const failed = (cluster?: string) => ({ message }: { readonly message: string }) =>
    new MemberStoreError({ cluster, detail: message })
  const read = (cluster: string) =>
    sql`SELECT * FROM members WHERE cluster = ${cluster}`.pipe(
      Effect.flatMap(Schema.decodeUnknownEffect(Rows)),
      Effect.map(([row]) => row === undefined ? Option.none<Stored>() : Option.some(toStored(row)))
    )

  return MemberStore.of({
    find: (cluster) => Effect.mapError(read(cluster), failed(cluster)),
    modify: Effect.fn("MemberStore.modify")(function*(cluster, change) {
      return yield* sql.withTransaction(Effect.gen(function*() {
        const known = yield* read(cluster)
        const member = Option.getOrUndefined(Option.map(known, ({ member }) => member))
        const next = change(member)
        if (next === member) return known
        if (next === undefined) {
          yield* sql`DELETE FROM members WHERE cluster = ${cluster}`
          return Option.none()
        }
        const version = Option.match(known, { onNone: () => 1, onSome: ({ version }) => version + 1 })
        yield* sql`INSERT OR REPLACE INTO members ${
          sql.insert({ ...next, revoked: next.revoked ? 1 : 0, resource: next.resource ?? null, version })
        }`
        return Option.some({ member: next, version })
      })).pipe(Effect.mapError(failed(cluster)))
    }),
    follow: Stream.fromEffect(
      sql`SELECT * FROM members`.pipe(
        Effect.flatMap(Schema.decodeUnknownEffect(Rows)),
        Effect.map((rows): StoreEvent => ({ _tag: "Synced", members: rows.map(toStored) })),
        Effect.mapError(failed())
      )
      // The file has one owner: nobody else changes it.
    ).pipe(Stream.concat(Stream.never))
  })
})

/** Names the cluster; also selects the Leases that are members. */
const MEMBER = "kubeprober.io/member"
const UID = "kubeprober.io/uid"
const REVOKED = "kubeprober.io/revoked"
const RESOURCE = "kubeprober.io/cluster-uid"

/** Masters that number links of one cluster at once lose to each other; each round one wins. */
const CONFLICTS = 8

const makeLeases = Effect.fnUntraced(function*({ namespace }: { readonly namespace: string }) {
  const kube = yield* Kube
  const failed = (cluster?: string) => ({ message }: KubeError) => new MemberStoreError({ cluster, detail: message })
  const refOf = (cluster: string) => ({ name: `kubeprober-member-${cluster}`, namespace })

  const toStored = ({ metadata: { annotations = {}, labels = {}, resourceVersion }, spec }: Lease): Stored => {
    const uid = annotations[UID] ?? ""
    return {
      member: {
        cluster: labels[MEMBER] ?? "",
        uid,
        // Somebody has edited it: better out than in.
        revoked: annotations[REVOKED] !== "false" || uid === "",
        epoch: spec.leaseTransitions ?? 0,
        resource: annotations[RESOURCE]
      },
      // Numbers that grow, since Kubernetes 1.35 by contract (KEP-5504) and in every release before it.
      version: Number(resourceVersion ?? 0)
    }
  }

  const partsOf = ({ cluster, epoch, resource, revoked, uid }: StoredMember) => ({
    metadata: {
      ...refOf(cluster),
      labels: { [MEMBER]: cluster, "app.kubernetes.io/managed-by": "kubeprober" },
      annotations: {
        [UID]: uid,
        [REVOKED]: String(revoked),
        ...(resource === undefined ? {} : { [RESOURCE]: resource })
      },
      ownerReferences: resource === undefined ? [] : [
        { apiVersion: `${GROUP}/${VERSION}`, kind: "Cluster", name: cluster, uid: resource }
      ]
    },
    spec: { leaseTransitions: epoch }
  })

  const read = (cluster: string) =>
    kube.get(Lease, refOf(cluster)).pipe(
      Effect.asSome,
      Effect.catchIf(
        ({ reason }) => reason._tag === "NotFound" && reason.what === "object",
        () => Effect.succeedNone
      )
    )

  /** One try; a Conflict when somebody else was faster. */
  const attempt = Effect.fnUntraced(function*(
    cluster: string,
    change: (known: StoredMember | undefined) => StoredMember | undefined
  ): Effect.fn.Return<Option.Option<Stored>, KubeError> {
    const lease = yield* read(cluster)
    const known = Option.map(lease, toStored)
    const member = Option.getOrUndefined(Option.map(known, ({ member }) => member))
    const next = change(member)
    if (next === member) return known
    if (Option.isNone(lease)) {
      if (next === undefined) return Option.none()
      return Option.some(toStored(yield* kube.create(Lease, partsOf(next))))
    }
    const { resourceVersion, uid } = lease.value.metadata
    if (next === undefined) {
      yield* Effect.catchIf(
        kube.delete(Lease, refOf(cluster), { uid }),
        ({ reason }) => reason._tag === "NotFound",
        () => Effect.void
      )
      return Option.none()
    }
    const { metadata, spec } = partsOf(next)
    const patch = {
      // With the version that was read, the server refuses what somebody else has changed since.
      metadata: { ...metadata, resourceVersion, annotations: { [RESOURCE]: null, ...metadata.annotations } },
      spec
    }
    return Option.some(toStored(yield* kube.patch(Lease, refOf(cluster), patch)))
  })

  const retry = {
    schedule: Schedule.jittered(Schedule.exponential("50 millis")),
    times: CONFLICTS,
    while: (error: KubeError) =>
      error.reason._tag === "Conflict" || error.reason._tag === "NotFound" || isTransient(error)
  }

  return MemberStore.of({
    find: (cluster) => Effect.mapBoth(read(cluster), { onFailure: failed(cluster), onSuccess: Option.map(toStored) }),
    modify: Effect.fn("MemberStore.modify")((cluster, change) =>
      Effect.suspend(() => attempt(cluster, change)).pipe(Effect.retry(retry), Effect.mapError(failed(cluster)))
    ),
    follow: kube.reflect(Lease, { namespace, labelSelector: MEMBER }).pipe(
      Stream.map((event): StoreEvent =>
        event._tag === "Synced"
          ? { _tag: "Synced", members: event.items.map(toStored) }
          : { _tag: event._tag === "Deleted" ? "Removed" : "Changed", stored: toStored(event.object) }
      ),
      Stream.mapError(failed())
    )
  })
})
