/** `kubeprober master`: what looks after a fleet. */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as flags from "./flags.ts"

export const master = Command.make(
  "master",
  {
    resources: Flag.Literals("resources", ["sqlite", "kubernetes"]).pipe(
      Flag.withDescription(
        "Where Clusters and Probes are kept: a file in the state folder, or the Kubernetes API of the cluster this runs in"
      ),
      Flag.withDefault("sqlite" as const)
    ),
    namespace: Flag.String("namespace").pipe(
      Flag.withAlias("n"),
      Flag.withDescription("With --resources kubernetes: the namespace of the master's own Secrets and Leases"),
      Flag.withDefault("kubeprober")
    ),
    resourceNamespace: Flag.String("resource-namespace").pipe(
      Flag.withDescription("With --resources kubernetes: the namespace of Clusters, Probes and ProbeRuns"),
      Flag.withDefault("default")
    ),
    kubeconfig: flags.kubeconfig,
    context: Flag.String("context").pipe(
      Flag.withDescription("With --resources kubernetes, outside a cluster: the kubeconfig's context to use"),
      Flag.withMetavar("NAME"),
      Flag.optional
    ),
    state: flags.stateFolder("master"),
    linkListen: flags.listen("link-listen", "Where agents enrol and link", "0.0.0.0:8443"),
    linkNames: flags.names(
      "link-name",
      "A DNS name or IP address by which agents reach the master; goes into its certificate. May be repeated"
    ),
    apiListen: flags.listen("api-listen", "Where people and services ask", "127.0.0.1:9443"),
    apiNames: flags.names("api-name", "As --link-name, for the API"),
    healthListen: flags.listen("health-listen", "Where /healthz and /readyz answer, without TLS").pipe(Flag.optional)
  },
  Effect.fn("master")(function*(options) {
    const MasterProcess = yield* Effect.promise(() => import("../MasterProcess.ts"))
    const state = Option.isSome(options.state) ? options.state.value : yield* flags.defaultState("master")
    return yield* MasterProcess.run({ ...options, state })
  })
).pipe(
  Command.withDescription(
    "Look after a fleet: agents enrol and link here, Probes are handed out, results are kept, people and services ask. Runs " +
      "until it is ended."
  ),
  Command.withShortDescription("Look after a fleet of clusters"),
  Command.withExamples([
    {
      command: "kubeprober master --link-name master.example --api-listen 0.0.0.0:9443 --api-name master.example",
      description: "With all state in ~/.local/state/kubeprober/master"
    }
  ])
)
