/** Ten faults of a cluster, made and mended for real, and what each should and may turn red. */
import { Effect } from "effect"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import type { Installation } from "./Installation.ts"

export interface Fault {
  readonly name: string
  /** Checkers (by probe id) that look for it, and the codes they tell it with; where one is in the catalogue, one must. */
  readonly detectedBy: Readonly<Record<string, ReadonlyArray<string>>>
  /** Others that may be red because of it, and why. */
  readonly mayRedden: Readonly<Record<string, string>>
  readonly inject: (installation: Installation) => Effect.Effect<unknown, { readonly message: string }>
  readonly heal: (installation: Installation) => Effect.Effect<unknown, { readonly message: string }>
}

const lastNode = ({ cluster }: Installation) => {
  const node = cluster.nodes.at(-1)
  return node === undefined ? Effect.die(new Error("the cluster has no node")) : Effect.succeed(node)
}

const component = (name: "controllerManager" | "scheduler") => ({
  inject: ({ cluster }: Installation) => cluster.components[name].stop,
  heal: ({ cluster }: Installation) => cluster.components[name].start
})

const CRASHER = {
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name: "crasher", namespace: "default" },
  spec: {
    selector: { matchLabels: { app: "crasher" } },
    template: {
      metadata: { labels: { app: "crasher" } },
      spec: {
        containers: [{ name: "main", image: BUSYBOX_IMAGE, imagePullPolicy: "Never", command: ["sh", "-c", "exit 3"] }]
      }
    }
  }
}

const NODE_PODS = "pods on that node are not ready, or cannot be started there"
const NODE_SILENT = "its agent on that node is not ready, and not asked"
const DNS_IS_USED = "it resolves names, which nobody does now"
const NEW_PODS = "its pods are neither made nor scheduled"
const NEW_ENDPOINTS = "nobody writes endpoints for the Services it makes"
const LESS_ROOM = "a node less takes pods"
const GUARDED = "its pods belong to a ConfigMap, which the webhook guards"
const NEW_FACT = "what is configured in the cluster has changed"

/** Checks whose pods run on nodes by choice of the probe. */
const ofWorkers = (reason: string): Readonly<Record<string, string>> => ({
  "k8s.service.clusterip": reason,
  "k8s.dns.cluster": reason,
  "k8s.api.frompod": reason,
  "k8s.ingress.http": reason,
  "infra.net.mesh": reason,
  "infra.disk.latency": reason
})

export const faults: ReadonlyArray<Fault> = [
  {
    name: "a node is cordoned",
    detectedBy: { "k8s.node.readiness": ["NODE_CORDONED"] },
    mayRedden: { "k8s.capacity.quota": LESS_ROOM },
    inject: (installation) =>
      Effect.flatMap(lastNode(installation), ({ name }) => installation.kubectl("cordon", name)),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ name }) => installation.kubectl("uncordon", name))
  },
  {
    name: "a kubelet is stopped",
    detectedBy: {
      "k8s.node.readiness": ["NODE_NOT_READY", "NODE_NOT_READY_RECENTLY", "NODE_LEASE_STALE"],
      "infra.node.runtime": ["KUBELET_DOWN", "KUBELET_UNWELL"]
    },
    mayRedden: {
      ...ofWorkers(NODE_PODS),
      "k8s.workloads.health": NODE_PODS,
      "k8s.node.sweep": NODE_PODS,
      "k8s.workload.lifecycle": NODE_PODS,
      "k8s.control.loops": NODE_PODS,
      "k8s.routes.static": NODE_PODS,
      "k8s.capacity.quota": LESS_ROOM,
      "k8s.finalizers.stuck": "pods there cannot be deleted",
      "infra.node.baseline": NODE_SILENT,
      "infra.node.kernel": NODE_SILENT,
      "infra.node.resources": NODE_SILENT,
      "infra.clock.skew": "its lease is not renewed, and shows no clock"
    },
    inject: (installation) => Effect.flatMap(lastNode(installation), ({ kubelet }) => kubelet.stop),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ kubelet }) => kubelet.start)
  },
  {
    name: "kube-proxy is stopped on a node",
    detectedBy: {
      // Missed, while the node is young.
      "infra.node.runtime": ["KUBE_PROXY_DOWN", "KUBE_PROXY_UNWELL", "KUBE_PROXY_MISSED"],
      "k8s.service.clusterip": ["SERVICE_UNREACHABLE_FROM_NODE", "SERVICE_UNRELIABLE_FROM_NODE"]
    },
    mayRedden: {
      "k8s.ingress.http": "new Services are not reachable from that node",
      "k8s.dns.cluster": "DNS pods that moved are not reachable from that node"
    },
    inject: (installation) => Effect.flatMap(lastNode(installation), ({ kubeProxy }) => kubeProxy.stop),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ kubeProxy }) => kubeProxy.start)
  },
  {
    name: "CoreDNS is scaled to zero",
    detectedBy: { "k8s.dns.cluster": ["DNS_NO_ENDPOINTS", "DNS_SERVICE_FAILED"] },
    mayRedden: {
      "k8s.ingress.http": DNS_IS_USED,
      "k8s.service.clusterip": DNS_IS_USED,
      "k8s.api.frompod": DNS_IS_USED,
      "k8s.workloads.health": "it looks after the Deployment of DNS too",
      "k8s.routes.static": "the Service of DNS has no pods"
    },
    inject: ({ kubectl }) => kubectl("scale", "deployment", "coredns", "-n", "kube-system", "--replicas=0"),
    heal: ({ kubectl }) => kubectl("scale", "deployment", "coredns", "-n", "kube-system", "--replicas=2")
  },
  {
    name: "the controller manager is stopped",
    detectedBy: {
      "k8s.control.loops": ["REPLICA_SET_MISSING", "POD_MISSING", "LEASE_STALE", "LEASE_LOST"],
      "k8s.workload.lifecycle": ["ROLLOUT_STUCK", "GC", "SCALE"]
    },
    mayRedden: {
      ...ofWorkers(NEW_ENDPOINTS),
      "k8s.workloads.health": "what other checks make is not looked at",
      "k8s.finalizers.stuck": "nothing that was deleted goes away",
      "k8s.capacity.quota": "nobody counts what quotas allow",
      "k8s.pdb.drain": "nobody counts what may be evicted",
      "k8s.node.sweep": "nobody removes the pods of nodes"
    },
    ...component("controllerManager")
  },
  {
    name: "the scheduler is stopped",
    detectedBy: {
      "k8s.control.loops": ["NOT_SCHEDULED", "LEASE_STALE", "LEASE_LOST"],
      "k8s.workload.lifecycle": ["UNSCHEDULED"],
      "k8s.node.sweep": ["SCHEDULER_SILENT"]
    },
    mayRedden: { ...ofWorkers(NEW_PODS), "k8s.workloads.health": NEW_PODS },
    ...component("scheduler")
  },
  {
    name: "an admission webhook is dead",
    detectedBy: { "k8s.admission.webhooks": ["WEBHOOK_CALL_FAILED", "WEBHOOK_BACKEND_DOWN"] },
    mayRedden: {
      ...ofWorkers(GUARDED),
      "k8s.node.sweep": GUARDED,
      "k8s.api.crud": "it creates a ConfigMap, which the webhook guards",
      "k8s.control.loops": "what it makes passes the webhook",
      "k8s.cert.expiry": "the webhook has no CA bundle that can be read",
      "k8s.config.drift": NEW_FACT
    },
    inject: ({ apply }) =>
      apply({
        apiVersion: "admissionregistration.k8s.io/v1",
        kind: "ValidatingWebhookConfiguration",
        metadata: { name: "dead" },
        webhooks: [{
          name: "dead.example.com",
          admissionReviewVersions: ["v1"],
          sideEffects: "None",
          failurePolicy: "Fail",
          timeoutSeconds: 2,
          clientConfig: { service: { namespace: "default", name: "nobody" } },
          namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kubeprober" } },
          rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] }]
        }]
      }),
    heal: ({ kubectl }) => kubectl("delete", "validatingwebhookconfiguration", "dead")
  },
  {
    name: "an aggregated API is unavailable",
    detectedBy: { "k8s.apiservice": ["APISERVICE_UNAVAILABLE", "APISERVICE_UNAVAILABLE_RECENTLY"] },
    mayRedden: {
      "k8s.workload.lifecycle": "the garbage collector waits for an API that cannot be listed",
      "k8s.config.drift": NEW_FACT
    },
    inject: ({ apply }) =>
      apply({
        apiVersion: "apiregistration.k8s.io/v1",
        kind: "APIService",
        metadata: { name: "v1.gone.example.com" },
        spec: {
          group: "gone.example.com",
          version: "v1",
          groupPriorityMinimum: 100,
          versionPriority: 100,
          insecureSkipTLSVerify: true,
          service: { namespace: "default", name: "nobody" }
        }
      }),
    heal: ({ kubectl }) => kubectl("delete", "apiservice", "v1.gone.example.com")
  },
  {
    name: "a namespace waits for a finalizer",
    detectedBy: { "k8s.finalizers.stuck": ["DELETION_SLOW", "DELETION_LATE", "DELETION_STUCK"] },
    mayRedden: {},
    inject: ({ apply, kubectl }) =>
      apply(
        { apiVersion: "v1", kind: "Namespace", metadata: { name: "stuck" } },
        {
          apiVersion: "v1",
          kind: "ConfigMap",
          metadata: { name: "held", namespace: "stuck", finalizers: ["example.com/hold"] }
        }
      ).pipe(Effect.andThen(kubectl("delete", "namespace", "stuck", "--wait=false"))),
    heal: ({ kubectl }) =>
      kubectl("patch", "configmap", "held", "-n", "stuck", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}")
  },
  {
    name: "a workload crashes again and again",
    detectedBy: { "k8s.workloads.health": ["CRASH_LOOP", "CRASH_LOOP_RECENT", "NO_REPLICA_AVAILABLE"] },
    mayRedden: {},
    inject: ({ apply }) => apply(CRASHER),
    heal: ({ kubectl }) => kubectl("delete", "deployment", "crasher", "-n", "default")
  }
]
