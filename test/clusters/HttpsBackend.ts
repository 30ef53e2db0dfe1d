/** A real HTTPS server of the test's choice, which an API server on this machine can call: extension APIs, conversions. */
import { Effect, type Scope } from "effect"
import * as Https from "node:https"
import * as Certificates from "../../src/local/Certificates.ts"

export interface HttpsAnswer {
  readonly status?: number
  /** Sent as JSON. */
  readonly body: unknown
}

export interface HttpsBackend {
  readonly port: number
  readonly url: string
  /** For `clientConfig` and APIServices: base64 of PEM. */
  readonly caBundle: string
  /** Milliseconds before each answer from now on. */
  readonly delay: (millis: number) => Effect.Effect<void>
  /** Status of each answer from now on; the answer's own when absent. */
  readonly fail: (status: number | undefined) => Effect.Effect<void>
}

/** Listens on 127.0.0.1 until the scope ends, under `dnsNames` too. `answer` is given the path and the body. */
export const httpsBackend = Effect.fnUntraced(function*(options: {
  readonly dnsNames?: ReadonlyArray<string>
  readonly answer: (path: string, body: string) => HttpsAnswer
}): Effect.fn.Return<HttpsBackend, never, Scope.Scope> {
  const authority = yield* Certificates.makeAuthority("backend")
  const pair = yield* authority.issue({
    commonName: "backend",
    ipAddresses: ["127.0.0.1"],
    dnsNames: options.dnsNames ?? []
  })
  let delay = 0
  let failing: number | undefined
  const server = Https.createServer({ cert: pair.cert, key: pair.key }, (request, response) => {
    let body = ""
    request.on("data", (chunk) => body += String(chunk)).on("end", () => {
      const answer = options.answer(request.url ?? "", body)
      setTimeout(() => {
        response.writeHead(failing ?? answer.status ?? 200, { "content-type": "application/json" })
        response.end(JSON.stringify(answer.body))
      }, delay)
    })
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
  const port = typeof address === "object" && address !== null ? address.port : 0
  return {
    port,
    url: `https://127.0.0.1:${port}`,
    caBundle: Buffer.from(authority.cert).toString("base64"),
    delay: (millis) => Effect.sync(() => void (delay = millis)),
    fail: (status) => Effect.sync(() => void (failing = status))
  }
})
