/** Where the program's words go: results to standard output, progress and errors to standard error. */
import { Context, Effect, Layer } from "effect"
import process from "node:process"
import { type Style, forStream } from "./output/Style.ts"

export interface Surface {
  readonly isTerminal: boolean
  /** Columns; unlimited when it is not a terminal. */
  readonly width: Effect.Effect<number | undefined>
  /** Lines; unlimited when it is not a terminal. */
  readonly height: Effect.Effect<number | undefined>
  readonly style: Style
  readonly write: (text: string) => Effect.Effect<void>
}

export class Screen extends Context.Service<Screen, {
  readonly out: Surface
  readonly err: Surface
}>()("kubeprober/cli/Screen") {
  static readonly layer = Layer.effect(
    Screen,
    Effect.sync(() => ({ out: surfaceOf(process.stdout), err: surfaceOf(process.stderr) }))
  )
}

const surfaceOf = (stream: NodeJS.WriteStream): Surface => {
  let closed = false
  stream.on("error", (error: NodeJS.ErrnoException) => {
    closed = true
    // A reader that leaves early (`| head`) is no fault: the exit code stays. A result that was lost otherwise is.
    if (error.code === "EPIPE") return
    process.exitCode = 2
    if (stream !== process.stderr) process.stderr.write(`kubeprober: cannot write the result: ${error.message}\n`)
  })
  return {
    isTerminal: stream.isTTY === true,
    width: Effect.sync(() => stream.isTTY === true ? stream.columns : undefined),
    height: Effect.sync(() => stream.isTTY === true ? stream.rows : undefined),
    style: forStream(stream, process.env),
    write: (text) =>
      Effect.callback<void>((resume) => {
        if (closed || text === "") return resume(Effect.void)
        // Resume only when it is flushed: a pipe would lose the rest at exit.
        stream.write(text, () => resume(Effect.void))
      })
  }
}

/** Lines to standard output. */
export const print = (lines: ReadonlyArray<string>): Effect.Effect<void, never, Screen> =>
  Screen.use((screen) => screen.out.write(lines.map((line) => `${line}\n`).join("")))

/** Lines to standard error. */
export const note = (lines: ReadonlyArray<string>): Effect.Effect<void, never, Screen> =>
  Screen.use((screen) => screen.err.write(lines.map((line) => `${line}\n`).join("")))
