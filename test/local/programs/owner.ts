/** A process that owns a local cluster, for tests to end: tells each stage and `ready` on standard output. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as Local from "../../../src/local/Local.ts"
import { LocalCluster } from "../../../src/local/LocalCluster.ts"

const [, , name = "", nodes = "0"] = process.argv

Effect.gen(function*() {
  yield* LocalCluster.make({
    name,
    nodes: Number(nodes),
    onProgress: (event) => event._tag === "Reached" ? Console.log(event.stage) : Effect.void
  })
  yield* Console.log("ready")
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(Local.layer), NodeRuntime.runMain)
