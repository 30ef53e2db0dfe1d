/** {@link Host} below the folder where a pod has the node's files mounted. */
import { Effect } from "effect"
import { open, readdir, statfs } from "node:fs/promises"
import { type Host, HostError } from "./Host.ts"

/** Where `deploy/nodes` mounts the node's `/proc`, `/sys`, `/etc` and `/var`. */
export const HOST_FOLDER = "/host"

const MAX_BYTES = 256 * 1024

/** Most files of `/proc` and `/sys` are shorter; thousands of them may be read in one run. */
const FIRST_BYTES = 4 * 1024

const kindOf = (code: string | undefined): HostError["kind"] =>
  code === "ENOENT" || code === "ENOTDIR" ? "missing" : code === "EACCES" || code === "EPERM" ? "denied" : "unreadable"

const reading = <A>(path: string, read: () => Promise<A>): Effect.Effect<A, HostError> =>
  Effect.tryPromise({
    try: read,
    catch: (cause) => {
      const code = cause instanceof Error && "code" in cause ? String(cause.code) : undefined
      return new HostError({ path, kind: kindOf(code), detail: cause instanceof Error ? cause.message : String(cause) })
    }
  })

/** Files of `/proc` say that they have 0 bytes, so what is read is what there is. */
const readText = async (path: string): Promise<string> => {
  const file = await open(path, "r")
  try {
    let buffer = Buffer.alloc(FIRST_BYTES)
    let size = 0
    while (size < MAX_BYTES) {
      if (size === buffer.length) buffer = Buffer.concat([buffer], Math.min(MAX_BYTES, 4 * size))
      const { bytesRead } = await file.read(buffer, size, buffer.length - size, null)
      if (bytesRead === 0) break
      size += bytesRead
    }
    return buffer.toString("utf8", 0, size)
  } finally {
    await file.close()
  }
}

/** `root` is empty for the machine of this very process. */
export const make = (root: string): Host["Service"] => ({
  text: (path) => reading(path, () => readText(`${root}${path}`)),
  names: (folder) => reading(folder, async () => (await readdir(`${root}${folder}`)).sort()),
  use: (path) =>
    reading(path, async () => {
      const { bavail, blocks, bsize, ffree, files } = await statfs(`${root}${path}`)
      return { bytes: blocks * bsize, bytesFree: bavail * bsize, inodes: files, inodesFree: ffree }
    })
})
