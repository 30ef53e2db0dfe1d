/** `node.resources`: what a node has left of disk, inodes, connections, files and tasks. */
import { Effect, Option, Schema } from "effect"
import { Host } from "../../../infra/host/Host.ts"
import * as Task from "../Task.ts"
import { type Mount, mountOf, mountsIn } from "./mounts.ts"
import { optional } from "./optional.ts"

/** Where a node's disk matters to Kubernetes; each is looked at on whatever it is mounted. */
const PLACES = ["/etc", "/var", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log"]

/** What pods have mounted is theirs. */
const OF_PODS = /^\/var\/lib\/kubelet\/(pods|plugins)\/|^\/var\/lib\/(containerd|docker|containers)\/.+\/|^\/run\//u

/** File systems that are not storage. */
const VIRTUAL: ReadonlySet<string> = new Set([
  "autofs",
  "binfmt_misc",
  "bpf",
  "cgroup",
  "cgroup2",
  "debugfs",
  "devpts",
  "devtmpfs",
  "efivarfs",
  "fusectl",
  "hugetlbfs",
  "mqueue",
  "nsfs",
  "proc",
  "pstore",
  "securityfs",
  "squashfs",
  "sysfs",
  "tracefs"
])

/** Mounts looked at besides {@link PLACES}: others of a machine with very many are left out, and counted. */
const MAX_MOUNTS = 30

const FileSystem = Schema.Struct({
  mount: Schema.String,
  type: Schema.String,
  readOnly: Schema.Boolean,
  /** Whether the kubelet or the container runtime write to it. */
  essential: Schema.Boolean,
  bytes: Schema.Finite,
  bytesFree: Schema.Finite,
  inodes: Schema.Finite,
  inodesFree: Schema.Finite
})
export type FileSystem = typeof FileSystem.Type

const Use = Schema.Struct({ used: Schema.Finite, limit: Schema.Finite })

const Output = Schema.Struct({
  fileSystems: Schema.Array(FileSystem),
  /** Mounts that were not looked at. */
  leftOut: Schema.Int,
  /** Absent where the kernel tracks no connections. */
  connections: Schema.optionalKey(Use),
  files: Schema.optionalKey(Use),
  tasks: Schema.optionalKey(Use),
  /** Percent of the last five minutes in which all tasks waited (https://docs.kernel.org/accounting/psi.html). */
  stalls: Schema.optionalKey(Schema.Struct({ memory: Schema.Finite, io: Schema.Finite }))
})
export type NodeResources = typeof Output.Type

const numbersIn = (text: string): ReadonlyArray<number> => text.trim().split(/\s+/u).map(Number)

/** `full avg10=0.00 avg60=0.00 avg300=1.20 total=…`. */
export const stalledPercent = (text: string): number => Number(/^full .*avg300=([0-9.]+)/mu.exec(text)?.[1] ?? 0)

/** Whom a mount is for, or nothing when it is not to be looked at. */
const isOfNode = ({ path, type }: Mount): boolean =>
  !VIRTUAL.has(type) && !OF_PODS.test(path) && /^\/(etc|var)(\/|$)/u.test(path)

export const nodeResources = Task.make("node.resources", {
  input: Schema.Struct({}),
  output: Output,
  timeout: "20 seconds",
  run: Effect.fnUntraced(function*() {
    const host = yield* Host
    const mounts = mountsIn(yield* host.text("/proc/1/mounts"))
    const essential = new Map<string, string>()
    for (const place of PLACES) {
      const mount = mountOf(mounts, place)
      if (mount !== undefined && !essential.has(mount.path)) essential.set(mount.path, place)
    }
    const others = mounts.filter((mount) => isOfNode(mount) && !essential.has(mount.path))
    const looked = [
      ...[...essential].map(([path, place]) => ({ path, place, essential: true })),
      ...others.slice(0, MAX_MOUNTS).map(({ path }) => ({ path, place: path, essential: false }))
    ]
    const fileSystems = yield* Effect.forEach(
      looked,
      ({ essential, path, place }) =>
        optional(host.use(place)).pipe(Effect.map(Option.map((use): FileSystem => {
          const mount = mounts.findLast((mount) => mount.path === path)
          return { mount: path, type: mount?.type ?? "", readOnly: mount?.readOnly ?? false, essential, ...use }
        })))
    )
    const number = (path: string) => Effect.map(host.text(path), (text) => Number(text.trim()))
    const connections = yield* optional(Effect.all({
      used: number("/proc/sys/net/netfilter/nf_conntrack_count"),
      limit: number("/proc/sys/net/netfilter/nf_conntrack_max")
    }))
    const files = yield* optional(Effect.map(host.text("/proc/sys/fs/file-nr"), (text) => {
      const [used = 0, , limit = 0] = numbersIn(text)
      return { used, limit }
    }))
    const tasks = yield* optional(Effect.gen(function*() {
      const limit = Math.min(yield* number("/proc/sys/kernel/pid_max"), yield* number("/proc/sys/kernel/threads-max"))
      // The fourth field: tasks that run, and tasks in all (proc_loadavg(5)).
      const [, total = "0"] = ((yield* host.text("/proc/loadavg")).split(" ")[3] ?? "").split("/")
      return { used: Number(total), limit }
    }))
    const stalls = yield* optional(Effect.all({
      memory: Effect.map(host.text("/proc/pressure/memory"), stalledPercent),
      io: Effect.map(host.text("/proc/pressure/io"), stalledPercent)
    })).pipe(
      // Where pressure is accounted for but switched off (`psi=0`), the files are there and say EOPNOTSUPP.
      Effect.orElseSucceed(() => Option.none<{ readonly memory: number; readonly io: number }>())
    )
    return {
      fileSystems: fileSystems.flatMap(Option.toArray),
      leftOut: Math.max(0, others.length - MAX_MOUNTS),
      ...Option.match(connections, { onNone: () => ({}), onSome: (connections) => ({ connections }) }),
      ...Option.match(files, { onNone: () => ({}), onSome: (files) => ({ files }) }),
      ...Option.match(tasks, { onNone: () => ({}), onSome: (tasks) => ({ tasks }) }),
      ...Option.match(stalls, { onNone: () => ({}), onSome: (stalls) => ({ stalls }) })
    }
  })
})
