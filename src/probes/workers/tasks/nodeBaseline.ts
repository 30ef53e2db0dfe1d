/** `node.baseline`: how a node is set up: sysctls, modules, swap, name servers, units, the kubelet's own settings. */
import { Effect, Option, Schema } from "effect"
import { Host } from "../../../infra/host/Host.ts"
import * as Task from "../Task.ts"
import { optional } from "./optional.ts"
import { processesNamed } from "./processes.ts"

/** Names that cannot lead out of the folder they are looked for in. */
export const SafeName = Schema.String.check(
  Schema.isPattern(/^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.:@\\/-]{0,199}$/u, {
    message: "letters, digits and _.:@/- only, without `..`"
  })
)

const Names = Schema.Array(SafeName).check(Schema.isMaxLength(200))

/** The value, without what surrounds and separates its words; or why there is none. */
const Value = Schema.Union([
  Schema.Struct({ value: Schema.String }),
  Schema.Struct({ lacking: Schema.Literals(["missing", "denied", "unreadable"]) })
])
export type Value = typeof Value.Type

const Kubelet = Schema.Struct({
  file: Schema.String,
  failSwapOn: Schema.Boolean,
  clusterDNS: Schema.Array(Schema.String),
  /** Absent where the kubelet's defaults hold. */
  evictionHard: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
})
export type Kubelet = typeof Kubelet.Type

const Output = Schema.Struct({
  sysctls: Schema.Record(Schema.String, Value),
  /** Of the modules asked for, those that are neither loaded nor built in with parameters. */
  modulesMissing: Schema.Array(Schema.String),
  /** Of the units asked for, those that have a cgroup: what runs. */
  unitsRunning: Schema.Array(Schema.String),
  /** Whether the node has systemd's cgroups at all. */
  systemd: Schema.Boolean,
  /** Whether pods (or others) hang on a Linux bridge. */
  bridged: Schema.Boolean,
  swap: Schema.Array(Schema.String),
  /** `pods`: the node's own cannot be read from its agent, and this is what the kubelet makes of it for pods. */
  nameServers: Schema.optionalKey(
    Schema.Struct({ of: Schema.Literals(["node", "pods"]), addresses: Schema.Array(Schema.String) })
  ),
  /** Absent where the kubelet's configuration is not for everyone to read. */
  kubelet: Schema.optionalKey(Kubelet)
})
export type NodeBaseline = typeof Output.Type

/** `net.ipv4.ip_forward`; where a part has dots itself, slashes separate, as for sysctl(8). */
export const sysctlPath = (key: string): string => `/proc/sys/${key.includes("/") ? key : key.replaceAll(".", "/")}`

/** Of resolv.conf(5), in order. */
export const nameServersIn = (text: string): ReadonlyArray<string> =>
  text.split("\n").flatMap((line) => {
    const [keyword, address] = line.trim().split(/\s+/u)
    return keyword === "nameserver" && address !== undefined ? [address] : []
  }).slice(0, 16)

/** Of `/proc/swaps`, which begins with a headline. */
export const swapIn = (text: string): ReadonlyArray<string> =>
  text.split("\n").slice(1).flatMap((line) => {
    const [name = ""] = line.split(/\s/u)
    return name === "" ? [] : [name]
  }).slice(0, 16)

/** kubeadm's, those of EKS, and those of others that name it alike. */
const KUBELET_FILES = [
  "/var/lib/kubelet/config.yaml",
  "/etc/kubernetes/kubelet.yaml",
  "/etc/kubernetes/kubelet/config.json",
  "/etc/kubernetes/kubelet/kubelet-config.json"
]

const KubeletConfiguration = Schema.Struct({
  kind: Schema.Literal("KubeletConfiguration"),
  failSwapOn: Schema.optionalKey(Schema.Boolean),
  clusterDNS: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
  evictionHard: Schema.optionalKey(
    Schema.NullOr(Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite])))
  )
})

const readKubelet = Schema.decodeUnknownOption(KubeletConfiguration)

/** The kubelet's configuration as far as it can be read: no guess where it cannot. */
const kubelet = Effect.gen(function*() {
  const host = yield* Host
  for (const file of KUBELET_FILES) {
    const text = yield* Effect.option(host.text(file))
    if (Option.isNone(text)) continue
    const { parse } = yield* Effect.promise(() => import("yaml"))
    const config = Option.flatMap(
      yield* Effect.option(Effect.try({ try: (): unknown => parse(text.value), catch: () => undefined })),
      readKubelet
    )
    if (Option.isNone(config)) continue
    const { clusterDNS, evictionHard, failSwapOn = true } = config.value
    return Option.some<Kubelet>({
      file,
      failSwapOn,
      clusterDNS: clusterDNS ?? [],
      ...(evictionHard === undefined || evictionHard === null ? {} : {
        evictionHard: Object.fromEntries(Object.entries(evictionHard).map(([name, value]) => [name, String(value)]))
      })
    })
  }
  return Option.none<Kubelet>()
})

/** A flag of the kubelet goes before what its file says. */
const isSwapAllowedByFlag = Effect.gen(function*() {
  const host = yield* Host
  const kubelets = Option.getOrElse(yield* processesNamed(new Set(["kubelet"])), () => [])
  const lines = yield* Effect.forEach(kubelets, ({ pid }) => Effect.option(host.text(`/proc/${pid}/cmdline`)))
  return lines.some((line) => Option.getOrElse(line, () => "").includes("--fail-swap-on=false"))
})

/** Of cgroup v2, of v1 under systemd, and of both at once. */
const SLICES = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map((root) =>
  `${root}/system.slice`
)

export const nodeBaseline = Task.make("node.baseline", {
  input: Schema.Struct({ sysctls: Names, modules: Names, units: Names }),
  output: Output,
  timeout: "15 seconds",
  run: Effect.fnUntraced(function*({ modules, sysctls, units }) {
    const host = yield* Host
    const exists = (path: string) => Effect.map(Effect.option(host.names(path)), Option.isSome)
    const existing = (names: ReadonlyArray<string>, at: (name: string) => ReadonlyArray<string>) =>
      Effect.filter(names, (name) => Effect.map(Effect.forEach(at(name), exists), (all) => all.includes(true)))

    const values = yield* Effect.forEach(sysctls, (key) =>
      host.text(sysctlPath(key)).pipe(
        Effect.match({
          onSuccess: (text): Value => ({ value: text.trim().split(/\s+/u).join(" ").slice(0, 200) }),
          onFailure: ({ kind }): Value => ({ lacking: kind })
        }),
        Effect.map((value) => [key, value] as const)
      ))
    const loaded = yield* existing(modules, (name) => [`/sys/module/${name.replaceAll("-", "_")}`])
    const interfaces = yield* Effect.orElseSucceed(host.names("/sys/class/net"), () => [])
    const members = yield* existing(interfaces, (name) => [`/sys/class/net/${name}/brport`])
    // A link into /run leads to nothing here: then there is the copy that the kubelet made for this very pod.
    const own = yield* Effect.option(host.text("/etc/resolv.conf"))
    const copy = Option.isSome(own) ? own : yield* Effect.option(host.text("/proc/self/root/etc/resolv.conf"))
    const swap = swapIn(Option.getOrElse(yield* optional(host.text("/proc/swaps")), () => ""))
    const configured = yield* kubelet
    const isSwapAllowed = swap.length > 0 && Option.isSome(configured) && (yield* isSwapAllowedByFlag)
    return {
      sysctls: Object.fromEntries(values),
      modulesMissing: modules.filter((name) => !loaded.includes(name)),
      unitsRunning: yield* existing(units, (unit) => SLICES.map((slice) => `${slice}/${unit}`)),
      systemd: (yield* Effect.forEach(SLICES, exists)).includes(true),
      bridged: members.length > 0,
      swap,
      ...Option.match(copy, {
        onNone: () => ({}),
        onSome: (text) => ({
          nameServers: { of: Option.isSome(own) ? "node" as const : "pods" as const, addresses: nameServersIn(text) }
        })
      }),
      ...Option.match(configured, {
        onNone: () => ({}),
        onSome: (kubelet) => ({ kubelet: { ...kubelet, failSwapOn: kubelet.failSwapOn && !isSwapAllowed } })
      })
    }
  })
})
