/** Proxies as companies have them: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928, no sign-in). */
import { Effect } from "effect"
import * as Http from "node:http"
import * as Net from "node:net"

export interface ForwardProxy {
  readonly url: string
  /** `host:port` of each connection asked for. */
  readonly targets: ReadonlyArray<string>
}

export const make = (kind: "http" | "socks5") =>
  Effect.acquireRelease(
    Effect.callback<ForwardProxy & { readonly close: Effect.Effect<void> }>((resume) => {
      const targets: Array<string> = []
      const sockets = new Set<Net.Socket>()
      const join = (inbound: Net.Socket, target: string, greeting: string | Uint8Array) => {
        targets.push(target)
        const { hostname, port } = new URL(`tcp://${target}`)
        const outbound = Net.connect(Number(port), hostname, () => {
          inbound.write(greeting)
          inbound.pipe(outbound)
          outbound.pipe(inbound)
        })
        for (const socket of [inbound, outbound]) {
          sockets.add(socket)
          socket.on("error", () => socket.destroy())
          socket.on("close", () => sockets.delete(socket))
        }
      }
      const server = kind === "http" ? httpProxy(join) : socksProxy(join)
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({
          url: `${kind}://127.0.0.1:${port}`,
          targets,
          close: Effect.callback<void>((done) => {
            sockets.forEach((socket) => socket.destroy())
            server.close(() => done(Effect.void))
          })
        }))
      })
    }),
    (proxy) => proxy.close
  )

type Join = (inbound: Net.Socket, target: string, greeting: string | Uint8Array) => void

const httpProxy = (join: Join) => {
  const server = Http.createServer()
  server.on("connect", (request: Http.IncomingMessage, inbound: Net.Socket) => {
    join(inbound, request.url ?? "", "HTTP/1.1 200 Connection established\r\n\r\n")
  })
  return server
}

const socksProxy = (join: Join) =>
  Net.createServer((inbound) => {
    inbound.on("error", () => inbound.destroy())
    inbound.once("data", () => {
      inbound.write(Uint8Array.of(5, 0))
      inbound.once("data", (asked: Buffer) => {
        const host = asked[3] === 1 ? asked.subarray(4, 8).join(".") : asked.subarray(5, 5 + (asked[4] ?? 0)).toString()
        join(inbound, `${host}:${asked.readUInt16BE(asked.length - 2)}`, Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0))
      })
    })
  })
