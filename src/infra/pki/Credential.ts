/**
 * A certificate with its private key and the authorities it is used with, and their PEM form at rest: the key, the
 * certificate, the authorities, one after the other, as openssl reads and writes them.
 */
import { Effect, Redacted } from "effect"
import { X509Certificate, createHash, createPrivateKey } from "node:crypto"
import { InvalidCredential } from "./PkiError.ts"

export interface Credential {
  /** PEM. */
  readonly certificate: string
  /** PKCS #8 PEM. */
  readonly key: Redacted.Redacted<string>
  /** Certificates of the authorities that peers are checked against, PEM; empty for an authority itself. */
  readonly authorities: string
}

/**
 * The pin of a certificate's key: SHA-256 over the DER of its SubjectPublicKeyInfo (RFC 7469 section 2.4), base64url
 * without padding, 43 characters.
 */
export const pinOf = (certificate: X509Certificate): string =>
  createHash("sha256").update(certificate.publicKey.export({ type: "spki", format: "der" })).digest("base64url")

/** Reads the first certificate of a PEM text. */
export const readCertificate = (pem: string, source: string): Effect.Effect<X509Certificate, InvalidCredential> =>
  Effect.try({
    try: () => new X509Certificate(pem),
    catch: () => new InvalidCredential({ source, detail: "there is no X.509 certificate in PEM" })
  })

/** Fails unless the private key is the certificate's own. */
export const verify = Effect.fnUntraced(function*(credential: Credential, source: string) {
  const certificate = yield* readCertificate(credential.certificate, source)
  const key = yield* Effect.try({
    try: () => createPrivateKey(Redacted.value(credential.key)),
    catch: () => new InvalidCredential({ source, detail: "there is no private key in PEM" })
  })
  if (!certificate.checkPrivateKey(key)) {
    return yield* new InvalidCredential({ source, detail: "the private key is not the certificate's" })
  }
  return credential
})

const block = /-----BEGIN ([A-Z0-9 ]+)-----[A-Za-z0-9+/=\s]+-----END \1-----/gu

/** Reads the PEM form. Blocks of other kinds are skipped; the first certificate is the credential's own. */
export const fromBundle = Effect.fnUntraced(function*(text: Redacted.Redacted<string>, source: string) {
  const blocks = [...Redacted.value(text).matchAll(block)]
  const [certificate = "", ...authorities] = blocks.filter(([, kind]) => kind === "CERTIFICATE").map(([pem]) =>
    `${pem}\n`
  )
  const key = blocks.find(([, kind]) => kind === "PRIVATE KEY")?.[0] ?? ""
  return yield* verify({
    certificate,
    key: Redacted.make(`${key}\n`, { label: "private key" }),
    authorities: authorities.join("")
  }, source)
})

/** The PEM form. */
export const toBundle = (credential: Credential): Redacted.Redacted<string> =>
  Redacted.make(`${Redacted.value(credential.key)}${credential.certificate}${credential.authorities}`, {
    label: "credential"
  })
