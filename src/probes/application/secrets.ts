/** Secrets in requests: referred to in configurations, sent, and taken out again of everything that is told. */
import { Effect, Redacted, Schema } from "effect"
import type { Finding } from "../../domain/Report.ts"
import { type CredentialMissing, type CredentialRef, Credentials } from "../../infra/credentials/Credentials.ts"
import { CredentialRef as CredentialRefSchema } from "../CredentialRef.ts"
import * as Outcome from "../Outcome.ts"

/** A secret by reference, as configurations have it. */
export const SecretValue = Schema.Struct({
  ...CredentialRefSchema.fields,
  prefix: Schema.optionalKey(Schema.String.annotate({ description: "Stands before the secret, such as \"Bearer \"." }))
})

/** What a secret's place is taken by. */
const REDACTED = "[redacted]"

const base64 = (text: string): ReadonlyArray<string> => {
  const full = Buffer.from(text).toString("base64")
  return [full, full.replace(/=+$/u, ""), Buffer.from(text).toString("base64url")]
}

/** A secret as it may come back in an answer: as it is, in a URL, in a form, in JSON, in HTML, in base64. */
const forms = (secret: string): ReadonlyArray<string> => {
  const uri = encodeURIComponent(secret)
  return [
    secret,
    uri,
    uri.replaceAll("%20", "+"),
    new URLSearchParams([["", secret]]).toString().slice(1),
    JSON.stringify(secret).slice(1, -1),
    secret.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;"),
    ...base64(secret)
  ]
}

/** The text without any of the secrets, in whichever of their forms. */
export const redact = (secrets: Iterable<string>, text: string): string =>
  [...new Set([...secrets].flatMap(forms))]
    .filter((form) => form !== "")
    // A secret that is part of another must not leave the rest of it.
    .sort((a, b) => b.length - a.length)
    .reduce((rest, form) => rest.replaceAll(form, REDACTED), text)

/** The secrets of one run, from where they are read to where they are taken out. */
export interface Secrets {
  /** Read a credential; from now on its value is taken out of texts. */
  readonly read: (ref: CredentialRef) => Effect.Effect<Redacted.Redacted<string>, CredentialMissing>
  /** Take this out as well: a token that was handed to us. */
  readonly hide: (value: string) => void
  readonly redact: (text: string) => string
}

export const make: Effect.Effect<Secrets, never, Credentials> = Effect.map(
  Effect.service(Credentials),
  (credentials) => {
    const known = new Set<string>()
    return {
      read: (ref) =>
        Effect.tap(credentials.read(ref), (value) => Effect.sync(() => void known.add(Redacted.value(value)))),
      hide: (value) => void known.add(value),
      redact: (text) => redact(known, text)
    }
  }
)

const redactFinding = (secrets: Secrets) => (finding: Finding): Finding => ({
  ...finding,
  message: secrets.redact(finding.message),
  ...(finding.subject === undefined
    ? {}
    : { subject: { ...finding.subject, name: secrets.redact(finding.subject.name) } }),
  ...(finding.evidence === undefined ? {} : {
    evidence: Object.fromEntries(
      Object.entries(finding.evidence).map((
        [name, fact]
      ) => [name, typeof fact === "string" ? secrets.redact(fact) : fact])
    )
  })
})

/** An outcome in which no secret is left. */
export const redactOutcome = (secrets: Secrets, outcome: Outcome.Outcome): Outcome.Outcome =>
  Outcome.make(secrets.redact(outcome.summary), outcome.findings.map(redactFinding(secrets)))
