/**
 * infra.node.kernel: no node's kernel or hardware is at fault, as far as the kernel, the kubelet and problem detectors say.
 *
 * The kernel's log is not read: that takes privileges which a node agent has not got. What it notes in `/proc` and `/sys` is,
 * and so are the conditions and Events of node-problem-detector, the EKS node monitoring agent and AKS where they run.
 */
import { DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node } from "../../infra/kube/resources/core.ts"
import { Event } from "../../infra/kube/resources/events.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Names, setting } from "../Setting.ts"
import { Nodes, needs as nodeNeeds, silenceOf } from "../workers/Nodes.ts"
import { type NodeKernel, nodeKernel as task } from "../workers/tasks/nodeKernel.ts"

export const NodeKernelConfig = Schema.Struct({
  window: setting(DurationString, {
    default: "30m",
    description: "How long an Event or an error of a file system counts as recent; API servers keep Events for an hour."
  }),
  errorConditions: setting(Names, {
    default: [
      // node-problem-detector (config/kernel-monitor.json, readonly-monitor.json, disk-status-checker).
      "KernelDeadlock",
      "ReadonlyFilesystem",
      "XfsShutdown",
      "CperHardwareErrorFatal",
      // AKS (learn.microsoft.com/azure/aks/node-problem-detector).
      "FilesystemCorruptionProblem",
      // The EKS node monitoring agent (docs.aws.amazon.com/eks/latest/userguide/node-health.html).
      "KernelReady=False",
      "StorageReady=False",
      "AcceleratedHardwareReady=False"
    ],
    description: "Conditions of nodes that are an ERROR when True, or when as said after `=`."
  }),
  warnConditions: setting(Names, {
    default: [
      "FrequentUnregisterNetDevice",
      "FrequentKubeletRestart",
      "FrequentDockerRestart",
      "FrequentContainerdRestart",
      "CorruptDockerOverlay2",
      "KubeletUnhealthy",
      "ContainerRuntimeUnhealthy",
      "KubeletProblem",
      "ContainerRuntimeProblem",
      "NTPProblem",
      "NetworkingReady=False",
      "ContainerRuntimeReady=False"
    ],
    description: "Conditions of nodes that are a WARN when True, or when as said after `=`."
  }),
  errorEvents: setting(Names, {
    default: ["TaskHung", "DockerHung", "KernelOops", "Ext4Error", "IOError", "FilesystemIsReadOnly", "XfsHasShutdown"],
    description: "Reasons of recent Events of nodes that are an ERROR."
  }),
  warnEvents: setting(Names, {
    // OOMKilling is left out: it is mostly a container at its own limit, which k8s.workloads.health tells of its pod.
    default: ["SystemOOM", "Ext4Warning", "MemoryReadError", "UnregisterNetDevice"],
    description: "Reasons of recent Events of nodes that are a WARN; SystemOOM is the kubelet's."
  })
})
export type NodeKernelConfig = typeof NodeKernelConfig.Type

const REPLACE = "Drain the node, read its kernel's log (`dmesg`), and reboot, mend or replace it."

export const codes = Codes.make({
  NODE_CONDITION_BAD: Codes.error("A problem detector holds a node's kernel, storage or hardware for broken.", REPLACE),
  NODE_CONDITION_SUSPECT: Codes.warn("A problem detector holds a node for impaired.", REPLACE),
  KERNEL_EVENT_BAD: Codes.error("A problem detector has seen a serious fault in a node's kernel log.", REPLACE),
  KERNEL_EVENT: Codes.warn("The kubelet or a problem detector has seen a fault in a node's kernel log.", REPLACE),
  FILE_SYSTEM_ERRORS: Codes.error(
    "The kernel has just met errors in a file system of a node: its data or its disk is damaged.",
    "Drain the node; read its kernel's log for the disk's own errors; check the file system (`fsck`) or replace the disk."
  ),
  FILE_SYSTEM_UNCHECKED: Codes.warn(
    "A file system of a node has had errors and has not been checked since.",
    "Drain the node and check the file system while it is not mounted (`fsck`)."
  ),
  MEMORY_ERRORS: Codes.warn(
    "The memory of a node has had errors since boot that could not be corrected.",
    "Replace the module that the kernel's log names, or the machine."
  ),
  KERNEL_DAMAGED: Codes.warn(
    "The kernel of a node has had a bug, a bad page or a machine check since boot, and may misbehave from then on.",
    "Drain and reboot the node; when it comes again, look at the kernel's version or the hardware."
  ),
  KERNEL_LOCKED_UP: Codes.info(
    "A processor of a node was stuck in the kernel for seconds, at least once since boot; on virtual machines often because " +
      "the machine below was busy.",
    "Nothing, when it was once; the kernel's log tells when and where."
  ),
  EVENTS_NOT_ALL_READ: Codes.unknown(
    "There are more Warning Events of nodes than the probe reads.",
    "Look for what emits them: `kubectl events --types=Warning`; k8s.events.storm judges their number."
  )
})

/** Each is about 1 KiB. */
const MAXIMUM_EVENTS = 2000

const isMet = (pattern: string, { status, type }: { readonly type: string; readonly status: string }): boolean => {
  const [name, wanted = "True"] = pattern.split("=")
  return name === type && status === wanted
}

/** What the node's object says. */
export const judgeConditions = (
  config: NodeKernelConfig,
  { metadata: { name = "" }, status: { conditions } }: Node
): ReadonlyArray<Finding> =>
  conditions.flatMap((condition) => {
    const code = config.errorConditions.some((pattern) => isMet(pattern, condition))
      ? codes.NODE_CONDITION_BAD
      : config.warnConditions.some((pattern) => isMet(pattern, condition))
      ? codes.NODE_CONDITION_SUSPECT
      : undefined
    if (code === undefined) return []
    const { message = "", reason = "", status, type } = condition
    return [code({
      message: `node ${name} has the condition ${type} ${status}: ${reason}${message === "" ? "" : ` (${message})`}`,
      subject: { kind: "Node", name },
      evidence: { condition: type, status, reason }
    })]
  })

const lastOf = (event: Event): DateTime.Utc | undefined =>
  event.series?.lastObservedTime ?? event.deprecatedLastTimestamp ?? event.eventTime ??
    event.metadata.creationTimestamp

/** What Events of nodes say: one finding for each node and reason. */
export const judgeEvents = (
  config: NodeKernelConfig,
  now: DateTime.Utc,
  events: ReadonlyArray<Event>
): ReadonlyArray<Finding> => {
  const from = DateTime.subtractDuration(now, config.window)
  const latest = new Map<string, { readonly event: Event; readonly at: DateTime.Utc }>()
  for (const event of events) {
    const at = lastOf(event)
    if (event.regarding.kind !== "Node" || at === undefined || DateTime.isLessThan(at, from)) continue
    const key = `${event.regarding.name} ${event.reason}`
    const known = latest.get(key)
    if (known === undefined || DateTime.isGreaterThan(at, known.at)) latest.set(key, { event, at })
  }
  return [...latest.values()].flatMap(({ at, event: { note = "", reason = "", regarding: { name = "" } } }) => {
    const code = config.errorEvents.includes(reason)
      ? codes.KERNEL_EVENT_BAD
      : config.warnEvents.includes(reason)
      ? codes.KERNEL_EVENT
      : undefined
    return code === undefined ? [] : [code({
      message: `node ${name}: ${reason} ${Elapsed.text(Elapsed.between(at, now))} ago: ${quote(note, 300)}`,
      subject: { kind: "Node", name },
      evidence: { reason, at: DateTime.formatIso(at) }
    })]
  })
}

/** Flags of `kernel.tainted` that tell of faults (Documentation/admin-guide/tainted-kernels.rst). */
const DAMAGE: ReadonlyArray<readonly [bit: number, what: string]> = [
  [4, "a machine check"],
  [5, "a bad page"],
  [7, "a bug (oops)"]
]
const LOCKUP_BIT = 14

const isSet = (flags: number, bit: number): boolean => Math.floor(flags / 2 ** bit) % 2 === 1

/** What the node's kernel says. */
export const judgeKernel = (
  config: NodeKernelConfig,
  node: string,
  { fileSystems, memory, tainted }: NodeKernel
): ReadonlyArray<Finding> => {
  const subject = { kind: "Node", name: node }
  const damage = DAMAGE.filter(([bit]) => isSet(tainted, bit)).map(([, what]) => what)
  return [
    ...fileSystems.map(({ age, device, errors, mount }) => {
      const isRecent = age !== undefined && age <= Duration.toSeconds(config.window)
      const ago = age === undefined ? "" : `, the last ${Elapsed.text(Duration.seconds(Math.round(age)))} ago`
      return (isRecent ? codes.FILE_SYSTEM_ERRORS : codes.FILE_SYSTEM_UNCHECKED)({
        message: `the file system ${mount} (${device}) of node ${node} has had ${errors} errors${ago}`,
        subject,
        evidence: { mount, device, errors, ...(age === undefined ? {} : { lastSecondsAgo: Math.round(age) }) }
      })
    }),
    ...memory.map(({ controller, uncorrected }) =>
      codes.MEMORY_ERRORS({
        message: `memory of node ${node} (${controller}) has had ${uncorrected} errors that could not be corrected`,
        subject,
        evidence: { controller, uncorrected }
      })
    ),
    ...(damage.length === 0 ? [] : [codes.KERNEL_DAMAGED({
      message: `the kernel of node ${node} has had ${damage.join(" and ")} since boot`,
      subject,
      evidence: { tainted, faults: damage.join(", ") }
    })]),
    ...(isSet(tainted, LOCKUP_BIT)
      ? [codes.KERNEL_LOCKED_UP({
        message: `a processor of node ${node} was stuck in the kernel since boot`,
        subject,
        evidence: { tainted }
      })]
      : [])
  ]
}

export const nodeKernel = Probe.make("infra.node.kernel", {
  layer: "infrastructure",
  proves:
    "No kernel of a node notes damage of itself, its memory or its ext4 file systems, and no problem detector reports any.",
  writes: "nothing",
  placement: "nodes",
  costs: "6 API requests, at most 4 pages of Events, and a question to each node agent.",
  needs: [
    nodeNeeds,
    // Events of what has no namespace are there.
    Needs.list("events", { group: "events.k8s.io", namespace: "default" })
  ],
  codes,
  config: NodeKernelConfig,
  interval: "5 minutes",
  timeout: "45 seconds",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeKernelConfig) {
    const kube = yield* Kube
    const nodes = yield* Nodes
    const [answers, { items }, { items: events, remaining }, now] = yield* Effect.all([
      nodes.run(task, {}),
      kube.list(Node),
      kube.list(Event, {
        namespace: "default",
        fieldSelector: "type=Warning,regarding.kind=Node",
        maximum: MAXIMUM_EVENTS
      }),
      ServerTime.nowOrOurs
    ], { concurrency: 4 })
    const answered = answers.flatMap((answer) => answer._tag === "Answered" ? [answer] : [])
    return Outcome.make(
      `the kernels of ${answered.length} of ${answers.length} nodes note no damage, and no problem detector reports any`,
      [
        ...items.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
          .flatMap((node) => judgeConditions(config, node)),
        ...judgeEvents(config, now, events),
        ...answered.flatMap(({ node, output }) => judgeKernel(config, node, output)),
        ...(remaining === 0 ? [] : [codes.EVENTS_NOT_ALL_READ({
          message: `there are more than the ${events.length} Warning Events of nodes that were read`,
          evidence: { read: events.length }
        })]),
        ...silenceOf(answers)
      ]
    )
  })
})
