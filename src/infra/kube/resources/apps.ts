/** Kinds of `apps/v1`. */
import { Schema } from "effect"
import { Condition, ObjectMeta, count, listOf, make, maybe, part, stringMap, time } from "../KubeResource.ts"

const selector = part({
  matchLabels: stringMap,
  matchExpressions: listOf(Schema.Struct({
    key: Schema.String,
    operator: Schema.String,
    values: listOf(Schema.String)
  }))
})

const Container = Schema.Struct({ name: Schema.String, image: maybe(Schema.String) })

const template = part({
  metadata: part({ labels: stringMap }),
  spec: part({ containers: listOf(Container), initContainers: listOf(Container) })
})

/** With who wrote the object and when, which alone tells the age of its specification. */
const metadata = Schema.Struct({
  ...ObjectMeta.fields,
  managedFields: listOf(Schema.Struct({ subresource: maybe(Schema.String), time }))
})

export const Deployment = make({
  group: "apps",
  kind: "Deployment",
  plural: "deployments",
  scope: "Namespaced",
  fields: {
    metadata,
    /** `replicas` is always written by the server's defaulting (1). */
    spec: part({ replicas: maybe(Schema.Int), paused: maybe(Schema.Boolean), selector, template }),
    status: part({
      observedGeneration: maybe(Schema.Int),
      replicas: count,
      updatedReplicas: count,
      readyReplicas: count,
      availableReplicas: count,
      unavailableReplicas: count,
      conditions: listOf(Condition)
    })
  }
})
export type Deployment = typeof Deployment.object.Type

export const ReplicaSet = make({
  group: "apps",
  kind: "ReplicaSet",
  plural: "replicasets",
  scope: "Namespaced",
  fields: {
    spec: part({ replicas: maybe(Schema.Int), selector }),
    status: part({
      observedGeneration: maybe(Schema.Int),
      replicas: count,
      readyReplicas: count,
      availableReplicas: count,
      conditions: listOf(Condition)
    })
  }
})
export type ReplicaSet = typeof ReplicaSet.object.Type

export const StatefulSet = make({
  group: "apps",
  kind: "StatefulSet",
  plural: "statefulsets",
  scope: "Namespaced",
  fields: {
    metadata,
    spec: part({ replicas: maybe(Schema.Int), selector, template }),
    status: part({
      observedGeneration: maybe(Schema.Int),
      replicas: count,
      updatedReplicas: count,
      readyReplicas: count,
      availableReplicas: count,
      conditions: listOf(Condition)
    })
  }
})
export type StatefulSet = typeof StatefulSet.object.Type

export const DaemonSet = make({
  group: "apps",
  kind: "DaemonSet",
  plural: "daemonsets",
  scope: "Namespaced",
  fields: {
    metadata,
    spec: part({ selector, template }),
    status: part({
      observedGeneration: maybe(Schema.Int),
      desiredNumberScheduled: count,
      currentNumberScheduled: count,
      updatedNumberScheduled: count,
      numberReady: count,
      numberAvailable: count,
      numberUnavailable: count,
      numberMisscheduled: count,
      conditions: listOf(Condition)
    })
  }
})
export type DaemonSet = typeof DaemonSet.object.Type
