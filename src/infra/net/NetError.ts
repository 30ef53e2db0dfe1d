/** Why an exchange over the network failed, told so that blame can be decided: the other side's doing, or ours. */
import { Data } from "effect"
import type { ShownCertificate } from "../tls/TlsPeer.ts"

/**
 * What happened: the name has no address, or nobody tells it (`dns`), the port refuses (`refused`), the connection was cut
 * (`reset`), nothing came in time or nobody is at the address (`timeout`), no route leads there or something on our side
 * forbids it (`unreachable`), the address is one that is not asked by default (`forbidden`, see {@link AddressRules}), no
 * trusted TLS session came about (`tls`), the answer is not of the protocol (`protocol`), or it is none of these and says
 * nothing of the other side (`unknown`).
 */
export type NetErrorKind =
  | "dns"
  | "refused"
  | "reset"
  | "timeout"
  | "unreachable"
  | "forbidden"
  | "tls"
  | "protocol"
  | "unknown"

/** How far it came: looking up the name, connecting, the TLS handshake, the answer. */
export type NetStage = "name" | "connect" | "handshake" | "answer"

/** Nothing of what was sent is in it. */
export class NetError extends Data.TaggedError("NetError")<{
  /** `host:port`. */
  readonly target: string
  readonly kind: NetErrorKind
  readonly stage: NetStage
  readonly detail: string
  /** As Node or OpenSSL calls it, such as `ECONNREFUSED` or `CERT_HAS_EXPIRED`. */
  readonly code?: string | undefined
  /** The server's own, when it has shown one that is not trusted. */
  readonly certificate?: ShownCertificate | undefined
}> {
  override get message(): string {
    return `${this.target}: ${this.detail} (${this.kind}, at the stage ${this.stage})`
  }
}

/**
 * Which addresses are asked. Names are judged by the addresses they resolve to, in the very look-up that is dialled, so no
 * second answer of a name server leads elsewhere.
 */
export interface AddressRules {
  /**
   * Also link-local addresses and those where clouds serve the credentials of their machines: a URL in a configuration, or
   * a redirect, must not make a prober read these for somebody.
   */
  readonly allowLinkLocal?: boolean | undefined
}
