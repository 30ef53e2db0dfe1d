/** The one cluster a long-running command is about: the one it runs in, or a context of a kubeconfig. */
import { Effect, Option } from "effect"
import * as InCluster from "../infra/kube/InCluster.ts"
import * as KubeConfigFile from "../infra/kube/KubeConfigFile.ts"
import { Failure } from "./Failure.ts"

export interface OneClusterOptions {
  readonly kubeconfig: Option.Option<string>
  readonly context: Option.Option<string>
}

/** As kubectl chooses: what is named, else the pod's own cluster, else the current context. */
export const connection = Effect.fn("OneCluster.connection")(function*(options: OneClusterOptions) {
  if (Option.isNone(options.kubeconfig) && Option.isNone(options.context)) {
    const own = yield* Effect.option(InCluster.connection())
    if (Option.isSome(own)) return own.value
  }
  const config = yield* KubeConfigFile.load({ path: Option.getOrUndefined(options.kubeconfig) })
  const name = Option.getOrElse(options.context, () => config.currentContext)
  if (name === undefined || name === "") {
    return yield* new Failure({
      reason: `the kubeconfig ${config.paths.join(", ")} has no current context; name one with --context (${
        config.contexts.join(", ") || "it has none"
      })`
    })
  }
  return yield* config.connection(name)
})
