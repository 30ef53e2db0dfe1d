/** `kubeprober up`: keep diagnosing the clusters at hand; with none at hand, start a local fleet and diagnose that. */
import { Duration, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as ExitCode from "../ExitCode.ts"
import { Screen, note, print } from "../Screen.ts"
import * as flags from "./flags.ts"

const CLEAR = "\u001B[H\u001B[2J\u001B[3J"

export const up = Command.make(
  "up",
  {
    ...flags.checking,
    once: Flag.Boolean("once").pipe(
      Flag.withDescription("One round, then exit as `check` does"),
      Flag.withDefault(false)
    ),
    interval: Flag.String("interval").pipe(
      Flag.withDescription("From the end of one round to the start of the next, such as 30s or \"2 minutes\""),
      Flag.withSchema(Schema.DurationFromString),
      Flag.withDefault(Duration.seconds(30))
    )
  },
  Effect.fn("up")(function*(options) {
    const [CheckSession, Plan, Targets] = yield* Effect.promise(() =>
      Promise.all([import("../CheckSession.ts"), import("../Plan.ts"), import("../Targets.ts")])
    )
    const plan = yield* Plan.make({ ...options, namespaces: Option.none() })
    yield* Plan.ensureRunnable(plan, options.profile)
    const screen = yield* Screen
    const connections = yield* Targets.fromKubeconfigOrLocal(options)
    const round = CheckSession.run({ ...options, plan, connections, probeNamespace: Option.none() })
    if (options.once) {
      const code = ExitCode.ofResult(yield* round, options.failOn)
      return code === 0 ? undefined : yield* new ExitCode.Exit({ code })
    }
    const pause = Effect.gen(function*() {
      const every = Duration.format(options.interval)
      yield* note([`next round in ${every}; Ctrl-C ends`])
      yield* Effect.sleep(options.interval)
      yield* screen.out.isTerminal ? screen.out.write(CLEAR) : print([""])
    })
    return yield* Effect.forever(Effect.andThen(round, pause))
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Keep diagnosing the kubeconfig's clusters, storing nothing in them. With no cluster at hand it starts a local " +
      "fleet of two and ends it again."
  ),
  Command.withShortDescription("Keep diagnosing the clusters at hand, or a local fleet")
)
