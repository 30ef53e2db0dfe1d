/** `kubeprober up`: a master and an agent for each cluster at hand; with none at hand, for a local fleet. */
import { Duration, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as ExitCode from "../ExitCode.ts"
import { note } from "../Screen.ts"
import { reasonNotToRun } from "../Selection.ts"
import * as flags from "./flags.ts"

export const up = Command.make(
  "up",
  {
    ...flags.checking,
    probeNamespace: flags.probeNamespace,
    ...flags.budget,
    once: Flag.Boolean("once").pipe(
      Flag.withDescription("One round without a master, then exit as `check` does"),
      Flag.withDefault(false)
    ),
    interval: flags.duration("interval").pipe(
      Flag.withDescription("Between the starts of two runs of a check, such as 30s"),
      Flag.withDefault(Duration.seconds(30))
    ),
    state: Flag.String("state").pipe(
      Flag.withDescription(
        "Keep the master's state and the history in this folder; without it they end with the command"
      ),
      Flag.withMetavar("FOLDER"),
      Flag.optional
    ),
    apiPort: Flag.Int("api-port").pipe(
      Flag.withDescription("The port of the master's API on 127.0.0.1; any free one when absent"),
      Flag.withDefault(0)
    )
  },
  Effect.fn("up")(function*(options) {
    const [CheckSession, Plan, Targets] = yield* Effect.promise(() =>
      Promise.all([import("../CheckSession.ts"), import("../Plan.ts"), import("../Targets.ts")])
    )
    const plan = yield* Plan.make({ ...options, namespaces: Option.none() })
    yield* Plan.ensureRunnable(plan, options)
    const connections = yield* Targets.fromKubeconfigOrLocal(options)
    if (options.once) {
      const result = yield* CheckSession.run({ ...options, plan, connections })
      const code = ExitCode.ofResult(result, options.failOn)
      return code === 0 ? undefined : yield* new ExitCode.Exit({ code })
    }
    const [EmbeddedFleet, FleetWatch, Manifests] = yield* Effect.promise(() =>
      Promise.all([import("../EmbeddedFleet.ts"), import("../FleetWatch.ts"), import("../Manifests.ts")])
    )
    const chosen = plan.checks.filter((check) => reasonNotToRun(check, { ...options, named: plan.named }) === undefined)
    const own = (yield* Effect.forEach(options.modules, Plan.loadModule)).flat().map(({ probe }) => probe)
    const probes = options.manifests.length > 0
      ? (yield* Effect.forEach(options.manifests, Manifests.loadProbes)).flat()
      : EmbeddedFleet.probesOf(chosen, options.interval)
    const { fleet, server } = yield* EmbeddedFleet.start({
      ...options,
      budget: flags.budgetOf(options),
      connections,
      probes,
      own
    })
    yield* note([`A master serves this fleet at ${server}; \`kubeprober status\` asks it too. Ctrl-C ends.`, ""])
    yield* Effect.addFinalizer(() => note(["", "ending"]))
    return yield* FleetWatch.watch(fleet, {}, { wide: options.output === "wide", fresh: true })
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "A master in this process and an agent for each of the kubeconfig's clusters, linked as in a real fleet, with one live " +
      "table. Nothing of ours is installed in the clusters. With no cluster at hand it starts a local fleet of two and ends " +
      "it again."
  ),
  Command.withShortDescription("Keep diagnosing the clusters at hand, or a local fleet")
)
