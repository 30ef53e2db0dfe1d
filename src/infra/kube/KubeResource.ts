/**
 * How a kind of object is addressed and decoded.
 *
 * A resource names only the fields its reader uses: narrow schemas decode faster than whole ones and break on what
 * matters instead of on what changed elsewhere. `object` is the schema of one item.
 */
import { DateTime, Option, Schema, SchemaGetter } from "effect"

/**
 * What a server may have put where `S` is expected, unread: the schema behind it reads it, and only once. (A schema in front
 * that read it as well would cost 2^depth reads of nested parts.)
 */
const unread = <S extends Schema.Constraint>(_schema: S) =>
  Schema.optionalKey(Schema.declare((_input): _input is S["Encoded"] | null => true))

/**
 * A field that may be absent. Go servers write `null` for some empty fields (`lastProbeTime`, `eventTime`) and leave
 * others out, so both mean absent here.
 */
export const maybe = <S extends Schema.Constraint>(schema: S) =>
  unread(schema).pipe(
    Schema.decodeTo(Schema.optionalKey(schema), {
      decode: SchemaGetter.transformOptional(Option.filter((value): value is S["Encoded"] => value !== null)),
      encode: SchemaGetter.passthrough()
    })
  )

const orElse = <S extends Schema.Constraint>(schema: S, value: S["Encoded"]) => {
  const fallback = Option.some(value)
  return unread(schema).pipe(
    Schema.decodeTo(schema, {
      decode: SchemaGetter.transformOptional((found) =>
        Option.isSome(found) && found.value !== null ? Option.some<S["Encoded"]>(found.value) : fallback
      ),
      encode: SchemaGetter.passthrough()
    })
  )
}

/** A list; absent and `null` (how Go writes an empty slice without `omitempty`) read as empty. */
export const listOf = <S extends Schema.Constraint>(item: S) => orElse(Schema.Array(item), [])

/** String keys and values, such as labels and quantities; absent and `null` read as empty. */
export const stringMap = orElse(Schema.Record(Schema.String, Schema.String), {})

/** A number Go leaves out when it is 0. */
export const count = orElse(Schema.Int, 0)

/** A boolean Go leaves out when it is false. */
export const flag = orElse(Schema.Boolean, false)

/** A point in time, RFC 3339 with or without fractions; absent and `null` read as absent. */
export const time = maybe(Schema.DateTimeUtcFromString)

/** For fields of type MicroTime: exactly six digits of fraction (apimachinery pkg/apis/meta/v1/micro_time.go). */
export const formatMicroTime = (time: DateTime.Utc): string =>
  DateTime.formatIso(time).replace(/\.(\d{3})Z$/, ".$1000Z")

/** A part of an object whose own fields are all optional; an absent part reads as an empty one. */
export const part = <const Fields extends Record<string, Schema.Codec<unknown, unknown>>>(fields: Fields) => {
  const struct = Schema.Struct(fields)
  return orElse(struct, Schema.encodeSync(struct)(Schema.decodeUnknownSync(struct)({})))
}

/** A condition as most kinds carry it; `status` is `True`, `False` or `Unknown`. */
export const Condition = Schema.Struct({
  type: Schema.String,
  status: Schema.String,
  reason: maybe(Schema.String),
  message: maybe(Schema.String),
  lastTransitionTime: time
})
export type Condition = typeof Condition.Type

/** Metadata every object carries; all keys optional because watch bookmarks and dry-run answers omit some. */
export const ObjectMeta = Schema.Struct({
  name: maybe(Schema.String),
  generateName: maybe(Schema.String),
  namespace: maybe(Schema.String),
  uid: maybe(Schema.String),
  resourceVersion: maybe(Schema.String),
  generation: maybe(Schema.Int),
  creationTimestamp: time,
  deletionTimestamp: time,
  labels: maybe(Schema.Record(Schema.String, Schema.String)),
  annotations: maybe(Schema.Record(Schema.String, Schema.String)),
  finalizers: maybe(Schema.Array(Schema.String)),
  ownerReferences: maybe(Schema.Array(Schema.Struct({
    apiVersion: Schema.String,
    kind: Schema.String,
    name: Schema.String,
    uid: Schema.String,
    controller: maybe(Schema.Boolean)
  })))
})
export type ObjectMeta = typeof ObjectMeta.Type

/** Any decoded object. */
export interface KubeObject {
  readonly metadata: ObjectMeta
}

/** What is needed to address and decode one kind. Make it with {@link make}. */
export interface KubeResource<A extends KubeObject> {
  /** Empty for the core group. */
  readonly group: string
  readonly version: string
  readonly kind: string
  /** Lower-case plural, as in URLs and RBAC rules. */
  readonly plural: string
  readonly scope: "Namespaced" | "Cluster"
  /** Ask the server for metadata alone (`PartialObjectMetadata`): the rest, such as a Secret's data, never leaves it. */
  readonly metadataOnly?: boolean
  /** Decodes an item as it is in JSON (without apiVersion and kind in lists). */
  readonly object: Schema.Codec<A, unknown>
}

/**
 * Describe a kind: where it lives and which of its fields are read.
 *
 * `fields` are the fields beside `metadata`.
 */
export const make = <Fields extends Schema.Struct.Fields>(options: {
  readonly group?: string
  readonly version?: string
  readonly kind: string
  readonly plural: string
  readonly scope: "Namespaced" | "Cluster"
  readonly metadataOnly?: boolean
  readonly fields: Fields
}) => {
  const object = Schema.Struct({ metadata: ObjectMeta, ...options.fields })
  return {
    group: options.group ?? "",
    version: options.version ?? "v1",
    kind: options.kind,
    plural: options.plural,
    scope: options.scope,
    metadataOnly: options.metadataOnly ?? false,
    object
  }
}

/** `v1` or `apps/v1`, as in manifests. */
export const apiVersion = (resource: { readonly group: string; readonly version: string }): string =>
  resource.group === "" ? resource.version : `${resource.group}/${resource.version}`

/** The collection's URL path, in one namespace or over all when `namespace` is absent. */
export const collectionPath = (
  resource: Pick<KubeResource<KubeObject>, "group" | "version" | "plural" | "scope">,
  namespace?: string
): string => {
  const root = resource.group === "" ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`
  return resource.scope === "Namespaced" && namespace !== undefined
    ? `${root}/namespaces/${encodeURIComponent(namespace)}/${resource.plural}`
    : `${root}/${resource.plural}`
}

/** One object's URL path. */
export const objectPath = (
  resource: Pick<KubeResource<KubeObject>, "group" | "version" | "plural" | "scope">,
  name: string,
  namespace?: string
): string => `${collectionPath(resource, namespace)}/${encodeURIComponent(name)}`
