/** infra.node.baseline: nodes are set up as Kubernetes needs them, and as whoever runs them wants them. */
import { Effect, Option, Schema } from "effect"
import { isIPv4, isIPv6 } from "node:net"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Service } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"
import { Nodes, needs as nodeNeeds, silenceOf } from "../workers/Nodes.ts"
import { type NodeBaseline, SafeName, nodeBaseline as task } from "../workers/tasks/nodeBaseline.ts"

/** `1`, or `>=128`, `<=1`, `!=2`. */
const Expectation = Schema.String.check(
  Schema.isPattern(/^(?:(?:>=|<=)\s*-?\d+|!=\s*\S.*|[^<>!=].*)$/u, {
    message: "a value, or one after >=, <= (whole numbers) or !="
  })
)

/** Keys are checked, since a record leaves out those that do not fit. */
const Expectations = Schema.Record(Schema.String, Expectation).check(
  Schema.isMaxProperties(100),
  Schema.isPropertyNames(SafeName)
)

const SafeNames = Schema.Array(SafeName).check(Schema.isMaxLength(100))

const FORWARD_4 = "net.ipv4.ip_forward"
const FORWARD_6 = "net.ipv6.conf.all.forwarding"

export const NodeBaselineConfig = Schema.Struct({
  critical: setting(Expectations, {
    // kubeadm's preflight asks for it (kubernetes.io/docs/setup/production-environment/container-runtimes).
    default: { [FORWARD_4]: "1" },
    description:
      "Sysctls that are an ERROR when they differ: a value, or one after >=, <= or !=. net.ipv4.ip_forward is asked of " +
      "nodes with IPv4 only, net.bridge.* where pods hang on a Linux bridge."
  }),
  expected: setting(Expectations, {
    default: {
      // Asked of nodes with IPv6 ranges for pods.
      [FORWARD_6]: "1",
      // Without it a Service's answer from the same node bypasses kube-proxy's rules.
      "net.bridge.bridge-nf-call-iptables": "1",
      // The kubelet sets both when it starts, to 1 and 0 (pkg/kubelet/cm/container_manager_linux.go).
      "vm.overcommit_memory": "<=1",
      "vm.panic_on_oom": "0",
      // The kernel's own defaults on a small machine: with less, kubelets and pods fail with "too many open files".
      "fs.inotify.max_user_instances": ">=128",
      "fs.inotify.max_user_watches": ">=8192"
    },
    description:
      "Sysctls that are a WARN when they differ, in place of the defaults; a need of what runs there, such as " +
      "vm.max_map_count: \">=262144\" for Elasticsearch, is named here."
  }),
  modules: setting(SafeNames, {
    default: [],
    description: "Kernel modules that are to be loaded, or built in with parameters (/sys/module)."
  }),
  units: setting(SafeNames, {
    default: [],
    description: "systemd units of system.slice that are to run, such as chronyd.service."
  }),
  forbiddenUnits: setting(SafeNames, {
    default: [],
    description: "systemd units of system.slice that are not to run, such as firewalld.service."
  }),
  swap: setting(Schema.Literals(["kubelet", "allowed", "forbidden"]), {
    default: "kubelet",
    description:
      "Whether swap may be on; `kubelet`: as failSwapOn of the kubelet's configuration says, if it can be read."
  })
})
export type NodeBaselineConfig = typeof NodeBaselineConfig.Type

const SET = "Set it with sysctl and in /etc/sysctl.d, or look for what sets it otherwise after boot."

export const codes = Codes.make({
  CRITICAL_SYSCTL_DIFFERS: Codes.error("A node lacks a kernel setting without which pods or Services fail on it.", SET),
  SYSCTL_DIFFERS: Codes.warn("A kernel setting of a node is not as expected.", SET),
  SYSCTL_UNREADABLE: Codes.unknown(
    "A kernel setting of a node is not for everyone to read.",
    "Leave it out of the configuration: the node agent has no privileges."
  ),
  MODULE_MISSING: Codes.warn(
    "A kernel module that is expected is not loaded on a node.",
    "Load it with modprobe and name it in /etc/modules-load.d."
  ),
  UNIT_NOT_RUNNING: Codes.warn(
    "A systemd unit that is expected does not run on a node.",
    "See `systemctl status` and the journal of the unit on that node."
  ),
  UNIT_RUNNING: Codes.warn(
    "A systemd unit runs on a node that is not to run there.",
    "Disable it: `systemctl disable --now`."
  ),
  UNITS_UNSEEN: Codes.unknown(
    "A node has no cgroups of systemd, so whether units run there is not known.",
    "Expect no units of nodes without systemd."
  ),
  SWAP_ON: Codes.warn(
    "Swap is on although the kubelet is set to refuse it, or this probe is: the kubelet will not start again.",
    "Switch it off (`swapoff -a`, and /etc/fstab), or set the kubelet's failSwapOn to false."
  ),
  NO_NAME_SERVER: Codes.warn(
    "A node has no name server: it resolves neither registries nor what CoreDNS forwards.",
    "Look at the node's /etc/resolv.conf and at what writes it (DHCP, systemd-resolved, NetworkManager)."
  ),
  TOO_MANY_NAME_SERVERS: Codes.warn(
    "A node names more than three name servers; resolvers and the kubelet leave out the others.",
    "Leave the three that shall be asked in /etc/resolv.conf."
  ),
  NAME_SERVER_LOOP: Codes.warn(
    "A node's name server is the cluster's own DNS, or what pods get of it is a loopback address: CoreDNS asks itself.",
    "Name a server outside of the cluster; with systemd-resolved point the kubelet to /run/systemd/resolve/resolv.conf."
  ),
  EVICTION_OFF: Codes.info(
    "The kubelet's configuration never evicts pods for want of memory or disk, so a full node fails instead.",
    "Set evictionHard for memory.available and nodefs.available, unless it is meant."
  )
})

/** What a node's object tells of it. */
export interface About {
  readonly name: string
  readonly ipv4: boolean
  /** Pods have IPv6 addresses of a range of the node's. */
  readonly ipv6: boolean
}

export const aboutOf = ({ metadata: { name = "" }, spec: { podCIDRs }, status: { addresses } }: Node): About => {
  const own = podCIDRs.length > 0
    ? podCIDRs.map((range) => range.split("/")[0] ?? "")
    : addresses.filter(({ type }) => type === "InternalIP").map(({ address }) => address)
  return {
    name,
    ipv4: own.length === 0 || own.some((address) => isIPv4(address)),
    ipv6: podCIDRs.some((range) => isIPv6(range.split("/")[0] ?? ""))
  }
}

/** Whether a value is as expected. */
export const meets = (value: string, expectation: string): boolean => {
  const [, operator, operand = ""] = /^(>=|<=|!=)?\s*(.*)$/u.exec(expectation) ?? []
  const wanted = operand.trim().split(/\s+/u).join(" ")
  if (operator === ">=") return Number(value) >= Number(wanted)
  if (operator === "<=") return Number(value) <= Number(wanted)
  return operator === "!=" ? value !== wanted : value === wanted
}

/** Hard eviction of these is off when it is set at all and they are not, or are set to nothing. */
const NEEDED_SIGNALS = ["memory.available", "nodefs.available"]

const isOff = (threshold: string | undefined): boolean =>
  threshold === undefined || !/[1-9]/u.test(threshold) || threshold === "100%"

const isLoopback = (address: string): boolean => address === "::1" || address.startsWith("127.")

/** The verdict on one node. */
export const judge = (
  config: NodeBaselineConfig,
  { ipv4, ipv6, name }: About,
  seen: NodeBaseline,
  clusterDNS: ReadonlyArray<string>
): ReadonlyArray<Finding> => {
  const subject = { kind: "Node", name }
  const findings: Array<Finding> = []

  const sysctls = (expectations: Readonly<Record<string, string>>, differs: Codes.Code) => {
    for (const [key, expected] of Object.entries(expectations)) {
      if ((key === FORWARD_4 && !ipv4) || (key === FORWARD_6 && !ipv6)) continue
      if (key.startsWith("net.bridge.") && !seen.bridged) continue
      const found = seen.sysctls[key]
      if (found === undefined || ("value" in found && meets(found.value, expected))) continue
      if ("lacking" in found && found.lacking !== "missing") {
        findings.push(codes.SYSCTL_UNREADABLE({
          message: `${key} of node ${name} cannot be read (${found.lacking})`,
          subject,
          evidence: { key, why: found.lacking }
        }))
        continue
      }
      const actual = "value" in found ? found.value : "absent"
      findings.push(differs({
        message: `${key} of node ${name} is ${actual} (expected ${expected})`,
        subject,
        evidence: { key, actual, expected }
      }))
    }
  }
  sysctls(config.critical, codes.CRITICAL_SYSCTL_DIFFERS)
  sysctls(
    Object.fromEntries(Object.entries(config.expected).filter(([key]) => config.critical[key] === undefined)),
    codes.SYSCTL_DIFFERS
  )

  for (const module of seen.modulesMissing) {
    findings.push(codes.MODULE_MISSING({
      message: `the kernel module ${module} is not loaded on node ${name}`,
      subject,
      evidence: { module }
    }))
  }

  if (!seen.systemd && config.units.length + config.forbiddenUnits.length > 0) {
    findings.push(codes.UNITS_UNSEEN({ message: `node ${name} has no cgroups of systemd to tell units by`, subject }))
  } else {
    for (const unit of config.units.filter((unit) => !seen.unitsRunning.includes(unit))) {
      findings.push(codes.UNIT_NOT_RUNNING({
        message: `${unit} does not run on node ${name}`,
        subject,
        evidence: { unit, expected: "running" }
      }))
    }
    for (const unit of config.forbiddenUnits.filter((unit) => seen.unitsRunning.includes(unit))) {
      findings.push(codes.UNIT_RUNNING({
        message: `${unit} runs on node ${name}`,
        subject,
        evidence: { unit, expected: "not running" }
      }))
    }
  }

  const { kubelet, nameServers, swap } = seen
  if (swap.length > 0 && (config.swap === "forbidden" || (config.swap === "kubelet" && kubelet?.failSwapOn === true))) {
    findings.push(codes.SWAP_ON({
      message: `node ${name} has swap on (${swap.join(", ")})`,
      subject,
      evidence: { swap: swap.join(", "), expected: "none" }
    }))
  }

  if (nameServers !== undefined) {
    const { addresses, of } = nameServers
    const evidence = { nameServers: addresses.join(", "), of }
    if (addresses.length === 0) {
      findings.push(codes.NO_NAME_SERVER({ message: `node ${name} has no name server`, subject, evidence }))
    }
    if (addresses.length > 3) {
      findings.push(codes.TOO_MANY_NAME_SERVERS({
        message: `node ${name} has ${addresses.length} name servers (at most 3 are used)`,
        subject,
        evidence
      }))
    }
    const cluster = [...clusterDNS, ...kubelet?.clusterDNS ?? []]
    // On the node itself a loopback address is systemd-resolved or dnsmasq, as is usual.
    const looped = addresses.find((address) => cluster.includes(address) || (of === "pods" && isLoopback(address)))
    if (looped !== undefined) {
      findings.push(codes.NAME_SERVER_LOOP({
        message: cluster.includes(looped)
          ? `node ${name} asks the cluster's own DNS (${looped}), which forwards to the node's name servers`
          : `pods of node ${name} that use its name servers ask themselves (${looped})`,
        subject,
        evidence: { ...evidence, looped }
      }))
    }
  }

  const off = kubelet?.evictionHard === undefined
    ? []
    : NEEDED_SIGNALS.filter((signal) => isOff(kubelet.evictionHard?.[signal]))
  if (kubelet !== undefined && off.length > 0) {
    findings.push(codes.EVICTION_OFF({
      message: `the kubelet of node ${name} evicts no pods at any ${off.join(" or ")}`,
      subject,
      evidence: { file: kubelet.file, off: off.join(", ") }
    }))
  }
  return findings
}

export const nodeBaseline = Probe.make("infra.node.baseline", {
  layer: "infrastructure",
  proves: "Every node has the kernel settings, modules, units, name servers and swap that are expected of it.",
  writes: "nothing",
  placement: "nodes",
  costs: "5 API requests, and a question to each node agent.",
  needs: [
    nodeNeeds,
    Needs.get("services", { namespace: "kube-system", names: ["kube-dns"], optional: true })
  ],
  codes,
  config: NodeBaselineConfig,
  interval: "10 minutes",
  timeout: "45 seconds",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeBaselineConfig) {
    const kube = yield* Kube
    const nodes = yield* Nodes
    const [answers, { items }, dns] = yield* Effect.all([
      nodes.run(task, {
        sysctls: [...new Set([...Object.keys(config.critical), ...Object.keys(config.expected)])],
        modules: config.modules,
        units: [...config.units, ...config.forbiddenUnits]
      }),
      kube.list(Node),
      Effect.option(kube.get(Service, { namespace: "kube-system", name: "kube-dns" }))
    ], { concurrency: 3 })
    const about = new Map(items.map((node) => [node.metadata.name ?? "", aboutOf(node)]))
    const clusterDNS = Option.match(dns, {
      onNone: () => [],
      onSome: ({ spec: { clusterIP, clusterIPs } }) =>
        [clusterIP ?? "", ...clusterIPs].filter((address) => address !== "" && address !== "None")
    })
    const answered = answers.flatMap((answer) => answer._tag === "Answered" ? [answer] : [])
    return Outcome.make(
      `${answered.length} of ${answers.length} nodes are set up as expected`,
      [
        ...answered.flatMap(({ node, output }) =>
          judge(config, about.get(node) ?? { name: node, ipv4: true, ipv6: false }, output, clusterDNS)
        ),
        ...silenceOf(answers)
      ]
    )
  })
})
