/** Certificates in PEM (RFC 7468). */
import { Result } from "effect"
import { X509Certificate } from "node:crypto"

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/gu

/** Each certificate of a text in turn, or why it cannot be read; what stands between them is left out. */
export const certificatesOf = (text: string): ReadonlyArray<Result.Result<X509Certificate, unknown>> =>
  (text.match(CERTIFICATE) ?? []).map((pem) => Result.try(() => new X509Certificate(pem)))
