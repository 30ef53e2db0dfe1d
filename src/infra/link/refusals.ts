/**
 * Refusals on the wire, and what else an HTTP connection to a master can end in.
 */
import { Data, Duration, Effect, Schema } from "effect"
import { type IncomingMessage, STATUS_CODES } from "node:http"
import { IN_SHORT, type SocketFault, codeOf, foremostOf, socketFaultOf } from "../net/socketFault.ts"
import { MasterUnreachable, Refusal, statusOf } from "./LinkError.ts"

/** A refusal or certificate is far smaller; what is longer is not from a master. */
export const MAX_BODY = 64 << 10

const encode = Schema.encodeSync(Schema.fromJsonString(Refusal))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Refusal))

/** A refusal as an HTTP answer. */
export const answerOf = (refusal: Refusal) => ({
  status: statusOf(refusal),
  headers: {
    "content-type": "application/json",
    connection: "close",
    ...(refusal._tag === "Overloaded" && {
      "retry-after": String(Math.ceil(Duration.toSeconds(refusal.retryAfter)))
    })
  },
  body: encode(refusal)
})

/** The same as text, for a socket that has no response object. */
export const rawAnswerOf = (refusal: Refusal): string => {
  const { body, headers, status } = answerOf(refusal)
  const lines = Object.entries({ ...headers, "content-length": Buffer.byteLength(body) })
    .map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n${lines.join("")}\r\n${body}`
}

/** A body that was not read to its end. */
export class BodyError extends Data.TaggedError("BodyError")<{
  readonly status: 400 | 413
  readonly detail: string
}> {
  override get message(): string {
    return this.detail
  }
}

/** The whole body as text. */
export const readBody = (message: IncomingMessage): Effect.Effect<string, BodyError> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    message.on("data", (chunk: Buffer) => {
      size += chunk.length
      chunks.push(chunk)
      if (size > MAX_BODY) {
        message.pause()
        resume(Effect.fail(new BodyError({ status: 413, detail: `the body is longer than ${MAX_BODY} bytes` })))
      }
    })
    message.on("end", () => resume(Effect.succeed(Buffer.concat(chunks).toString())))
    message.on("error", (cause) => resume(Effect.fail(new BodyError({ status: 400, detail: cause.message }))))
    message.on("close", () => resume(Effect.fail(new BodyError({ status: 400, detail: "the body broke off" }))))
    return Effect.sync(() => message.destroy())
  })

/** Why the master refused; an answer that is no refusal is somebody else's. */
export const readRefusal = (
  master: string,
  response: IncomingMessage
): Effect.Effect<Refusal | MasterUnreachable> =>
  readBody(response).pipe(
    Effect.flatMap(decode),
    Effect.orElseSucceed(() =>
      new MasterUnreachable({
        master,
        kind: "answer",
        detail: `something answered ${response.statusCode ?? "nothing"} that is not a master`
      })
    )
  )

const KINDS: Readonly<Record<SocketFault, MasterUnreachable["kind"]>> = {
  ...IN_SHORT,
  unroutable: "timeout",
  protocol: "answer"
}

/** What a failed connection's error means. */
export const unreachable = (master: string, cause: Error): MasterUnreachable => {
  const foremost = foremostOf(cause)
  const code = codeOf(foremost)
  const kind = code === "" && /timed out/iu.test(cause.message) ? "timeout" : KINDS[socketFaultOf(code)]
  return new MasterUnreachable({ master, kind, detail: cause.message === "" ? code : cause.message })
}
