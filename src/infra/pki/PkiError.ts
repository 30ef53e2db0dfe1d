/**
 * What can go wrong with keys and certificates. Those a master tells an agent are schemas, the others stay where they
 * happen.
 */
import { Data, Schema } from "effect"

/** Stored or received key material cannot be used. `detail` never holds any of it. */
export class InvalidCredential extends Data.TaggedError("InvalidCredential")<{
  /** A file, a Secret or what sent it. */
  readonly source: string
  readonly detail: string
}> {
  override get message(): string {
    return `the credential in ${this.source} cannot be used: ${this.detail}`
  }
}

/** A store of credentials cannot be read or written. */
export class CredentialStoreError extends Data.TaggedError("CredentialStoreError")<{
  readonly source: string
  readonly operation: "read" | "write"
  readonly detail: string
}> {
  override get message(): string {
    return `cannot ${this.operation} the credential in ${this.source}: ${this.detail}; check that it exists and its permissions`
  }
}

/** The master does not sign this request for a certificate. */
export class CsrRefused extends Schema.TaggedError<CsrRefused>()("CsrRefused", {
  cluster: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `the certificate request for cluster ${this.cluster} was refused: ${this.detail}`
  }
}

/** Why a join token opens nothing. */
export const JoinTokenFault = Schema.Literals(["unknown", "used", "expired", "foreign"])
export type JoinTokenFault = typeof JoinTokenFault.Type

const explanations: Record<JoinTokenFault, string> = {
  unknown: "this master did not issue it",
  used: "it was used already",
  expired: "it has expired",
  foreign: "it was issued for another cluster"
}

/** The join token opens nothing. More than `unknown` is told only to those who know its secret. */
export class JoinTokenRefused extends Schema.TaggedError<JoinTokenRefused>()("JoinTokenRefused", {
  cluster: Schema.String,
  fault: JoinTokenFault
}) {
  override get message(): string {
    return `the join token for cluster ${this.cluster} was refused: ${explanations[this.fault]}; ` +
      `make a new one with kubeprober cluster add ${this.cluster}`
  }
}

/** The text is not a join token. Says what is wrong with its form, never what it contains. */
export class MalformedJoinToken extends Data.TaggedError("MalformedJoinToken")<{ readonly detail: string }> {
  override get message(): string {
    return `this is not a join token: ${this.detail}; copy the whole line kubeprober cluster add printed`
  }
}

/** No certificate the master presented has the key the join token pins: someone sits in between, or it is another master. */
export class PinMismatch extends Data.TaggedError("PinMismatch")<{
  readonly master: string
  readonly expected: string
}> {
  override get message(): string {
    return `${this.master} does not present the authority ${this.expected} that the join token pins; ` +
      `check the master's address and that nothing between ends TLS`
  }
}
