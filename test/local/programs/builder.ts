/** A process that builds the given Go module into the given cache, and tells the path of the result. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as GoBuild from "../../../src/local/binaries/GoBuild.ts"

const [, , module = "", cache = "", go = ""] = process.argv

GoBuild.build(
  { binary: "tiny", module, dependency: "example.test/none", package: ".", ldflags: () => "-s -w", versionArgs: [] },
  { go, cache, step: 1, of: 1, onProgress: () => Effect.void }
).pipe(
  Effect.flatMap((path) => Console.log(path)),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
