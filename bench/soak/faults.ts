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
const DNS_IS_USED = "it resolves names, which nobody does now"
const NEW_PODS = "its pods are neither made nor scheduled"
const NEW_ENDPOINTS = "nobody writes endpoints for the Services it makes"

export const faults: ReadonlyArray<Fault> = [
  {
    name: "a node is cordoned",
    detectedBy: { "k8s.node.readiness": ["NODE_CORDONED"] },
    mayRedden: { "k8s.capacity.quota": "a node less takes pods" },
    inject: (installation) =>
      Effect.flatMap(lastNode(installation), ({ name }) => installation.kubectl("cordon", name)),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ name }) => installation.kubectl("uncordon", name))
  },
  {
    name: "a kubelet is stopped",
    detectedBy: { "k8s.node.readiness": ["NODE_NOT_READY", "NODE_NOT_READY_RECENTLY", "NODE_LEASE_STALE"] },
    mayRedden: {
      "k8s.workloads.health": NODE_PODS,
      "k8s.node.sweep": NODE_PODS,
      "k8s.workload.lifecycle": NODE_PODS,
      "k8s.service.clusterip": NODE_PODS,
      "k8s.dns.cluster": NODE_PODS,
      "k8s.storage.roundtrip": NODE_PODS,
      "k8s.net.mesh": NODE_PODS,
      "k8s.pdb.drain": NODE_PODS,
      "k8s.capacity.quota": "a node less takes pods",
      "k8s.finalizers.stuck": "pods there cannot be deleted"
    },
    inject: (installation) => Effect.flatMap(lastNode(installation), ({ kubelet }) => kubelet.stop),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ kubelet }) => kubelet.start)
  },
  {
    name: "kube-proxy is stopped on a node",
    detectedBy: { "k8s.service.clusterip": [] },
    mayRedden: { "k8s.net.mesh": "new Services are not reachable from that node" },
    inject: (installation) => Effect.flatMap(lastNode(installation), ({ kubeProxy }) => kubeProxy.stop),
    heal: (installation) => Effect.flatMap(lastNode(installation), ({ kubeProxy }) => kubeProxy.start)
  },
  {
    name: "CoreDNS is scaled to zero",
    detectedBy: { "k8s.dns.cluster": [] },
    mayRedden: { "k8s.net.egress": DNS_IS_USED, "k8s.ingress.http": DNS_IS_USED, "k8s.service.clusterip": DNS_IS_USED },
    inject: ({ kubectl }) => kubectl("scale", "deployment", "coredns", "-n", "kube-system", "--replicas=0"),
    heal: ({ kubectl }) => kubectl("scale", "deployment", "coredns", "-n", "kube-system", "--replicas=2")
  },
  {
    name: "the controller manager is stopped",
    detectedBy: { "k8s.control.loops": [], "k8s.workload.lifecycle": [] },
    mayRedden: {
      "k8s.workloads.health": "what other checks make is not looked at",
      "k8s.finalizers.stuck": "nothing that was deleted goes away",
      "k8s.service.clusterip": NEW_ENDPOINTS,
      "k8s.ingress.http": NEW_ENDPOINTS,
      "k8s.dns.cluster": NEW_ENDPOINTS,
      "k8s.storage.roundtrip": "volumes are neither bound nor deleted",
      "k8s.rollout.daemonset": NEW_PODS,
      "k8s.cronjob.schedule": NEW_PODS
    },
    ...component("controllerManager")
  },
  {
    name: "the scheduler is stopped",
    detectedBy: { "k8s.control.loops": [], "k8s.workload.lifecycle": [], "k8s.node.sweep": [] },
    mayRedden: {
      "k8s.service.clusterip": NEW_PODS,
      "k8s.dns.cluster": NEW_PODS,
      "k8s.storage.roundtrip": NEW_PODS,
      "k8s.net.mesh": NEW_PODS,
      "k8s.ingress.http": NEW_PODS
    },
    ...component("scheduler")
  },
  {
    name: "an admission webhook is dead",
    detectedBy: { "k8s.admission.webhooks": ["WEBHOOK_CALL_FAILED", "WEBHOOK_BACKEND_DOWN"] },
    mayRedden: {
      "k8s.api.crud": "it creates a ConfigMap, which the webhook guards",
      "k8s.cert.expiry": "the webhook has no CA bundle that can be read"
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
    detectedBy: { "k8s.apiservice": [] },
    mayRedden: {
      "k8s.hpa.metrics": "it may ask that API",
      "k8s.namespace.lifecycle": "namespaces are not deleted while an API cannot be listed"
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
