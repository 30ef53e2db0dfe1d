/** An agent until it is killed: takes `{ port, token }`, says `"linked"` each time it is. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Redacted, References, Schema, Stream } from "effect"
import { text } from "node:stream/consumers"
import { LinkStatus } from "../../src/infra/link/LinkClient.ts"
import { startAgent } from "./fixture.ts"

const Input = Schema.fromJsonString(Schema.Struct({ port: Schema.Int, token: Schema.String }))

Effect.gen(function*() {
  const { port, token } = yield* Schema.decodeEffect(Input)(yield* Effect.promise(() => text(process.stdin)))
  const { client } = yield* startAgent({ port, token: Redacted.make(token) })
  yield* client.changes.pipe(
    Stream.filter(LinkStatus.$is("Linked")),
    Stream.runForEach(() => Effect.sync(() => process.stdout.write(`"linked"\n`)))
  )
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"), NodeRuntime.runMain)
