import { Data, Effect, Predicate, Schedule, type Scope } from "effect"
import { DatabaseSync } from "node:sqlite"

/** Another process, or another scope of this one, holds the lock. */
export class LockBusy extends Data.TaggedError("LockBusy")<{ readonly path: string }> {
  override get message(): string {
    return `${this.path} is locked by another process.`
  }
}

/** The lock file cannot be used: no such folder, no permission, no space. */
export class LockFailed extends Data.TaggedError("LockFailed")<{ readonly path: string; readonly cause: unknown }> {
  override get message(): string {
    return `The lock ${this.path} cannot be taken (${
      String(this.cause)
    }). Check that its folder exists and is writable.`
  }
}

/**
 * Takes the lock, or fails at once. It is held until the scope closes or the process ends in whatever way: the kernel
 * drops it then, so there is no such thing as a stale lock.
 *
 * It is SQLite's own file lock, because Node offers no flock(2). Nothing else may open the file: closing any other
 * descriptor of it would drop the lock (POSIX advisory locks belong to a process, not to a descriptor).
 */
export const tryLock = (path: string): Effect.Effect<void, LockBusy | LockFailed, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.try({
      try: () => open(path),
      catch: (cause) => isBusy(cause) ? new LockBusy({ path }) : new LockFailed({ path, cause })
    }),
    (database) => Effect.sync(() => database.close())
  ))

/** Takes the lock as soon as it is free. Use when the holder is known to finish. */
export const lock = (path: string): Effect.Effect<void, LockFailed, Scope.Scope> =>
  tryLock(path).pipe(
    Effect.retry({ while: (error) => error._tag === "LockBusy", schedule: pollLock }),
    Effect.catchTag("LockBusy", Effect.die)
  )

const pollLock = Schedule.spaced("50 millis").pipe(Schedule.jittered)

/** SQLITE_BUSY of https://www.sqlite.org/rescode.html */
const isBusy = (error: unknown): boolean => Predicate.hasProperty(error, "errcode") && error.errcode === 5

const open = (path: string): DatabaseSync => {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    // The default mode puts a journal file beside the lock.
    database.exec("PRAGMA journal_mode = MEMORY")
    database.exec("BEGIN EXCLUSIVE")
    return database
  } catch (error) {
    database.close()
    throw error
  }
}
