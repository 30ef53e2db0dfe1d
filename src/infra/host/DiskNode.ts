/** {@link Disk} with Node's file system. */
import { Duration, Effect } from "effect"
import { type FileHandle, open, unlink } from "node:fs/promises"
import { join } from "node:path"
import { Disk, DiskError } from "./Disk.ts"

const textOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Stateless. */
export const service = Disk.of({
  commits: Effect.fn("Disk.commits")(function*({ bytes, folder, times }) {
    const failure = (cause: unknown) => new DiskError({ folder, detail: textOf(cause) })
    const file = join(folder, `kubeprober-${crypto.randomUUID()}`)
    const commit = (handle: FileHandle, block: Uint8Array) =>
      Effect.tryPromise({
        try: async () => {
          const started = process.hrtime.bigint()
          await handle.write(block)
          // As etcd commits its log: data and size, without the times of the file.
          await handle.datasync()
          return Duration.nanos(process.hrtime.bigint() - started)
        },
        catch: failure
      })
    return yield* Effect.acquireUseRelease(
      Effect.tryPromise({ try: () => open(file, "wx"), catch: failure }),
      (handle) => {
        const block = Buffer.alloc(bytes, 0x6b)
        return Effect.forEach(Array.from({ length: times }), () => commit(handle, block))
      },
      (handle) => Effect.ignore(Effect.promise(() => handle.close().then(() => unlink(file))))
    )
  })
})
