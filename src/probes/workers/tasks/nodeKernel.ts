/**
 * `node.kernel`: what a node's kernel has noted of its own faults where everyone may read it.
 *
 * Its log (`/dev/kmsg`) is not among that: the device cgroup of a container that is not privileged refuses it, and so does
 * `kernel.dmesg_restrict` where it is set.
 */
import { Clock, Effect, Option, Schema } from "effect"
import { Host } from "../../../infra/host/Host.ts"
import * as Task from "../Task.ts"
import { devicesIn } from "./mounts.ts"
import { optional } from "./optional.ts"

/** File systems and memory controllers that are told of at most. */
const MAX_TOLD = 20

const Output = Schema.Struct({
  /** Flags of https://docs.kernel.org/admin-guide/tainted-kernels.html, set until the next boot. */
  tainted: Schema.Int,
  /** Mounted ext4 file systems that have had errors since they were last checked (`/sys/fs/ext4/<device>`). */
  fileSystems: Schema.Array(Schema.Struct({
    device: Schema.String,
    mount: Schema.String,
    errors: Schema.Int,
    /** Since the last one, in seconds, by the node's clock; absent when the kernel does not tell. */
    age: Schema.optionalKey(Schema.Finite)
  })),
  /** Memory controllers with errors that could not be corrected since boot (https://docs.kernel.org/admin-guide/ras.html). */
  memory: Schema.Array(Schema.Struct({ controller: Schema.String, uncorrected: Schema.Int }))
})
export type NodeKernel = typeof Output.Type

export const nodeKernel = Task.make("node.kernel", {
  input: Schema.Struct({}),
  output: Output,
  timeout: "15 seconds",
  run: Effect.fnUntraced(function*() {
    const host = yield* Host
    const now = (yield* Clock.currentTimeMillis) / 1000
    const number = (path: string) =>
      Effect.map(optional(host.text(path)), Option.match({ onNone: () => 0, onSome: (text) => Number(text.trim()) }))
    const names = (folder: string) => Effect.map(optional(host.names(folder)), Option.getOrElse(() => []))

    const mounts = devicesIn(yield* host.text("/proc/1/mountinfo"))
    const fileSystems = yield* Effect.forEach(yield* names("/sys/fs/ext4"), (device) =>
      Effect.gen(function*() {
        const errors = yield* number(`/sys/fs/ext4/${device}/errors_count`)
        if (errors === 0) return []
        const id = yield* optional(host.text(`/sys/class/block/${device}/dev`))
        const mount = mounts.get(Option.getOrElse(id, () => "").trim())
        // Of another node, where several share a kernel.
        if (mount === undefined) return []
        const last = yield* number(`/sys/fs/ext4/${device}/last_error_time`)
        return [{ device, mount, errors, ...(last > 0 ? { age: Math.max(0, now - last) } : {}) }]
      }))
    const controllers = (yield* names("/sys/devices/system/edac/mc")).filter((name) => /^mc\d+$/u.test(name))
    const memory = yield* Effect.forEach(controllers, (controller) =>
      Effect.map(
        number(`/sys/devices/system/edac/mc/${controller}/ue_count`),
        (uncorrected) => uncorrected > 0 ? [{ controller, uncorrected }] : []
      ))
    return {
      tainted: yield* number("/proc/sys/kernel/tainted"),
      fileSystems: fileSystems.flat().slice(0, MAX_TOLD),
      memory: memory.flat().slice(0, MAX_TOLD)
    }
  })
})
