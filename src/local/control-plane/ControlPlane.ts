import { Duration, Effect, FileSystem, Option } from "effect"
import * as AdminClient from "../AdminClient.ts"
import type { Binary } from "../binaries/LocalBinaries.ts"
import type { ComponentExited } from "../LocalError.ts"
import * as Component from "../process/Component.ts"
import * as Credentials from "./Credentials.ts"
import * as Flags from "./Flags.ts"

export interface ControlPlaneOptions {
  readonly name: string
  /** The state folder of the cluster. */
  readonly cluster: string
  readonly programs: Readonly<Record<Flags.Program, Binary>>
  readonly extraFlags: Partial<Record<Flags.Program, ReadonlyArray<string>>>
  readonly timings: Flags.NodeTimings
  readonly listening: Flags.Listening
  /** Present when the cluster has nodes: the network that they share with the control plane. */
  readonly network: Option.Option<{
    /** Leads into its namespace. */
    readonly enter: ReadonlyArray<string>
    readonly podCidr: string
    /** The folder in which the controller manager makes volumes. */
    readonly shared: string
  }>
}

/** A started control plane; `ready` waits until it answers. It ends with the scope. */
export const make = Effect.fn("ControlPlane.make")(function*(options: ControlPlaneOptions, leash: Component.Leash) {
  const fs = yield* FileSystem.FileSystem
  const { cluster, listening, name, network } = options
  const folder = `${cluster}/control-plane`
  // An attempt before this one may have left its data.
  yield* fs.remove(folder, { recursive: true, force: true })
  yield* fs.makeDirectory(folder, { mode: 0o700 })
  const server = `https://${listening.address}:${listening.apiServer}`
  const credentials = yield* Credentials.make({ name, folder, address: listening.address, server })
  const flags = Flags.flags({
    folder,
    listening,
    podCidr: Option.match(network, { onNone: () => POD_CIDR_WITHOUT_NODES, onSome: ({ podCidr }) => podCidr }),
    timings: options.timings,
    withNodes: Option.isSome(network)
  })

  const enter = Option.map(network, ({ enter }) => enter)
  const component = (program: Flags.Program, prefix = enter) =>
    Component.make({
      name: program,
      cluster,
      logPath: `${folder}/${program}.log`,
      restarts: true,
      command: [options.programs[program].path, ...flags[program], ...(options.extraFlags[program] ?? [])],
      prefix: Effect.succeed(Option.getOrElse(prefix, () => []))
    }, leash)
  const components = {
    etcd: yield* component("etcd"),
    apiServer: yield* component("kube-apiserver"),
    controllerManager: yield* component(
      "kube-controller-manager",
      Option.map(network, ({ enter, shared }) => [
        ...enter,
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-eu",
        "-c",
        WITH_VOLUMES,
        "sh",
        folder,
        shared
      ])
    ),
    scheduler: yield* component("kube-scheduler")
  }
  const all = Object.values(components)
  // All at once, and not one after the other when the scope ends each.
  yield* Effect.addFinalizer(() => Effect.forEach(all, (each) => each.kill, { concurrency: "unbounded" }))
  // All at once: each retries until those it needs are there.
  yield* Effect.forEach(all, (each) => each.start, { concurrency: "unbounded" })

  const admin = yield* AdminClient.make(server, credentials.authority.cert, credentials.admin)
  /** Gives up as soon as a program ends. */
  const whileAllRun = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ComponentExited, R> =>
    Effect.raceAllFirst([effect, ...all.map((each) => each.ended)])
  const ready = whileAllRun(Effect.andThen(
    AdminClient.until("The API server", READY_WITHIN, admin.text("/readyz")),
    // Without its default service account a namespace admits no pods; the controller manager makes it.
    AdminClient.until(
      "The controller manager",
      READY_WITHIN,
      admin.text("/api/v1/namespaces/default/serviceaccounts/default")
    )
  ))
  return { server, credentials, components, admin, ready, whileAllRun }
})

/** A slow machine that is busy with other things; an idle one needs 5 to 10 seconds. */
const READY_WITHIN = Duration.seconds(90)

const POD_CIDR_WITHOUT_NODES = "10.244.0.0/16"

/**
 * The controller manager makes volumes in /tmp/hostpath_pv and nowhere else. This gives it a root of its own, private
 * to it, in which that is the folder of the cluster, and besides there is only what it reads.
 */
const WITH_VOLUMES = `folder=$1 shared=$2 program=$3
shift 3
root=$folder/root
mkdir "$root" 2> /dev/null || :
mount -t tmpfs -o mode=755,size=1m controller-manager "$root"
mkdir -p "$root$folder" "$root\${program%/*}" "$root/tmp/hostpath_pv"
touch "$root$program"
mount --bind "$program" "$root$program"
mount --bind "$folder" "$root$folder"
mount --bind "$shared" "$root/tmp/hostpath_pv"
exec chroot "$root" "$program" "$@"`
