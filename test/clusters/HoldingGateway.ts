/** Between a prober and a member of etcd: passes requests on, and keeps those of one path for itself. */
import { Deferred, Effect, type Scope } from "effect"
import * as Http from "node:http"

/** Listens on a free port of 127.0.0.1 until the scope ends. */
export const holdingGateway = (
  target: string,
  path: string
): Effect.Effect<{ readonly url: string; readonly reached: Effect.Effect<void> }, never, Scope.Scope> =>
  Effect.gen(function*() {
    const reached = yield* Deferred.make<void>()
    const server = Http.createServer((request, response) => {
      if (request.url === path) {
        Effect.runFork(Deferred.succeed(reached, undefined))
        return
      }
      const forwarded = Http.request(
        new URL(request.url ?? "/", target),
        { method: request.method, headers: request.headers, agent: false },
        (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.headers)
          answer.pipe(response)
        }
      )
      forwarded.on("error", () => response.destroy())
      request.pipe(forwarded)
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.sync(() => {
          server.close()
          server.closeAllConnections()
        })
    )
    const address = server.address()
    return {
      url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
      reached: Deferred.await(reached)
    }
  })
