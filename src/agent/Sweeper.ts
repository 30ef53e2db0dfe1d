/**
 * Deletes what runs that died left behind: objects with the run label whose expiry has passed.
 *
 * The label is the claim and the annotation the patience: an object of a run still going is not expired, and an object
 * without the label is never touched.
 */
import { DateTime, Duration, Effect, Option } from "effect"
import type { Finding } from "../domain/Report.ts"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import {
  type KubeObject,
  type KubeResource,
  type ObjectMeta,
  make as makeResource
} from "../infra/kube/KubeResource.ts"
import { Deployment } from "../infra/kube/resources/apps.ts"
import { Job } from "../infra/kube/resources/batch.ts"
import { ConfigMap, Namespace, Pod, Service } from "../infra/kube/resources/core.ts"
import { EndpointSlice } from "../infra/kube/resources/discovery.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import { type Need, probeNamespace } from "../probes/Needs.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL } from "../probes/Scratch.ts"
import * as ServerTime from "../probes/ServerTime.ts"

/** How long an object without a readable expiry is left alone, from its creation. */
const DEFAULT_PATIENCE = { minutes: 15 }

/** A kind of which nothing but metadata is read. */
const bare = (group: string, kind: string, plural: string) =>
  makeResource({ group, kind, plural, scope: "Namespaced", metadataOnly: true, fields: {} })

/**
 * Kinds that may be swept, dependents before owners. Secrets are not among them, because nobody lists those: one that a run
 * makes has an owner which is swept (see {@link OWNED}).
 */
export const SWEPT_NAMESPACED: ReadonlyArray<KubeResource<KubeObject>> = [
  Job,
  Deployment,
  bare("apps", "StatefulSet", "statefulsets"),
  Pod,
  bare("networking.k8s.io", "Ingress", "ingresses"),
  bare("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
  EndpointSlice,
  Service,
  bare("", "PersistentVolumeClaim", "persistentvolumeclaims"),
  ConfigMap
]
export const SWEPT_CLUSTER: ReadonlyArray<KubeResource<KubeObject>> = [Namespace]
const SWEPT = [...SWEPT_NAMESPACED, ...SWEPT_CLUSTER]

/** Resources that runs create with an owner of the same run, whose deletion takes them along. */
export const OWNED: ReadonlyMap<string, KubeResource<KubeObject>> = new Map([["secrets", ConfigMap]])

/** What probes with these needs leave behind when they die: one `group/plural` for each kind they create. */
export const created = (probes: ReadonlyArray<Pick<AnyProbe, "needs" | "writes">>): ReadonlySet<string> => {
  const creates = (need: Need) =>
    need._tag === "ResourceNeed" && need.verb === "create" && !need.resource.includes("/") &&
      (need.namespace === undefined || need.namespace === probeNamespace)
      ? [`${need.group}/${need.resource}`]
      : []
  return new Set(
    probes.filter(({ writes }) => writes !== "nothing" && writes !== "dry-run").flatMap(({ needs }) =>
      needs.flatMap(creates)
    )
  )
}

const nameOf = ({ group, plural }: KubeResource<KubeObject>): string => `${group}/${plural}`

/** Kinds to sweep where these probes run, and Jobs, which any Probe with a template is. */
export const resourcesFor = (
  probes: ReadonlyArray<Pick<AnyProbe, "needs" | "writes">>
): ReadonlyArray<KubeResource<KubeObject>> => {
  const names = created(probes)
  const owners = [...OWNED].filter(([plural]) => names.has(`/${plural}`)).map(([, owner]) => nameOf(owner))
  return SWEPT.filter((resource) =>
    resource === Job || names.has(nameOf(resource)) || owners.includes(nameOf(resource))
  )
}

/** One object the sweeper acted on. `error` when it could not be deleted. */
export interface Swept {
  readonly kind: string
  readonly name: string
  readonly namespace: string | undefined
  readonly run: string
  readonly error: KubeError | undefined
  /** Finalizers that hold an object whose deletion was accepted long ago; none when it has not been held for long. */
  readonly held: ReadonlyArray<string>
}

/** An object that is being deleted is held when this has passed. */
const HELD_AFTER = Duration.minutes(5)

const heldBy = ({ deletionTimestamp, finalizers }: ObjectMeta, now: DateTime.DateTime): ReadonlyArray<string> =>
  deletionTimestamp === undefined ||
    DateTime.isGreaterThan(DateTime.addDuration(deletionTimestamp, HELD_AFTER), now)
    ? []
    : finalizers ?? []

/** What is to be said of what could not be removed. Nothing of the rest. */
export const leftovers = (swept: ReadonlyArray<Swept>): ReadonlyArray<Finding> =>
  swept.filter(({ error, held }) => error !== undefined || held.length > 0).map(
    ({ error, held, kind, name, namespace, run }) =>
      checkerCodes.CLEANUP_FAILED({
        message: `${kind} ${
          namespace === undefined ? "" : `${namespace}/`
        }${name}, left by run ${run}, is still there: ${
          error?.message ?? `it is being deleted and waits for finalizers ${held.join(", ")}`
        }`,
        subject: { kind, name, ...(namespace === undefined ? {} : { namespace }) },
        evidence: { run }
      })
  )

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
              error: result._tag === "Failure" ? result.failure : undefined,
              held: heldBy(metadata, now)
            }))
          ),
        { concurrency: 8 }
      )
    })
    const [swept, failures] = yield* Effect.partition(
      options.resources ?? SWEPT,
      sweepKind
    )
    const [failure] = failures
    if (failure !== undefined && swept.length === 0) return yield* failure
    yield* Effect.forEach(failures, (error) => Effect.logDebug(`not swept: ${error.message}`), { discard: true })
    return swept.flat()
  }
)
