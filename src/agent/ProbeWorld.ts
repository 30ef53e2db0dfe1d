/**
 * What probes use besides the Kubernetes API: the world as Node gives it, worker pods and node agents.
 */
import { Context, Effect } from "effect"
import type { Kube } from "../infra/kube/Kube.ts"
import { TlsPeer } from "../infra/tls/TlsPeer.ts"
import * as TlsPeerNode from "../infra/tls/TlsPeerNode.ts"
import type { RunContext } from "../probes/RunContext.ts"
import type { Scratch } from "../probes/Scratch.ts"
import type { Nodes } from "../probes/workers/Nodes.ts"
import { WorkerFault, type Workers } from "../probes/workers/Workers.ts"
import type { World } from "../probes/World.ts"

/** What is made anew for each run, because it acts with the run's rights and in its name. */
export interface RunScope {
  /** Sends only what the probe declares. */
  readonly kube: Kube["Service"]
  readonly scratch: Scratch["Service"]
  readonly context: RunContext["Service"]
}

export interface ProbeWorld {
  readonly world: Context.Context<World>
  readonly workers: (run: RunScope) => Workers["Service"]
  readonly nodes: (run: RunScope) => Nodes["Service"]
}

/** Of this process: all stateless, or connected only while a probe uses it. */
const world: Context.Context<World> = Context.make(TlsPeer, TlsPeerNode.service)

const noImage = new WorkerFault({
  stage: "Unavailable",
  detail: "no image is known for worker pods here; name one with --worker-image"
})

const noWorkers: Workers["Service"] = {
  image: Effect.fail(noImage),
  run: () => Effect.fail(noImage),
  respond: () => Effect.fail(noImage)
}

/** No agent of ours is on any node. */
const noNodes: Nodes["Service"] = { run: () => Effect.succeed([]) }

/** A prober outside of the cluster, with nothing of ours installed there. */
export const outside: ProbeWorld = { world, workers: () => noWorkers, nodes: () => noNodes }
