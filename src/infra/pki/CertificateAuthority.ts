/**
 * The master's certificate authority: signs client certificates for agents and server certificates for masters.
 *
 * One authority serves a fleet. Its key is made at the first start and kept in the {@link CredentialStore}; masters that
 * share the store share the authority, whichever of them makes it.
 */
import { Context, DateTime, Duration, Effect, Layer, Option } from "effect"
import type { webcrypto } from "node:crypto"
import { isIP } from "node:net"
import { sanOf } from "./AgentName.ts"
import { type Credential, pinOf, readCertificate } from "./Credential.ts"
import { CredentialStore } from "./CredentialStore.ts"
import * as Keys from "./keys.ts"
import { CsrRefused, InvalidCredential } from "./PkiError.ts"
import * as x509 from "./x509.ts"

/** The longest life of an agent's certificate: what a stolen one is good for. */
export const AGENT_CERTIFICATE_LIFE = Duration.hours(24)

/** Masters take a new one at two thirds of its life. */
export const SERVER_CERTIFICATE_LIFE = Duration.days(7)

const AUTHORITY_LIFE = Duration.days(3650)

/** How much a peer's clock may be behind ours without finding a new certificate not valid yet. */
const BACKDATED = Duration.minutes(5)

/** The name under which the {@link CredentialStore} keeps the authority. */
export const CREDENTIAL = "kubeprober-authority"

/** What an agent asks to be certified as. */
export interface AgentRequest {
  /** PKCS #10, PEM. Its subject must be exactly `CN=<cluster>`. */
  readonly csr: string
  readonly cluster: string
  /** The uid the master knows the cluster by; goes into the certificate. */
  readonly uid: string
  /** At most, and by default, {@link AGENT_CERTIFICATE_LIFE}. */
  readonly validFor?: Duration.Duration | undefined
}

export class CertificateAuthority extends Context.Service<CertificateAuthority, {
  /** The authority's own certificate, PEM. */
  readonly certificate: string
  /** What join tokens carry: the hash of the authority's public key. */
  readonly pin: string
  /** A client certificate, PEM, for the key that signed the request. */
  readonly signAgent: (request: AgentRequest) => Effect.Effect<string, CsrRefused>
  /** A server certificate and its new key, for these DNS names and IP addresses. */
  readonly issueServer: (names: ReadonlyArray<string>) => Effect.Effect<Credential>
}>()("kubeprober/pki/CertificateAuthority") {
  /** The stored authority; made when there is none. */
  static readonly layer = Layer.effect(
    CertificateAuthority,
    Effect.gen(function*() {
      const store = yield* CredentialStore
      const stored = yield* store.read(CREDENTIAL)
      return yield* load(Option.isSome(stored) ? stored.value : yield* store.create(CREDENTIAL, yield* makeRoot))
    })
  )
}

/** A new self-signed authority. */
const makeRoot: Effect.Effect<Credential> = Effect.gen(function*() {
  const keys = yield* Keys.generate
  const now = yield* DateTime.now
  const certificate = yield* Effect.promise(async () =>
    x509.X509CertificateGenerator.createSelfSigned({
      name: [{ CN: ["kubeprober authority"] }],
      keys,
      notBefore: DateTime.toDateUtc(DateTime.subtractDuration(now, BACKDATED)),
      notAfter: DateTime.toDateUtc(DateTime.addDuration(now, AUTHORITY_LIFE)),
      signingAlgorithm: Keys.P256,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey)
      ]
    })
  )
  return { certificate: pem(certificate), key: yield* Keys.toPem(keys.privateKey), authorities: "" }
})

const load = Effect.fnUntraced(function*(credential: Credential) {
  const certificate = yield* readCertificate(credential.certificate, CREDENTIAL)
  if (!certificate.ca) {
    return yield* new InvalidCredential({ source: CREDENTIAL, detail: "its certificate is not an authority's" })
  }
  const keys = yield* Keys.fromPem(credential.key, CREDENTIAL)
  const issuer = new x509.X509Certificate(credential.certificate)
  const end = DateTime.fromDateUnsafe(issuer.notAfter)

  const issue = Effect.fnUntraced(function*(subject: {
    readonly name: string
    readonly publicKey: webcrypto.CryptoKey
    readonly validFor: Duration.Input
    readonly usage: x509.ExtendedKeyUsage
    readonly alternativeNames: x509.JsonGeneralNames
  }) {
    const now = yield* DateTime.now
    const notAfter = DateTime.min(DateTime.addDuration(now, subject.validFor), end)
    const issued = yield* Effect.promise(async () =>
      x509.X509CertificateGenerator.create({
        subject: [{ CN: [subject.name] }],
        issuer: issuer.subjectName,
        publicKey: subject.publicKey,
        signingKey: keys.privateKey,
        notBefore: DateTime.toDateUtc(DateTime.subtractDuration(now, BACKDATED)),
        notAfter: DateTime.toDateUtc(notAfter),
        signingAlgorithm: Keys.P256,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          // Of one use each: an agent's certificate must not pass for a master's.
          new x509.ExtendedKeyUsageExtension([subject.usage]),
          new x509.SubjectAlternativeNameExtension(subject.alternativeNames),
          await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
          await x509.SubjectKeyIdentifierExtension.create(subject.publicKey)
        ]
      })
    )
    return pem(issued)
  })

  const signAgent = Effect.fn("CertificateAuthority.signAgent")(function*(request: AgentRequest) {
    const publicKey = yield* acceptCsr(request)
    return yield* issue({
      name: request.cluster,
      publicKey,
      validFor: Duration.min(request.validFor ?? AGENT_CERTIFICATE_LIFE, AGENT_CERTIFICATE_LIFE),
      usage: x509.ExtendedKeyUsage.clientAuth,
      alternativeNames: [{ type: "url", value: sanOf(request.uid) }]
    })
  })

  const issueServer = Effect.fn("CertificateAuthority.issueServer")(function*(names: ReadonlyArray<string>) {
    const subject = yield* Keys.generate
    const issued = yield* issue({
      name: "kubeprober master",
      publicKey: subject.publicKey,
      validFor: SERVER_CERTIFICATE_LIFE,
      usage: x509.ExtendedKeyUsage.serverAuth,
      alternativeNames: names.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }))
    })
    return {
      certificate: issued,
      key: yield* Keys.toPem(subject.privateKey),
      authorities: credential.certificate
    }
  })

  return CertificateAuthority.of({
    certificate: credential.certificate,
    pin: pinOf(certificate),
    signAgent,
    issueServer
  })
})

/** The key a request is for. The master decides every name: a request that asks for another is refused, not corrected. */
const acceptCsr = Effect.fnUntraced(function*({ cluster, csr }: AgentRequest) {
  const refuse = (detail: string) => new CsrRefused({ cluster, detail })
  const request = yield* Effect.try({
    try: () => new x509.Pkcs10CertificateRequest(csr),
    catch: () => refuse("it is not PKCS #10 in PEM")
  })
  if (request.subject !== `CN=${cluster}`) return yield* refuse(`its subject is not exactly CN=${cluster}`)
  if (request.extensions.length > 0) return yield* refuse("it asks for extensions; names are the master's to give")
  const publicKey = yield* Effect.tryPromise({
    try: () => crypto.subtle.importKey("spki", request.publicKey.rawData, Keys.P256, true, ["verify"]),
    catch: () => refuse("its key is not a P-256 key")
  })
  const proven = yield* Effect.tryPromise({
    try: () => request.verify(),
    catch: () => refuse("its signature cannot be checked")
  })
  if (!proven) return yield* refuse("it is not signed with its own key")
  return publicKey
})

const pem = (certificate: x509.X509Certificate): string => `${certificate.toString("pem")}\n`
