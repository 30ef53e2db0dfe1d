/** Certificates of any validity, past or to come. */
// A polyfill that x509 asks for; there is nothing to name.
// oxlint-disable-next-line import/no-unassigned-import
import "reflect-metadata"
import * as x509 from "@peculiar/x509"
import { DateTime, Duration, Effect } from "effect"
import { X509Certificate } from "node:crypto"
import type { KeyPairPem } from "../../src/local/Certificates.ts"

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }

/**
 * A certificate valid from `age` ago until `left` from now (negative: it has expired), for 127.0.0.1 and localhost,
 * self-signed or by `issuer`. Without a name, self-signed, it has no subject.
 */
export const mint = Effect.fnUntraced(function*(options: {
  readonly commonName?: string
  readonly age: Duration.Input
  readonly left: Duration.Input
  readonly issuer?: KeyPairPem
}): Effect.fn.Return<KeyPairPem> {
  const now = yield* DateTime.now
  const { issuer } = options
  return yield* Effect.promise(async () => {
    const keys = await crypto.subtle.generateKey(P256, true, ["sign", "verify"])
    const signer = issuer === undefined ? undefined : await crypto.subtle.importKey(
      "pkcs8",
      x509.PemConverter.decodeFirst(issuer.key),
      P256,
      false,
      ["sign"]
    )
    const name = options.commonName === undefined ? [] : [{ CN: [options.commonName] }]
    const fields = {
      notBefore: DateTime.toDateUtc(DateTime.subtractDuration(now, Duration.fromInputUnsafe(options.age))),
      notAfter: DateTime.toDateUtc(DateTime.addDuration(now, Duration.fromInputUnsafe(options.left))),
      signingAlgorithm: P256,
      extensions: [
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.SubjectAlternativeNameExtension([
          { type: "ip", value: "127.0.0.1" },
          { type: "dns", value: "localhost" }
        ])
      ]
    }
    const certificate = issuer === undefined || signer === undefined
      ? await x509.X509CertificateGenerator.createSelfSigned({ ...fields, keys, name })
      : await x509.X509CertificateGenerator.create({
        ...fields,
        publicKey: keys.publicKey,
        signingKey: signer,
        subject: name,
        issuer: new x509.X509Certificate(issuer.cert).subjectName
      })
    const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey)
    return { cert: `${certificate.toString("pem")}\n`, key: `${x509.PemConverter.encode(key, "PRIVATE KEY")}\n` }
  })
})

/** The certificate with an end on the 30th day of the month 99: OpenSSL reads it, and trusts it no more. */
export const undated = (cert: string): string => {
  const der = Buffer.from(new X509Certificate(cert).raw)
  // The validity is two UTCTimes, tag 23, of 13 characters (RFC 5280, 4.1.2.5.1).
  const time = Buffer.of(23, 13)
  const start = der.indexOf(time)
  const end = der.indexOf(time, start + 15)
  if (start < 0 || end !== start + 15) throw new Error("the certificate's validity is not where it should be")
  der.write("269930000000Z", end + 2)
  return `${x509.PemConverter.encode(der, "CERTIFICATE")}\n`
}
