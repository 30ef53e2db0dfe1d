/**
 * A Kube for a probe, with which something happens exactly at a request of the probe. A fault that waits for what is
 * seen of the cluster meanwhile may come too early or too late.
 */
import { type Duration, Effect } from "effect"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import type { KubeError } from "../../src/infra/kube/KubeError.ts"
import type { Component } from "../../src/local/process/Component.ts"

/** Verb and kind. */
type Which = `${"list" | "create" | "patch" | "delete"} ${string}`

interface Request {
  /** Of the object; empty for a list. */
  readonly name: string
  /** Of a patch alone. */
  readonly patch: unknown
}

/** `send` sends the request; its answer is what the probe gets. */
type Around = <A>(send: Effect.Effect<A, KubeError>, request: Request) => Effect.Effect<A, KubeError>

/** At each such request, those with which a run deletes what it made included. */
export const atEach = (kube: Kube["Service"], which: Which, around: Around): Kube["Service"] => {
  const through = <A>(
    what: Which,
    send: Effect.Effect<A, KubeError>,
    { name = "", patch }: { readonly name?: string | undefined; readonly patch?: unknown } = {}
    // A request that is made once may be sent again and again.
  ) => what === which ? Effect.suspend(() => around(send, { name, patch })) : send
  return {
    ...kube,
    list: (resource, selection) => through(`list ${resource.kind}`, kube.list(resource, selection)),
    create: (resource, manifest, options) =>
      through(`create ${resource.kind}`, kube.create(resource, manifest, options), {
        name: manifest.metadata.name
      }),
    patch: (resource, ref, patch, options) =>
      through(`patch ${resource.kind}`, kube.patch(resource, ref, patch, options), { name: ref.name, patch }),
    delete: (resource, ref, options) =>
      through(`delete ${resource.kind}`, kube.delete(resource, ref, options), { name: ref.name })
  }
}

/** At the first such request alone. */
export const atFirst = (kube: Kube["Service"], which: Which, around: Around): Kube["Service"] => {
  let isFirst = true
  return atEach(kube, which, (send, request) => {
    if (!isFirst) return send
    isFirst = false
    return around(send, request)
  })
}

/** The component halts before the request is sent, and for so long after its answer, while the probe goes on. */
export const halts = (component: Component, duration: Duration.Input) => <A, E>(send: Effect.Effect<A, E>) =>
  component.pause.pipe(
    Effect.andThen(send),
    Effect.ensuring(Effect.forkDetach(Effect.delay(component.resume, duration)))
  )
