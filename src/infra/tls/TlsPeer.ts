/** The certificates TLS servers show. */
import { Context, Data, type DateTime, type Duration, type Effect } from "effect"

/** A certificate as shown, whether or not anybody should trust it. */
export interface ShownCertificate {
  /** RFC 4514, one line: `CN=kube-apiserver`. */
  readonly subject: string
  readonly issuer: string
  readonly notBefore: DateTime.Utc
  readonly notAfter: DateTime.Utc
}

/** No certificate was shown. */
export class TlsPeerError extends Data.TaggedError("TlsPeerError")<{
  readonly host: string
  readonly port: number
  readonly kind: "refused" | "dns" | "timeout" | "reset" | "tls" | "unknown"
  readonly detail: string
}> {
  override get message(): string {
    return `no TLS handshake with ${this.host}:${this.port} (${this.kind}: ${this.detail}); check the address and that it serves TLS`
  }
}

/** Provided by `TlsPeerNode`. */
export class TlsPeer extends Context.Service<TlsPeer, {
  /**
   * The certificates a server shows in a handshake, its own first, at most ten. Nothing is sent after the handshake, so
   * nothing is verified either: use it to judge certificates, never to trust a server.
   */
  readonly certificates: (peer: {
    /** Name or IP address, without brackets. */
    readonly host: string
    readonly port: number
    /** The name to ask for (SNI) when it is not `host`. */
    readonly serverName?: string | undefined
    /** For the whole handshake. */
    readonly timeout: Duration.Input
  }) => Effect.Effect<ReadonlyArray<ShownCertificate>, TlsPeerError>
}>()("kubeprober/infra/tls/TlsPeer") {}
