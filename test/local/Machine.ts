/**
 * What a local cluster could leave behind on this machine, to compare before and after. Clusters of other tests may run
 * meanwhile, so it tells what belongs to the given clusters, and of the machine itself what no cluster may change.
 */
import { Effect, FileSystem, Schedule } from "effect"
import { groupOf } from "../../src/local/node/Cgroups.ts"
import { MARKER } from "../../src/local/process/Component.ts"

/** Folders and files that nodes need on a machine of their own. */
const FOLDERS = [
  "/var/lib/kubelet",
  "/var/lib/containerd",
  "/var/lib/cni",
  "/var/log/pods",
  "/var/log/containers",
  "/etc/cni",
  "/etc/containerd",
  "/etc/kubernetes",
  "/run/containerd",
  "/run/netns",
  "/run/xtables.lock",
  "/tmp/hostpath_pv"
]

/** Variables that kubelet and kube-proxy set on a machine of their own. */
const SYSCTLS = [
  "vm/overcommit_memory",
  "vm/panic_on_oom",
  "kernel/panic",
  "kernel/panic_on_oops",
  "kernel/keys/root_maxkeys",
  "kernel/keys/root_maxbytes",
  "net/ipv4/ip_forward",
  "net/ipv4/conf/all/route_localnet",
  "net/netfilter/nf_conntrack_max",
  "net/bridge/bridge-nf-call-iptables"
]

/**
 * One line for each thing: processes, interfaces, routes and cgroups of the clusters with these state folders, and the
 * files in `state`; mounts, well-known folders and kernel variables of the machine.
 */
export const snapshot = Effect.fnUntraced(function*(state: string, clusters: ReadonlyArray<string>) {
  const fs = yield* FileSystem.FileSystem
  const read = (path: string) => Effect.orElseSucceed(fs.readFileString(path), () => "")
  const list = (path: string) => Effect.orElseSucceed(fs.readDirectory(path), () => [])
  const lines: Array<string> = []
  const groups = clusters.map(groupOf)

  for (const pid of (yield* list("/proc")).filter((name) => /^\d+$/.test(name))) {
    const environment = (yield* read(`/proc/${pid}/environ`)).split("\0")
    const cgroups = yield* read(`/proc/${pid}/cgroup`)
    const isOurs = clusters.some((cluster) => environment.includes(`${MARKER}=${cluster}`)) ||
      groups.some((group) => cgroups.includes(group))
    if (isOurs) lines.push(`process ${pid} ${(yield* read(`/proc/${pid}/comm`)).trim()}`)
  }

  const links: Array<string> = []
  for (const link of yield* list("/sys/class/net")) {
    const alias = (yield* read(`/sys/class/net/${link}/ifalias`)).trim()
    if (clusters.includes(alias) || !/^kubeprober\d/.test(link)) links.push(link)
  }
  lines.push(...links.map((link) => `link ${link}`))
  for (const route of (yield* read("/proc/net/route")).split("\n").slice(1)) {
    const [link = "", destination] = route.split("\t")
    if (links.includes(link)) lines.push(`route ${destination} ${link}`)
  }

  for (const mount of (yield* read("/proc/self/mountinfo")).split("\n")) {
    if (mount !== "") lines.push(`mount ${mount.split(" ").slice(3).join(" ")}`)
  }
  for (const hierarchy of ["", ...yield* list("/sys/fs/cgroup")]) {
    for (const group of groups) {
      const path = `/sys/fs/cgroup/${hierarchy}/${group}`
      if (yield* fs.exists(path)) lines.push(`cgroup ${path}`)
    }
  }
  for (const folder of FOLDERS) {
    if (yield* fs.exists(folder)) lines.push(`folder ${folder} ${(yield* list(folder)).join(" ")}`)
  }
  for (const name of SYSCTLS) lines.push(`sysctl ${name} ${(yield* read(`/proc/sys/${name}`)).trim()}`)
  for (const file of yield* list(state)) lines.push(`state ${file}`)
  return lines.sort()
})

/**
 * What is there that was not, or is not there that was, once the kernel has had a few seconds to finish: nothing, or
 * the lines with `+` and `-`.
 */
export const difference = Effect.fnUntraced(
  function*(before: ReadonlyArray<string>, state: string, clusters: ReadonlyArray<string>) {
    const compare = Effect.map(snapshot(state, clusters), (after) => [
      ...after.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
      ...before.filter((line) => !after.includes(line)).map((line) => `- ${line}`)
    ])
    return yield* Effect.repeat(compare, {
      until: (lines) => lines.length === 0,
      schedule: Schedule.spaced("200 millis"),
      times: 25
    })
  }
)
