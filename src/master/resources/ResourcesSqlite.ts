/**
 * Resources in an SQLite file, for a master without a Kubernetes API of its own.
 *
 * As a Kubernetes API does with the definitions in `crds/`: what a schema does not know is dropped, what it refuses is
 * `Invalid`, the generation counts changes of the spec, and one number counts all changes. There is one writer, so what
 * is applied replaces what was.
 */
import { DateTime, Effect, Equal, Layer, Option, PubSub, Schema, Semaphore, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { ClusterSpec, withoutCredentials } from "../../domain/kinds/Cluster.ts"
import type { ReflectorEvent } from "../../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../../infra/kube/KubeResource.ts"
import { type MigrationFailed, migrate } from "../../infra/sql/Migrations.ts"
import { type ResourceManifest, Resources, ResourcesError } from "../Resources.ts"
import { manifestFault } from "./manifestFault.ts"

const migrations = {
  "1_resources": [
    `CREATE TABLE resources (
      kind TEXT NOT NULL,
      name TEXT NOT NULL,
      uid TEXT NOT NULL,
      version INTEGER NOT NULL,
      generation INTEGER NOT NULL,
      created TEXT NOT NULL,
      labels TEXT NOT NULL,
      annotations TEXT NOT NULL,
      spec TEXT,
      status TEXT,
      PRIMARY KEY (kind, name)
    ) WITHOUT ROWID`,
    // Of all changes ever, deletions included: the versions of rows alone would go back when the newest one goes.
    "CREATE TABLE resources_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)",
    "INSERT INTO resources_version VALUES (1, 0)"
  ]
}

const JsonText = Schema.fromJsonString(Schema.Json)
const StringMapText = Schema.fromJsonString(Schema.Record(Schema.String, Schema.String))

const Row = Schema.Struct({
  kind: Schema.String,
  name: Schema.String,
  uid: Schema.String,
  version: Schema.Int,
  generation: Schema.Int,
  created: Schema.String,
  labels: StringMapText,
  annotations: StringMapText,
  spec: Schema.NullOr(JsonText),
  status: Schema.NullOr(JsonText)
})
type Row = typeof Row.Type

const Rows = Schema.Array(Row)

/** A change after its commit. Versions have no gaps: one who misses a number has missed a change. */
interface Change {
  readonly version: number
  readonly type: "Added" | "Modified" | "Deleted"
  readonly row: Row
}

/** Changes a slow reader may lag behind before it reads everything again. */
const LAG = 1024

/** Requires the file's only `SqlClient`. Give a folder of its own to each master. */
export const layer = (
  options: { readonly namespace: string }
): Layer.Layer<Resources, MigrationFailed, SqlClient.SqlClient> => Layer.effect(Resources, make(options))

const make = Effect.fnUntraced(function*({ namespace }: { readonly namespace: string }) {
  const sql = yield* SqlClient.SqlClient
  yield* migrate("resources", migrations)
  const changes = yield* Effect.acquireRelease(PubSub.sliding<Change>(LAG), PubSub.shutdown)
  const writing = yield* Semaphore.make(1)

  const unavailable =
    (operation: string, kind: string, name?: string) => (error: SqlError.SqlError | Schema.SchemaError) =>
      new ResourcesError({ operation, kind, name, reason: "Unavailable", detail: error.message })

  const find = (kind: string, name: string) =>
    sql`SELECT * FROM resources WHERE kind = ${kind} AND name = ${name}`.pipe(
      Effect.flatMap(Schema.decodeUnknownEffect(Rows)),
      Effect.map((rows) => Option.fromUndefinedOr(rows[0]))
    )

  const toObject = <A extends KubeObject>(resource: KubeResource<A>, row: Row) =>
    Schema.decodeUnknownEffect(resource.object)({
      metadata: {
        name: row.name,
        namespace,
        uid: row.uid,
        resourceVersion: String(row.version),
        generation: row.generation,
        creationTimestamp: row.created,
        labels: row.labels,
        annotations: row.annotations
      },
      ...(row.spec === null ? {} : { spec: row.spec }),
      ...(row.status === null ? {} : { status: row.status })
    })

  /**
   * Changes one at a time and tells of them in that order. Not to be interrupted between commit and telling; it is short.
   */
  const change = <E>(
    decide: Effect.Effect<Option.Option<Omit<Change, "version">>, E>
  ): Effect.Effect<Option.Option<Change>, E | SqlError.SqlError> =>
    sql.withTransaction(Effect.gen(function*() {
      const decided = yield* decide
      if (Option.isNone(decided)) return Option.none<Change>()
      const { row, type } = decided.value
      const [counted] = yield* sql`UPDATE resources_version SET version = version + 1 RETURNING version`
      const version = Number(counted?.["version"])
      const written: Row = { ...row, version }
      yield* type === "Deleted"
        ? sql`DELETE FROM resources WHERE kind = ${row.kind} AND name = ${row.name}`
        : sql`INSERT OR REPLACE INTO resources ${
          sql.insert({
            ...written,
            labels: JSON.stringify(row.labels),
            annotations: JSON.stringify(row.annotations),
            spec: row.spec === null ? null : JSON.stringify(row.spec),
            status: row.status === null ? null : JSON.stringify(row.status)
          })
        }`
      return Option.some<Change>({ type, version, row: written })
    })).pipe(
      Effect.tap((changed) => Option.isSome(changed) ? PubSub.publish(changes, changed.value) : Effect.void),
      writing.withPermit,
      Effect.uninterruptible
    )

  /** As the schema reads and writes it: without what it does not know, and without what it refuses. */
  const normalized = <A extends KubeObject>(
    operation: string,
    resource: KubeResource<A>,
    name: string,
    parts: { readonly metadata: unknown; readonly spec?: unknown; readonly status?: unknown }
  ) =>
    Schema.decodeUnknownEffect(resource.object)(parts).pipe(
      Effect.flatMap(Schema.encodeEffect(resource.object)),
      Effect.flatMap(Schema.decodeUnknownEffect(Parts)),
      Effect.mapError(({ message }) =>
        new ResourcesError({ operation, kind: resource.kind, name, reason: "Invalid", detail: message })
      )
    )

  const get = Effect.fn("Resources.get")(function*<A extends KubeObject>(resource: KubeResource<A>, name: string) {
    return yield* find(resource.kind, name).pipe(
      Effect.flatMap(Option.match({
        onNone: () => Effect.succeedNone,
        onSome: (row) => Effect.asSome(toObject(resource, row))
      })),
      Effect.mapError(unavailable("get", resource.kind, name))
    )
  })

  const readAll = <A extends KubeObject>(resource: KubeResource<A>) =>
    sql`SELECT * FROM resources WHERE kind = ${resource.kind} ORDER BY name`.pipe(
      Effect.flatMap(Schema.decodeUnknownEffect(Rows)),
      Effect.flatMap(Effect.forEach((row) => toObject(resource, row)))
    )

  const apply = Effect.fn("Resources.apply")(
    function*<A extends KubeObject>(resource: KubeResource<A>, manifest: ResourceManifest) {
      const { kind } = resource
      const { annotations = {}, labels = {}, name } = manifest.metadata
      const invalid = (detail: string) =>
        new ResourcesError({ operation: "apply", kind, name, reason: "Invalid", detail })
      const fault = manifestFault(kind, manifest.metadata)
      if (fault !== undefined) return yield* invalid(fault)
      const { spec: given } = yield* normalized("apply", resource, name, {
        metadata: { name },
        ...(manifest.spec === undefined ? {} : { spec: manifest.spec })
      })
      const spec = kind === "Cluster" ? yield* withoutSecrets(given) : given ?? null
      const uid = yield* Effect.sync(() => crypto.randomUUID())
      const created = DateTime.formatIso(yield* DateTime.now)
      yield* change(Effect.gen(function*() {
        const known = yield* find(kind, name)
        if (Option.isNone(known)) {
          const row = { kind, name, uid, version: 0, generation: 1, created, labels, annotations, spec, status: null }
          return Option.some({ type: "Added" as const, row })
        }
        const row: Row = known.value
        const sameSpec = Equal.equals(row.spec, spec)
        if (!sameSpec && IMMUTABLE.has(kind)) {
          return yield* invalid(`a ${kind} cannot be changed; create another one`)
        }
        if (sameSpec && Equal.equals(row.labels, labels) && Equal.equals(row.annotations, annotations)) {
          return Option.none()
        }
        const generation = sameSpec ? row.generation : row.generation + 1
        return Option.some({ type: "Modified" as const, row: { ...row, labels, annotations, spec, generation } })
      })).pipe(
        Effect.mapError((error) => error._tag === "ResourcesError" ? error : unavailable("apply", kind, name)(error))
      )
      const stored = yield* get(resource, name)
      if (Option.isSome(stored)) return stored.value
      return yield* new ResourcesError({
        operation: "apply",
        kind,
        name,
        reason: "Conflict",
        detail: "it was deleted meanwhile; apply it again"
      })
    }
  )

  const applyStatus = Effect.fn("Resources.applyStatus")(
    function*<A extends KubeObject>(resource: KubeResource<A>, name: string, status: unknown) {
      const { kind } = resource
      const failed = unavailable("write the status of", kind, name)
      const known = yield* Effect.mapError(find(kind, name), failed)
      if (Option.isNone(known)) return Option.none<A>()
      // With its spec, which the schema may require.
      const parts = yield* normalized("write the status of", resource, name, {
        metadata: { name },
        ...(known.value.spec === null ? {} : { spec: known.value.spec }),
        status
      })
      yield* change(Effect.map(
        find(kind, name),
        Option.flatMap((row) =>
          Equal.equals(row.status, parts.status ?? null)
            ? Option.none()
            : Option.some({ type: "Modified" as const, row: { ...row, status: parts.status ?? null } })
        )
      )).pipe(Effect.mapError(failed))
      return yield* get(resource, name)
    }
  )

  const remove = Effect.fn("Resources.remove")(function*({ kind }: KubeResource<KubeObject>, name: string) {
    const removed = yield* change(
      Effect.map(find(kind, name), Option.map((row) => ({ type: "Deleted" as const, row })))
    ).pipe(Effect.mapError(unavailable("delete", kind, name)))
    return Option.isSome(removed)
  })

  /** Everything, and the number of the last change it holds. */
  const snapshot = <A extends KubeObject>(resource: KubeResource<A>) =>
    sql.withTransaction(Effect.gen(function*() {
      const items = yield* readAll(resource)
      const [counted] = yield* sql`SELECT version FROM resources_version`
      return { items, version: Number(counted?.["version"]) }
    })).pipe(Effect.mapError(unavailable("watch", resource.kind)))

  const reflect = <A extends KubeObject>(resource: KubeResource<A>): Stream.Stream<ReflectorEvent<A>, ResourcesError> =>
    Stream.unwrap(Effect.gen(function*() {
      // Before the snapshot, so that nothing falls between.
      const subscription = yield* PubSub.subscribe(changes)
      const first = yield* snapshot(resource)
      const synced = (items: ReadonlyArray<A>): ReflectorEvent<A> => ({ _tag: "Synced", items })
      const following = Stream.fromSubscription(subscription).pipe(
        Stream.mapAccumEffect(
          () => first.version,
          Effect.fnUntraced(function*(seen, { row, type, version }) {
            if (version <= seen) return [seen, []] as const
            if (version > seen + 1) {
              // It lagged too far behind: changes between were dropped.
              const again = yield* snapshot(resource)
              return [again.version, [synced(again.items)]] as const
            }
            if (row.kind !== resource.kind) return [version, []] as const
            const object = yield* Effect.mapError(
              toObject(resource, row),
              unavailable("watch", resource.kind, row.name)
            )
            return [version, [{ _tag: type, object }]] as const
          })
        )
      )
      return Stream.concat(Stream.succeed(synced(first.items)), following)
    }))

  return Resources.of({
    namespace,
    get,
    list: (resource) => Effect.mapError(readAll(resource), unavailable("list", resource.kind)),
    apply,
    applyStatus,
    remove,
    reflect
  })
})

/** What of an object a row keeps as JSON. */
const Parts = Schema.Struct({ spec: Schema.optionalKey(Schema.Json), status: Schema.optionalKey(Schema.Json) })

/** As the transition rules of the definitions in `crds/` say. */
const IMMUTABLE: ReadonlySet<string> = new Set(["ProbeRun"])

/** No credential of the original's manifests comes to rest in the file. */
const withoutSecrets = (spec: Schema.Json | undefined) =>
  spec === undefined ? Effect.succeed(null) : Schema.decodeUnknownEffect(ClusterSpec)(spec).pipe(
    Effect.map(withoutCredentials),
    Effect.flatMap(Schema.encodeEffect(ClusterSpec)),
    Effect.flatMap(Schema.decodeUnknownEffect(Schema.Json)),
    // It has just been read by this schema.
    Effect.orDie
  )
