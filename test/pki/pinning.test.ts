/** Looking for the pinned authority where nobody, or nobody of TLS, answers. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Net from "node:net"
import { findAuthority } from "../../src/infra/pki/pinning.ts"

/** Takes connections on 127.0.0.1 until the scope ends. */
const listening = Effect.fnUntraced(function*(onConnection: (socket: Net.Socket) => void) {
  const sockets = new Set<Net.Socket>()
  const server = Net.createServer((socket) => {
    sockets.add(socket.on("error", () => {}).resume())
    onConnection(socket)
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )
  const address = server.address()
  return new URL(`https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`)
})

const find = (master: URL) => findAuthority({ master, pin: "p", onUnreachable: ({ message }) => message })

describe("finding the pinned authority", () => {
  it.effect("is over in time where a port takes connections and says nothing", () =>
    Effect.gen(function*() {
      const taken = yield* Deferred.make<Net.Socket>()
      const master = yield* listening((socket) => Deferred.doneUnsafe(taken, Effect.succeed(socket)))
      const finding = yield* Effect.forkChild(
        find(master).pipe(Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.fail("too late") }))
      )
      const socket = yield* Deferred.await(taken)
      const left = Effect.callback<void>((resume) => {
        socket.once("close", () => resume(Effect.void))
      })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Effect.flip(Fiber.join(finding)), "too late")
      // And nothing of it stays.
      yield* left
    }), 10_000)

  it.live("says so when the connection ends before the handshake did", () =>
    Effect.gen(function*() {
      const master = yield* listening((socket) => socket.end())
      assert.match(String(yield* Effect.flip(find(master))), /disconnected|ended before/u)
    }).pipe(Effect.scoped), 10_000)
})
