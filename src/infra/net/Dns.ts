/** Names: asked of a certain server, or as programs of this machine or pod ask. */
import { Context, type Duration, type Effect } from "effect"
import type { NetError } from "./NetError.ts"

export interface DnsQuestion {
  readonly name: string
  readonly type: "A" | "AAAA"
  /** An IP address. */
  readonly server: string
  readonly port: number
  readonly protocol: "udp" | "tcp"
  readonly timeout: Duration.Input
}

export interface DnsAnswer {
  /** As in RFC 1035 and its registry: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`. */
  readonly code: string
  /** Addresses among the answers. */
  readonly addresses: ReadonlyArray<string>
  readonly took: Duration.Duration
}

/** What `/etc/resolv.conf` says (resolv.conf(5)). */
export interface Resolver {
  readonly servers: ReadonlyArray<string>
  readonly search: ReadonlyArray<string>
}

/** Provided by `DnsNode`. */
export class Dns extends Context.Service<Dns, {
  /** One question, one answer, whatever its code; only no answer is an error. */
  readonly ask: (question: DnsQuestion) => Effect.Effect<DnsAnswer, NetError>
  /** As `getaddrinfo` does: search list and files included. A name without addresses is an error of kind `dns`. */
  readonly system: (
    name: string,
    timeout: Duration.Input
  ) => Effect.Effect<{ readonly addresses: ReadonlyArray<string>; readonly took: Duration.Duration }, NetError>
  /** Empty lists when the file is not there. */
  readonly resolver: Effect.Effect<Resolver>
}>()("kubeprober/infra/net/Dns") {}
