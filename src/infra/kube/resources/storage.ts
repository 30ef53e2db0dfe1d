/** Kinds of `storage.k8s.io/v1`. */
import { Schema } from "effect"
import { ObjectMeta, flag, listOf, make, maybe, part, time } from "../KubeResource.ts"

/** How volumes are made. Whether it is the default is told by an annotation. */
export const StorageClass = make({
  group: "storage.k8s.io",
  kind: "StorageClass",
  plural: "storageclasses",
  scope: "Cluster",
  fields: {
    provisioner: maybe(Schema.String),
    /** `Immediate`, also when absent, or `WaitForFirstConsumer`. */
    volumeBindingMode: maybe(Schema.String)
  }
})
export type StorageClass = typeof StorageClass.object.Type

const VolumeError = Schema.Struct({ time, message: maybe(Schema.String) })

/** That a volume shall be attached to a node, and what came of it. `attacher` is the CSI driver. */
export const VolumeAttachment = make({
  group: "storage.k8s.io",
  kind: "VolumeAttachment",
  plural: "volumeattachments",
  scope: "Cluster",
  fields: {
    spec: Schema.Struct({
      attacher: Schema.String,
      nodeName: Schema.String,
      source: part({ persistentVolumeName: maybe(Schema.String) })
    }),
    status: part({ attached: flag, attachError: maybe(VolumeError), detachError: maybe(VolumeError) })
  }
})
export type VolumeAttachment = typeof VolumeAttachment.object.Type

/** The CSI drivers that are registered with the kubelet of the node of the same name. */
export const CSINode = make({
  group: "storage.k8s.io",
  kind: "CSINode",
  plural: "csinodes",
  scope: "Cluster",
  fields: {
    /** With when it was written, which bounds the time for which its drivers have been these. */
    metadata: Schema.Struct({ ...ObjectMeta.fields, managedFields: listOf(Schema.Struct({ time })) }),
    spec: part({ drivers: listOf(Schema.Struct({ name: Schema.String })) })
  }
})
export type CSINode = typeof CSINode.object.Type
