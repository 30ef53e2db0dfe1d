/** A fake API server: says what the test tells it to, and records what reached it. */
import { Effect } from "effect"
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface Recorded {
  readonly method: string
  readonly url: string
  /** In lower case, each as often as it came. */
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
}

export interface FakeApiServer {
  readonly url: string
  readonly recorded: Array<Recorded>
  /** Requests whose connection was lost before their answer was whole. */
  readonly aborted: () => number
}

const pairs = (raw: ReadonlyArray<string>): ReadonlyArray<readonly [string, string]> =>
  raw.flatMap((name, at) => at % 2 === 0 ? [[name.toLowerCase(), raw[at + 1] ?? ""] as const] : [])

export const start = (answer: (request: IncomingMessage, response: ServerResponse) => void) =>
  Effect.gen(function*() {
    const recorded: Array<Recorded> = []
    let aborted = 0
    const server = yield* Effect.acquireRelease(
      Effect.callback<Server>((resume) => {
        const server = createServer((request, response) => {
          recorded.push({ method: request.method ?? "", url: request.url ?? "", headers: pairs(request.rawHeaders) })
          response.on("close", () => {
            if (!response.writableFinished) aborted += 1
          })
          answer(request, response)
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.close()
          server.closeAllConnections()
        })
    )
    const { port } = server.address() as AddressInfo
    const fake: FakeApiServer = { url: `http://127.0.0.1:${port}`, recorded, aborted: () => aborted }
    return fake
  })
