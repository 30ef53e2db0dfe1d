/** {@link Disk} with Node's file system. */
import { Duration, Effect } from "effect"
import { type FileHandle, open, unlink } from "node:fs/promises"
import { join } from "node:path"
import { Disk, DiskError } from "./Disk.ts"

const textOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Stateless. */
export const service = Disk.of({
  commits: Effect.fn("Disk.commits")(function*({ bytes, folder, times, within }) {
    const failure = (cause: unknown) => new DiskError({ folder, detail: textOf(cause) })
    const file = join(folder, `kubeprober-${crypto.randomUUID()}`)
    const since = (started: bigint) => Duration.nanos(process.hrtime.bigint() - started)
    const commit = (handle: FileHandle, block: Uint8Array) =>
      Effect.tryPromise({
        try: async () => {
          const started = process.hrtime.bigint()
          await handle.write(block)
          // As etcd commits its log: data and size, without the times of the file.
          await handle.datasync()
          const took = since(started)
          const again = process.hrtime.bigint()
          await handle.stat()
          await handle.stat()
          return { took, own: since(again) }
        },
        catch: failure
      })
    const commits = Effect.fnUntraced(function*(handle: FileHandle) {
      const block = Buffer.alloc(bytes, 0x6b)
      const started = process.hrtime.bigint()
      const done: Array<{ readonly took: Duration.Duration; readonly own: Duration.Duration }> = []
      while (done.length < times && (done.length === 0 || Duration.isLessThan(since(started), within))) {
        done.push(yield* commit(handle, block))
      }
      return { took: done.map(({ took }) => took), own: done.map(({ own }) => own) }
    })
    return yield* Effect.acquireUseRelease(
      Effect.tryPromise({ try: () => open(file, "wx"), catch: failure }),
      commits,
      (handle) => Effect.ignore(Effect.promise(() => handle.close().then(() => unlink(file))))
    )
  })
})
