/**
 * The master's side of becoming and staying a member: certificates against a join token, and for those who have one.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { X509Certificate } from "node:crypto"
import type { Revoked } from "../../domain/rpc/Uplink.ts"
import type { AgentName } from "../pki/AgentName.ts"
import { CertificateAuthority } from "../pki/CertificateAuthority.ts"
import { JoinTokens } from "../pki/JoinTokens.ts"
import type { CsrRefused, JoinTokenRefused } from "../pki/PkiError.ts"
import type { UnknownCluster } from "./LinkError.ts"
import { Membership } from "./Membership.ts"
import { Csr, type SignedCertificate } from "./Renewal.ts"

/** Where an agent enrols: POST, JSON, without a client certificate. */
export const ENROL_PATH = "/v1/enrol"

/** What an agent sends to enrol. The token travels in the body: URLs and headers end up in logs. */
export const EnrolmentRequest = Schema.Struct({
  cluster: Schema.String.check(Schema.isMaxCodePoints(63)),
  token: Schema.Struct({
    id: Schema.String.check(Schema.isMaxCodePoints(64)),
    secret: Schema.RedactedFromValue(Schema.String.check(Schema.isMaxCodePoints(64)))
  }),
  csr: Csr
})
export type EnrolmentRequest = typeof EnrolmentRequest.Type

export class Enrolments extends Context.Service<Enrolments, {
  readonly enrol: (
    request: EnrolmentRequest
  ) => Effect.Effect<SignedCertificate, JoinTokenRefused | CsrRefused | Revoked | UnknownCluster>
  /** A further certificate for who has one already. */
  readonly renew: (
    name: AgentName,
    csr: string
  ) => Effect.Effect<SignedCertificate, CsrRefused | Revoked | UnknownCluster>
}>()("kubeprober/link/Enrolments") {
  static readonly layer = Layer.effect(
    Enrolments,
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const tokens = yield* JoinTokens
      const membership = yield* Membership

      const sign = Effect.fnUntraced(function*({ cluster, uid }: AgentName, csr: string) {
        const certificate = yield* authority.signAgent({ csr, cluster, uid })
        return { certificate, authorities: authority.certificate }
      })

      const enrol = Effect.fn("Enrolments.enrol")(function*({ cluster, csr, token }: EnrolmentRequest) {
        const presented = { cluster, ...token }
        // Who has no token learns nothing of which clusters there are; a request that is refused spends none.
        yield* tokens.check(presented)
        const member = yield* membership.find(cluster)
        const signed = yield* sign(member, csr)
        yield* tokens.spend(presented, publicKeyOf(signed.certificate))
        yield* Effect.logInfo("an agent has enrolled").pipe(Effect.annotateLogs({ cluster, token: token.id }))
        return signed
      })

      const renew = Effect.fn("Enrolments.renew")(function*(name: AgentName, csr: string) {
        return yield* sign(yield* membership.admit(name), csr)
      })

      return Enrolments.of({ enrol, renew })
    })
  )
}

const publicKeyOf = (certificate: string): Uint8Array =>
  new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" })
