/** Which clusters a call is about. */
import { Config, Effect, Layer, Option } from "effect"
import * as KubeConfigFile from "../infra/kube/KubeConfigFile.ts"
import * as KubeConnection from "../infra/kube/KubeConnection.ts"
import { Failure } from "./Failure.ts"
import { note } from "./Screen.ts"

export interface TargetOptions {
  readonly kubeconfig: Option.Option<string>
  /** Context names; all of the file's when empty. */
  readonly contexts: ReadonlyArray<string>
}

/** RFC 2606 section 2: a name that is no one's. Nothing is sent there, for want of credentials. */
const NOWHERE = "https://kubeconfig.invalid"

/** A context that cannot be used, among others that can: shown as a cluster that could not be looked at. */
const unusable = (name: string, cause: Error): KubeConnection.KubeConnection => ({
  cluster: name,
  server: NOWHERE,
  identity: Effect.fail(
    new KubeConnection.CredentialsUnavailable({ cluster: name, source: "the kubeconfig", detail: cause.message })
  ),
  refresh: Effect.void
})

const connectionsOf = Effect.fnUntraced(function*(config: KubeConfigFile.KubeConfig, asked: ReadonlyArray<string>) {
  if (asked.length > 0) return yield* Effect.forEach(new Set(asked), (name) => config.connection(name))
  return yield* Effect.forEach(
    config.contexts,
    (name) => config.connection(name).pipe(Effect.catch((cause) => Effect.succeed(unusable(name, cause))))
  )
})

/** A connection for each context asked for. */
export const fromKubeconfig = Effect.fn("Targets.fromKubeconfig")(function*(options: TargetOptions) {
  const config = yield* KubeConfigFile.load({ path: Option.getOrUndefined(options.kubeconfig) })
  if (config.contexts.length === 0) {
    return yield* new Failure({
      reason: `the kubeconfig ${config.paths.join(", ")} has no context, so no cluster to look at`
    })
  }
  return yield* connectionsOf(config, options.contexts)
})

/** A kubeconfig that nobody named: none when there is no file, or nothing in it. One that is broken is an error. */
const unnamedKubeconfig = KubeConfigFile.load().pipe(
  Effect.map((config) => config.contexts.length === 0 ? Option.none() : Option.some(config)),
  Effect.catchTag("KubeConfigNotFound", () => Effect.succeedNone)
)

/**
 * As {@link fromKubeconfig}; when no kubeconfig is there and none was named, a local fleet that lives as long as the
 * scope. A kubeconfig that is named but missing is an error: other clusters are no answer to it.
 */
export const fromKubeconfigOrLocal = Effect.fn("Targets.fromKubeconfigOrLocal")(function*(options: TargetOptions) {
  const variable = yield* Config.String("KUBECONFIG").pipe(Config.withDefault(""))
  if (Option.isSome(options.kubeconfig) || options.contexts.length > 0 || variable !== "") {
    return yield* fromKubeconfig(options)
  }
  const found = yield* unnamedKubeconfig
  if (Option.isSome(found)) return yield* connectionsOf(found.value, [])
  const [Local, LocalTargets] = yield* Effect.promise(() =>
    Promise.all([import("../local/Local.ts"), import("./LocalTargets.ts")])
  )
  yield* note([
    "No cluster at hand (no kubeconfig), so here is a local fleet of two: local-1 with a node where this machine",
    "allows one, and local-2, a control plane alone. Both end with this command."
  ])
  return yield* Effect.provideContext(LocalTargets.start(), yield* Layer.build(Local.layer))
})
