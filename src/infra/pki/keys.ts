/**
 * P-256 keys (FIPS 186-5) and their PEM forms, by WebCrypto.
 */
import { Effect, Redacted } from "effect"
import { createPrivateKey, createPublicKey, type webcrypto } from "node:crypto"
import { InvalidCredential } from "./PkiError.ts"
import * as x509 from "./x509.ts"

export const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }

/** A new key pair. */
export const generate: Effect.Effect<webcrypto.CryptoKeyPair> = Effect.promise(() =>
  crypto.subtle.generateKey(P256, true, ["sign", "verify"])
)

/** The private key as PKCS #8 PEM. */
export const toPem = (key: webcrypto.CryptoKey): Effect.Effect<Redacted.Redacted<string>> =>
  Effect.map(
    Effect.promise(() => crypto.subtle.exportKey("pkcs8", key)),
    (der) => Redacted.make(`${x509.PemConverter.encode(der, "PRIVATE KEY")}\n`, { label: "private key" })
  )

/** A key pair from a P-256 private key, PEM. The private half cannot be exported again. */
export const fromPem = (
  pem: Redacted.Redacted<string>,
  source: string
): Effect.Effect<webcrypto.CryptoKeyPair, InvalidCredential> =>
  Effect.tryPromise({
    try: async () => {
      const key = createPrivateKey(Redacted.value(pem))
      const spki = createPublicKey(key).export({ type: "spki", format: "der" })
      const pkcs8 = key.export({ type: "pkcs8", format: "der" })
      const [privateKey, publicKey] = await Promise.all([
        crypto.subtle.importKey("pkcs8", pkcs8, P256, false, ["sign"]),
        crypto.subtle.importKey("spki", spki, P256, true, ["verify"])
      ])
      return { privateKey, publicKey }
    },
    // The cause may quote its input.
    catch: () => new InvalidCredential({ source, detail: "the private key is not a P-256 key in PEM" })
  })
