/** The echo of a worker pod before datagrams that cannot be answered. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { type Socket, createSocket } from "node:dgram"
import { echoTo } from "../../src/agent/workers/Responder.ts"

const bound: Effect.Effect<Socket, never, Scope.Scope> = Effect.acquireRelease(
  Effect.callback((resume) => {
    const socket = createSocket("udp4")
    socket.bind(0, "127.0.0.1", () => resume(Effect.succeed(socket)))
  }),
  (socket) => Effect.sync(() => socket.close())
)

describe("the echo by UDP", () => {
  it.live(
    "answers who can be answered, and outlives who says that it comes from port 0 or from nowhere",
    () =>
      Effect.gen(function*() {
        const echo = yield* bound
        const asker = yield* bound
        const own = echo.address().port
        const errors: Array<Error> = []
        echo.on("error", (error) => errors.push(error))
        const answer = echoTo(echo, own)
        const heard = Effect.callback<string>((resume) => {
          asker.once("message", (message) => resume(Effect.succeed(String(message))))
          answer(Buffer.from("own"), { address: "127.0.0.1", port: own })
          answer(Buffer.from("zero"), { address: "127.0.0.1", port: 0 })
          answer(Buffer.from("nowhere"), { address: "255.255.255.255", port: 9 })
          answer(Buffer.from("hello"), { address: "127.0.0.1", port: asker.address().port })
        })
        assert.strictEqual(yield* heard, "hello")
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped),
    10_000
  )
})
