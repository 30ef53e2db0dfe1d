/** Programs of `programs/` as processes, for tests to talk to and to end. */
import { Effect, Schedule, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { fileURLToPath } from "node:url"

export interface Process {
  readonly pid: number
  /** The first line on standard output that satisfies the predicate; dies when the program ends without one. */
  readonly line: (predicate: (line: string) => boolean) => Effect.Effect<string>
  /** Sends a signal to the process and those of its group, as a terminal does, and waits for its end. */
  readonly end: (signal: "SIGINT" | "SIGKILL") => Effect.Effect<void>
}

/** Starts a program. It is killed with the scope at the latest. */
export const start = Effect.fnUntraced(
  function*(
    program: string,
    args: ReadonlyArray<string>,
    environment: Record<string, string | undefined> = process.env
  ) {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const file = fileURLToPath(new URL(`./programs/${program}.ts`, import.meta.url))
    const handle = yield* Effect.orDie(spawner.spawn(ChildProcess.make(process.execPath, [file, ...args], {
      env: environment,
      stdin: "ignore",
      killSignal: "SIGKILL"
    })))
    const lines: Array<string> = []
    const reading = yield* handle.all.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => Effect.sync(() => lines.push(line))),
      Effect.forkScoped
    )
    const process_: Process = {
      pid: handle.pid,
      line: (predicate) =>
        Effect.suspend(() => {
          const line = lines.find(predicate)
          if (line !== undefined) return Effect.succeed(line)
          return reading.pollUnsafe() === undefined ? Effect.fail("not yet") : Effect.die(lines.join("\n"))
        }).pipe(Effect.retry(Schedule.spaced("20 millis")), Effect.orDie),
      end: (signal) =>
        Effect.sync(() => process.kill(-handle.pid, signal)).pipe(
          Effect.andThen(Effect.exit(handle.exitCode)),
          Effect.asVoid
        )
    }
    return process_
  }
)
