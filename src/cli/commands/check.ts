/** `kubeprober check`: diagnose clusters of a kubeconfig now, with nothing installed in them. */
import { Effect } from "effect"
import { Command } from "effect/cli"
import * as ExitCode from "../ExitCode.ts"
import * as flags from "./flags.ts"

export const check = Command.make(
  "check",
  {
    ...flags.checking,
    namespaces: flags.namespaces,
    allNamespaces: flags.allNamespaces,
    probeNamespace: flags.probeNamespace
  },
  Effect.fn("check")(function*(options) {
    // Loaded here, so that `--help` and `probe list` do not pay for the parts that talk to clusters.
    const [CheckSession, Plan, Targets] = yield* Effect.promise(() =>
      Promise.all([import("../CheckSession.ts"), import("../Plan.ts"), import("../Targets.ts")])
    )
    const namespaces = yield* flags.namespaceScope(options)
    const plan = yield* Plan.make({ ...options, namespaces })
    yield* Plan.ensureRunnable(plan, options)
    const connections = yield* Targets.fromKubeconfig(options)
    const result = yield* CheckSession.run({ ...options, plan, connections })
    const code = ExitCode.ofResult(result, options.failOn)
    if (code !== 0) return yield* new ExitCode.Exit({ code })
  })
).pipe(
  Command.withDescription(
    "Diagnose clusters of a kubeconfig now. Exit code: 0 nothing at or above --fail-on, 1 something is, 2 could not run " +
      "or could not look."
  ),
  Command.withShortDescription("Diagnose clusters of a kubeconfig now, with nothing installed in them"),
  Command.withExamples([
    { command: "kubeprober check", description: "Every context of the kubeconfig, storing nothing in any cluster" },
    {
      command: "kubeprober check --context prod --profile standard",
      description: "One cluster, with probes that write"
    },
    { command: "kubeprober check -o junit --fail-on warn > report.xml", description: "In a pipeline" },
    { command: "kubeprober check -f probe.yaml", description: "With the checks and thresholds of a Probe manifest" },
    { command: "kubeprober check --probes ./mine.ts", description: "With probes of your own" }
  ])
)
