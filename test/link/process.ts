/** A program of its own, told what to do by one line of JSON and answering with lines of JSON. To be killed. */
import { Effect, Queue, Schema, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

export interface Program {
  /** Its next line. */
  readonly next: <A>(schema: Schema.Codec<A, unknown>) => Effect.Effect<A>
  /** SIGKILL; returns when it is gone. */
  readonly kill: Effect.Effect<void>
}

/** Starts a program of this repository; it is killed when the scope ends. */
export const start = (program: URL, input: unknown): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function*() {
    const lines = yield* Queue.unbounded<string>()
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(process.execPath, [fileURLToPath(program)], { stdio: ["pipe", "pipe", "inherit"] })
        createInterface(child.stdout).on("line", (line) => Queue.offerUnsafe(lines, line))
        // Not in argv: it may hold a token.
        child.stdin.end(JSON.stringify(input))
        return child
      }),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const gone = Effect.callback<void>((resume) => {
      if (child.exitCode !== null || child.signalCode !== null) resume(Effect.void)
      child.once("exit", () => resume(Effect.void))
    })
    return {
      next: (schema) =>
        Queue.take(lines).pipe(
          Effect.flatMap(Schema.decodeUnknownEffect(Schema.fromJsonString(schema))),
          Effect.timeout("1 minute"),
          Effect.orDie
        ),
      kill: Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), gone)
    }
  })
