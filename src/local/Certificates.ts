// A polyfill that x509 asks for; there is nothing to name.
// oxlint-disable-next-line import/no-unassigned-import
import "reflect-metadata"
import * as x509 from "@peculiar/x509"
import { DateTime, Duration, Effect } from "effect"
import type { webcrypto } from "node:crypto"

/** A certificate and its private key, both PEM (PKCS #8 for the key). */
export interface KeyPairPem {
  readonly cert: string
  readonly key: string
}

export interface CertificateRequest {
  /** The user name, as Kubernetes reads client certificates. */
  readonly commonName: string
  /** The groups. */
  readonly organizations?: ReadonlyArray<string>
  readonly dnsNames?: ReadonlyArray<string>
  readonly ipAddresses?: ReadonlyArray<string>
  readonly validFor?: Duration.Input
}

/** A certificate authority of one local cluster, in memory for as long as the cluster is. */
export interface CertificateAuthority extends KeyPairPem {
  readonly issue: (request: CertificateRequest) => Effect.Effect<KeyPairPem>
}

/** Local clusters are thrown away; a year is longer than any of them lives. */
const VALID_FOR = Duration.days(365)

/** Both ends of a cluster run on one clock, yet a certificate must be valid in the second of its birth. */
const BACKDATED = Duration.minutes(5)

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }

/** A new self-signed authority (P-256). */
export const makeAuthority = Effect.fnUntraced(function*(commonName: string) {
  const keys = yield* generateKeys
  const now = yield* DateTime.now
  const ca = yield* Effect.promise(() =>
    x509.X509CertificateGenerator.createSelfSigned({
      name: [{ CN: [commonName] }],
      keys,
      notBefore: DateTime.toDateUtc(DateTime.subtractDuration(now, BACKDATED)),
      notAfter: DateTime.toDateUtc(DateTime.addDuration(now, VALID_FOR)),
      signingAlgorithm: P256,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true)
      ]
    })
  )

  const issue = Effect.fnUntraced(function*(request: CertificateRequest) {
    const subject = yield* generateKeys
    const from = yield* DateTime.now
    const alternativeNames = [
      ...(request.dnsNames ?? []).map((value) => ({ type: "dns" as const, value })),
      ...(request.ipAddresses ?? []).map((value) => ({ type: "ip" as const, value }))
    ]
    const certificate = yield* Effect.promise(() =>
      x509.X509CertificateGenerator.create({
        subject: [
          ...(request.organizations ?? []).map((organization) => ({ O: [organization] })),
          { CN: [request.commonName] }
        ],
        issuer: ca.subjectName,
        publicKey: subject.publicKey,
        signingKey: keys.privateKey,
        notBefore: DateTime.toDateUtc(DateTime.subtractDuration(from, BACKDATED)),
        notAfter: DateTime.toDateUtc(
          DateTime.addDuration(from, request.validFor === undefined ? VALID_FOR : request.validFor)
        ),
        signingAlgorithm: P256,
        extensions: [
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([
            x509.ExtendedKeyUsage.serverAuth,
            x509.ExtendedKeyUsage.clientAuth
          ]),
          ...(alternativeNames.length > 0 ? [new x509.SubjectAlternativeNameExtension(alternativeNames)] : [])
        ]
      })
    )
    return { cert: pem(certificate), key: yield* privateKeyPem(subject) }
  })

  const authority: CertificateAuthority = { cert: pem(ca), key: yield* privateKeyPem(keys), issue }
  return authority
})

/** A key pair alone (P-256), for signing service account tokens. */
export const makeSigningKey = Effect.gen(function*() {
  const keys = yield* generateKeys
  const publicKey = yield* Effect.promise(() => crypto.subtle.exportKey("spki", keys.publicKey))
  return { privateKey: yield* privateKeyPem(keys), publicKey: `${x509.PemConverter.encode(publicKey, "PUBLIC KEY")}\n` }
})

const generateKeys = Effect.promise(() => crypto.subtle.generateKey(P256, true, ["sign", "verify"]))

const privateKeyPem = (keys: webcrypto.CryptoKeyPair) =>
  Effect.map(
    Effect.promise(() => crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    (der) => `${x509.PemConverter.encode(der, "PRIVATE KEY")}\n`
  )

const pem = (certificate: x509.X509Certificate): string => `${certificate.toString("pem")}\n`
