/**
 * Why there is no link: it could not be made, was refused, or has ended.
 *
 * Refusals and farewells cross the wire, so they are schemas; what happens on one side stays there.
 */
import { Data, Duration, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { ClusterMismatch, Overloaded, Revoked, Superseded } from "../../domain/rpc/Uplink.ts"
import { CsrRefused, JoinTokenRefused } from "../pki/PkiError.ts"

/** The link was dialled without a client certificate. */
export class CertificateRequired extends Schema.TaggedError<CertificateRequired>()("CertificateRequired", {}) {
  override get message(): string {
    return "a link needs a client certificate; enrol the agent with a join token"
  }
}

export const CertificateFault = Schema.Literals(["expired", "not-yet-valid", "untrusted", "not-an-agent"])
export type CertificateFault = typeof CertificateFault.Type

const faults: Record<CertificateFault, string> = {
  expired: "has expired; enrol the agent again with a new join token",
  "not-yet-valid": "is not valid yet; set the clocks of the agent's and the master's machines",
  untrusted: "was not signed by this master's authority; check the address, or enrol the agent with this master",
  "not-an-agent": "is not an agent's; enrol the agent with a join token"
}

/** The client certificate opens nothing. */
export class CertificateRefused extends Schema.TaggedError<CertificateRefused>()("CertificateRefused", {
  fault: CertificateFault
}) {
  override get message(): string {
    return `the client certificate ${faults[this.fault]}`
  }
}

/** The master has no such cluster: never added, or removed since. */
export class UnknownCluster extends Schema.TaggedError<UnknownCluster>()("UnknownCluster", { cluster: Schema.String }) {
  override get message(): string {
    return `this master has no cluster ${this.cluster}; add it with kubeprober cluster add ${this.cluster}`
  }
}

/** What was sent is not what this endpoint takes. */
export class BadRequest extends Schema.TaggedError<BadRequest>()("BadRequest", {
  status: Schema.Literals([400, 404, 405, 408, 413, 500]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the master does not take this request: ${this.detail}`
  }
}

/** Everything a master answers instead of a certificate or a link. */
export const Refusal = Schema.Union([
  CertificateRequired,
  CertificateRefused,
  UnknownCluster,
  Revoked,
  JoinTokenRefused,
  CsrRefused,
  Overloaded,
  BadRequest
])
export type Refusal = typeof Refusal.Type

/** The HTTP status a refusal is sent with; its body is the refusal in JSON. */
export const statusOf = (refusal: Refusal): number => {
  switch (refusal._tag) {
    case "CertificateRequired":
    case "CertificateRefused":
      return 401
    case "UnknownCluster":
    case "Revoked":
    case "JoinTokenRefused":
      return 403
    case "CsrRefused":
      return 422
    case "Overloaded":
      return 503
    case "BadRequest":
      return refusal.status
  }
}

/** The certificate of a live link ran out before it was renewed. */
export class CertificateExpired extends Schema.TaggedError<CertificateExpired>()("CertificateExpired", {}) {
  override get message(): string {
    return "the certificate of this link has run out without being renewed"
  }
}

/** The peer stops, or moves its links elsewhere; come back. */
export class Draining extends Schema.TaggedError<Draining>()("Draining", { retryAfter: DurationString }) {
  override get message(): string {
    return "the peer is shutting down"
  }
}

/** What one end tells the other when it ends a link. */
export const Farewell = Schema.Union([
  Superseded,
  Revoked,
  UnknownCluster,
  ClusterMismatch,
  CertificateExpired,
  Draining
])
export type Farewell = typeof Farewell.Type

/** Nothing was heard for so long that the peer must be gone. */
export class PeerSilent extends Data.TaggedClass("PeerSilent")<{ readonly silence: Duration.Duration }> {}

/** The connection was closed or broke. */
export class PeerGone extends Data.TaggedClass("PeerGone")<{ readonly detail: string }> {}

/** The peer did what the protocol does not allow. */
export class ProtocolFault extends Data.TaggedClass("ProtocolFault")<{ readonly detail: string }> {}

/** The peer ended it and said why. */
export class PeerLeft extends Data.TaggedClass("PeerLeft")<{ readonly farewell: Farewell }> {}

/** We ended it and said why. */
export class Left extends Data.TaggedClass("Left")<{ readonly farewell: Farewell }> {}

export type CloseReason = PeerSilent | PeerGone | ProtocolFault | PeerLeft | Left

const because = (reason: CloseReason): string => {
  switch (reason._tag) {
    case "PeerSilent":
      return `a ping was not answered for ${Duration.toSeconds(reason.silence)} s, nor anything else heard`
    case "PeerGone":
    case "ProtocolFault":
      return reason.detail
    case "PeerLeft":
    case "Left":
      return reason.farewell.message
  }
}

/** The link is over. Whatever was in flight may or may not have happened at the peer. */
export class LinkClosed extends Data.TaggedError("LinkClosed")<{
  /** The cluster, or the master seen from an agent. */
  readonly peer: string
  readonly reason: CloseReason
}> {
  override get message(): string {
    return `the link with ${this.peer} has ended: ${because(this.reason)}; it comes back by itself`
  }
}

/** No connection to the master. */
export class MasterUnreachable extends Data.TaggedError("MasterUnreachable")<{
  readonly master: string
  readonly kind: "dns" | "refused" | "reset" | "timeout" | "tls" | "answer" | "unknown"
  readonly detail: string
}> {
  override get message(): string {
    return `the master at ${this.master} cannot be reached (${this.kind}): ${this.detail}; ` +
      `check the address, the network and what is between`
  }
}

/** The master's address is not one a link may be made to. */
export class InvalidMaster extends Data.TaggedError("InvalidMaster")<{
  readonly master: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.master} is not the address of a master: ${this.detail}; write it like https://master.example:8443`
  }
}

/** The master's port cannot be opened. */
export class ListenFailed extends Data.TaggedError("ListenFailed")<{
  readonly address: string
  readonly detail: string
}> {
  override get message(): string {
    return `cannot listen on ${this.address}: ${this.detail}; choose another address or stop what uses this one`
  }
}

/** There is no certificate to dial with and no join token to get one. */
export class NotEnrolled extends Data.TaggedError("NotEnrolled")<{ readonly master: string }> {
  override get message(): string {
    return `this agent is not enrolled with ${this.master}, or its certificate has run out; ` +
      `give it a join token from kubeprober cluster add`
  }
}

/** No link to this cluster now. */
export class NotLinked extends Data.TaggedError("NotLinked")<{ readonly cluster: string }> {
  override get message(): string {
    return `there is no link to cluster ${this.cluster} now; see that its agent runs and reaches this master`
  }
}
