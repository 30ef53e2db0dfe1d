import { Effect, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { CommandFailed } from "../LocalError.ts"

export type CommandLine = readonly [program: string, ...args: ReadonlyArray<string>]

export interface CommandOptions {
  readonly stdin?: string
}

/** Runs a program that ends soon, and answers its standard output. It fails with what it wrote to standard error. */
export const run = (
  command: CommandLine,
  options: CommandOptions = {}
): Effect.Effect<string, CommandFailed, ChildProcessSpawner.ChildProcessSpawner> => {
  const failed = (status: string, output: string) =>
    new CommandFailed({ command: command.join(" ").slice(0, 300), status, output })
  return Effect.gen(function*() {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const [program, ...args] = command
    const handle = yield* spawner.spawn(ChildProcess.make(program, args, {
      stdin: options.stdin === undefined ? "ignore" : Stream.encodeText(Stream.make(options.stdin)),
      killSignal: "SIGKILL"
    }))
    const read = (stream: typeof handle.stdout) => Stream.mkString(Stream.decodeText(stream))
    const [stdout, stderr, code] = yield* Effect.all(
      [read(handle.stdout), read(handle.stderr), handle.exitCode],
      { concurrency: "unbounded" }
    )
    return code === 0 ? stdout : yield* failed(`exit code ${code}`, stderr || stdout)
  }).pipe(
    Effect.scoped,
    Effect.catchTag("PlatformError", (error) => Effect.fail(failed("not started, or killed", error.message)))
  )
}
