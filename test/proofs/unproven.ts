/** What no test on a real component proves, and why: told in `docs/proofs.md` beside what is proven. */

/** Of one probe: by code, or `healthy`, `blind` or `killed` for a whole proof. */
export type Reasons = Readonly<Record<string, string>>

/** By probe id, sorted. A reason for something that is proven is refused: it would be wrong. */
export const unproven: Readonly<Record<string, Reasons>> = {
  "app.freshness": {
    JOBS_NOT_ALL_READ: "takes more Jobs than a test should make; judged alone"
  },
  "app.promql": {
    METRIC_INCOMPLETE: "a single Prometheus is never partial; judged on answers as Thanos and VictoriaMetrics give them"
  },
  "infra.clock.skew": {
    CLOCKS_DISAGREE:
      "it takes a cluster of which one clock alone can be read, and a prober whose own is wrong; judged alone"
  },
  "infra.etcd": {
    LEADERS_DIFFER: "members of one cluster that name two leaders would be a fault of etcd; judged alone",
    MEMBER_APART: "a member that is cut off from the others fails its puts first, which is told as that; judged alone",
    METRICS_UNREADABLE: "etcd serves its metrics where it serves clients; a proxy that leaves them out is not had here",
    NO_LEADER: "while a member has no leader its puts fail first, which is told as QUORUM_LOST; judged alone",
    WRITE_LOST: "it takes an etcd that forgets what it has confirmed"
  },
  "infra.node.baseline": {
    MODULE_MISSING: "nodes of tests share the kernel of the machine, whose modules are not a test's to load",
    SWAP_ON: "swap is the whole machine's; judged on what a node would tell",
    UNITS_UNSEEN: "whether there are cgroups of systemd is the machine's; judged on what a node would tell"
  },
  "infra.node.kernel": {
    EVENTS_NOT_ALL_READ: "takes more Events than a test should write",
    KERNEL_DAMAGED: "a bug of the kernel would be that of the whole machine, until its next boot; judged on its flags",
    MEMORY_ERRORS: "takes broken memory; judged on the counters"
  },
  "infra.node.resources": {
    CONNECTIONS_ALMOST_USED:
      "CONNECTIONS_USED is made for real; a share of a count that moves cannot be held; judged alone",
    FILES_ALMOST_USED: "open files are counted for the whole machine, which no test may use up; judged alone",
    FILES_USED: "open files are counted for the whole machine, which no test may use up; judged alone",
    NODE_STALLED: "a machine that waits for memory or disks for minutes would break every other test; judged alone",
    TASKS_ALMOST_USED: "tasks are counted for the whole machine, which no test may use up; judged alone",
    TASKS_USED: "tasks are counted for the whole machine, which no test may use up; judged alone"
  },
  "infra.node.runtime": {
    PROCESSES_HIDDEN: "nodes of tests do not hide processes; judged on what such a node would tell"
  },
  "k8s.api.frompod": {
    TOKEN_REJECTED: "it takes an API server that does not know its own keys; judged alone"
  },
  "k8s.control.loops": {
    LEASE_STALE: "a component that acts renews its lease in the same loop; judged alone"
  },
  "k8s.events.storm": {
    EVENTS_NOT_ALL_READ: "takes more Events than a test should write; judged alone"
  },
  "k8s.node.sweep": {
    CRASHED: "judged alone; that a crash is told as one is proven of worker pods",
    IMAGE_PULL_SLOW: "no registry can be reached by local nodes; judged alone, on events as kubelets write them",
    NOT_REACHED: "it takes tens of nodes that all hang; judged alone",
    NOT_STARTED: "the runtime's failures between sandbox and container cannot be made on one node alone; judged alone",
    UNSCHEDULABLE: "a Ready node refuses a pod that tolerates all for want of room only; judged alone"
  },
  "k8s.service.clusterip": {
    SERVICE_ONE_SIDED: "kube-proxy programs both pods of a Service in one transaction; judged alone"
  },
  "k8s.workload.lifecycle": {
    CREATE_FAILED: "k8s.api.crud proves what comes of writes that fail",
    IMAGE_PULL_SLOW: "no registry can be reached by local nodes",
    KUBELET_SILENT: "proven of k8s.node.sweep, which reads pods in the same way",
    NOT_STARTED: "the runtime's failures between sandbox and container cannot be made on one node alone",
    TERMINATING: "proven of k8s.node.sweep",
    UNREADY: "proven of k8s.node.sweep, which reads pods in the same way"
  },
  "mw.mysql": {
    REPLICA_CONNECTING:
      "it is the moment before a connection is made or has failed, which is REPLICA_STOPPED; judged alone",
    WRITE_LOST: "it takes a server that forgets what it has confirmed; judged alone"
  },
  "mw.postgres": {
    WRITE_LOST: "it takes a server that forgets what it has confirmed; judged alone"
  },
  "mw.redis": {
    WRITE_EVICTED: "it takes a write that fits and the very next command that does not",
    WRITE_LOST: "it takes a server that forgets what it has confirmed; judged alone"
  }
}
