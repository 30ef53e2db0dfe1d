import { Effect, FileSystem, Option, Schedule } from "effect"
import * as Cgroups from "./node/Cgroups.ts"
import * as Network from "./node/Network.ts"
import { MARKER } from "./process/Component.ts"

/**
 * Ends and removes what is left, outside of its state folder, of the cluster with that state folder. The kernel has
 * ended most of it together with the owner; this finds what was being started in that moment.
 */
export const remove = Effect.fnUntraced(function*(cluster: string) {
  yield* killProcesses(cluster).pipe(
    Effect.repeat({ until: (count) => count === 0, schedule: Schedule.spaced("20 millis"), times: 250 })
  )
  yield* Network.removeLeftover(cluster)
  yield* Cgroups.remove(Cgroups.groupOf(cluster))
})

/**
 * Ends every process of this user that belongs to the cluster, and tells how many there were. Only Linux shows the
 * environment of processes; elsewhere there is nothing to find.
 */
const killProcesses = Effect.fnUntraced(function*(cluster: string) {
  const fs = yield* FileSystem.FileSystem
  const entries = yield* Effect.orElseSucceed(fs.readDirectory("/proc"), () => [])
  const belongs = (pid: number) =>
    fs.readFileString(`/proc/${pid}/environ`).pipe(
      Effect.map((environment) => environment.split("\0").includes(`${MARKER}=${cluster}`)),
      Effect.orElseSucceed(() => false)
    )
  const pids = yield* Effect.filter(
    entries.map(Number).filter((pid) => pid > 0 && pid !== process.pid),
    belongs,
    { concurrency: 8 }
  )
  yield* Effect.forEach(pids, (pid) => Effect.sync(() => Option.liftThrowable(process.kill)(pid, "SIGKILL")))
  return pids.length
})
