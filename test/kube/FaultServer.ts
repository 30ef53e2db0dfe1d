/**
 * An API server that misbehaves as told, for faults a real one cannot be made to show on demand. It answers each request
 * with the next of a script; what it was asked is kept.
 */
import { Effect } from "effect"
import * as Http from "node:http"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"

/** How to answer one request. */
export type Answer = (response: Http.ServerResponse) => void

export interface FaultServer {
  readonly connection: KubeConnection.KubeConnection
  /** Paths with queries, in the order asked. */
  readonly asked: ReadonlyArray<URL>
  /** What to answer from now on, one after the other; the last repeats. */
  readonly script: (answers: ReadonlyArray<Answer>) => void
}

export const make = Effect.acquireRelease(
  Effect.callback<FaultServer & { readonly close: Effect.Effect<void> }>((resume) => {
    const asked: Array<URL> = []
    let answers: ReadonlyArray<Answer> = []
    let next = 0
    const server = Http.createServer((request, response) => {
      asked.push(new URL(request.url ?? "/", "http://server"))
      const answer = answers[Math.min(next++, answers.length - 1)]
      if (answer === undefined) response.destroy()
      else answer(response)
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      resume(Effect.succeed({
        asked,
        script: (given) => {
          answers = given
          next = 0
        },
        connection: KubeConnection.make({
          cluster: "faulty",
          server: `http://127.0.0.1:${port}`,
          identity: { tls: {} }
        }),
        close: Effect.callback<void>((done) => {
          server.closeAllConnections()
          server.close(() => done(Effect.void))
        })
      }))
    })
  }),
  (server) => server.close
)

/** An answer whole. */
export const answer =
  (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer => (response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers })
    response.end(typeof body === "string" ? body : JSON.stringify(body))
  }

export const status = (code: number, fields: object = {}, headers: Readonly<Record<string, string>> = {}): Answer =>
  answer(code, { kind: "Status", apiVersion: "v1", status: "Failure", code, ...fields }, headers)

/** A watch that sends `frames`, and then ends, is cut, or says no more. */
export const watch = (
  frames: ReadonlyArray<unknown>,
  then: "ends" | "is cut" | "is cut in a frame" | "is silent"
): Answer =>
(response) => {
  response.writeHead(200, { "content-type": "application/json" })
  response.flushHeaders()
  const text = frames.map((frame) => `${typeof frame === "string" ? frame : JSON.stringify(frame)}\n`).join("")
  switch (then) {
    case "ends":
      return void response.end(text)
    case "is silent":
      return void response.write(text)
    case "is cut":
      return void response.write(text, () => setImmediate(() => response.destroy()))
    case "is cut in a frame":
      return void response.write(
        `${text}{"type":"ADDED","object":{"metadata":{"na`,
        () => setImmediate(() => response.destroy())
      )
  }
}
