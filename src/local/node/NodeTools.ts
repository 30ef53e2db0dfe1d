import { Context, Effect, Exit, FileSystem, Layer, Option, Record } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { LocalIoError, NodeUnsupported } from "../LocalError.ts"
import { LocalPaths } from "../LocalPaths.ts"
import * as Command from "../process/Command.ts"
import * as FileLock from "../process/FileLock.ts"
import * as Cgroups from "./Cgroups.ts"
import { UNSHARE } from "./NodeInit.ts"

/** What a node consists of besides Kubernetes. */
export interface Tools {
  /** A `usr` folder that nodes see on top of that of this machine, when this machine lacks some of the tools. */
  readonly overlay: Option.Option<string>
  /** The folder of the CNI plugins, as a node sees it. */
  readonly cniBinDir: string
  /** A statically linked busybox, to make images of. */
  readonly busybox: string
}

/**
 * Finds what nodes need: containerd, runc, CNI plugins, iptables, busybox. What this machine lacks comes from the
 * packages of its distribution (Debian, Ubuntu), downloaded and unpacked into the cache; nothing is installed.
 */
export class NodeTools extends Context.Service<NodeTools, {
  readonly resolve: Effect.Effect<Tools, NodeUnsupported | LocalIoError>
}>()("kubeprober/local/NodeTools") {
  static readonly layer = Layer.effect(
    NodeTools,
    Effect.gen(function*() {
      const { cache } = yield* LocalPaths
      const services = yield* Effect.context<FileSystem.FileSystem | ChildProcessSpawner.ChildProcessSpawner>()
      const resolve = yield* find(cache).pipe(
        Effect.catchTag(
          ["PlatformError", "LockFailed"],
          (cause) => Effect.fail(new LocalIoError({ doing: "Looking for what nodes need", cause }))
        ),
        Effect.provideContext(services),
        // What is there stays there while this process runs; what is lacking may be mended.
        Effect.cachedWithTTL((exit) => Exit.isSuccess(exit) ? "1 hour" : 0)
      )
      return NodeTools.of({ resolve })
    })
  )
}

const find = Effect.fn("NodeTools.resolve")(function*(cache: string) {
  yield* checkMachine
  const here = yield* Effect.all({
    "containerd": programs(["containerd", "ctr", "containerd-shim-runc-v2"]),
    "runc": programs(["runc"]),
    "iptables": programs(["iptables", "iptables-save", "iptables-restore"]),
    "containernetworking-plugins": Effect.findFirst(CNI_FOLDERS, (folder) => holdsAll(folder, CNI_PLUGINS)),
    "busybox-static": Effect.findFirst(PROGRAM_FOLDERS.map((folder) => `${folder}/busybox`), isStatic)
  })
  const lacking = Record.keys(
    Record.filter(here, (found) => found === false || (Option.isOption(found) && Option.isNone(found)))
  )
  const overlay = lacking.length === 0 ? Option.none<string>() : Option.some(yield* unpack(lacking, cache))
  const tools: Tools = {
    overlay,
    cniBinDir: Option.getOrElse(here["containernetworking-plugins"], () => "/usr/lib/cni"),
    busybox: Option.getOrElse(here["busybox-static"], () => `${Option.getOrThrow(overlay)}/bin/busybox`)
  }
  return tools
})

const checkMachine = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  if (process.platform !== "linux") {
    return yield* unsupported("platform", `nodes are Linux namespaces, and this is ${process.platform}`)
  }
  if (process.getuid?.() !== 0) {
    return yield* unsupported("not-root", "namespaces, mounts and cgroups of nodes need root")
  }
  yield* Command.run([
    ...UNSHARE,
    "sh",
    "-c",
    "mount -t sysfs sysfs /sys && ip link set lo up && command -v nsenter setpriv pivot_root chroot"
  ]).pipe(
    Effect.catchTag(
      "CommandFailed",
      (error) => unsupported("kernel", `namespaces cannot be made with util-linux and iproute2 (${error.message})`)
    )
  )
  const group = `kubeprober-check-${process.pid}`
  yield* Cgroups.make(group).pipe(
    Effect.catchTag("PlatformError", (error) => unsupported("kernel", `cgroups cannot be made (${error.message})`)),
    Effect.ensuring(Effect.ignore(Cgroups.remove(group)))
  )
  // A Service reaches a pod on the node of its caller only when iptables sees bridged packets.
  if (!(yield* fs.exists(BRIDGE_FILTER))) {
    yield* Effect.ignore(Command.run(["modprobe", "br_netfilter"]))
    if (!(yield* fs.exists(BRIDGE_FILTER))) {
      return yield* unsupported("kernel", "the kernel module br_netfilter is not there")
    }
  }
})

const unsupported = (reason: NodeUnsupported["reason"], detail: string) =>
  Effect.fail(new NodeUnsupported({ reason, detail }))

const BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"

/** Where packages put CNI plugins, and where people do. */
const CNI_FOLDERS = ["/usr/lib/cni", "/opt/cni/bin"]
const CNI_PLUGINS = ["bridge", "host-local", "loopback", "portmap"]

/** Nodes see /usr and /opt of this machine, so tools elsewhere are of no use to them. */
const PROGRAM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]

const holdsAll = Effect.fnUntraced(function*(folder: string, names: ReadonlyArray<string>) {
  const fs = yield* FileSystem.FileSystem
  const present = yield* Effect.forEach(names, (name) => fs.exists(`${folder}/${name}`))
  return present.every(Boolean)
})

const programs = Effect.fnUntraced(function*(names: ReadonlyArray<string>) {
  for (const name of names) {
    const folder = yield* Effect.findFirst(PROGRAM_FOLDERS, (folder) => holdsAll(folder, [name]))
    if (Option.isNone(folder)) return false
  }
  return true
})

/** Whether the file is a program without an interpreter (ELF-64, no PT_INTERP), which runs in an empty image. */
const isStatic = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const bytes = yield* Effect.orElseSucceed(fs.readFile(file), () => new Uint8Array())
  const elf = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false
  const [offset, size, count] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54), elf.readUInt16LE(56)]
  return Array.from({ length: count }, (_, index) => elf.readUInt32LE(offset + index * size)).every((type) =>
    type !== 3
  )
})

/**
 * Downloads the packages and those they depend on, and unpacks them into the cache: the answer is a `usr` folder.
 * Lists and archives are apt's own, apart from those of the machine.
 */
const unpack = Effect.fn("NodeTools.unpack")(function*(packages: ReadonlyArray<string>, cache: string) {
  const fs = yield* FileSystem.FileSystem
  const release = yield* Effect.orElseSucceed(fs.readFileString("/etc/os-release"), () => "")
  const distribution = /^VERSION_CODENAME=(.+)$/m.exec(release)?.[1] ?? "unknown"
  const folder = `${cache}/node/${distribution}-${process.arch}-${[...packages].sort().join("-")}`
  const unpacked = `${folder}/usr`
  if (yield* fs.exists(unpacked)) return unpacked
  yield* fs.makeDirectory(folder, { recursive: true, mode: 0o755 })
  yield* FileLock.lock(`${folder}/lock`)
  if (yield* fs.exists(unpacked)) return unpacked

  // Under the lock these names are ours, and what a killed process left under them is in the way.
  const work = `${folder}/work`
  yield* fs.remove(work, { recursive: true, force: true })
  yield* fs.makeDirectory(`${work}/lists/partial`, { recursive: true })
  yield* fs.makeDirectory(`${work}/archives/partial`, { recursive: true })
  const options = [
    `Dir::State::lists=${work}/lists`,
    `Dir::Cache::archives=${work}/archives`,
    // These are written otherwise, and are those of the machine.
    "Dir::Cache::pkgcache=",
    "Dir::Cache::srcpkgcache=",
    // The user that apt downloads as cannot enter our folder.
    "APT::Sandbox::User=root"
  ].flatMap((option) => ["-o", option])
  yield* Effect.gen(function*() {
    yield* Command.run(["apt-get", ...options, "update"])
    yield* Command.run([
      "apt-get",
      ...options,
      "--yes",
      "--no-install-recommends",
      "--download-only",
      "install",
      ...packages
    ])
    yield* Command.run(["sh", "-eu", "-c", UNPACK, "sh", work])
  }).pipe(Effect.catchTag("CommandFailed", (error) =>
    unsupported(
      "no-packages",
      `${packages.join(", ")} are not installed, and cannot be had as packages of a Debian or Ubuntu (${error.message})`
    )))
  yield* fs.rename(`${work}/root/usr`, unpacked)
  yield* fs.remove(work, { recursive: true, force: true })
  return unpacked
}, Effect.scoped)

/**
 * Folders that were outside /usr before they were merged go where links of the machine lead to, and iptables is a
 * link that a package makes when it is installed.
 */
const UNPACK = `
cd "$1"; mkdir root
for package in archives/*.deb; do dpkg-deb --extract "$package" root; done
for folder in bin sbin lib; do if [ -d "root/$folder" ]; then cp -a "root/$folder/." "root/usr/$folder/"; fi; done
if [ -e root/usr/sbin/xtables-nft-multi ]; then
  for family in iptables ip6tables; do for tool in "" -save -restore; do
    ln -sf "/etc/alternatives/$family$tool" "root/usr/sbin/$family$tool"
  done; done
fi
chmod 755 root root/usr`
