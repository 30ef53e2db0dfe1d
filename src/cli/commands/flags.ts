/** Flags that several commands share, named and defaulted alike. */
import { Config, Effect, Option, Path, Schema } from "effect"
import { Flag } from "effect/cli"
import { DEFAULT_BUDGET } from "../../domain/ClusterBudget.ts"
import { DurationString } from "../../domain/Duration.ts"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import { Profile } from "../../domain/Profile.ts"
import type { FleetFilter } from "../../domain/rpc/Fleet.ts"
import { Failure } from "../Failure.ts"
import * as LabelSelector from "../LabelSelector.ts"
import { listFormats, outputFormats } from "../output/OutputFormat.ts"

/** `--x a,b --x c` gives `["a", "b", "c"]`. */
const list = (name: string) =>
  Flag.String(name).pipe(
    Flag.atLeast(0),
    Flag.map((values) =>
      values.flatMap((value) => value.split(",")).map((value) => value.trim()).filter((v) => v !== "")
    )
  )

export const kubeconfig = Flag.String("kubeconfig").pipe(
  Flag.withDescription("The kubeconfig to read instead of $KUBECONFIG or ~/.kube/config"),
  Flag.withMetavar("FILE"),
  Flag.optional
)

export const contexts = list("context").pipe(
  Flag.withDescription("The kubeconfig's contexts to look at, comma-separated; all of them when absent"),
  Flag.withMetavar("NAME")
)

export const profile = Flag.Literals("profile", Profile.literals).pipe(
  Flag.withDescription("What probes may write: observe (nothing is stored), standard (a namespace of its own), full"),
  Flag.withDefault("observe" as const)
)

export const only = list("probe").pipe(
  Flag.withDescription("Run only these, by id, or by prefix with a trailing *; a full id also permits what it writes"),
  Flag.withMetavar("ID")
)

export const allow = list("allow").pipe(
  Flag.withDescription(
    "Ids of probes that may run whatever they write; that a Probe names one does not yet permit it"
  ),
  Flag.withMetavar("ID")
)

export const except = list("skip").pipe(
  Flag.withDescription("Leave these out, by id, or by prefix with a trailing *"),
  Flag.withMetavar("ID")
)

export const modules = list("probes").pipe(
  Flag.withDescription("A module of your own probes (.ts or .js), beside the catalogue"),
  Flag.withMetavar("FILE")
)

export const credentials = Flag.String("credentials").pipe(
  Flag.withDescription(
    "The folder of the credentials that probes name, as FOLDER/NAME/KEY; /etc/kubeprober/credentials when absent"
  ),
  Flag.withMetavar("FOLDER"),
  Flag.optional
)

export const manifests = list("filename").pipe(
  Flag.withAlias("f"),
  Flag.withDescription("Probe manifests: run their checks, with their configuration, instead of the whole catalogue"),
  Flag.withMetavar("FILE")
)

export const probeNamespace = Flag.String("probe-namespace").pipe(
  Flag.withDescription("Where probes create objects, and send dry-run creates; made for the run when absent"),
  Flag.withMetavar("NAME"),
  Flag.optional
)

export const workerImage = Flag.String("worker-image").pipe(
  Flag.withDescription("The image of pods that probes work in; one of this version that the cluster can pull"),
  Flag.withMetavar("IMAGE"),
  Flag.optional
)

/** Without a default: an outer default never replaces an inner one. */
const failOnFlag = Flag.Literals("fail-on", ["error", "warn", "unknown", "info", "never"]).pipe(
  Flag.withDescription("The mildest verdict that makes the exit code 1")
)

/** For commands that judge. */
export const failOn = failOnFlag.pipe(Flag.withDefault("error" as const))

/** For commands that show. */
export const failOnNever = failOnFlag.pipe(Flag.withDefault("never" as const))

export const concurrency = Flag.Int("concurrency").pipe(
  Flag.withDescription("How many clusters to look at together"),
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))),
  Flag.withDefault(10)
)

export const output = Flag.Literals("output", outputFormats).pipe(
  Flag.withAlias("o"),
  Flag.withDescription("How to print: table, wide (every finding), json, yaml or junit"),
  Flag.withDefault("table" as const)
)

export const listOutput = Flag.Literals("output", listFormats).pipe(
  Flag.withAlias("o"),
  Flag.withDescription("How to print: table, wide, json or yaml"),
  Flag.withDefault("table" as const)
)

export const namespaces = list("namespace").pipe(
  Flag.withAlias("n"),
  Flag.withDescription("Judge workloads of these namespaces only"),
  Flag.withMetavar("NAME")
)

export const allNamespaces = Flag.Boolean("all-namespaces").pipe(
  Flag.withAlias("A"),
  Flag.withDescription("Judge workloads of all namespaces (the default)"),
  Flag.withDefault(false)
)

/** `-n` and `-A` together make no sense, as in kubectl, where the last would silently win. */
export const namespaceScope = (
  options: { readonly namespaces: ReadonlyArray<string>; readonly allNamespaces: boolean }
) =>
  options.allNamespaces && options.namespaces.length > 0
    ? Effect.fail(new Failure({ reason: "give either --namespace or --all-namespaces" }))
    : Effect.succeed(options.namespaces.length === 0 ? Option.none() : Option.some(options.namespaces))

/** Flags of every command that checks clusters: which, with what, and how to tell. */
export const checking = {
  kubeconfig,
  contexts,
  profile,
  workerImage,
  only,
  except,
  modules,
  manifests,
  credentials,
  concurrency,
  failOn,
  output
}

const file = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("FILE"), Flag.optional)

/** Flags of every command that asks a master. */
export const master = {
  server: Flag.String("server").pipe(
    Flag.withDescription(
      "The master's API, such as https://master.example:9443; else $KUBEPROBER_SERVER, else the one on this machine"
    ),
    Flag.withMetavar("URL"),
    Flag.optional
  ),
  tokenFile: file("token-file", "A file with the bearer token to show it; else $KUBEPROBER_TOKEN_FILE"),
  caFile: file("certificate-authority", "The authority its certificate is signed by (PEM); else $KUBEPROBER_CA_FILE")
}

/** Flags that say which part of the fleet. */
export const selecting = {
  clusters: list("cluster").pipe(
    Flag.withDescription("Only these clusters, comma-separated"),
    Flag.withMetavar("NAME")
  ),
  selector: Flag.String("selector").pipe(
    Flag.withAlias("l"),
    Flag.withDescription("Only clusters with these labels, such as env=prod,region!=eu"),
    Flag.withMetavar("SELECTOR"),
    Flag.optional
  ),
  layers: Flag.Literals("layer", ProbeLayer.literals).pipe(
    Flag.atLeast(0),
    Flag.withDescription("Only this layer; may be repeated")
  ),
  probes: list("probe").pipe(Flag.withDescription("Only these Probes"), Flag.withMetavar("NAME"))
}

/** The filter that {@link selecting} says. */
export const filterOf = Effect.fnUntraced(function*(options: {
  readonly clusters: ReadonlyArray<string>
  readonly selector: Option.Option<string>
  readonly layers: ReadonlyArray<ProbeLayer>
  readonly probes: ReadonlyArray<string>
}): Effect.fn.Return<FleetFilter, Failure> {
  const { clusters, layers, probes, selector } = options
  return {
    ...(clusters.length === 0 ? {} : { clusters }),
    ...(Option.isNone(selector) ? {} : { clusterSelector: yield* LabelSelector.parse(selector.value) }),
    ...(layers.length === 0 ? {} : { layers }),
    ...(probes.length === 0 ? {} : { probes })
  }
})

/** Which clusters a run is for. */
export const onClusters = {
  clusters: selecting.clusters,
  selector: selecting.selector,
  probeNamespace: Flag.String("namespace").pipe(
    Flag.withAlias("n"),
    Flag.withDescription("The namespace in the clusters that Probes are in"),
    Flag.withDefault("kubeprober")
  )
}

/** Checks of the catalogue, by id. */
export const uses = list("use").pipe(
  Flag.withDescription("Ids of the catalogue to run instead of a Probe, comma-separated"),
  Flag.withMetavar("ID")
)

/** A host and a port. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port`, `[::1]:port`, or `:port` for all addresses. */
const AddressFromString = Schema.String.check(
  Schema.isPattern(/^(\[[0-9A-Fa-f:.]+\]|[^:[\]\s]*):\d{1,5}$/u, {
    message: "write it like 127.0.0.1:8080, [::1]:8080 or :8080"
  })
)

const addressOf = (text: string): Address => {
  const at = text.lastIndexOf(":")
  const host = text.slice(0, at).replace(/^\[(.*)\]$/u, "$1")
  return { host: host === "" ? "0.0.0.0" : host, port: Number(text.slice(at + 1)) }
}

const limit = (name: string, minimum: number, config: string, fallback: number, description: string) =>
  Flag.Int(name).pipe(
    Flag.withDescription(`${description}; else $${config}, else ${fallback}`),
    Flag.withMetavar("NUMBER"),
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum, maximum: 1_000_000 }))),
    Flag.withFallbackConfig(Config.schema(
      Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum, maximum: 1_000_000 })),
      config
    )),
    Flag.withDefault(fallback)
  )

/** What the probes of one cluster may use of it together. */
export const budget = {
  budgetRequests: limit(
    "budget-requests",
    1,
    "KUBEPROBER_BUDGET_REQUESTS",
    DEFAULT_BUDGET.requests,
    "API requests a minute that the probes of a cluster may send together"
  ),
  budgetPods: limit(
    "budget-pods",
    0,
    "KUBEPROBER_BUDGET_PODS",
    DEFAULT_BUDGET.pods,
    "Pods that the probes of a cluster may have at once; twenty-four times as many an hour"
  )
}

/** The budget that {@link budget} says. */
export const budgetOf = (options: { readonly budgetRequests: number; readonly budgetPods: number }) => ({
  requests: options.budgetRequests,
  pods: options.budgetPods
})

/** Where to listen; port 0 is any free one. */
export const listen = (name: string, description: string, address?: string) => {
  const flag = Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("HOST:PORT"))
  return (address === undefined ? flag : Flag.withDefault(flag, address)).pipe(
    Flag.withSchema(AddressFromString),
    Flag.map(addressOf)
  )
}

/** Names that go into a certificate. */
export const names = (name: string, description: string) =>
  list(name).pipe(Flag.withDescription(description), Flag.withMetavar("NAME"))

/** Where a long-running command keeps what outlives it. */
export const stateFolder = (command: string) =>
  file(
    "state",
    `The folder of what outlives the process; else $XDG_STATE_HOME or ~/.local/state, kubeprober/${command}`
  )

/** The folder when none is given (https://specifications.freedesktop.org/basedir-spec/latest/). */
export const defaultState = Effect.fnUntraced(function*(command: string) {
  const path = yield* Path.Path
  const home = yield* Config.String("XDG_STATE_HOME").pipe(
    Config.orElse(() => Config.map(Config.String("HOME"), (home) => path.join(home, ".local", "state"))),
    Effect.mapError(() => new Failure({ reason: "there is neither $XDG_STATE_HOME nor $HOME; give --state a folder" }))
  )
  return path.join(home, "kubeprober", command)
})

/** A length of time as in a Probe's policy: 90s, 5m, 1h30m. */
export const duration = (name: string) =>
  Flag.String(name).pipe(Flag.withMetavar("TIME"), Flag.withSchema(DurationString))
