/** A TCP forwarder in front of a real server, which counts connections and can break them. */
import { Effect } from "effect"
import * as Net from "node:net"

export interface TcpProxy {
  /** `https://127.0.0.1:<port>`. */
  readonly server: string
  /** Connections accepted so far. */
  readonly accepted: () => number
  /** Connections open now. */
  readonly open: () => number
  /** Reset all that are open. */
  readonly cut: () => void
  /** From now on forward nothing and answer nothing, but keep connections open; or go on. */
  readonly freeze: (frozen: boolean) => void
  /** From now on everything arrives this many milliseconds late. */
  readonly lag: (millis: number) => void
}

export const make = (target: string) =>
  Effect.acquireRelease(
    Effect.callback<TcpProxy & { readonly close: Effect.Effect<void> }>((resume) => {
      const { hostname, port } = new URL(target)
      const sockets = new Set<Net.Socket>()
      let accepted = 0
      let frozen = false
      let late = 0
      const listener = Net.createServer((inbound) => {
        accepted++
        const outbound = Net.connect(Number(port), hostname)
        const pair = [inbound, outbound] as const
        for (const [from, to] of [pair, [outbound, inbound]] as const) {
          sockets.add(from)
          from.on("data", (chunk) => {
            if (frozen) return
            if (late === 0) to.write(chunk)
            else setTimeout(() => to.write(chunk), late)
          })
          from.on("error", () => to.destroy())
          from.on("close", () => {
            sockets.delete(from)
            to.destroy()
          })
        }
      })
      listener.listen(0, "127.0.0.1", () => {
        const address = listener.address()
        resume(Effect.succeed({
          server: `https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
          accepted: () => accepted,
          open: () => sockets.size / 2,
          cut: () => sockets.forEach((socket) => socket.resetAndDestroy()),
          freeze: (on) => {
            frozen = on
          },
          lag: (millis) => {
            late = millis
          },
          close: Effect.callback<void>((done) => {
            sockets.forEach((socket) => socket.destroy())
            listener.close(() => done(Effect.void))
          })
        }))
      })
    }),
    (proxy) => proxy.close
  )
