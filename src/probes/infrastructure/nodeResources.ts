/** infra.node.resources: nodes have disk, inodes, connections, files and tasks left. */
import { Effect, Schema } from "effect"
import { matches } from "../../domain/NamePattern.ts"
import type { Finding } from "../../domain/Report.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Names, Percent, setting } from "../Setting.ts"
import { Nodes, needs as nodeNeeds, silenceOf } from "../workers/Nodes.ts"
import { type NodeResources, nodeResources as task } from "../workers/tasks/nodeResources.ts"

export const NodeResourcesConfig = Schema.Struct({
  freeWarn: setting(Percent, {
    default: 15,
    description: "Percentage of free bytes or inodes below which it is a WARN."
  }),
  freeError: setting(Percent, {
    default: 5,
    description: "Percentage of free bytes or inodes below which it is an ERROR."
  }),
  useWarn: setting(Percent, {
    default: 75,
    description: "Percentage of tracked connections, open files or tasks above which it is a WARN."
  }),
  useError: setting(Percent, {
    default: 90,
    description: "Percentage of tracked connections, open files or tasks above which it is an ERROR."
  }),
  stalledWarn: setting(Percent, {
    default: 40,
    description:
      "Percentage of five minutes in which every task waited for memory or for disks, above which it is a WARN."
  }),
  ignoreMounts: setting(Names, {
    default: [],
    description: "Mount points not to look at; `*` at the end matches any rest."
  })
})
export type NodeResourcesConfig = typeof NodeResourcesConfig.Type

const CLEAN = "Remove images, logs or data from it (`crictl rmi --prune`), or make it larger."
const RAISE_CONNTRACK = "Raise net.netfilter.nf_conntrack_max, or look for what opens so many connections."

export const codes = Codes.make({
  DISK_ALMOST_FULL: Codes.warn("A file system of a node is almost full; the kubelet will evict pods.", CLEAN),
  DISK_FULL: Codes.error("A file system of a node is full.", CLEAN),
  INODES_ALMOST_USED: Codes.warn(
    "A file system of a node has few inodes left: it will take no new files however many bytes are free.",
    "Look for a folder of very many small files; remove them, or make the file system anew with more inodes."
  ),
  INODES_USED: Codes.error(
    "A file system of a node has no inodes left: it takes no new files however many bytes are free.",
    "Look for a folder of very many small files; remove them, or make the file system anew with more inodes."
  ),
  FILE_SYSTEM_READ_ONLY: Codes.error(
    "A file system that the kubelet or the container runtime must write to is mounted read-only.",
    "Read the kernel's log for errors of its disk; mend or replace the disk, then mount it again or replace the node."
  ),
  CONNECTIONS_ALMOST_USED: Codes.warn("A node's table of tracked connections is filling up.", RAISE_CONNTRACK),
  CONNECTIONS_USED: Codes.error(
    "A node's table of tracked connections is full or nearly so: new connections are dropped.",
    RAISE_CONNTRACK
  ),
  FILES_ALMOST_USED: Codes.warn(
    "A node runs short of open files.",
    "Look for a process with very many open files; raise fs.file-max."
  ),
  FILES_USED: Codes.error(
    "A node has hardly an open file left: programs on it fail.",
    "Look for a process with very many open files; raise fs.file-max."
  ),
  TASKS_ALMOST_USED: Codes.warn(
    "A node runs short of process ids.",
    "Look for a pod that makes very many processes or threads; set a limit of pids for pods."
  ),
  TASKS_USED: Codes.error(
    "A node has hardly a process id left: nothing new can be started on it.",
    "Look for a pod that makes very many processes or threads; set a limit of pids for pods."
  ),
  NODE_STALLED: Codes.warn(
    "For much of the last five minutes nothing on the node could go on for want of memory or disks.",
    "Look for what uses the memory or the disk of that node; move pods away."
  )
})

const percentOf = (part: number, whole: number): number => whole <= 0 ? 0 : part * 100 / whole

const round = (percent: number): number => Math.round(percent * 10) / 10

/** The verdict on one node. */
export const judge = (
  config: NodeResourcesConfig,
  node: string,
  { connections, fileSystems, files, stalls, tasks }: NodeResources,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const subject = { kind: "Node", name: node }
  const findings: Array<Finding> = []

  const room = (mount: string, what: string, free: number, all: number, warn: Codes.Code, error: Codes.Code) => {
    if (all <= 0) return
    const percent = percentOf(free, all)
    const [code, limit] = percent < config.freeError ? [error, config.freeError] : [warn, config.freeWarn]
    if (percent >= limit) return
    findings.push(code({
      message: `node ${node} has ${round(percent)} % of the ${what} of ${mount} left (limit ${limit} %)`,
      subject,
      evidence: { mount, free, of: all, freePercent: round(percent), limitPercent: limit }
    }))
  }
  for (const { bytes, bytesFree, essential, inodes, inodesFree, mount, readOnly } of fileSystems) {
    if (config.ignoreMounts.some((pattern) => matches(pattern, mount))) continue
    if (readOnly) {
      if (essential && mount !== "/") {
        findings.push(codes.FILE_SYSTEM_READ_ONLY({
          message: `node ${node} has ${mount} mounted read-only`,
          subject,
          evidence: { mount }
        }))
      }
      // How full something is that takes no more anyway, such as an image of a system, says nothing.
      continue
    }
    room(mount, "bytes", bytesFree, bytes, codes.DISK_ALMOST_FULL, codes.DISK_FULL)
    room(mount, "inodes", inodesFree, inodes, codes.INODES_ALMOST_USED, codes.INODES_USED)
  }

  const use = (
    what: string,
    table: { readonly used: number; readonly limit: number } | undefined,
    warn: Codes.Code,
    error: Codes.Code
  ) => {
    if (table === undefined) return
    const percent = percentOf(table.used, table.limit)
    const [code, limit] =
      ([[error, config.useError], [warn, config.useWarn]] as const).find(([code, limit]) =>
        limits.exceeds(percent, limit, { code, subject })
      ) ?? []
    if (code === undefined || limit === undefined) return
    findings.push(code({
      message: `node ${node} uses ${table.used} of ${table.limit} ${what} (${round(percent)} %, ${
        Hysteresis.text(`${limit} %`, percent > limit)
      })`,
      subject,
      evidence: { used: table.used, of: table.limit, usedPercent: round(percent), limitPercent: limit }
    }))
  }
  use("tracked connections", connections, codes.CONNECTIONS_ALMOST_USED, codes.CONNECTIONS_USED)
  use("open files", files, codes.FILES_ALMOST_USED, codes.FILES_USED)
  use("tasks", tasks, codes.TASKS_ALMOST_USED, codes.TASKS_USED)

  for (const [what, percent] of [["memory", stalls?.memory ?? 0], ["disks", stalls?.io ?? 0]] as const) {
    if (percent <= config.stalledWarn) continue
    findings.push(codes.NODE_STALLED({
      message: `everything on node ${node} waited for ${what} in ${
        round(percent)
      } % of the last five minutes (limit ${config.stalledWarn} %)`,
      subject,
      evidence: { resource: what, stalledPercent: round(percent) }
    }))
  }
  return findings
}

export const nodeResources = Probe.make("infra.node.resources", {
  layer: "infrastructure",
  proves: "Every node has disk space, inodes, tracked connections, open files and tasks left.",
  writes: "nothing",
  placement: "nodes",
  costs: "3 API requests, and a question to each node agent.",
  needs: [nodeNeeds],
  codes,
  config: NodeResourcesConfig,
  timeout: "45 seconds",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NodeResourcesConfig) {
    const nodes = yield* Nodes
    const limits = yield* Hysteresis.limits
    const answers = yield* nodes.run(task, {})
    const answered = answers.flatMap((answer) => answer._tag === "Answered" ? [answer] : [])
    return Outcome.make(
      `${answered.length} of ${answers.length} nodes have disk, inodes, connections, files and tasks left`,
      [...answered.flatMap(({ node, output }) => judge(config, node, output, limits)), ...silenceOf(answers)]
    )
  })
})
