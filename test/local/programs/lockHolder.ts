/** A process that takes the given lock and keeps it, for tests to end: tells `locked`. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as FileLock from "../../../src/local/process/FileLock.ts"

FileLock.lock(process.argv[2] ?? "").pipe(
  Effect.andThen(Console.log("locked")),
  Effect.andThen(Effect.never),
  Effect.scoped,
  NodeRuntime.runMain
)
