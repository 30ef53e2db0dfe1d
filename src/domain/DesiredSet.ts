/**
 * What one managed cluster is to run: the whole of it, so that an agent converges from any state.
 */
import { Array, Order, Schema } from "effect"
import { ProbeSpec } from "./kinds/Probe.ts"
import { ProbeRef } from "./Run.ts"

/** The most Probes one cluster runs. */
export const MAX_PROBES = 1000

/** A Probe for the cluster. */
export const DesiredProbe = Schema.Struct({ ...ProbeRef.fields, spec: ProbeSpec })
export type DesiredProbe = typeof DesiredProbe.Type

/** Everything a cluster is to run. */
export const DesiredSet = Schema.Struct({
  probes: Schema.Array(DesiredProbe).check(Schema.isMaxLength(MAX_PROBES)),
  /** For ConfigMap `extra-config` in the probe namespace (Cluster.spec.extraInfo). */
  extraInfo: Schema.Record(Schema.String, Schema.String)
})
export type DesiredSet = typeof DesiredSet.Type

/** SHA-256 over {@link canonical}, lower-case hexadecimal. */
export const ContentHash = Schema.String.check(
  Schema.isPattern(/^[0-9a-f]{64}$/u, { message: "a content hash is 64 lower-case hexadecimal digits" })
)
export type ContentHash = typeof ContentHash.Type

const byName: Order.Order<DesiredProbe> = Order.combine(
  Order.mapInput(Order.String, ({ namespace }: DesiredProbe) => namespace),
  Order.mapInput(Order.String, ({ name }: DesiredProbe) => name)
)

const isObject = (json: Schema.Json): json is Schema.JsonObject =>
  typeof json === "object" && json !== null && !globalThis.Array.isArray(json)

const sortKeys = (json: Schema.Json): Schema.Json =>
  globalThis.Array.isArray(json)
    ? json.map(sortKeys)
    : isObject(json)
    ? Object.fromEntries(
      Object.entries(json).sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0).map(([key, value]) => [key, sortKeys(value)])
    )
    : json

const encode = Schema.encodeSync(DesiredSet)

/**
 * The one text of a desired set, whatever order its parts came in: RFC 8785 (keys sorted, no white space), Probes by
 * namespace and name. Master and agent hash it to tell whether they mean the same.
 */
export const canonical = (set: DesiredSet): string => {
  const { extraInfo, probes } = encode({ ...set, probes: Array.sort(set.probes, byName) })
  return JSON.stringify({
    extraInfo: sortKeys(extraInfo),
    probes: probes.map(({ name, namespace, spec }) => ({ name, namespace, spec: sortKeys({ ...spec }) }))
  })
}
