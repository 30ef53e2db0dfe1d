/**
 * What a worker pod that answers does: HTTP that says which pod answered, and echoes of TCP and UDP.
 *
 * An echo answers no more than it was sent, and never another echo; connections and their time are bounded.
 */
import { Data, Effect, type Scope } from "effect"
import { type Socket, createSocket } from "node:dgram"
import { createServer as createHttpServer } from "node:http"
import { type Server, createServer as createTcpServer } from "node:net"

/** A port cannot be opened. */
export class ResponderError extends Data.TaggedError("ResponderError")<{
  readonly protocol: "HTTP" | "TCP" | "UDP"
  readonly port: number
  readonly detail: string
}> {
  override get message(): string {
    return `${this.protocol} port ${this.port} cannot be served: ${this.detail}; choose another`
  }
}

/** Connections of each server at a time. */
const CONNECTIONS = 256

/** A connection without traffic is dropped after this many milliseconds. */
const IDLE = 30_000

const failureOf = (protocol: ResponderError["protocol"], port: number) => (cause: Error) =>
  new ResponderError({ protocol, port, detail: cause.message })

const listening = <S extends Server>(
  server: S,
  protocol: "HTTP" | "TCP",
  port: number
): Effect.Effect<S, ResponderError, Scope.Scope> => {
  server.maxConnections = CONNECTIONS
  return Effect.acquireRelease(
    Effect.callback<S, ResponderError>((resume) => {
      const failure = failureOf(protocol, port)
      // Also of what it cannot accept later, which is nobody's end.
      server.on("error", (cause: Error) => resume(Effect.fail(failure(cause))))
      server.listen(port, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
}

/**
 * What comes from the port of another echo would go to and fro for ever, and port 0 is nobody's: a datagram may say that it
 * comes from there (RFC 768), and none can be sent to it.
 */
export const echoTo = (socket: Socket, own: number) => (message: Buffer, from: { address: string; port: number }) => {
  if (from.port === own || from.port === 0) return
  socket.send(message, from.port, from.address, () => {
    // Whoever cannot be answered hears nothing, as of any datagram that is lost.
  })
}

const echoUdpOver = (type: "udp4" | "udp6", port: number): Effect.Effect<Socket, ResponderError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Socket, ResponderError>((resume) => {
      const socket = createSocket({ type })
      // Also of what cannot be received later; without a listener Node would end the process.
      socket.on("error", (cause) => resume(Effect.fail(failureOf("UDP", port)(cause))))
      socket.on("message", echoTo(socket, port))
      socket.bind(port, () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.close())
  )

/** IPv6 answers IPv4 too, where the machine maps its addresses; not every machine has it. */
const echoUdp = (port: number) => Effect.catch(echoUdpOver("udp6", port), () => echoUdpOver("udp4", port))

/** Answers for as long as the scope. `identity` is the body of `GET /`, as JSON. */
export const serve = Effect.fn("Responder.serve")(function*(options: {
  readonly httpPort: number
  readonly echoPort: number
  readonly identity: Readonly<Record<string, string>>
}) {
  const body = `${JSON.stringify(options.identity)}\n`
  const http = createHttpServer({ requestTimeout: IDLE, keepAliveTimeout: 1_000 }, (request, response) => {
    request.resume()
    const known = request.method === "GET" || request.method === "HEAD"
    response.writeHead(known ? 200 : 405, { "content-type": "application/json", "cache-control": "no-store" })
    response.end(known ? body : "")
  })
  const tcp = createTcpServer((socket) => {
    socket.setTimeout(IDLE, () => socket.destroy())
    socket.on("error", () => socket.destroy())
    socket.pipe(socket)
  })
  yield* listening(http, "HTTP", options.httpPort)
  yield* listening(tcp, "TCP", options.echoPort)
  yield* echoUdp(options.echoPort)
})
