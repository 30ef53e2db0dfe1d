/**
 * Links over WebSocket (RFC 6455), which every proxy and ingress passes.
 *
 * The stream is ours rather than `createWebSocketStream`'s: that one neither joins writes nor counts what it reads.
 */
import { Effect, Layer, Redacted } from "effect"
import { Duplex } from "node:stream"
import { WebSocket, WebSocketServer } from "ws"
import { BadRequest, type MasterUnreachable, type Refusal } from "./LinkError.ts"
import { readRefusal, unreachable } from "./refusals.ts"
import { type Connection, HANDSHAKE_TIMEOUT, LINK_PATH, Transport } from "./Transport.ts"

/** Subprotocol, so that an incompatible peer is told apart in the handshake. */
const PROTOCOL = "kp.tunnel.v1"

/** The largest message accepted. */
const MAX_PAYLOAD = 1 << 20

/** The largest message sent; writes that wait are joined up to this. */
const MAX_MESSAGE = 256 << 10

/** Buffered in each direction before the other side of it has to wait. */
const HIGH_WATER_MARK = 64 << 10

/** The bytes of an open socket, with back-pressure both ways. */
export const overWebSocket = (socket: WebSocket): Connection => {
  let received = 0
  const send = (chunks: ReadonlyArray<Buffer>, done: (error?: Error | null) => void) => {
    if (socket.readyState !== WebSocket.OPEN) return done(new Error("the WebSocket is closed"))
    const messages = joined(chunks)
    messages.forEach((message, index) =>
      socket.send(message, { binary: true }, index === messages.length - 1 ? done : undefined)
    )
  }
  const duplex = new Duplex({
    readableHighWaterMark: HIGH_WATER_MARK,
    writableHighWaterMark: HIGH_WATER_MARK,
    decodeStrings: true,
    read: () => {
      if (socket.isPaused) socket.resume()
    },
    write: (chunk: Buffer, _encoding, done) => send([chunk], done),
    writev: (chunks, done) => send(chunks.map(({ chunk }) => chunk), done),
    final: (done) => {
      socket.close()
      done()
    },
    destroy: (error, done) => {
      socket.terminate()
      done(error)
    }
  })
  socket.on("message", (data) => {
    // Always one buffer, by the socket's default binaryType.
    const bytes = Buffer.isBuffer(data) ? data : Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)
    received += bytes.length
    if (!duplex.push(bytes)) socket.pause()
  })
  socket.on("error", (error) => duplex.destroy(error))
  socket.on("close", () => duplex.destroy())
  // Whoever reads the stream sees its close; without a listener an error would end the process.
  duplex.on("error", () => {})
  return { duplex, received: () => received }
}

/** Chunks as few messages, none larger than {@link MAX_MESSAGE}. */
export const joined = (chunks: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> => {
  const messages: Array<Buffer> = []
  let batch: Array<Buffer> = []
  let size = 0
  const flush = () => {
    if (batch.length > 0) messages.push(batch.length === 1 && batch[0] !== undefined ? batch[0] : Buffer.concat(batch))
    batch = []
    size = 0
  }
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += MAX_MESSAGE) {
      const part = chunk.subarray(at, at + MAX_MESSAGE)
      if (size + part.length > MAX_MESSAGE) flush()
      batch.push(part)
      size += part.length
    }
  }
  flush()
  return messages.length === 0 ? [Buffer.alloc(0)] : messages
}

const destroy = ({ duplex }: Connection) => Effect.sync(() => duplex.destroy())

const dial: Transport["Service"]["dial"] = Effect.fn("WebSocketTransport.dial")(function*(master, credential) {
  const open = Effect.callback<Connection, MasterUnreachable | Refusal>((resume) => {
    const socket = new WebSocket(`wss://${master.host}${LINK_PATH}`, PROTOCOL, {
      ca: credential.authorities,
      cert: credential.certificate,
      key: Redacted.value(credential.key),
      minVersion: "TLSv1.3",
      handshakeTimeout: HANDSHAKE_TIMEOUT,
      perMessageDeflate: false,
      maxPayload: MAX_PAYLOAD,
      // Masking protects proxies from browsers' scripts (RFC 6455 section 10.3). Inside TLS nobody else sees the bytes, and
      // a mask of zeros is three times as fast.
      generateMask: (mask) => mask.fill(0)
    })
    // At once, in the event: the first message may come with the handshake.
    socket.once("open", () => resume(Effect.succeed(overWebSocket(socket))))
    socket.on("error", (cause) => resume(Effect.fail(unreachable(master.host, cause))))
    socket.once("unexpected-response", (request, response) => {
      // The request may fail later than the response; nobody else listens.
      request.on("error", () => {})
      resume(Effect.flatMap(readRefusal(master.host, response), Effect.fail))
    })
    return Effect.sync(() => socket.terminate())
  })
  return yield* Effect.acquireRelease(open, destroy, { interruptible: true })
})

export const layer = Layer.sync(Transport, () => {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_PAYLOAD,
    handleProtocols: () => PROTOCOL
  })

  const accept: Transport["Service"]["accept"] = Effect.fn("WebSocketTransport.accept")(
    function*(request, socket, head) {
      const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((each) => each.trim())
      if (!offered.includes(PROTOCOL)) {
        return yield* new BadRequest({ status: 400, detail: `this master links by ${PROTOCOL} alone` })
      }
      const open = Effect.callback<Connection, BadRequest>((resume) => {
        // Called before handleUpgrade returns, or never: then ws has answered what is wrong and closed the socket.
        server.handleUpgrade(request, socket, head, (accepted) => resume(Effect.succeed(overWebSocket(accepted))))
        resume(Effect.fail(new BadRequest({ status: 400, detail: "it is no WebSocket handshake" })))
      })
      return yield* Effect.acquireRelease(open, destroy)
    }
  )

  return Transport.of({ dial, accept })
})
