/** A real TLS server with a certificate of the test's choice. */
import { Effect, type Scope } from "effect"
import * as Tls from "node:tls"
import type { KeyPairPem } from "../../src/local/Certificates.ts"

/** Listens on a free port of 127.0.0.1 until the scope ends; completes handshakes and says nothing. */
export const tlsServer = (pair: KeyPairPem): Effect.Effect<{ readonly port: number }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Tls.TLSSocket>()
      const server = Tls.createServer({ cert: pair.cert, key: pair.key }, (socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
      }).listen(0, "127.0.0.1", () => {
        const address = server.address()
        const close = () => {
          server.close()
          for (const socket of sockets) socket.destroy()
        }
        resume(Effect.succeed({ port: typeof address === "object" && address !== null ? address.port : 0, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )
