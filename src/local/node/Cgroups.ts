import { Effect, FileSystem, Schedule } from "effect"
import { createHash } from "node:crypto"
import { rmdir } from "node:fs/promises"

/** The group of a local cluster, given its state folder. Nodes have groups below it. */
export const groupOf = (cluster: string): string =>
  `kubeprober-${createHash("sha256").update(cluster).digest("hex").slice(0, 12)}`

const ROOT = "/sys/fs/cgroup"

/**
 * The roots of the cgroup hierarchies of this machine: one for each controller of version 1 (and the unified one
 * beside them), or the only one of version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html).
 */
const hierarchies = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  if (yield* fs.exists(`${ROOT}/cgroup.controllers`)) return [ROOT]
  const names = yield* Effect.orElseSucceed(fs.readDirectory(ROOT), () => [])
  return yield* Effect.filter(names.map((name) => `${ROOT}/${name}`), (folder) => fs.exists(`${folder}/cgroup.procs`))
})

/** Makes the group and those above it in every hierarchy, ready for kubelet to make groups of pods below it. */
export const make = Effect.fnUntraced(function*(group: string) {
  const fs = yield* FileSystem.FileSystem
  for (const hierarchy of yield* hierarchies) {
    let parent = hierarchy
    for (const name of group.split("/")) {
      yield* passControllers(fs, parent)
      const folder = `${parent}/${name}`
      yield* fs.makeDirectory(folder, { recursive: true })
      // A new group of the cpuset controller has no processors and no memory, and admits nothing until it does.
      for (const file of ["cpuset.cpus", "cpuset.mems"]) {
        if (hierarchy === ROOT || !(yield* fs.exists(`${folder}/${file}`))) continue
        yield* fs.writeFileString(`${folder}/${file}`, yield* fs.readFileString(`${parent}/${file}`))
      }
      parent = folder
    }
    yield* passControllers(fs, parent)
  }
})

/** In version 2 a group has the controllers that the one above it passes down. */
const passControllers = Effect.fnUntraced(function*(fs: FileSystem.FileSystem, folder: string) {
  if (!(yield* fs.exists(`${folder}/cgroup.subtree_control`))) return
  const controllers = (yield* fs.readFileString(`${folder}/cgroup.controllers`)).split(/\s+/).filter((name) =>
    name !== ""
  )
  if (controllers.length === 0) return
  yield* fs.writeFileString(`${folder}/cgroup.subtree_control`, controllers.map((name) => `+${name}`).join(" "))
})

/**
 * Removes the group and all below it, as soon as its last process is gone. Only groups without processes can be
 * removed, so nothing that runs is at risk.
 */
export const remove = Effect.fnUntraced(function*(group: string) {
  const fs = yield* FileSystem.FileSystem
  const removeTree = (folder: string): Effect.Effect<void> =>
    Effect.gen(function*() {
      const entries = yield* fs.readDirectoryEntries(folder)
      const groups = entries.filter((entry) => entry.type === "Directory")
      yield* Effect.forEach(groups, (entry) => removeTree(`${folder}/${entry.name}`))
      // FileSystem.remove would begin with the files of the group, which are the kernel's and go with the folder.
      yield* Effect.tryPromise(() => rmdir(folder))
    }).pipe(Effect.ignore)
  for (const hierarchy of yield* hierarchies) {
    const folder = `${hierarchy}/${group}`
    yield* removeTree(folder).pipe(
      Effect.andThen(fs.exists(folder)),
      Effect.repeat({ while: (exists) => exists, schedule: Schedule.spaced("50 millis"), times: 100 })
    )
  }
})
