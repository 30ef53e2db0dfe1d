/** A cluster with nodes that have this checkout's image, and probes that may use worker pods in it. */
import { Effect, Layer } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import type { LocalClusterOptions } from "../../src/local/LocalCluster.ts"
import { TestCluster } from "./TestCluster.ts"
import { WORKER_IMAGE, workerImage } from "./workerImage.ts"

/** As an agent in the cluster has it, but for node agents. Nothing can be pulled, so the image must be there. */
export const world = ProbeWorld.make({ workers: Effect.succeed({ image: WORKER_IMAGE, imagePullPolicy: "Never" }) })

export const layer = (options: LocalClusterOptions & { readonly nodes: number }) =>
  Layer.unwrap(
    Effect.map(workerImage, (image) => TestCluster.layer({ ...options, images: [...options.images ?? [], image] }))
  )
