/** Which checks a call runs: the catalogue, a user's own module, or the `checks` of Probe manifests; then the filters. */
import { Effect, FileSystem, Option, Path } from "effect"
import { pathToFileURL } from "node:url"
import { matches } from "../domain/NamePattern.ts"
import * as FromSpec from "../probes/FromSpec.ts"
import { type AnyProbe, type Check, toCheck } from "../probes/Probe.ts"
import { Failure, closest } from "./Failure.ts"
import * as Manifests from "./Manifests.ts"
import { type SelectionOptions, reasonNotToRun } from "./Selection.ts"

export interface PlanOptions {
  /** Ids or prefixes ending in `*`; all when empty. */
  readonly only: ReadonlyArray<string>
  readonly except: ReadonlyArray<string>
  /** Modules of the user's, whose default export is a probe, a check, or an array of these. */
  readonly modules: ReadonlyArray<string>
  /** Probe manifests: their checks are run instead of the whole catalogue. */
  readonly manifests: ReadonlyArray<string>
  /** Namespaces whose workloads are judged; all when none. */
  readonly namespaces: Option.Option<ReadonlyArray<string>>
}

export interface Plan {
  readonly checks: ReadonlyArray<Check>
  /** Probes the user asked for by their full id, whatever they write. */
  readonly named: ReadonlySet<string>
}

const loadCatalogue: Effect.Effect<ReadonlyArray<AnyProbe>> = Effect.promise(() => import("../probes/Catalogue.ts"))
  .pipe(
    Effect.map(({ catalogue }) => catalogue)
  )

const isProbeOrCheck = (value: unknown): value is AnyProbe | Check =>
  typeof value === "object" && value !== null && "_tag" in value && (value._tag === "Probe" || value._tag === "Check")

/** Import a user's module of probes. */
export const loadModule = Effect.fn("Plan.loadModule")(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const absolute = path.resolve(file)
  if (!(yield* Effect.orElseSucceed(fs.exists(absolute), () => false))) {
    return yield* new Failure({ reason: `--probes ${file}: there is no such file` })
  }
  const module: unknown = yield* Effect.tryPromise({
    try: () => import(pathToFileURL(absolute).href),
    catch: (cause) =>
      new Failure({
        reason: `--probes ${file}: it does not load: ${cause instanceof Error ? cause.message : String(cause)}`
      })
  })
  const exported = typeof module === "object" && module !== null && "default" in module ? module.default : undefined
  const members: ReadonlyArray<unknown> = Array.isArray(exported) ? exported : [exported]
  const probes = members.filter(isProbeOrCheck)
  if (probes.length === 0 || probes.length < members.length) {
    return yield* new Failure({
      reason: `--probes ${file}: its default export must be a probe made with Probe.make, a check made with ` +
        "Probe.configure, or an array of these"
    })
  }
  return probes.map(toCheck)
})

const unknownProbe = (pattern: string, known: ReadonlyArray<string>): Failure => {
  const near = closest(pattern, known)
  return new Failure({
    reason: `there is no probe ${pattern}${near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`} ` +
      "(`kubeprober probe list` shows all)"
  })
}

/** The checks of Probe manifests, each naming a probe that is available. */
const fromManifests = Effect.fnUntraced(function*(files: ReadonlyArray<string>, available: ReadonlyArray<AnyProbe>) {
  const specs = (yield* Effect.forEach(files, Manifests.load)).flat()
  return yield* Effect.forEach(specs, (spec) =>
    Effect.fromOption(FromSpec.resolve(spec, available)).pipe(
      Effect.mapError(() => unknownProbe(spec.use, available.map((probe) => probe.id)))
    ))
})

/** Probes that judge objects of namespaces, and the field of their configuration that says which. */
const NAMESPACE_FIELD: Readonly<Record<string, string>> = { "k8s.workloads.health": "include" }

/** Limit a check to these namespaces, if it looks at any, whatever its own configuration says. */
const limitTo = (namespaces: ReadonlyArray<string>) => (check: Check): Check => {
  const field = NAMESPACE_FIELD[check.probe.id]
  const config = typeof check.with === "object" && check.with !== null ? check.with : {}
  return field === undefined ? check : { ...check, with: { ...config, [field]: namespaces } }
}

/**
 * The catalogue and the user's modules, or what manifests choose of these, filtered. A name that matches nothing is an
 * error, not an empty plan.
 */
export const make = Effect.fn("Plan.make")(function*(options: PlanOptions) {
  const own = (yield* Effect.forEach(options.modules, loadModule)).flat()
  const available = [...(yield* loadCatalogue).map(toCheck), ...own]
  const isNamed = ({ probe }: Check): boolean => options.only.some((pattern) => matches(pattern, probe.id))
  const all = options.manifests.length === 0
    ? available.filter((check) => check.probe.asks === "cluster" || own.includes(check) || isNamed(check))
    : yield* fromManifests(options.manifests, available.map((check) => check.probe))
  const names = all.map((check) => check.name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) {
    return yield* new Failure({ reason: `two checks are called ${twice}; give one of them another name` })
  }
  const known = [...new Set([...available, ...all].flatMap((check) => [check.name, check.probe.id]))]
  for (const pattern of [...options.only, ...options.except]) {
    if (!known.some((id) => matches(pattern, id))) return yield* unknownProbe(pattern, known)
  }
  const hit = (patterns: ReadonlyArray<string>, check: Check): boolean =>
    patterns.some((pattern) => matches(pattern, check.name) || matches(pattern, check.probe.id))
  const checks = all.filter((check) =>
    (options.only.length === 0 || hit(options.only, check)) && !hit(options.except, check)
  )
  if (checks.length === 0) return yield* new Failure({ reason: "--skip leaves no probe to run" })
  const plan: Plan = {
    checks: Option.match(options.namespaces, {
      onNone: () => checks,
      onSome: (namespaces) => checks.map(limitTo(namespaces))
    }),
    named: new Set(options.only.filter((pattern) => !pattern.endsWith("*")))
  }
  return plan
})

/** A plan of which nothing may run would look at nothing and find nothing wrong. */
export const ensureRunnable = (plan: Plan, options: Omit<SelectionOptions, "named">): Effect.Effect<void, Failure> => {
  const reasons = plan.checks.map((check) =>
    [check.name, reasonNotToRun(check, { ...options, named: plan.named })] as const
  )
  return reasons.some(([, reason]) => reason === undefined)
    ? Effect.void
    : Effect.fail(
      new Failure({
        reason: `none of these checks may run: ${
          reasons.map(([name, reason = ""]) => `${name} (${reason})`).join(", ")
        }; choose --profile standard or full for those that write`
      })
    )
}
