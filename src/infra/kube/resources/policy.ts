/** Kinds of `policy/v1`. */
import { Schema } from "effect"
import { Condition, ObjectMeta, count, listOf, make, maybe, part, stringMap, time } from "../KubeResource.ts"

/** How many pods of an application may be evicted at once. */
export const PodDisruptionBudget = make({
  group: "policy",
  kind: "PodDisruptionBudget",
  plural: "poddisruptionbudgets",
  scope: "Namespaced",
  fields: {
    /** With who wrote the object and when, which alone tells the age of its specification. */
    metadata: Schema.Struct({
      ...ObjectMeta.fields,
      managedFields: listOf(Schema.Struct({ subresource: maybe(Schema.String), time }))
    }),
    spec: part({
      /** An absent selector selects no pod, an empty one every pod of the namespace. */
      selector: maybe(Schema.Struct({
        matchLabels: stringMap,
        matchExpressions: listOf(Schema.Struct({
          key: Schema.String,
          operator: Schema.Literals(["In", "NotIn", "Exists", "DoesNotExist"]),
          values: listOf(Schema.String)
        }))
      })),
      minAvailable: maybe(Schema.Union([Schema.Int, Schema.String])),
      maxUnavailable: maybe(Schema.Union([Schema.Int, Schema.String]))
    }),
    status: part({
      observedGeneration: maybe(Schema.Int),
      disruptionsAllowed: count,
      currentHealthy: count,
      desiredHealthy: count,
      expectedPods: count,
      conditions: listOf(Condition)
    })
  }
})
export type PodDisruptionBudget = typeof PodDisruptionBudget.object.Type
