/** A run of a probe of middleware in a process of its own, for tests to kill. */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { ProbeRun } from "./Prober.ts"

/** Starts one run of a probe of the catalogue. Killed with the scope at the latest. */
export const start = (
  { config, folder, probe }: ProbeRun
): Effect.Effect<{ readonly kill: Effect.Effect<void> }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const main = fileURLToPath(new URL("./proberProcess.main.ts", import.meta.url))
      const child = spawn(process.execPath, [main], { stdio: ["pipe", "inherit", "inherit"] })
      const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()))
      child.stdin.end(JSON.stringify({ probe: probe.id, config, folder }))
      return {
        kill: Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), Effect.promise(() => exited))
      }
    }),
    ({ kill }) => kill
  )
