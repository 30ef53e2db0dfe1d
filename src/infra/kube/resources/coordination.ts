/** Kinds of `coordination.k8s.io/v1`. */
import { Schema } from "effect"
import { make, maybe, part, time } from "../KubeResource.ts"

/** A claim that must be renewed: node heartbeats and leader election. */
export const Lease = make({
  group: "coordination.k8s.io",
  kind: "Lease",
  plural: "leases",
  scope: "Namespaced",
  fields: {
    spec: part({
      holderIdentity: maybe(Schema.String),
      leaseDurationSeconds: maybe(Schema.Int),
      acquireTime: time,
      renewTime: time,
      leaseTransitions: maybe(Schema.Int)
    })
  }
})
export type Lease = typeof Lease.object.Type
