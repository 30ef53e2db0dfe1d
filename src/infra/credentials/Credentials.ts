/**
 * Credentials of the services that probes ask, by reference (docs/decisions/0009-credentials.md).
 *
 * A configuration holds `{ credential: "shop-db", key: "password" }`, never the secret itself; what stands behind it is
 * read at each run, so that a rotated one is used at once.
 */
import { Context, Data, type Effect, type Redacted } from "effect"

/** One value of one credential: a Secret's name and a key of its data, where Secrets are mounted. */
export interface CredentialRef {
  readonly credential: string
  readonly key: string
}

/** There is no such value, or it cannot be read. Holds where it was looked for, never what was found. */
export class CredentialMissing extends Data.TaggedError("CredentialMissing")<{
  readonly credential: string
  readonly key: string
  /** Where it should be; empty when the names themselves are not allowed. */
  readonly path: string
  readonly detail: string
}> {
  override get message(): string {
    const at = this.path === "" ? "" : ` at ${this.path}`
    return `no key ${JSON.stringify(this.key)} of credential ${
      JSON.stringify(this.credential)
    }${at}: ${this.detail}; ` +
      "mount the Secret of that name into the agent, or name another folder with --credentials"
  }
}

/** A name of a Secret: RFC 1123 subdomain (https://kubernetes.io/docs/concepts/configuration/secret/). */
export const CREDENTIAL_NAME = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/u

/** A key of a Secret's data. Names that begin with two dots are the kubelet's own. */
export const CREDENTIAL_KEY = /^(?=.{1,253}$)(?!\.{1,2}$)(?!\.\.)[-._a-zA-Z0-9]+$/u

/** Provided by `CredentialsNode`. */
export class Credentials extends Context.Service<Credentials, {
  /** The value now, without a line break at its end. */
  readonly read: (ref: CredentialRef) => Effect.Effect<Redacted.Redacted<string>, CredentialMissing>
}>()("kubeprober/infra/credentials/Credentials") {}
