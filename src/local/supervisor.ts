/**
 * The process that owns a detached local cluster: it makes the cluster and holds its scope until SIGTERM. `LocalFleet`
 * starts it; nobody else needs to.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Option, Schema } from "effect"
import * as Local from "./Local.ts"
import { LocalCluster } from "./LocalCluster.ts"
import { SupervisorEvent, SupervisorOptions } from "./Supervision.ts"

const tell = (event: SupervisorEvent): Effect.Effect<void> =>
  Schema.encodeEffect(Schema.fromJsonString(SupervisorEvent))(event).pipe(
    Effect.orDie,
    Effect.flatMap((line) => Console.log(line))
  )

const program = Effect.gen(function*() {
  const options = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(SupervisorOptions))(process.argv[2])
  yield* LocalCluster.make({ ...options, onProgress: tell })
  yield* tell({ _tag: "Ready" })
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(Local.layer),
  Effect.tapCause((cause) => {
    if (Cause.hasInterruptsOnly(cause)) return Effect.void
    const failure = Cause.findErrorOption(cause)
    const message = Option.match(failure, { onNone: () => Cause.pretty(cause), onSome: (error) => error.message })
    return tell({ _tag: "GaveUp", message })
  })
)

NodeRuntime.runMain(program, { disableErrorReporting: true })
