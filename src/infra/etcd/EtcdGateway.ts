/**
 * The way to members of etcd: their HTTP gateway, which takes the messages of the gRPC API as JSON
 * (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/), and their `/metrics`.
 */
import { Context, Data, type Duration, type Effect, type Redacted, type Scope } from "effect"

/** How an address is called: `host:port`. */
export const endpointOf = (url: URL): string =>
  `${url.hostname}:${url.port === "" ? url.protocol === "https:" ? 443 : 80 : url.port}`

/** One member's client address, and how it is told that we may ask. */
export interface EtcdTarget {
  /** `http:` or `https:`; the path is not used. */
  readonly url: URL
  readonly tls?: {
    /** PEM of the authorities to trust instead of the runtime's own. */
    readonly ca?: string | undefined
    /** Our own certificate, PEM. */
    readonly certificate?: string | undefined
    readonly key?: Redacted.Redacted<string> | undefined
    /** The name to ask for and to find in the member's certificate, when it is not the URL's. */
    readonly serverName?: string | undefined
  } | undefined
}

/** Any status is an answer. */
export interface EtcdAnswer {
  readonly status: number
  /** As UTF-8, cut at the asked length. */
  readonly body: string
  readonly truncated: boolean
}

/**
 * Nobody answered. `dns`: the name has no address. `refused`, `reset`, `timeout`, `unreachable`: as the network says.
 * `tls`: one side does not trust the other; `expired`: because a certificate in the member's chain is out of date.
 * `protocol`: what came is not HTTP.
 */
export class EtcdUnanswered extends Data.TaggedError("EtcdUnanswered")<{
  /** `host:port`. */
  readonly endpoint: string
  readonly kind: "dns" | "refused" | "reset" | "timeout" | "unreachable" | "tls" | "expired" | "protocol" | "unknown"
  readonly detail: string
}> {
  override get message(): string {
    return `${this.endpoint}: ${this.detail} (${this.kind})`
  }
}

/** Asks one member over connections that are kept, so that only the first request pays for a handshake. */
export interface EtcdConnection {
  /** `host:port`. */
  readonly endpoint: string
  readonly ask: (request: {
    readonly method: "GET" | "POST"
    /** From `/` on. */
    readonly path: string
    /** JSON. */
    readonly body?: string | undefined
    readonly timeout: Duration.Input
    /** Bytes of the answer that are read at most. */
    readonly maximumBody: number
  }) => Effect.Effect<EtcdAnswer, EtcdUnanswered>
}

/** Provided by `EtcdGatewayNode`. */
export class EtcdGateway extends Context.Service<EtcdGateway, {
  /** Nothing is sent before the first request; connections are closed with the scope. */
  readonly connect: (target: EtcdTarget) => Effect.Effect<EtcdConnection, never, Scope.Scope>
}>()("kubeprober/infra/etcd/EtcdGateway") {}
