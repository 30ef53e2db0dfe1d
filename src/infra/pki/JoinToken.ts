/**
 * Join tokens: what a person carries from the master to a new agent, once.
 *
 * Written `kpj1.<cluster>.<id>.<secret>.<pin>`: the cluster it is for, a name to look it up by, 256 random bits, and
 * the pin of the master's authority, so that the agent knows its master before it says anything. Base64url has no dots.
 */
import { Effect, Redacted, Result } from "effect"
import { MalformedJoinToken } from "./PkiError.ts"

const PREFIX = "kpj1"
/** Names a token among the master's; not secret. */
const ID_BYTES = 9
/** 256 bits: beyond guessing, whatever the rate. */
const SECRET_BYTES = 32
/** A SHA-256 hash. */
const PIN_BYTES = 32

export interface JoinToken {
  readonly cluster: string
  readonly id: string
  readonly secret: Redacted.Redacted<string>
  readonly pin: string
}

/** A new token; what makes it good for anything is that the master keeps it. */
export const generate = (cluster: string, pin: string): Effect.Effect<JoinToken> =>
  Effect.sync(() => ({
    cluster,
    id: randomText(ID_BYTES),
    secret: Redacted.make(randomText(SECRET_BYTES), { label: "join token" }),
    pin
  }))

const randomText = (bytes: number): string =>
  Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("base64url")

/** The text a person carries. */
export const format = ({ cluster, id, pin, secret }: JoinToken): Redacted.Redacted<string> =>
  Redacted.make([PREFIX, cluster, id, Redacted.value(secret), pin].join("."), { label: "join token" })

/** Reads the text; white space around it is what copying leaves. */
export const parse = (text: Redacted.Redacted<string>): Result.Result<JoinToken, MalformedJoinToken> => {
  const parts = Redacted.value(text).trim().split(".")
  const [prefix = "", cluster = "", id = "", secret = "", pin = ""] = parts
  if (prefix !== PREFIX) return malformed(`it does not begin with ${PREFIX}.`)
  if (parts.length !== 5) return malformed(`it has ${parts.length} parts between dots instead of 5`)
  if (!CLUSTER_NAME.test(cluster)) return malformed("its second part is not the name of a cluster")
  if (!isText(id, ID_BYTES)) return malformed("its third part, the id, is damaged")
  if (!isText(secret, SECRET_BYTES)) return malformed("its fourth part, the secret, is damaged")
  if (!isText(pin, PIN_BYTES)) return malformed("its last part, the pin, is damaged")
  return Result.succeed({ cluster, id, secret: Redacted.make(secret, { label: "join token" }), pin })
}

const CLUSTER_NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/u

const malformed = (detail: string): Result.Result<never, MalformedJoinToken> =>
  Result.fail(new MalformedJoinToken({ detail }))

/** Whether the text is exactly what so many bytes are written as. */
const isText = (text: string, bytes: number): boolean => {
  const decoded = Buffer.from(text, "base64url")
  return decoded.length === bytes && decoded.toString("base64url") === text
}
