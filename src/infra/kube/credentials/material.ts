/** Certificates, keys and tokens from files, which others replace while we run. */
import { Effect, FileSystem } from "effect"
import { CredentialsUnavailable } from "../KubeConnection.ts"

/** How long what was read stands: client-go looks at tokens each minute (transport/token_source.go, period). */
export const REREAD = "1 minute"

/** Certificates are looked at more often: a pair written file by file is only whole for a moment later. */
export const REREAD_CERTIFICATES = "10 seconds"

/** No credential is larger; a file that is was named by mistake. */
const MAXIMUM = 1024 * 1024

/** The text of a file, as it is now. */
export const readFile = Effect.fnUntraced(function*(cluster: string, path: string) {
  const fs = yield* FileSystem.FileSystem
  const fail = (detail: string) => new CredentialsUnavailable({ cluster, source: path, detail })
  const readable = Effect.mapError((error: { readonly reason: { readonly _tag: string } }) =>
    fail(error.reason._tag === "NotFound" ? "there is no such file" : `it cannot be read (${error.reason._tag})`)
  )
  const info = yield* readable(fs.stat(path))
  if (info.size > MAXIMUM) return yield* fail(`it is larger than ${MAXIMUM} bytes`)
  const text = yield* readable(fs.readFileString(path))
  return text.trim() === "" ? yield* fail("it is empty") : text
})

/** A token file, whose end of line is no part of the token. */
export const readToken = (cluster: string, path: string) => Effect.map(readFile(cluster, path), (text) => text.trim())
