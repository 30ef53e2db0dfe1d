/**
 * What a worker pod found, sealed with the token of its run, as it travels in the pod's termination message.
 *
 * Who may write the status of pods could otherwise write results. The token is known to the run's pods and its agent alone
 * (a Secret of the run's own), and the seal is HMAC-SHA256 (RFC 2104) over the pod's name and the result, so a result of one
 * pod is none of another. The result is compressed (RFC 1951), because a termination message is small.
 */
import { Redacted, Result, Schema } from "effect"
import { createHmac, timingSafeEqual } from "node:crypto"
import { deflateRawSync, inflateRawSync } from "node:zlib"

/**
 * What a kubelet keeps of a termination message
 * (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/#customizing-the-termination-message).
 */
export const MAX_MESSAGE_BYTES = 4096

/** No result is larger, whatever it was compressed from. */
const MAX_RESULT_BYTES = 1 << 20

/** What became of a task. */
export const TaskResult = Schema.Union([
  Schema.Struct({ ok: Schema.Literal(true), output: Schema.Json }),
  Schema.Struct({ ok: Schema.Literal(false), error: Schema.String })
])
export type TaskResult = typeof TaskResult.Type

const Sealed = Schema.fromJsonString(Schema.Struct({ seal: Schema.String, result: Schema.String }))
const encodeSealed = Schema.encodeSync(Sealed)
const decodeSealed = Schema.decodeUnknownResult(Sealed)

const ResultText = Schema.fromJsonString(TaskResult)
const encodeResult = Schema.encodeSync(ResultText)
const decodeResult = Schema.decodeUnknownResult(ResultText)

const sealOf = (token: Redacted.Redacted, pod: string, result: string): Buffer =>
  createHmac("sha256", Redacted.value(token)).update(`${pod}\n${result}`).digest()

const write = (token: Redacted.Redacted, pod: string, result: TaskResult): string => {
  const text = deflateRawSync(encodeResult(result)).toString("base64url")
  return encodeSealed({ seal: sealOf(token, pod, text).toString("base64url"), result: text })
}

/** The message of a pod. A result that does not fit is told as the failure it is. */
export const seal = (token: Redacted.Redacted, pod: string, result: TaskResult): string => {
  const message = write(token, pod, result)
  const bytes = Buffer.byteLength(message)
  return bytes <= MAX_MESSAGE_BYTES ? message : write(token, pod, {
    ok: false,
    error: `the result has ${bytes} bytes, and a termination message holds ${MAX_MESSAGE_BYTES}`
  })
}

/** The result in a pod's message, when the seal is this run's. */
export const open = (
  token: Redacted.Redacted,
  pod: string,
  message: string
): Result.Result<TaskResult, "unreadable" | "forged"> => {
  const sealed = decodeSealed(message)
  if (Result.isFailure(sealed)) return Result.fail("unreadable")
  const { result, seal } = sealed.success
  const expected = sealOf(token, pod, result)
  const given = Buffer.from(seal, "base64url")
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return Result.fail("forged")
  return Result.mapError(
    Result.flatMap(
      Result.try({
        try: () => inflateRawSync(Buffer.from(result, "base64url"), { maxOutputLength: MAX_RESULT_BYTES }).toString(),
        catch: () => "unreadable" as const
      }),
      decodeResult
    ),
    () => "unreadable" as const
  )
}
