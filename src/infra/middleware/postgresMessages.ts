/**
 * Whole messages of a PostgreSQL server that pg's parser can read to their end.
 *
 * It reads the fields of an error until a zero byte, and where there is none goes on behind the end of what has come, for
 * ever (pg-protocol 1.16.1, `parseErrorMessage`): one error that lacks its end would hang the process.
 */
import type { Sieve } from "./ServiceNode.ts"

/** The byte of the type, and a length that counts itself. */
const HEADER = 5

/** ErrorResponse, NoticeResponse (https://www.postgresql.org/docs/current/protocol-message-formats.html). */
const WITH_FIELDS: ReadonlyArray<string> = ["E", "N"]

/** Fields of a byte and a text that a zero byte ends; another one ends the message. */
const hasEnd = (message: Buffer): boolean => {
  for (let at = HEADER; at < message.length;) {
    if (message[at] === 0) return true
    const zero = message.indexOf(0, at + 1)
    if (zero === -1) return false
    at = zero + 1
  }
  return false
}

/** For one connection, from its first message on. */
export const messages = (): Sieve => {
  let rest = Buffer.alloc(0)
  return (chunk) => {
    rest = Buffer.concat([rest, chunk])
    const whole: Array<Buffer> = []
    while (rest.length >= HEADER) {
      const end = 1 + rest.readUInt32BE(1)
      if (end < HEADER) throw new Error(`a message of ${end - 1} bytes`)
      if (rest.length < end) break
      const message = rest.subarray(0, end)
      if (WITH_FIELDS.includes(message.toString("latin1", 0, 1)) && !hasEnd(message)) {
        throw new Error("an error or a notice without its end")
      }
      whole.push(message)
      rest = rest.subarray(end)
    }
    return whole
  }
}
