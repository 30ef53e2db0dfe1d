/** Agents of the benchmark, and beside them a plain HTTP server to compare with. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Redacted, References, Schema } from "effect"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"
import { startAgent } from "../../test/link/fixture.ts"

const Input = Schema.fromJsonString(Schema.Struct({ port: Schema.Int, tokens: Schema.Array(Schema.String) }))

const plainServer = Effect.callback<number>((resume) => {
  const server = createServer((_, response) => response.end(`{"versions":{"agent":"bench"}}`))
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
  })
})

Effect.gen(function*() {
  const { port, tokens } = yield* Schema.decodeEffect(Input)(yield* Effect.promise(() => text(process.stdin)))
  const http = yield* plainServer
  yield* Effect.forEach(tokens, (token) =>
    Effect.gen(function*() {
      const { client } = yield* startAgent({ port, token: Redacted.make(token), name: "bench" })
      yield* client.session
    }), { concurrency: 8, discard: true })
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ http })}\n`))
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"), NodeRuntime.runMain)
