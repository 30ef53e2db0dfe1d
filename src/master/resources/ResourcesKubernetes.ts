/**
 * Resources in the Kubernetes API of the managing cluster: one namespace of our custom kinds.
 *
 * Needs get, list, watch, create, patch and delete on clusters, probes and proberuns there, and patch on their status.
 */
import { Effect, Layer, Option, Schedule, Stream } from "effect"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, isTransient } from "../../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../../infra/kube/KubeResource.ts"
import { type ResourceManifest, Resources, ResourcesError } from "../Resources.ts"

export const layer = (options: { readonly namespace: string }): Layer.Layer<Resources, never, Kube> =>
  Layer.effect(Resources, make(options))

/** API servers answer 500 when a field of an applied object has the wrong type (structured-merge-diff, typed.go). */
const isMistyped = ({ reason }: KubeError): boolean =>
  reason._tag === "ServerFault" && /failed to create typed patch object/.test(reason.detail)

/** Every write here may be repeated. Three more tries within two seconds bridge a dropped connection or a 429. */
const retry = {
  schedule: Schedule.jittered(Schedule.exponential("250 millis")),
  times: 3,
  while: (error: KubeError) => isTransient(error) && !isMistyped(error)
}

const reasonOf = (error: KubeError): ResourcesError["reason"] => {
  const { reason } = error
  if (isMistyped(error)) return "Invalid"
  switch (reason._tag) {
    case "Invalid":
      return "Invalid"
    case "AdmissionDenied":
      return reason.kind === "webhook-denied" || reason.kind === "policy" ? "Invalid" : "Unavailable"
    case "Conflict":
      return "Conflict"
    default:
      return "Unavailable"
  }
}

const make = Effect.fnUntraced(function*({ namespace }: { readonly namespace: string }) {
  const kube = yield* Kube

  const failed = (operation: string, kind: string, name?: string) => (error: KubeError) =>
    new ResourcesError({ operation, kind, name, reason: reasonOf(error), detail: error.message })

  /** None when the object is gone. A kind that is not served is a failure. */
  const unlessGone = <A>(effect: Effect.Effect<A, KubeError>) =>
    effect.pipe(
      Effect.retry(retry),
      Effect.asSome,
      Effect.catchIf(
        ({ reason }) => reason._tag === "NotFound" && reason.what === "object",
        () => Effect.succeedNone
      )
    )

  return Resources.of({
    namespace,
    get: Effect.fn("Resources.get")(function*<A extends KubeObject>(resource: KubeResource<A>, name: string) {
      return yield* Effect.mapError(
        unlessGone(kube.get(resource, { name, namespace })),
        failed("get", resource.kind, name)
      )
    }),
    list: Effect.fn("Resources.list")(function*<A extends KubeObject>(resource: KubeResource<A>) {
      const list = yield* kube.list(resource, { namespace }).pipe(
        Effect.retry(retry),
        Effect.mapError(failed("list", resource.kind))
      )
      if (list.remaining === 0) return list.items
      return yield* new ResourcesError({
        operation: "list",
        kind: resource.kind,
        reason: "Unavailable",
        detail: `there are ${list.items.length} and more, too many for one master`
      })
    }),
    apply: Effect.fn("Resources.apply")(
      function*<A extends KubeObject>(resource: KubeResource<A>, { metadata, spec }: ResourceManifest) {
        const { annotations, labels, name } = metadata
        const manifest = {
          metadata: {
            name,
            namespace,
            ...(labels === undefined ? {} : { labels }),
            ...(annotations === undefined ? {} : { annotations })
          },
          ...(spec === undefined ? {} : { spec })
        }
        return yield* kube.apply(resource, manifest, { force: true }).pipe(
          Effect.retry(retry),
          Effect.mapError(failed("apply", resource.kind, name))
        )
      }
    ),
    applyStatus: Effect.fn("Resources.applyStatus")(
      function*<A extends KubeObject>(resource: KubeResource<A>, name: string, status: unknown) {
        const write = kube.applyStatus(resource, { metadata: { name, namespace }, status }, { force: true })
        return yield* Effect.mapError(unlessGone(write), failed("write the status of", resource.kind, name))
      }
    ),
    remove: Effect.fn("Resources.remove")(function*(resource: KubeResource<KubeObject>, name: string) {
      const removed = yield* Effect.mapError(
        unlessGone(kube.delete(resource, { name, namespace })),
        failed("delete", resource.kind, name)
      )
      return Option.isSome(removed)
    }),
    reflect: (resource) => Stream.mapError(kube.reflect(resource, { namespace }), failed("watch", resource.kind))
  })
})
