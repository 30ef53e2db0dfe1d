/** How a configuration names a secret, without holding it (docs/decisions/0009-credentials.md). */
import { Schema } from "effect"
import { CREDENTIAL_KEY, CREDENTIAL_NAME } from "../infra/credentials/Credentials.ts"

/** As people write it: `{ credential: shop-db, key: password }`. */
export const CredentialRef = Schema.Struct({
  credential: Schema.String.check(
    Schema.isPattern(CREDENTIAL_NAME, { message: "a credential has a Secret's name: a-z, 0-9, dashes and dots" })
  ),
  key: Schema.String.check(
    Schema.isPattern(CREDENTIAL_KEY, { message: "a key is one of a Secret's data: letters, digits, dashes, dots, _" })
  )
})
export type CredentialRef = typeof CredentialRef.Type
