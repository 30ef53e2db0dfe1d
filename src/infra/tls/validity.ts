/** From when until when a certificate is good. */
import { DateTime, Option } from "effect"
import type { X509Certificate } from "node:crypto"

export interface Validity {
  readonly notBefore: DateTime.Utc
  readonly notAfter: DateTime.Utc
}

/** What is wrong with a certificate of which {@link validityOf} tells nothing. */
export const UNREADABLE_DATE = "the certificate has a date that cannot be read"

/** What OpenSSL prints for such a date (`ASN1_TIME_print`). */
const BAD_TIME = "Bad time value"

/** Of a date that cannot be read Node makes one of whatever is in the memory, which may be a valid one: the text decides. */
const read = (text: string, date: Date): Option.Option<DateTime.Utc> =>
  text === BAD_TIME ? Option.none() : DateTime.make(date)

/** Nothing when one of its dates cannot be read: OpenSSL looks at dates only when it verifies. */
export const validityOf = (
  certificate: Pick<X509Certificate, "validFrom" | "validFromDate" | "validTo" | "validToDate">
): Option.Option<Validity> =>
  Option.all({
    notBefore: read(certificate.validFrom, certificate.validFromDate),
    notAfter: read(certificate.validTo, certificate.validToDate)
  })
