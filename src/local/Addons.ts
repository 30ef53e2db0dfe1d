import { DNS_SERVICE_IP } from "./control-plane/Flags.ts"
import { COREDNS_IMAGE } from "./image/Images.ts"

/** An object and where it is applied. */
export interface Addon {
  readonly path: string
  readonly manifest: object
}

const inKubeSystem = { namespace: "kube-system" }

const coreDnsDeployment = (replicas: number) => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name: "coredns", ...inKubeSystem, labels: { "k8s-app": "kube-dns" } },
  spec: {
    replicas,
    selector: { matchLabels: { "k8s-app": "kube-dns" } },
    template: {
      metadata: { labels: { "k8s-app": "kube-dns" } },
      spec: {
        serviceAccountName: "coredns",
        priorityClassName: "system-cluster-critical",
        // The name server of a name server is not itself.
        dnsPolicy: "Default",
        topologySpreadConstraints: [{
          maxSkew: 1,
          topologyKey: "kubernetes.io/hostname",
          whenUnsatisfiable: "DoNotSchedule",
          labelSelector: { matchLabels: { "k8s-app": "kube-dns" } }
        }],
        containers: [{
          name: "coredns",
          image: COREDNS_IMAGE,
          imagePullPolicy: "Never",
          args: ["-conf", "/etc/coredns/Corefile"],
          ports: [
            { name: "dns", containerPort: 53, protocol: "UDP" },
            { name: "dns-tcp", containerPort: 53, protocol: "TCP" },
            { name: "metrics", containerPort: 9153, protocol: "TCP" }
          ],
          readinessProbe: { httpGet: { path: "/ready", port: 8181 }, periodSeconds: 1 },
          livenessProbe: { httpGet: { path: "/health", port: 8080 } },
          volumeMounts: [{ name: "config", mountPath: "/etc/coredns", readOnly: true }]
        }],
        volumes: [{ name: "config", configMap: { name: "coredns" } }]
      }
    }
  }
})

/** The deployment of CoreDNS, to see when it serves. */
export const COREDNS_PATH = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"

/** Cluster DNS as kubeadm installs it (same names and labels), and a default StorageClass. */
export const addons = (replicas: number): ReadonlyArray<Addon> => [
  {
    path: "/api/v1/namespaces/kube-system/serviceaccounts/coredns",
    manifest: { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "coredns", ...inKubeSystem } }
  },
  {
    path: "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:coredns",
    manifest: {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: "system:coredns" },
      rules: [
        { apiGroups: [""], resources: ["endpoints", "services", "pods", "namespaces"], verbs: ["list", "watch"] },
        { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] }
      ]
    }
  },
  {
    path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:coredns",
    manifest: {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "system:coredns" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:coredns" },
      subjects: [{ kind: "ServiceAccount", name: "coredns", ...inKubeSystem }]
    }
  },
  {
    path: "/api/v1/namespaces/kube-system/configmaps/coredns",
    manifest: {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "coredns", ...inKubeSystem },
      data: { Corefile: COREFILE }
    }
  },
  { path: COREDNS_PATH, manifest: coreDnsDeployment(replicas) },
  {
    path: "/api/v1/namespaces/kube-system/services/kube-dns",
    manifest: {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "kube-dns", ...inKubeSystem, labels: { "k8s-app": "kube-dns" } },
      spec: {
        clusterIP: DNS_SERVICE_IP,
        selector: { "k8s-app": "kube-dns" },
        ports: [
          { name: "dns", port: 53, protocol: "UDP" },
          { name: "dns-tcp", port: 53, protocol: "TCP" },
          { name: "metrics", port: 9153, protocol: "TCP" }
        ]
      }
    }
  },
  {
    path: "/apis/storage.k8s.io/v1/storageclasses/standard",
    manifest: {
      apiVersion: "storage.k8s.io/v1",
      kind: "StorageClass",
      metadata: { name: "standard", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
      provisioner: "kubernetes.io/host-path"
    }
  }
]

/** Short times to live, so that tests see a change soon. There is no name server behind it: a local cluster is closed. */
const COREFILE = `.:53 {
    errors
    health :8080
    ready :8181
    prometheus :9153
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    reload 5s
}
`
