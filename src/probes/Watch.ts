/** Which changes re-run a probe at once, instead of at its next turn. */
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"

export interface Watch {
  readonly resource: KubeResource<KubeObject>
  readonly namespace?: string | undefined
}

/** A relevant change is any change of any object of this kind. */
export const of = (resource: KubeResource<KubeObject>, options: { readonly namespace?: string } = {}): Watch => ({
  resource,
  namespace: options.namespace
})
