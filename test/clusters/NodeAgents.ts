/** The node agents of `deploy/nodes` in a test cluster, and a world of probes that can ask them. */
import { NodeServices } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { resolve } from "node:path"
import { root } from "../../scripts/bundle.ts"
import { NodeKey } from "../../src/agent/nodes/NodeKey.ts"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { nodeResources } from "../../src/probes/infrastructure/nodeResources.ts"
import { NODE_AGENT_NAMESPACE } from "../../src/probes/workers/Nodes.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "./TestCluster.ts"
import * as WorkerCluster from "./WorkerCluster.ts"
import { WORKER_IMAGE } from "./workerImage.ts"

/** A world with node agents and worker pods. */
export class NodeWorld extends Context.Service<NodeWorld, ProbeWorld.ProbeWorld>()("kubeprober/test/NodeWorld") {}

/** Installs node agents as people do, and waits until they answer. */
const install = Effect.gen(function*() {
  const { kube, kubectl, run } = yield* TestCluster
  yield* kubectl("apply", "--server-side", "-k", resolve(root, "deploy/nodes"))
  // As an agent does at its first start.
  const context = yield* Layer.build(NodeKey.layer({ namespace: PROBE_NAMESPACE, folder: "/nonexistent" })).pipe(
    Effect.provideService(Kube, kube),
    Effect.provide(NodeServices.layer)
  )
  const world = ProbeWorld.make({
    workers: Effect.succeed({ image: WORKER_IMAGE, imagePullPolicy: "Never" }),
    // Nodes of tests are young all their life.
    nodes: { key: Context.get(context, NodeKey).key, joiningFor: 0 }
  })
  yield* kubectl("rollout", "status", "daemonset/kubeprober-node", "-n", NODE_AGENT_NAMESPACE, "--timeout=90s")
  yield* eventually(
    run(nodeResources, { world }),
    ({ findings }) => !findings.some(({ code }) => code === "NODE_AGENT_STARTING" || code === "NODE_SILENT")
  )
  return world
})

/** A cluster with nodes, each with its agent. */
export const layer = (options: Parameters<typeof WorkerCluster.layer>[0]) =>
  Layer.effect(NodeWorld, install).pipe(Layer.provideMerge(WorkerCluster.layer(options)))
