/** {@link Credentials} from a folder: `<folder>/<credential>/<key>`, as the kubelet mounts Secrets. */
import { Effect, Redacted } from "effect"
import { readFile, stat } from "node:fs/promises"
import { join } from "node:path"
import { CREDENTIAL_KEY, CREDENTIAL_NAME, CredentialMissing, Credentials } from "./Credentials.ts"

/** Where `deploy/agent/components/credentials` mounts Secrets. */
export const FOLDER = "/etc/kubeprober/credentials"

/** A Secret holds at most 1 MiB (https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size). */
const MAXIMUM_BYTES = 1024 * 1024

const WHY: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "there is no such folder",
  EISDIR: "that is no file",
  EFBIG: `it is longer than ${MAXIMUM_BYTES} bytes`,
  EACCES: "the agent may not read it",
  EPERM: "the agent may not read it"
}

/** Not opened before it is known to be a file: reading a pipe would not end. */
const readText = async (path: string): Promise<string> => {
  const found = await stat(path)
  if (!found.isFile()) throw Object.assign(new Error("no file"), { code: "EISDIR" })
  if (found.size > MAXIMUM_BYTES) throw Object.assign(new Error("too large"), { code: "EFBIG" })
  return await readFile(path, "utf8")
}

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown cause"

/** Keeps nothing: each read is of the file as it is then. */
export const make = (folder: string = FOLDER): Credentials["Service"] =>
  Credentials.of({
    read: Effect.fn("Credentials.read")(function*(ref) {
      const named = CREDENTIAL_NAME.test(ref.credential) && CREDENTIAL_KEY.test(ref.key)
      const path = named ? join(folder, ref.credential, ref.key) : ""
      const missing = (detail: string) =>
        new CredentialMissing({ credential: ref.credential, key: ref.key, path, detail })
      if (!named) return yield* missing("a name may hold letters, digits, dashes and dots, as a Secret's and its keys")
      const text = yield* Effect.tryPromise({
        try: () => readText(path),
        catch: (cause) => missing(WHY[codeOf(cause)] ?? codeOf(cause))
      })
      // Files made with an editor or `echo` end in one, and no service has it in its password.
      const value = text.replace(/\r?\n$/u, "")
      if (value === "") return yield* missing("it is empty")
      return Redacted.make(value)
    })
  })
