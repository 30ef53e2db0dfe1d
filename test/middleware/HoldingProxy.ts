/** A TCP proxy that holds up what passes from a certain text on, so that a test can act at that point of a conversation. */
import { Deferred, Duration, Effect, type Scope } from "effect"
import * as Net from "node:net"

export interface HoldingProxy {
  readonly port: number
  /** Returns when the text has come, and nothing passes any more. */
  readonly held: Effect.Effect<void>
}

/** To a port of the loopback interface. Texts are looked for in lower case. */
export const holdingProxy = Effect.fnUntraced(function*(
  target: number,
  marker: string,
  options: {
    readonly direction?: "requests" | "answers"
    /** For ever when absent. */
    readonly holdFor?: Duration.Input
  } = {}
): Effect.fn.Return<HoldingProxy, never, Scope.Scope> {
  const held = yield* Deferred.make<void>()
  const wait = options.holdFor === undefined
    ? undefined
    : Duration.toMillis(Duration.fromInputUnsafe(options.holdFor))
  const server = yield* Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      /** The text may come in two pieces; what passed last is kept for that. */
      const forward = (from: Net.Socket, to: Net.Socket, holding: boolean) => {
        let last = ""
        let holds = false
        from.on("data", (chunk) => {
          last = (last + chunk.toString("latin1").toLowerCase()).slice(-10_000)
          if (holding && !holds && last.includes(marker)) {
            holds = true
            Deferred.doneUnsafe(held, Effect.void)
          }
          if (!holds) to.write(chunk)
          else if (wait !== undefined) setTimeout(() => to.write(chunk), wait)
        })
      }
      const proxy = Net.createServer((client) => {
        const upstream = Net.connect(target, "127.0.0.1")
        for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
          sockets.add(socket)
          socket.on("error", () => {}).on("close", () => {
            sockets.delete(socket)
            other.destroy()
          })
        }
        forward(client, upstream, options.direction !== "answers")
        forward(upstream, client, options.direction === "answers")
      }).listen(0, "127.0.0.1", () => {
        const address = proxy.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          close: () => {
            proxy.close()
            for (const socket of sockets) socket.destroy()
          }
        }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )
  return { port: server.port, held: Effect.timeout(Deferred.await(held), "30 seconds").pipe(Effect.orDie) }
})

/** A TCP proxy that changes what a server answers, byte for byte as long as before; its port. */
export const rewritingProxy = (
  target: number,
  rewrite: (answer: string) => string
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const proxy = Net.createServer((client) => {
          const upstream = Net.connect(target, "127.0.0.1")
          for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
            sockets.add(socket)
            socket.on("error", () => {}).on("close", () => {
              sockets.delete(socket)
              other.destroy()
            })
          }
          client.on("data", (chunk) => upstream.write(chunk))
          upstream.on("data", (chunk) => client.write(Buffer.from(rewrite(chunk.toString("latin1")), "latin1")))
        }).listen(0, "127.0.0.1", () => {
          const address = proxy.address()
          resume(Effect.succeed({
            port: typeof address === "object" && address !== null ? address.port : 0,
            close: () => {
              proxy.close()
              for (const socket of sockets) socket.destroy()
            }
          }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ port }) => port
  )
