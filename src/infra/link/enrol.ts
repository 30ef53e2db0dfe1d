/**
 * The agent's side of enrolment: from a join token to a certificate.
 */
import { Effect, Result, Schema } from "effect"
import type { IncomingMessage } from "node:http"
import { request as httpsRequest } from "node:https"
import type { CertificateRequest } from "../pki/ClusterIdentity.ts"
import type { JoinToken } from "../pki/JoinToken.ts"
import { findAuthority } from "../pki/pinning.ts"
import type { PinMismatch } from "../pki/PkiError.ts"
import { ENROL_PATH, EnrolmentRequest } from "./Enrolments.ts"
import { InvalidMaster, MasterUnreachable, type Refusal } from "./LinkError.ts"
import { readBody, readRefusal, unreachable } from "./refusals.ts"
import { SignedCertificate } from "./Renewal.ts"
import { HANDSHAKE_TIMEOUT } from "./Transport.ts"

/** The address of a master as a person writes it: https or wss, a host, a port. Anything without TLS is refused. */
export const parseMaster = (text: string): Result.Result<URL, InvalidMaster> => {
  const refuse = (detail: string) => Result.fail(new InvalidMaster({ master: text, detail }))
  const url = URL.parse(text)
  if (url === null) return refuse("it is not a URL")
  if (url.protocol === "ws:" || url.protocol === "http:") return refuse("links are made over TLS alone")
  if (url.protocol !== "wss:" && url.protocol !== "https:") return refuse(`links are not made over ${url.protocol}`)
  if (url.username !== "" || url.password !== "") return refuse("it holds a password, and addresses end up in logs")
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") return refuse("it has a path")
  return Result.succeed(new URL(`https://${url.host}`))
}

const encodeRequest = Schema.encodeEffect(Schema.fromJsonString(EnrolmentRequest))
const decodeAnswer = Schema.decodeUnknownEffect(Schema.fromJsonString(SignedCertificate))

/** Asks the master the token pins for a certificate. */
export const enrol = Effect.fn("enrol")(function*(
  master: URL,
  token: JoinToken,
  { csr }: CertificateRequest
): Effect.fn.Return<SignedCertificate, Refusal | MasterUnreachable | PinMismatch> {
  const authority = yield* findAuthority({
    master,
    pin: token.pin,
    onUnreachable: (cause) => unreachable(master.host, cause)
  }).pipe(Effect.timeoutOrElse({
    duration: HANDSHAKE_TIMEOUT,
    orElse: () =>
      Effect.fail(new MasterUnreachable({ master: master.host, kind: "timeout", detail: "no TLS handshake" }))
  }))
  const { cluster, id, secret } = token
  const body = yield* Effect.orDie(encodeRequest({ cluster, token: { id, secret }, csr }))
  const response = yield* post(new URL(ENROL_PATH, master), authority, body)
  if (response.statusCode !== 200) return yield* Effect.flatMap(readRefusal(master.host, response), Effect.fail)
  return yield* readBody(response).pipe(
    Effect.flatMap(decodeAnswer),
    Effect.mapError(({ message }) => new MasterUnreachable({ master: master.host, kind: "answer", detail: message }))
  )
})

const post = (url: URL, authority: string, body: string): Effect.Effect<IncomingMessage, MasterUnreachable> =>
  Effect.callback((resume) => {
    const request = httpsRequest(url, {
      method: "POST",
      agent: false,
      ca: authority,
      minVersion: "TLSv1.3",
      timeout: HANDSHAKE_TIMEOUT,
      headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) }
    })
    request.once("response", (response) => resume(Effect.succeed(response)))
    request.once("timeout", () => request.destroy(new Error("timed out waiting for the answer")))
    request.on("error", (cause) => resume(Effect.fail(unreachable(url.host, cause))))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })
