/**
 * What probes use besides the Kubernetes API: the world as Node gives it, worker pods and node agents.
 */
import { type Context, Effect } from "effect"
import type { Nodes } from "../probes/workers/Nodes.ts"
import { WorkerFault, type Workers } from "../probes/workers/Workers.ts"
import type { World } from "../probes/World.ts"
import * as LocalWorld from "./LocalWorld.ts"
import * as KubernetesNodes from "./nodes/KubernetesNodes.ts"
import type { NodesOptions } from "./nodes/KubernetesNodes.ts"
import type { RunScope } from "./RunScope.ts"
import * as KubernetesWorkers from "./workers/KubernetesWorkers.ts"
import type { WorkerSettings } from "./workers/manifest.ts"

export interface ProbeWorld {
  readonly world: Context.Context<World>
  readonly workers: (run: RunScope) => Effect.Effect<Workers["Service"]>
  readonly nodes: (run: RunScope) => Effect.Effect<Nodes["Service"]>
}

/** No image is known for worker pods. */
export const noImage = new WorkerFault({
  stage: "Unavailable",
  detail: "no image is known for worker pods here; name one with --worker-image"
})

/** No agent of ours is on any node. */
const noNodes: Nodes["Service"] = { run: () => Effect.succeed([]) }

/** What is there besides the world: of each, or nothing. */
export interface ProbeWorldOptions {
  /** Where Secrets are mounted, when not at their usual place. */
  readonly credentials?: string | undefined
  /** How worker pods are started; asked for by the first of a run. */
  readonly workers?: Effect.Effect<WorkerSettings, WorkerFault> | undefined
  /** How node agents are asked. */
  readonly nodes?: NodesOptions | undefined
}

const workersOf = (settings: Effect.Effect<WorkerSettings, WorkerFault>) =>
  Effect.fnUntraced(function*(run: RunScope): Effect.fn.Return<Workers["Service"]> {
    const made = yield* Effect.cached(Effect.flatMap(settings, (settings) => KubernetesWorkers.make(settings)(run)))
    return {
      image: Effect.flatMap(made, (workers) => workers.image),
      run: (task, input, place) => Effect.flatMap(made, (workers) => workers.run(task, input, place)),
      respond: (place) => Effect.flatMap(made, (workers) => workers.respond(place))
    }
  })

export const make = (options: ProbeWorldOptions): ProbeWorld => ({
  world: LocalWorld.make({ credentials: options.credentials }),
  workers: workersOf(options.workers ?? Effect.fail(noImage)),
  nodes: options.nodes === undefined ? () => Effect.succeed(noNodes) : KubernetesNodes.make(options.nodes)
})

/** A prober outside of the cluster, with nothing of ours installed there. */
export const outside: ProbeWorld = make({})
