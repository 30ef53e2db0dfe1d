/**
 * Deletes what runs that died left behind: objects with the run label whose expiry has passed.
 *
 * The label is the claim and the annotation the patience: an object of a run still going is not expired, and an object
 * without the label is never touched.
 */
import { DateTime, Effect, Option } from "effect"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource, ObjectMeta } from "../infra/kube/KubeResource.ts"
import { Deployment } from "../infra/kube/resources/apps.ts"
import { Job } from "../infra/kube/resources/batch.ts"
import { ConfigMap, Namespace, Pod, Service } from "../infra/kube/resources/core.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL } from "../probes/Scratch.ts"
import * as ServerTime from "../probes/ServerTime.ts"

/** How long an object without a readable expiry is left alone, from its creation. */
const DEFAULT_PATIENCE = { minutes: 15 }

/** Kinds that probes of the catalogue create, dependents before owners. */
export const SWEPT_NAMESPACED: ReadonlyArray<KubeResource<KubeObject>> = [Job, Deployment, Pod, Service, ConfigMap]
export const SWEPT_CLUSTER: ReadonlyArray<KubeResource<KubeObject>> = [Namespace]

/** One object the sweeper acted on. `error` when it could not be deleted. */
export interface Swept {
  readonly kind: string
  readonly name: string
  readonly namespace: string | undefined
  readonly run: string
  readonly error: KubeError | undefined
}

const expiryOf = (metadata: ObjectMeta): DateTime.DateTime | undefined => {
  const written = metadata.annotations?.[EXPIRES_ANNOTATION]
  const parsed = written === undefined ? undefined : DateTime.make(written)
  if (parsed?._tag === "Some") return parsed.value
  return metadata.creationTimestamp === undefined
    ? undefined
    : DateTime.add(metadata.creationTimestamp, DEFAULT_PATIENCE)
}

/** Whether the sweeper may delete an object at `now`. Without label or any age it may not. */
export const isSweepable = (metadata: ObjectMeta, now: DateTime.DateTime): boolean => {
  const expiry = expiryOf(metadata)
  return metadata.labels?.[RUN_LABEL] !== undefined && expiry !== undefined && DateTime.isLessThanOrEqualTo(expiry, now)
}

/**
 * Sweep once. Kinds we may not list are skipped: nothing we could not list was created by us with these credentials.
 * Another kind that cannot be listed does not stop the rest; it fails when none can. Expiry is judged by the cluster's
 * clock where that can be read, so that a prober whose clock is ahead does not sweep runs that are going.
 *
 * @param namespace where namespaced kinds are looked for; all namespaces when absent.
 */
export const sweep = Effect.fn("Sweeper.sweep")(
  function*(options: {
    readonly namespace?: string | undefined
    readonly resources?: ReadonlyArray<KubeResource<KubeObject>> | undefined
  }): Effect.fn.Return<ReadonlyArray<Swept>, KubeError, Kube> {
    const kube = yield* Kube
    const ours = yield* DateTime.now
    const now = Option.getOrElse(yield* ServerTime.now, () => ours)
    const sweepKind = Effect.fnUntraced(function*(resource: KubeResource<KubeObject>) {
      const { items } = yield* kube.list(resource, {
        labelSelector: RUN_LABEL,
        ...(resource.scope === "Namespaced" ? { namespace: options.namespace } : {})
      }).pipe(
        Effect.catchIf(
          (error) => error.reason._tag === "Forbidden" || error.reason._tag === "NotFound",
          () => Effect.succeed({ items: [] })
        )
      )
      return yield* Effect.forEach(
        items.filter((item) => isSweepable(item.metadata, now)),
        ({ metadata }) =>
          kube.delete(
            resource,
            { name: metadata.name ?? "", namespace: metadata.namespace },
            { propagationPolicy: "Background", ...(metadata.uid === undefined ? {} : { uid: metadata.uid }) }
          ).pipe(
            Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.void),
            Effect.result,
            Effect.map((result): Swept => ({
              kind: resource.kind,
              name: metadata.name ?? "",
              namespace: metadata.namespace,
              run: metadata.labels?.[RUN_LABEL] ?? "",
              error: result._tag === "Failure" ? result.failure : undefined
            }))
          ),
        { concurrency: 8 }
      )
    })
    const [swept, failures] = yield* Effect.partition(
      options.resources ?? [...SWEPT_NAMESPACED, ...SWEPT_CLUSTER],
      sweepKind
    )
    const [failure] = failures
    if (failure !== undefined && swept.length === 0) return yield* failure
    yield* Effect.forEach(failures, (error) => Effect.logDebug(`not swept: ${error.message}`), { discard: true })
    return swept.flat()
  }
)
