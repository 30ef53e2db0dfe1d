/** The programs of a control plane, named as their binaries. */
export const programs = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] as const
export type Program = (typeof programs)[number]

/** Where the control plane listens. */
export interface Listening {
  /** The address that clients dial. */
  readonly address: string
  readonly apiServer: number
  readonly etcd: number
  readonly etcdPeer: number
  readonly controllerManager: number
  readonly scheduler: number
}

/** What listens, to find free ports for. */
export const ports = ["apiServer", "etcd", "etcdPeer", "controllerManager", "scheduler"] as const

/** The ports that Kubernetes uses itself (https://kubernetes.io/docs/reference/networking/ports-and-protocols/). */
export const standardPorts = {
  apiServer: 6443,
  etcd: 2379,
  etcdPeer: 2380,
  controllerManager: 10257,
  scheduler: 10259
}

/**
 * How soon a lost node is noticed and its pods move. `fast` shows in seconds what takes the `default`, which are
 * Kubernetes' own figures (`--node-monitor-grace-period`, `--default-unreachable-toleration-seconds`), minutes.
 */
export interface NodeTimings {
  readonly monitorPeriod: string
  readonly monitorGracePeriod: string
  readonly tolerationSeconds: number
  readonly statusUpdateFrequency: string
  readonly leaseDurationSeconds: number
}

export const nodeTimings = {
  default: {
    monitorPeriod: "5s",
    monitorGracePeriod: "50s",
    tolerationSeconds: 300,
    statusUpdateFrequency: "10s",
    leaseDurationSeconds: 40
  },
  fast: {
    monitorPeriod: "1s",
    monitorGracePeriod: "6s",
    tolerationSeconds: 5,
    statusUpdateFrequency: "1s",
    leaseDurationSeconds: 4
  }
} satisfies Record<string, NodeTimings>

/** Service addresses exist inside a cluster only, so all clusters may use the same. */
export const SERVICE_CIDR = "10.96.0.0/16"
export const KUBERNETES_SERVICE_IP = "10.96.0.1"
export const DNS_SERVICE_IP = "10.96.0.10"

export interface FlagOptions {
  /** The folder with the files of `Credentials`; etcd keeps its data in `etcd/` beside them. */
  readonly folder: string
  readonly listening: Listening
  readonly podCidr: string
  readonly timings: NodeTimings
  /** Whether pods run here, which must reach the API server and be reached by it. */
  readonly withNodes: boolean
}

/** The flags of each program. */
export const flags = (options: FlagOptions): Record<Program, ReadonlyArray<string>> => {
  const { folder, listening, podCidr, timings, withNodes } = options
  const file = (name: string) => `${folder}/${name}`
  const etcdUrl = `https://127.0.0.1:${listening.etcd}`
  const etcdPeerUrl = `https://127.0.0.1:${listening.etcdPeer}`
  return {
    "etcd": [
      `--data-dir=${file("etcd")}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=${etcdPeerUrl}`,
      `--initial-advertise-peer-urls=${etcdPeerUrl}`,
      `--initial-cluster=default=${etcdPeerUrl}`,
      `--cert-file=${file("etcd.crt")}`,
      `--key-file=${file("etcd.key")}`,
      `--trusted-ca-file=${file("ca.crt")}`,
      "--client-cert-auth",
      `--peer-cert-file=${file("etcd.crt")}`,
      `--peer-key-file=${file("etcd.key")}`,
      `--peer-trusted-ca-file=${file("ca.crt")}`,
      "--peer-client-cert-auth",
      // A local cluster does not outlive its machine, so it need not survive a power cut.
      "--unsafe-no-fsync"
    ],
    "kube-apiserver": [
      `--etcd-servers=${etcdUrl}`,
      `--etcd-cafile=${file("ca.crt")}`,
      `--etcd-certfile=${file("etcd.crt")}`,
      `--etcd-keyfile=${file("etcd.key")}`,
      `--secure-port=${listening.apiServer}`,
      `--bind-address=${withNodes ? "0.0.0.0" : listening.address}`,
      `--advertise-address=${listening.address}`,
      // The API server refuses to publish a loopback address as an endpoint of the Service `kubernetes`.
      ...(withNodes ? [] : ["--endpoint-reconciler-type=none"]),
      `--tls-cert-file=${file("apiserver.crt")}`,
      `--tls-private-key-file=${file("apiserver.key")}`,
      `--client-ca-file=${file("ca.crt")}`,
      `--service-account-key-file=${file("service-accounts.pub")}`,
      `--service-account-signing-key-file=${file("service-accounts.key")}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-cluster-ip-range=${SERVICE_CIDR}`,
      "--authorization-mode=Node,RBAC",
      "--enable-admission-plugins=NodeRestriction",
      "--allow-privileged",
      `--kubelet-client-certificate=${file("apiserver-client.crt")}`,
      `--kubelet-client-key=${file("apiserver-client.key")}`,
      `--kubelet-certificate-authority=${file("ca.crt")}`,
      "--kubelet-preferred-address-types=InternalIP",
      `--requestheader-client-ca-file=${file("front-proxy-ca.crt")}`,
      "--requestheader-allowed-names=front-proxy",
      "--requestheader-username-headers=X-Remote-User",
      "--requestheader-group-headers=X-Remote-Group",
      "--requestheader-extra-headers-prefix=X-Remote-Extra-",
      `--proxy-client-cert-file=${file("front-proxy.crt")}`,
      `--proxy-client-key-file=${file("front-proxy.key")}`,
      // No kube-proxy serves the control plane: aggregated APIs are reached at the addresses of their pods.
      "--enable-aggregator-routing=true",
      `--default-not-ready-toleration-seconds=${timings.tolerationSeconds}`,
      `--default-unreachable-toleration-seconds=${timings.tolerationSeconds}`
    ],
    "kube-controller-manager": [
      `--kubeconfig=${file("controller-manager.conf")}`,
      `--authentication-kubeconfig=${file("controller-manager.conf")}`,
      `--authorization-kubeconfig=${file("controller-manager.conf")}`,
      ...TOLERATE_BOOT,
      "--bind-address=127.0.0.1",
      `--secure-port=${listening.controllerManager}`,
      ...LEADER_ELECTION,
      `--service-account-private-key-file=${file("service-accounts.key")}`,
      "--use-service-account-credentials",
      `--root-ca-file=${file("ca.crt")}`,
      `--cluster-signing-cert-file=${file("ca.crt")}`,
      `--cluster-signing-key-file=${file("ca.key")}`,
      "--allocate-node-cidrs",
      `--cluster-cidr=${podCidr}`,
      `--service-cluster-ip-range=${SERVICE_CIDR}`,
      `--node-monitor-period=${timings.monitorPeriod}`,
      `--node-monitor-grace-period=${timings.monitorGracePeriod}`,
      ...(withNodes ? ["--enable-hostpath-provisioner"] : []),
      // At the default of 20 requests a second the first pods come seconds late.
      "--kube-api-qps=300",
      "--kube-api-burst=600"
    ],
    "kube-scheduler": [
      `--kubeconfig=${file("scheduler.conf")}`,
      `--authentication-kubeconfig=${file("scheduler.conf")}`,
      `--authorization-kubeconfig=${file("scheduler.conf")}`,
      ...TOLERATE_BOOT,
      "--bind-address=127.0.0.1",
      `--secure-port=${listening.scheduler}`,
      ...LEADER_ELECTION
    ]
  }
}

/** They start together with the API server, and ask it about its front proxy before it has made its roles. */
const TOLERATE_BOOT = ["--authentication-tolerate-lookup-failure=true"]

/**
 * Leases are held, as in any cluster, so that probes can judge them; shorter than the default 15 seconds, so that a
 * component which was killed and started again leads again soon.
 */
const LEADER_ELECTION = [
  "--leader-elect=true",
  "--leader-elect-lease-duration=6s",
  "--leader-elect-renew-deadline=4s",
  "--leader-elect-retry-period=1s"
]
