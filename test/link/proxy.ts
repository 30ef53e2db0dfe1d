/** A TCP proxy to break connections with. */
import { Effect, type Scope } from "effect"
import { type Socket, connect, createServer } from "node:net"

export interface Proxy {
  readonly port: number
  /** From now on nothing passes in either direction, new connections included, and nobody is told. */
  readonly stall: Effect.Effect<void>
  /** Breaks what was stalled, and lets new connections pass. */
  readonly resume: Effect.Effect<void>
  /** Lets no new connection in; those there are stay. */
  readonly refuse: Effect.Effect<void>
  /** Breaks every connection. */
  readonly cut: Effect.Effect<void>
}

/** To a port of the loopback interface, until the scope ends. */
export const startProxy = (target: number): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly proxy: Proxy; readonly close: () => void }>((resume) => {
        const sockets = new Set<Socket>()
        let stalled = false
        const server = createServer((inner) => {
          const outer = connect(target, "127.0.0.1")
          for (const [from, to] of [[inner, outer], [outer, inner]] as const) {
            sockets.add(from)
            from.on("error", () => {})
            from.on("close", () => {
              sockets.delete(from)
              if (!stalled) to.destroy()
            })
            from.pipe(to)
            if (stalled) from.pause()
          }
        })
        const each = (change: (socket: Socket) => void) => Effect.sync(() => sockets.forEach(change))
        const setStalled = (value: boolean) => Effect.sync(() => (stalled = value))
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const proxy: Proxy = {
            port: typeof address === "object" && address !== null ? address.port : 0,
            stall: Effect.andThen(
              setStalled(true),
              each((socket) => {
                socket.unpipe()
                socket.pause()
              })
            ),
            resume: Effect.andThen(setStalled(false), each((socket) => socket.destroy())),
            refuse: Effect.sync(() => void server.close()),
            cut: each((socket) => socket.resetAndDestroy())
          }
          const close = () => {
            server.close()
            sockets.forEach((socket) => socket.destroy())
          }
          resume(Effect.succeed({ proxy, close }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ proxy }) => proxy
  )
