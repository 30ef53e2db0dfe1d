/** Programs that run on a node, from `/proc`. */
import { Effect, Option, Schema } from "effect"
import { Host } from "../../../infra/host/Host.ts"

export const Process = Schema.Struct({
  /** On the node. */
  pid: Schema.Int,
  /** As the kernel has it: the first 15 bytes of the program's name (proc_pid_comm(5)). */
  name: Schema.String,
  /** One letter: `R`, `S`, `D`, `T` for one that is stopped, `Z` for one that has ended (proc_pid_stat(5)). */
  state: Schema.String,
  /** Seconds since it was started. */
  age: Schema.Finite,
  /** Whether it runs in a pod. */
  inPod: Schema.Boolean
})
export type Process = typeof Process.Type

/** `comm` may contain anything, also brackets, so what follows the last bracket is read. */
export const statOf = (text: string): { readonly state: string; readonly startTicks: number } => {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
  // Fields 3 and 22 of proc_pid_stat(5).
  return { state: fields[0] ?? "", startTicks: Number(fields[19] ?? 0) }
}

/** In user space a tick is a hundredth of a second on every architecture that Kubernetes has. */
const TICKS = 100

/** Cgroups of pods, by either driver; seen from a cgroup namespace the ancestors may be missing. */
const OF_POD = /kubepods|\/pod[0-9a-f]{8}-[0-9a-f-]{27}/u

/** Processes looked at; a node with more is judged by those. */
const MAX_PROCESSES = 20_000

/**
 * Those with one of `names`, in order of their ids. Nothing where processes of others cannot be seen (`hidepid`). A process
 * that ends meanwhile is left out.
 */
export const processesNamed = Effect.fnUntraced(function*(names: ReadonlySet<string>) {
  const host = yield* Host
  const quiet = (path: string) => Effect.option(host.text(path))
  if (Option.isNone(yield* quiet("/proc/1/comm"))) return Option.none<ReadonlyArray<Process>>()
  const uptime = Number((yield* host.text("/proc/uptime")).split(" ")[0])
  const ids = (yield* host.names("/proc")).filter((name) => /^\d+$/u.test(name)).slice(0, MAX_PROCESSES)
  const found = yield* Effect.forEach(ids, (id) =>
    Effect.gen(function*() {
      const comm = yield* quiet(`/proc/${id}/comm`)
      const name = Option.getOrElse(comm, () => "").trim()
      if (!names.has(name)) return []
      const [stat, cgroup] = yield* Effect.all([quiet(`/proc/${id}/stat`), quiet(`/proc/${id}/cgroup`)])
      if (Option.isNone(stat)) return []
      const { startTicks, state } = statOf(stat.value)
      if (state === "Z" || state === "X") return []
      const inPod = OF_POD.test(Option.getOrElse(cgroup, () => ""))
      return [{ pid: Number(id), name, state, age: Math.max(0, uptime - startTicks / TICKS), inPod }]
    }), { concurrency: 16 })
  return Option.some<ReadonlyArray<Process>>(found.flat())
})
