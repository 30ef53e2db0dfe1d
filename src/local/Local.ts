import { NodeServices } from "@effect/platform-node"
import { Layer } from "effect"
import { LocalBinaries } from "./binaries/LocalBinaries.ts"
import { LocalFleet } from "./LocalFleet.ts"
import { LocalPaths } from "./LocalPaths.ts"
import { LocalStore } from "./LocalStore.ts"
import { NodeTools } from "./node/NodeTools.ts"

/** Everything that `LocalCluster` and `LocalFleet` need, configured from the environment. */
export const layer = LocalFleet.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(LocalBinaries.layer, LocalStore.layer, NodeTools.layer)),
  Layer.provideMerge(LocalPaths.layer),
  Layer.provideMerge(NodeServices.layer)
)
