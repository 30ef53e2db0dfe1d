/**
 * `npm run bench:cli`: how long the packed program takes to start, beside `kubectl version --client` in the same run.
 *
 * The commands take turns, so that whatever else the machine does falls on all of them alike. Compare ratios, not
 * milliseconds, between machines.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Array, Clock, Console, Data, Effect, Order } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { fileURLToPath } from "node:url"
import { LocalBinaries } from "../src/local/binaries/LocalBinaries.ts"
import * as Local from "../src/local/Local.ts"

const ROUNDS = 30

class CommandFailed extends Data.TaggedError("CommandFailed")<{ readonly command: string; readonly code: number }> {
  override get message(): string {
    return `${this.command} ended with code ${this.code}`
  }
}

const kubeprober = fileURLToPath(new URL("../dist/bin/kubeprober.js", import.meta.url))

const time = Effect.fnUntraced(function*([command, ...args]: readonly [string, ...ReadonlyArray<string>]) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const start = yield* Clock.currentTimeNanos
  const code = yield* spawner.exitCode(
    ChildProcess.make(command, args, { stdin: "ignore", stdout: "ignore", stderr: "ignore" })
  )
  const end = yield* Clock.currentTimeNanos
  if (code !== 0) return yield* new CommandFailed({ command: [command, ...args].join(" "), code })
  return Number(end - start) / 1e6
})

const median = (times: ReadonlyArray<number>): number =>
  Array.sort(times, Order.Number)[Math.floor(times.length / 2)] ?? Number.NaN

const program = Effect.gen(function*() {
  const { kubectl } = yield* (yield* LocalBinaries).resolve(["kubectl"])
  const node = process.execPath
  const reference = "kubectl version --client"
  const commands = [
    { name: "node -e 0", command: [node, "-e", "0"] },
    { name: reference, command: [kubectl.path, "version", "--client"] },
    { name: "kubeprober --version", command: [node, kubeprober, "--version"] },
    { name: "kubeprober --help", command: [node, kubeprober, "--help"] },
    { name: "kubeprober probe list", command: [node, kubeprober, "probe", "list"] }
  ] as const
  // A first turn fills the caches of the file system.
  yield* Effect.forEach(commands, ({ command }) => time(command))
  const turns = yield* Effect.forEach(
    Array.range(1, ROUNDS),
    () => Effect.forEach(commands, ({ command }) => time(command))
  )
  const medians = commands.map((_, index) => median(turns.map((turn) => turn[index] ?? Number.NaN)))
  const unit = medians[commands.findIndex(({ name }) => name === reference)] ?? Number.NaN
  yield* Console.log(`median of ${ROUNDS}${" ".repeat(14)}ms  times kubectl ${kubectl.version}`)
  for (const [index, { name }] of commands.entries()) {
    const value = medians[index] ?? Number.NaN
    yield* Console.log(`${name.padEnd(24)}${value.toFixed(0).padStart(6)}  ${(value / unit).toFixed(2)}`)
  }
})

program.pipe(Effect.provide(Local.layer), NodeRuntime.runMain)
