/** The agent's end of a link before a master that does what HTTP/2 allows and no client of ours does: its bytes are written by hand. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { WebSocket, WebSocketServer } from "ws"
import * as Mux from "../../src/infra/link/Mux.ts"
import { overWebSocket } from "../../src/infra/link/WebSocketTransport.ts"

const frame = (type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A literal header field of a new name, without Huffman coding (RFC 7541, 6.2.2). */
const field = (name: string, value: string): Buffer =>
  Buffer.concat([Buffer.of(0, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)])

const opening = Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0)])
const headers = (stream: number, path: string): Buffer =>
  frame(
    1,
    4,
    stream,
    Buffer.concat([
      field(":method", "POST"),
      field(":scheme", "http"),
      field(":authority", "agent"),
      field(":path", path)
    ])
  )
const reset = (stream: number): Buffer => frame(3, 0, stream, Buffer.of(0, 0, 0, 8))
const goaway = frame(7, 0, 0, Buffer.alloc(8))

/** An agent whose master sends all of this in one message. */
const after = Effect.fnUntraced(function*(...frames: ReadonlyArray<Buffer>) {
  const server = yield* Effect.acquireRelease(
    Effect.callback<WebSocketServer>((resume) => {
      const server: WebSocketServer = new WebSocketServer(
        { host: "127.0.0.1", port: 0, perMessageDeflate: false },
        () => resume(Effect.succeed(server))
      )
      server.on("connection", (master) => {
        master.on("error", () => {})
        // The agent's settings: it listens.
        master.once("message", () => master.send(Buffer.concat([opening, ...frames])))
      })
    }),
    (server) =>
      Effect.sync(() => {
        for (const master of server.clients) master.terminate()
        server.close()
      })
  )
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  const socket = yield* Effect.callback<WebSocket>((resume) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false })
    socket.once("open", () => resume(Effect.succeed(socket)))
  })
  return yield* Effect.provide(Mux.serve(overWebSocket(socket), "master"), Mux.StreamHandler.layerNone)
})

describe("the agent's end of a link", () => {
  it.live("lives on when a stream is reset in the turn in which it was opened", () =>
    Effect.scoped(Effect.gen(function*() {
      const mux = yield* after(
        headers(1, "/rpc/control"),
        reset(1),
        headers(3, "/apis"),
        reset(3),
        headers(5, "/rpc/control")
      )
      const stream = yield* mux.accept("control")
      assert.strictEqual("id" in stream ? stream.id : undefined, 5)
      assert.strictEqual(yield* mux.streams, 1)
    })))

  it.live("ends with a reason when the master leaves in the turn in which it opened a stream", () =>
    Effect.scoped(Effect.gen(function*() {
      const mux = yield* after(headers(1, "/rpc/control"), headers(3, "/apis"), goaway)
      assert.strictEqual((yield* Effect.flip(mux.closed)).reason._tag, "PeerGone")
    })))
})
