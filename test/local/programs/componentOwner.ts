/** A process that runs one component on the given leash, for tests to end: tells the process id of the component. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import * as Component from "../../../src/local/process/Component.ts"

const [, , leash, folder = ""] = process.argv

Effect.gen(function*() {
  const component = yield* Component.make(
    { name: "sleep", cluster: folder, logPath: `${folder}/sleep.log`, command: ["sleep", "600"] },
    leash === "pipe" ? "pipe" : "setpriv"
  )
  yield* component.start
  yield* Console.log(Option.getOrThrow(yield* component.pid))
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
