/**
 * A namespace of one run, for diagnosing a cluster in which nothing is installed.
 *
 * It is random, expires, and enforces the `restricted` Pod Security Standard
 * (https://kubernetes.io/docs/concepts/security/pod-security-standards/), as probe pods are made for it.
 */
import { DateTime, Effect, Ref, Schedule, type Scope } from "effect"
import type { Finding } from "../domain/Report.ts"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import { Namespace } from "../infra/kube/resources/core.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { RunContext } from "../probes/RunContext.ts"
import * as RunScratch from "./RunScratch.ts"

/** Waiting for the namespace to be gone ends here; its deletion goes on without us. */
const GONE_WITHIN = "30 seconds"

/** The namespace, once it is made. */
export interface Ephemeral {
  /** `CLEANUP_FAILED` when the namespace was still there at the end. Complete once the scope is closed. */
  readonly leftovers: Effect.Effect<ReadonlyArray<Finding>>
}

/** Create the namespace `run.probeNamespace`; the scope deletes it and waits until it is gone. */
export const ephemeral = Effect.fn("ProbeNamespace.ephemeral")(
  function*(run: RunContext["Service"]): Effect.fn.Return<Ephemeral, KubeError, Kube | Scope.Scope> {
    const kube = yield* Kube
    const name = run.probeNamespace
    const lingering = yield* Ref.make<ReadonlyArray<Finding>>([])
    let uid: string | undefined
    const { leftovers, scratch } = yield* RunScratch.make(kube, kube, run, yield* Effect.scope)

    const gone = kube.get(Namespace, { name }).pipe(
      Effect.repeat({ schedule: Schedule.spaced("500 millis"), while: ({ metadata }) => metadata.uid === uid }),
      Effect.asVoid,
      Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.void),
      Effect.interruptible,
      Effect.timeout(GONE_WITHIN)
    )
    // Registered before the deletion, so run after it.
    yield* Effect.addFinalizer(Effect.fnUntraced(function*() {
      if (uid === undefined || (yield* leftovers).length > 0) return
      yield* Effect.catch(gone, (error) =>
        Ref.set(lingering, [checkerCodes.CLEANUP_FAILED({
          message: `Namespace ${name} was deleted but not seen to go and expires at ${
            DateTime.formatIso(run.expiresAt)
          }: ${error._tag === "KubeError" ? error.message : `still there after ${GONE_WITHIN}`}`,
          subject: { kind: "Namespace", name }
        })]))
    }))
    const { metadata } = yield* scratch.create(Namespace, {
      metadata: { name, labels: { "pod-security.kubernetes.io/enforce": "restricted" } }
    })
    uid = metadata.uid
    return { leftovers: Effect.map(Effect.all([leftovers, Ref.get(lingering)]), (found) => found.flat()) }
  }
)
