/**
 * Pods of the core group as single probes see them. They are the most numerous large objects, so each reader decodes no more
 * than it needs.
 */
import { Schema } from "effect"
import { Condition, listOf, make, maybe, part, stringMap } from "../KubeResource.ts"

const pod = { kind: "Pod", plural: "pods", scope: "Namespaced" } as const

/** Labels and other metadata alone. */
export const PodMetadata = make({ ...pod, metadataOnly: true, fields: {} })
export type PodMetadata = typeof PodMetadata.object.Type

/** Where a pod is and which claims it uses. */
export const PodVolumes = make({
  ...pod,
  fields: {
    spec: part({
      nodeName: maybe(Schema.String),
      schedulingGates: listOf(Schema.Struct({ name: Schema.String })),
      volumes: listOf(Schema.Struct({
        name: Schema.String,
        persistentVolumeClaim: maybe(Schema.Struct({ claimName: Schema.String })),
        ephemeral: maybe(Schema.Struct({}))
      }))
    }),
    status: part({ phase: maybe(Schema.String) })
  }
})
export type PodVolumes = typeof PodVolumes.object.Type

const resources = part({ requests: stringMap })

/** Where a pod is and what it requests. */
export const PodRequests = make({
  ...pod,
  fields: {
    spec: part({
      nodeName: maybe(Schema.String),
      containers: listOf(Schema.Struct({ resources })),
      /** With `restartPolicy: Always` it runs beside the containers (KEP-753). */
      initContainers: listOf(Schema.Struct({ restartPolicy: maybe(Schema.String), resources })),
      overhead: stringMap,
      /** Of the pod as a whole; where present, it stands in place of the containers' (KEP-2837). */
      resources
    }),
    status: part({ phase: maybe(Schema.String) })
  }
})
export type PodRequests = typeof PodRequests.object.Type

/** What became of a pod at the scheduler. */
export const PodScheduling = make({
  ...pod,
  fields: { spec: part({ nodeName: maybe(Schema.String) }), status: part({ conditions: listOf(Condition) }) }
})
export type PodScheduling = typeof PodScheduling.object.Type
