/** A real admission webhook of the test's choice, which an API server on this machine can call. */
import { Effect, type Scope } from "effect"
import * as Https from "node:https"
import * as Certificates from "../../src/local/Certificates.ts"

/** What the webhook answers to each AdmissionReview. */
export interface WebhookAnswer {
  readonly allowed: boolean
  readonly message?: string
  /** JSON patch (RFC 6902), for mutating webhooks. */
  readonly patch?: ReadonlyArray<object>
  /** Milliseconds before it answers. */
  readonly delay?: number
}

export interface WebhookServer {
  readonly url: string
  /** For `clientConfig`: base64 of PEM. */
  readonly caBundle: string
  /** Of the requests from now on. */
  readonly answer: (next: WebhookAnswer) => Effect.Effect<void>
  /** Requests that wait for their answer now. */
  readonly waiting: () => number
}

const uidOf = (body: string): string => /"uid":"([^"]+)"/.exec(body)?.[1] ?? ""

/** Listens on 127.0.0.1 until the scope ends. */
export const webhookServer = Effect.gen(function*(): Effect.fn.Return<WebhookServer, never, Scope.Scope> {
  const authority = yield* Certificates.makeAuthority("webhook")
  const pair = yield* authority.issue({ commonName: "webhook", ipAddresses: ["127.0.0.1"] })
  let current: WebhookAnswer = { allowed: true }
  let waiting = 0
  const server = Https.createServer({ cert: pair.cert, key: pair.key }, (request, response) => {
    let body = ""
    waiting++
    response.once("close", () => waiting--)
    request.on("data", (chunk) => body += String(chunk)).on("end", () => {
      const { allowed, delay = 0, message, patch } = current
      const review = {
        apiVersion: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: {
          // The first uid of a review is the request's own.
          uid: uidOf(body),
          allowed,
          ...(message === undefined ? {} : { status: { message } }),
          ...(patch === undefined
            ? {}
            : { patchType: "JSONPatch", patch: Buffer.from(JSON.stringify(patch)).toString("base64") })
        }
      }
      setTimeout(() => response.setHeader("content-type", "application/json").end(JSON.stringify(review)), delay)
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
  return {
    url: `https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
    caBundle: Buffer.from(authority.cert).toString("base64"),
    answer: (next) => Effect.sync(() => void (current = next)),
    waiting: () => waiting
  }
})
