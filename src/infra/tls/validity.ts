/** From when until when a certificate is good. */
import { DateTime, Option } from "effect"
import type { X509Certificate } from "node:crypto"

export interface Validity {
  readonly notBefore: DateTime.Utc
  readonly notAfter: DateTime.Utc
}

/** What is wrong with a certificate of which {@link validityOf} tells nothing. */
export const UNREADABLE_DATE = "the certificate has a date that cannot be read"

/** Nothing when one of its dates cannot be read: OpenSSL looks at dates only when it verifies. */
export const validityOf = ({ validFromDate, validToDate }: X509Certificate): Option.Option<Validity> =>
  Option.all({ notBefore: DateTime.make(validFromDate), notAfter: DateTime.make(validToDate) })
