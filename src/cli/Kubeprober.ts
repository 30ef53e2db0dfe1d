/** The program: all commands, and how any ending of one becomes words and an exit code. */
import { Cause, Effect, Layer, Logger } from "effect"
import { CliError, CliOutput, Command } from "effect/cli"
import process from "node:process"
import { agent } from "./commands/agent.ts"
import { check } from "./commands/check.ts"
import { cluster } from "./commands/cluster.ts"
import { local } from "./commands/local.ts"
import { master } from "./commands/master.ts"
import { node } from "./commands/node.ts"
import { once } from "./commands/once.ts"
import { probe } from "./commands/probe.ts"
import { status } from "./commands/status.ts"
import { up } from "./commands/up.ts"
import { worker } from "./commands/worker.ts"
import { Exit } from "./ExitCode.ts"
import { Screen, note } from "./Screen.ts"
import { version } from "./version.ts"

const kubeprober = Command.make("kubeprober").pipe(
  Command.withDescription("Proves that Kubernetes clusters work, by doing in them what their users do"),
  Command.withSubcommands([check, up, status, once, probe, cluster, master, agent, local, worker, node])
)

const say = (failure: unknown): string => {
  const message = failure instanceof Error ? failure.message : String(failure)
  return `kubeprober: ${message}`
}

/** A wrong call is told on standard error, in a line that is not lost below the help that `--help` prints. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.gen(function*() {
        const formatter = yield* CliOutput.Formatter
        yield* Effect.sync(() =>
          process.stderr.write(
            `${formatter.formatErrors(event.errors)}\n\n${event.commandPath.join(" ")} --help tells how it is called\n`
          )
        )
      })
      : CliOutput.defaultPresenter.present(event)
})

/** Standard output is for results alone, so logs go to standard error. */
const services = Layer.mergeAll(Screen.layer, presenter, Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]))

/** Run with arguments (without node and script). Every failure has been said when it arrives as an exit code. */
export const run = (argv: ReadonlyArray<string>) =>
  Command.runWith(kubeprober, { version })(argv).pipe(
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(Cause.interrupt())
      const failure = Cause.squash(cause)
      if (failure instanceof Exit) return Effect.fail(failure)
      if (CliError.isCliError(failure) && failure._tag === "ShowHelp") {
        return failure.errors.length === 0 ? Effect.void : Effect.fail(new Exit({ code: 2 }))
      }
      return Effect.andThen(
        Cause.hasDies(cause)
          ? Effect.andThen(
            note([`${say(failure)} (this is a fault of kubeprober; --log-level debug shows where)`]),
            Effect.logDebug(cause)
          )
          : note([say(failure)]),
        Effect.fail(new Exit({ code: 2 }))
      )
    }),
    Effect.provide(services)
  )
