/** Flags that several commands share, named and defaulted alike. */
import { Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import { Profile } from "../../domain/Profile.ts"
import { Failure } from "../Failure.ts"
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

export const except = list("skip").pipe(
  Flag.withDescription("Leave these out, by id, or by prefix with a trailing *"),
  Flag.withMetavar("ID")
)

export const modules = list("probes").pipe(
  Flag.withDescription("A module of your own probes (.ts or .js), beside the catalogue"),
  Flag.withMetavar("FILE")
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

export const failOn = Flag.Literals("fail-on", ["error", "warn", "unknown", "info", "never"]).pipe(
  Flag.withDescription("The mildest verdict that makes the exit code 1"),
  Flag.withDefault("error" as const)
)

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
export const checking = { kubeconfig, contexts, profile, only, except, modules, manifests, concurrency, failOn, output }
