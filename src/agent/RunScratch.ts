/**
 * The objects of one run, and their deletion when its scope closes. Provides `Scratch`.
 *
 * Only what this run made is deleted, and a name proves nothing: the uid the server answered with does, and where that
 * answer is lost, the run's label on the object found under the name.
 */
import { DateTime, Effect, Random, Ref, Scope } from "effect"
import type { Finding } from "../domain/Report.ts"
import type { Kube, ObjectRef } from "../infra/kube/Kube.ts"
import { type KubeError, type KubeErrorReason, isTransient } from "../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import * as Retry from "../probes/Retry.ts"
import type { RunContext } from "../probes/RunContext.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL, type Scratch } from "../probes/Scratch.ts"

/** How long one deletion may take; the sweeper has the rest. Deletions of a run are sent together. */
const RELEASE_TIMEOUT = "30 seconds"

const ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

/** Ten characters of [a-z0-9]: 51 bits, safe in names and label values. */
export const randomSuffix: Effect.Effect<string> = Effect.map(
  Effect.forEach(Array.from({ length: 10 }), () => Random.nextIntBetween(0, ALPHABET.length - 1)),
  (indexes) => indexes.map((index) => ALPHABET.charAt(index)).join("")
)

/** Label and annotation that make an object of this run known to the sweeper. */
export const ownership = (run: RunContext["Service"]) => ({
  labels: { [RUN_LABEL]: run.runId, "app.kubernetes.io/managed-by": "kubeprober" },
  annotations: { [EXPIRES_ANNOTATION]: DateTime.formatIso(run.expiresAt) }
})

/** Answers that say for certain that nothing was stored. */
const REFUSALS: ReadonlySet<KubeErrorReason["_tag"]> = new Set([
  "Conflict",
  "Invalid",
  "Forbidden",
  "AdmissionDenied",
  "Undeclared",
  "NotFound"
])

/** What is known of an object that was asked for. `Unanswered` until the server has said what came of it. */
type Claim =
  | { readonly _tag: "Unanswered" }
  | { readonly _tag: "Refused" }
  | { readonly _tag: "Created"; readonly uid: string }

/**
 * `scratch` for the probe, which creates through `guarded`; `leftovers` tells, once the scope is closed, what could not
 * be deleted. Deletion is ours and not the probe's, so it goes through `kube`.
 */
export const make = Effect.fnUntraced(function*(
  kube: Kube["Service"],
  guarded: Kube["Service"],
  run: RunContext["Service"],
  scope: Scope.Scope
) {
  const leftovers = yield* Ref.make<ReadonlyArray<Finding>>([])

  /** The uid under which our object stands, if it does. */
  const owned = <A extends KubeObject>(
    resource: KubeResource<A>,
    ref: ObjectRef,
    claim: Claim
  ): Effect.Effect<string | undefined, KubeError> => {
    switch (claim._tag) {
      case "Refused":
        return Effect.undefined
      case "Created":
        return Effect.succeed(claim.uid)
      case "Unanswered":
        return Effect.map(
          kube.get(resource, ref),
          ({ metadata }) => metadata.labels?.[RUN_LABEL] === run.runId ? metadata.uid : undefined
        )
    }
  }

  const release = Effect.fnUntraced(
    function*<A extends KubeObject>(resource: KubeResource<A>, ref: ObjectRef, claim: Claim) {
      const uid = yield* owned(resource, ref, claim)
      if (uid === undefined) return
      yield* kube.delete(resource, ref, { propagationPolicy: "Background", gracePeriodSeconds: 0, uid })
    },
    // Gone, or replaced by another of the same name: either way ours is no more.
    Effect.catchIf(({ reason }) => reason._tag === "NotFound" || reason._tag === "Conflict", () => Effect.void),
    Effect.retry({ schedule: Retry.read, while: isTransient }),
    Effect.interruptible,
    Effect.timeout(RELEASE_TIMEOUT),
    (released, resource, { name, namespace }) =>
      Effect.catch(released, (error) =>
        Ref.update(leftovers, (found) => [
          ...found,
          checkerCodes.CLEANUP_FAILED({
            message: `${resource.kind} ${name} was not deleted and expires at ${DateTime.formatIso(run.expiresAt)}: ${
              error._tag === "KubeError" ? error.message : `no answer within ${RELEASE_TIMEOUT}`
            }`,
            subject: { kind: resource.kind, name, ...(namespace === undefined ? {} : { namespace }) }
          })
        ]))
  )

  const scratch: Scratch["Service"] = {
    name: (prefix) => Effect.map(randomSuffix, (suffix) => `${prefix}-${suffix}`),
    create: Effect.fnUntraced(function*(resource, manifest) {
      const { labels, annotations } = ownership(run)
      const { metadata } = manifest
      const ref = { name: metadata.name, namespace: metadata.namespace }
      const claim = yield* Ref.make<Claim>({ _tag: "Unanswered" })
      yield* Scope.addFinalizer(scope, Effect.flatMap(Ref.get(claim), (known) => release(resource, ref, known)))
      const created = yield* guarded.create(resource, {
        ...manifest,
        metadata: {
          ...metadata,
          labels: { ...metadata.labels, ...labels },
          annotations: { ...metadata.annotations, ...annotations }
        }
      }).pipe(
        Effect.tapError(({ reason }) => REFUSALS.has(reason._tag) ? Ref.set(claim, { _tag: "Refused" }) : Effect.void)
      )
      const { uid } = created.metadata
      if (uid !== undefined) yield* Ref.set(claim, { _tag: "Created", uid })
      return created
    })
  }
  return { scratch, leftovers: Ref.get(leftovers) }
})
