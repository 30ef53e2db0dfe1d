/** Kinds of `discovery.k8s.io/v1`. */
import { Schema } from "effect"
import { ObjectMeta, listOf, make, maybe, part, time } from "../KubeResource.ts"

/**
 * Addresses behind a Service, a part of them in each slice; find a Service's slices by the label
 * `kubernetes.io/service-name`. `conditions.ready` absent means ready (API documentation of EndpointConditions).
 */
export const EndpointSlice = make({
  group: "discovery.k8s.io",
  kind: "EndpointSlice",
  plural: "endpointslices",
  scope: "Namespaced",
  fields: {
    /** With when it was written, which alone tells since when its endpoints are as they are. */
    metadata: Schema.Struct({ ...ObjectMeta.fields, managedFields: maybe(Schema.Array(Schema.Struct({ time }))) }),
    addressType: Schema.String,
    endpoints: listOf(Schema.Struct({
      addresses: listOf(Schema.String),
      conditions: part({
        ready: maybe(Schema.Boolean),
        serving: maybe(Schema.Boolean),
        terminating: maybe(Schema.Boolean)
      }),
      nodeName: maybe(Schema.String),
      zone: maybe(Schema.String),
      targetRef: maybe(Schema.Struct({
        kind: maybe(Schema.String),
        namespace: maybe(Schema.String),
        name: maybe(Schema.String)
      }))
    })),
    ports: listOf(Schema.Struct({
      name: maybe(Schema.String),
      port: maybe(Schema.Int),
      protocol: maybe(Schema.String)
    }))
  }
})
export type EndpointSlice = typeof EndpointSlice.object.Type
