/** The image that this agent itself runs from, for its worker pods. */
import { Effect, Ref } from "effect"
import { Kube } from "../../infra/kube/Kube.ts"
import { Pod } from "../../infra/kube/resources/core.ts"
import { WorkerFault } from "../../probes/workers/Workers.ts"
import type { WorkerSettings } from "./manifest.ts"

/** The container of the agent's pod that is the agent (`deploy/base/agent`). */
const CONTAINER = "agent"

/**
 * Reads the agent's own pod, once it can; then remembers. Fails where the agent is not a pod of the namespace.
 *
 * @param pod the pod's name: the host name, unless the pod sets another.
 */
export const ownImage = Effect.fnUntraced(function*(options: { readonly pod: string; readonly namespace: string }) {
  const kube = yield* Kube
  const known = yield* Ref.make<WorkerSettings | undefined>(undefined)
  const fault = (detail: string) => new WorkerFault({ stage: "Unavailable", detail })
  const read = kube.get(Pod, { name: options.pod, namespace: options.namespace }).pipe(
    Effect.mapError((error) =>
      fault(
        error.reason._tag === "NotFound"
          ? "this agent is no pod of its cluster, so it has no image of its own; name one with --worker-image"
          : `the agent's own pod tells the image of workers, and cannot be read: ${error.message}`
      )
    ),
    Effect.flatMap(({ spec: { containers, imagePullSecrets } }) => {
      const container = containers.find(({ name }) => name === CONTAINER)
      if (container?.image === undefined) return Effect.fail(fault(`the agent's pod has no container ${CONTAINER}`))
      const { image, imagePullPolicy } = container
      return Effect.succeed<WorkerSettings>({
        image,
        imagePullSecrets,
        ...(imagePullPolicy === "Always" || imagePullPolicy === "Never" ? { imagePullPolicy } : {})
      })
    }),
    Effect.tap((settings) => Ref.set(known, settings))
  )
  return Effect.flatMap(Ref.get(known), (settings) => settings === undefined ? read : Effect.succeed(settings))
})
