/**
 * Objects a run creates in the cluster, and their certain end.
 *
 * Every object carries the run's label and an expiry. Deletion is registered before the object is created, because a
 * create whose answer is lost may still have happened; a runner that dies leaves only objects that the sweeper knows.
 */
import { Context, type Effect } from "effect"
import type { Manifest } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"

/** Label on everything created by a run; its value is the run's id. */
export const RUN_LABEL = "kubeprober.io/run"

/** Annotation: when the sweeper may delete the object, RFC 3339. */
export const EXPIRES_ANNOTATION = "kubeprober.io/expires-at"

export class Scratch extends Context.Service<Scratch, {
  /** A name no other run uses: `<prefix>-<random>`, a DNS label (RFC 1123). */
  readonly name: (prefix: string) => Effect.Effect<string>
  /**
   * Create an object that is deleted when the run ends, under the same needs and write level as any other call.
   * `metadata.name` is required; use {@link name}. What stands under that name already is left alone.
   */
  readonly create: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest & { readonly metadata: { readonly name: string } }
  ) => Effect.Effect<A, KubeError>
}>()("kubeprober/probes/Scratch") {}
