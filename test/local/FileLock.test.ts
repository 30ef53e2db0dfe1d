import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem } from "effect"
import * as FileLock from "../../src/local/process/FileLock.ts"
import * as Process from "./Process.ts"

const temporaryFolder = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())

const isFree = (path: string) =>
  Effect.scoped(FileLock.tryLock(path)).pipe(
    Effect.as(true),
    Effect.catchTag("LockBusy", () => Effect.succeed(false))
  )

describe("a file lock", () => {
  it.live("is held by one scope at a time, and free when that closes", () =>
    Effect.gen(function*() {
      const path = `${yield* temporaryFolder}/lock`
      yield* Effect.scoped(Effect.gen(function*() {
        yield* FileLock.lock(path)
        assert.isFalse(yield* isFree(path))
      }))
      assert.isTrue(yield* isFree(path))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("is free as soon as its holder is killed", () =>
    Effect.gen(function*() {
      const path = `${yield* temporaryFolder}/lock`
      const holder = yield* Process.start("lockHolder", [path])
      yield* holder.line((line) => line === "locked")
      assert.isFalse(yield* isFree(path))
      const waiting = yield* Effect.forkChild(Effect.scoped(FileLock.lock(path)))
      yield* holder.end("SIGKILL")
      yield* Fiber.join(waiting)
      assert.isTrue(yield* isFree(path))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("leaves nothing beside its file", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* temporaryFolder
      yield* FileLock.lock(`${folder}/lock`)
      assert.deepStrictEqual(yield* fs.readDirectory(folder), ["lock"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("fails where it cannot be, and does not wait there", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(FileLock.lock(`${yield* temporaryFolder}/no/such/folder/lock`))
      assert.strictEqual(error._tag, "LockFailed")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
