/** What worker pods are made of. Pure. */
import { FOLDER as CREDENTIALS_FOLDER } from "../../infra/credentials/CredentialsNode.ts"
import type { Manifest } from "../../infra/kube/Kube.ts"
import { API_CREDENTIAL, type WorkerImage, type WorkerPlace } from "../../probes/workers/Workers.ts"
import { NODE_ENV, POD_ENV, TASK_ENV, TERMINATION_LOG, TOKEN_ENV } from "./envelope.ts"

/** How worker containers are started. */
export interface WorkerSettings {
  readonly image: string
  /** `IfNotPresent` when absent: the image is pinned by its tag or digest. */
  readonly imagePullPolicy?: WorkerImage["imagePullPolicy"] | undefined
  readonly imagePullSecrets?: WorkerImage["imagePullSecrets"] | undefined
}

/** Unprivileged ports of a pod that answers. */
export const HTTP_PORT = 8080
export const ECHO_PORT = 8081

/** The key of the token in the run's Secret. */
export const TOKEN_KEY = "token"

/** The user of the image (`scripts/imageFiles.ts`). */
const USER = 65_532

const podSecurityContext = {
  runAsNonRoot: true,
  runAsUser: USER,
  runAsGroup: USER,
  seccompProfile: { type: "RuntimeDefault" }
}

const containerSecurityContext = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] }
}

export const imageOf = (settings: WorkerSettings): WorkerImage => ({
  image: settings.image,
  imagePullPolicy: settings.imagePullPolicy ?? "IfNotPresent",
  imagePullSecrets: settings.imagePullSecrets ?? [],
  respondArgs: ["worker", "respond", "--http-port", String(HTTP_PORT), "--echo-port", String(ECHO_PORT)],
  port: HTTP_PORT,
  echoPort: ECHO_PORT,
  podSecurityContext,
  containerSecurityContext
})

/** Measured: a worker takes 55 to 70 MiB. No CPU limit, because a throttled prober measures itself. */
export const resources = { requests: { cpu: "10m", memory: "48Mi" }, limits: { memory: "160Mi" } }

/**
 * Lets cluster-autoscaler remove a node from under a worker pod, which it otherwise does not: the pod has no workload behind
 * it and an emptyDir (cluster-autoscaler FAQ, "What types of pods can prevent CA from removing a node?").
 */
const SAFE_TO_EVICT = { "cluster-autoscaler.kubernetes.io/safe-to-evict": "true" }

/** The image is one of Linux; whoever names a node knows what it runs. */
const onAnyNode = { nodeSelector: { "kubernetes.io/os": "linux" } }

/** The scheduler stays in the path: a pod with `spec.nodeName` would pass it by. */
const onNode = (node: string) => ({
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchFields: [{ key: "metadata.name", operator: "In", values: [node] }] }]
      }
    }
  },
  // Whoever asks about a node asks about that node, whatever it is reserved for.
  tolerations: [{ operator: "Exists" }]
})

/** What any authenticated pod has, for this pod alone and for ten minutes; its task reads it as a credential. */
const apiAccess = {
  name: "api",
  projected: {
    sources: [
      { serviceAccountToken: { path: "token", expirationSeconds: 600 } },
      { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
      { downwardAPI: { items: [{ path: "namespace", fieldRef: { fieldPath: "metadata.namespace" } }] } }
    ]
  }
}

const API_MOUNT = `${CREDENTIALS_FOLDER}/${API_CREDENTIAL}`

export interface WorkerPod {
  readonly name: string
  readonly namespace: string
  readonly place: WorkerPlace
  /** The ConfigMap of the run, which the pod goes with. */
  readonly owner: { readonly name: string; readonly uid: string }
  /** The run's Secret with its token; a pod that only answers has none. */
  readonly secret?: string | undefined
  /** The task and its input. A pod without one answers. */
  readonly task?: string | undefined
  /** The cluster ends the pod by itself after this many seconds. */
  readonly deadlineSeconds: number
}

/** The manifest of a worker pod. */
export const workerPod = (
  pod: WorkerPod,
  settings: WorkerSettings
): Manifest & { readonly metadata: { readonly name: string } } => {
  const { deadlineSeconds, name, namespace, owner, place, secret, task } = pod
  const image = imageOf(settings)
  const answers = task === undefined
  return {
    metadata: {
      name,
      namespace,
      labels: { ...place.labels, "app.kubernetes.io/name": "kubeprober", "app.kubernetes.io/component": "worker" },
      annotations: SAFE_TO_EVICT,
      // `kubectl drain` without --force refuses to drain a node with a pod that nothing controls, and asks no further who does.
      ownerReferences: [{ apiVersion: "v1", kind: "ConfigMap", ...owner, controller: true }]
    },
    spec: {
      restartPolicy: "Never",
      activeDeadlineSeconds: deadlineSeconds,
      terminationGracePeriodSeconds: 1,
      enableServiceLinks: false,
      automountServiceAccountToken: false,
      imagePullSecrets: image.imagePullSecrets,
      securityContext: image.podSecurityContext,
      ...(place.node === undefined ? onAnyNode : onNode(place.node)),
      containers: [{
        name: "worker",
        image: image.image,
        imagePullPolicy: image.imagePullPolicy,
        args: answers ? image.respondArgs : ["worker", "run"],
        env: [
          { name: POD_ENV, valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
          { name: NODE_ENV, valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
          ...(task === undefined ? [] : [{ name: TASK_ENV, value: task }]),
          ...(secret === undefined
            ? []
            : [{ name: TOKEN_ENV, valueFrom: { secretKeyRef: { name: secret, key: TOKEN_KEY } } }])
        ],
        terminationMessagePath: TERMINATION_LOG,
        resources,
        securityContext: image.containerSecurityContext,
        ...(answers
          ? {
            ports: [
              { name: "http", containerPort: HTTP_PORT },
              { name: "echo", containerPort: ECHO_PORT },
              { name: "echo-udp", containerPort: ECHO_PORT, protocol: "UDP" }
            ],
            readinessProbe: { httpGet: { path: "/", port: HTTP_PORT }, periodSeconds: 1, timeoutSeconds: 2 }
          }
          : {}),
        volumeMounts: [
          { name: "scratch", mountPath: "/tmp" },
          ...(place.apiToken === true ? [{ name: apiAccess.name, mountPath: API_MOUNT, readOnly: true }] : [])
        ]
      }],
      volumes: [
        { name: "scratch", emptyDir: { sizeLimit: "16Mi" } },
        ...(place.apiToken === true ? [apiAccess] : [])
      ]
    }
  }
}
