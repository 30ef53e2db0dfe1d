/** `kubeprober agent`: what runs in each managed cluster, or for it. */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { Profile } from "../../domain/Profile.ts"
import { Failure } from "../Failure.ts"
import { DRY_RUN_NAMESPACE } from "../probeNamespaces.ts"
import * as flags from "./flags.ts"

export const agent = Command.make(
  "agent",
  {
    master: Flag.String("master").pipe(
      Flag.withDescription("The master to link to, such as https://master.example:8443"),
      Flag.withMetavar("URL"),
      Flag.optional
    ),
    joinTokenFile: Flag.String("join-token-file").pipe(
      Flag.withDescription(
        "A file with the join token of `kubeprober cluster add`; needed until the agent is enrolled"
      ),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    standalone: Flag.Boolean("standalone").pipe(
      Flag.withDescription("Run the Probes of this cluster without a master: Probe in, ProbeStatus out"),
      Flag.withDefault(false)
    ),
    kubeconfig: flags.kubeconfig,
    context: Flag.String("context").pipe(
      Flag.withDescription("Outside a cluster: the kubeconfig's context to look after; its current one when absent"),
      Flag.withMetavar("NAME"),
      Flag.optional
    ),
    store: Flag.Literals("store", ["resources", "memory"]).pipe(
      Flag.withDescription(
        "Where Probes and their results are: resources of the cluster (needs our CRDs there), or this process alone"
      ),
      Flag.withDefault("resources" as const)
    ),
    namespace: Flag.String("namespace").pipe(
      Flag.withAlias("n"),
      Flag.withDescription(
        "The probe namespace: where Probes are, and what they create; kubeprober when absent, default with --store memory"
      ),
      Flag.optional
    ),
    profile: Flag.Literals("profile", Profile.literals).pipe(
      Flag.withDescription("What probes may write: standard when there are resources of ours, else observe"),
      Flag.optional
    ),
    allow: flags.allow,
    workerImage: flags.workerImage,
    modules: flags.modules,
    credentials: flags.credentials,
    state: flags.stateFolder("agent"),
    reportListen: flags.listen(
      "report-listen",
      "Where probers of Jobs report; without it, Probes with a template are UNKNOWN"
    )
      .pipe(Flag.optional),
    reportUrl: Flag.String("report-url").pipe(
      Flag.withDescription(
        "How probers reach --report-listen; http://probeagent.NAMESPACE.svc.cluster.local:8082/probe-status when absent"
      ),
      Flag.withMetavar("URL"),
      Flag.optional
    ),
    ...flags.budget,
    healthListen: flags.listen("health-listen", "Where /healthz and /readyz answer, without TLS").pipe(Flag.optional)
  },
  Effect.fn("agent")(function*(options) {
    if (options.standalone === Option.isSome(options.master)) {
      return yield* new Failure({ reason: "give either --master URL or --standalone" })
    }
    const AgentProcess = yield* Effect.promise(() => import("../AgentProcess.ts"))
    const state = Option.isSome(options.state) ? options.state.value : yield* flags.defaultState("agent")
    const namespace = Option.getOrElse(
      options.namespace,
      () => options.store === "memory" ? DRY_RUN_NAMESPACE : "kubeprober"
    )
    return yield* AgentProcess.run({ ...options, budget: flags.budgetOf(options), namespace, state })
  })
).pipe(
  Command.withDescription(
    "Run the Probes of one cluster and tell what they say: to its ProbeStatus resources, and to a master over one outbound " +
      "connection. Runs until it is ended."
  ),
  Command.withShortDescription("Run the Probes of one cluster"),
  Command.withExamples([
    {
      command: "kubeprober agent --master https://master.example:8443 --join-token-file edge-1.token --store memory",
      description: "For the kubeconfig's current context, storing nothing in the cluster"
    },
    { command: "kubeprober agent --standalone", description: "One cluster, no master" }
  ])
)
