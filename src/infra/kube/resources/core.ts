/** Kinds of the core group (`v1`), with the fields KubeProber reads. */
import { Schema } from "effect"
import { Condition, count, flag, listOf, make, maybe, part, stringMap, time } from "../KubeResource.ts"

/** A machine that runs pods. */
export const Node = make({
  kind: "Node",
  plural: "nodes",
  scope: "Cluster",
  fields: {
    spec: part({
      unschedulable: flag,
      providerID: maybe(Schema.String),
      podCIDRs: listOf(Schema.String),
      taints: listOf(Schema.Struct({
        key: Schema.String,
        value: maybe(Schema.String),
        effect: Schema.String,
        timeAdded: time
      }))
    }),
    status: part({
      conditions: listOf(Schema.Struct({ ...Condition.fields, lastHeartbeatTime: time })),
      addresses: listOf(Schema.Struct({ type: Schema.String, address: Schema.String })),
      daemonEndpoints: part({ kubeletEndpoint: part({ Port: count }) }),
      capacity: stringMap,
      allocatable: stringMap,
      nodeInfo: part({
        kubeletVersion: maybe(Schema.String),
        containerRuntimeVersion: maybe(Schema.String),
        kernelVersion: maybe(Schema.String),
        osImage: maybe(Schema.String),
        operatingSystem: maybe(Schema.String),
        architecture: maybe(Schema.String)
      })
    })
  }
})
export type Node = typeof Node.object.Type

const ContainerState = part({
  waiting: maybe(Schema.Struct({ reason: maybe(Schema.String), message: maybe(Schema.String) })),
  running: maybe(Schema.Struct({ startedAt: time })),
  terminated: maybe(Schema.Struct({
    exitCode: count,
    signal: maybe(Schema.Int),
    reason: maybe(Schema.String),
    message: maybe(Schema.String),
    startedAt: time,
    finishedAt: time
  }))
})

const ContainerStatus = Schema.Struct({
  name: Schema.String,
  ready: flag,
  restartCount: count,
  started: maybe(Schema.Boolean),
  image: maybe(Schema.String),
  imageID: maybe(Schema.String),
  state: ContainerState,
  lastState: ContainerState
})
/** How one container of a pod fares. */
export type ContainerStatus = typeof ContainerStatus.Type

const Container = Schema.Struct({
  name: Schema.String,
  image: maybe(Schema.String),
  imagePullPolicy: maybe(Schema.String)
})

/** A group of containers on one node. */
export const Pod = make({
  kind: "Pod",
  plural: "pods",
  scope: "Namespaced",
  fields: {
    spec: part({
      nodeName: maybe(Schema.String),
      restartPolicy: maybe(Schema.String),
      serviceAccountName: maybe(Schema.String),
      priorityClassName: maybe(Schema.String),
      hostNetwork: flag,
      imagePullSecrets: listOf(Schema.Struct({ name: Schema.String })),
      containers: listOf(Container),
      initContainers: listOf(Container)
    }),
    status: part({
      phase: maybe(Schema.String),
      reason: maybe(Schema.String),
      message: maybe(Schema.String),
      hostIP: maybe(Schema.String),
      podIP: maybe(Schema.String),
      podIPs: listOf(Schema.Struct({ ip: maybe(Schema.String) })),
      startTime: time,
      conditions: listOf(Condition),
      containerStatuses: listOf(ContainerStatus),
      initContainerStatuses: listOf(ContainerStatus)
    })
  }
})
export type Pod = typeof Pod.object.Type

/** A tenant's room. `status.conditions` tell what holds up a deletion. */
export const Namespace = make({
  kind: "Namespace",
  plural: "namespaces",
  scope: "Cluster",
  fields: {
    spec: part({ finalizers: listOf(Schema.String) }),
    status: part({ phase: maybe(Schema.String), conditions: listOf(Condition) })
  }
})
export type Namespace = typeof Namespace.object.Type

/** Configuration as text. Binary data is not read. */
export const ConfigMap = make({
  kind: "ConfigMap",
  plural: "configmaps",
  scope: "Namespaced",
  fields: { data: stringMap }
})
export type ConfigMap = typeof ConfigMap.object.Type

/** A Secret's metadata alone: the server is asked to leave the data out, so it is never in our memory. */
export const SecretMetadata = make({
  kind: "Secret",
  plural: "secrets",
  scope: "Namespaced",
  metadataOnly: true,
  fields: {}
})
export type SecretMetadata = typeof SecretMetadata.object.Type

/** A stable address for pods. */
export const Service = make({
  kind: "Service",
  plural: "services",
  scope: "Namespaced",
  fields: {
    spec: part({
      type: maybe(Schema.String),
      clusterIP: maybe(Schema.String),
      clusterIPs: listOf(Schema.String),
      externalName: maybe(Schema.String),
      selector: stringMap,
      ports: listOf(Schema.Struct({
        name: maybe(Schema.String),
        protocol: maybe(Schema.String),
        port: Schema.Int,
        targetPort: maybe(Schema.Union([Schema.Int, Schema.String])),
        nodePort: maybe(Schema.Int)
      }))
    }),
    status: part({
      loadBalancer: part({
        ingress: listOf(Schema.Struct({ ip: maybe(Schema.String), hostname: maybe(Schema.String) }))
      })
    })
  }
})
export type Service = typeof Service.object.Type

/** What pods and agents act as. */
export const ServiceAccount = make({
  kind: "ServiceAccount",
  plural: "serviceaccounts",
  scope: "Namespaced",
  fields: { automountServiceAccountToken: maybe(Schema.Boolean) }
})
export type ServiceAccount = typeof ServiceAccount.object.Type

/** A namespace's limits; values are quantities (`"10"`, `"4Gi"`). */
export const ResourceQuota = make({
  kind: "ResourceQuota",
  plural: "resourcequotas",
  scope: "Namespaced",
  fields: {
    spec: part({ hard: stringMap }),
    status: part({ hard: stringMap, used: stringMap })
  }
})
export type ResourceQuota = typeof ResourceQuota.object.Type

/** A request for storage. */
export const PersistentVolumeClaim = make({
  kind: "PersistentVolumeClaim",
  plural: "persistentvolumeclaims",
  scope: "Namespaced",
  fields: {
    spec: part({
      storageClassName: maybe(Schema.String),
      volumeName: maybe(Schema.String),
      accessModes: listOf(Schema.String)
    }),
    status: part({ phase: maybe(Schema.String), capacity: stringMap, conditions: listOf(Condition) })
  }
})
export type PersistentVolumeClaim = typeof PersistentVolumeClaim.object.Type

/** A piece of storage. */
export const PersistentVolume = make({
  kind: "PersistentVolume",
  plural: "persistentvolumes",
  scope: "Cluster",
  fields: {
    spec: part({
      storageClassName: maybe(Schema.String),
      persistentVolumeReclaimPolicy: maybe(Schema.String),
      claimRef: maybe(Schema.Struct({ namespace: maybe(Schema.String), name: maybe(Schema.String) })),
      csi: maybe(Schema.Struct({ driver: Schema.String }))
    }),
    status: part({
      phase: maybe(Schema.String),
      reason: maybe(Schema.String),
      message: maybe(Schema.String),
      lastPhaseTransitionTime: time
    })
  }
})
export type PersistentVolume = typeof PersistentVolume.object.Type
