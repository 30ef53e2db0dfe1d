/** Whether a port answers, over TCP or UDP. */
import { Context, type Duration, type Effect } from "effect"
import type { AddressRules, NetError } from "./NetError.ts"

export interface Conversation extends AddressRules {
  /** Name or IP address, without brackets. */
  readonly host: string
  readonly port: number
  /** Sent first. */
  readonly send?: Uint8Array | undefined
  /**
   * Whether what was received so far is enough; then no more is waited for. Absent: a TCP connection is enough by itself,
   * and so is any UDP answer.
   */
  readonly enough?: ((received: Uint8Array) => boolean) | undefined
  /** For everything. */
  readonly timeout: Duration.Input
}

export interface Heard {
  /** The IP address that answered. */
  readonly address: string
  /** Over TCP: until the connection stood, the look-up of the name included. Over UDP: until the first answer. */
  readonly took: Duration.Duration
  /** At most 64 KiB. Over TCP also when the other side closed, or fell silent, before it was enough. */
  readonly received: Uint8Array
}

/** Provided by `TcpNode`. */
export class Tcp extends Context.Service<Tcp, {
  /** Connect; send and listen where asked to. The connection is closed afterwards. */
  readonly connect: (conversation: Conversation) => Effect.Effect<Heard, NetError>
  /**
   * Send one datagram and wait for an answer. UDP has no connections: silence (`timeout`) is a port that drops as well as
   * one that has nothing to say; `refused` is told by the other side's ICMP.
   */
  readonly datagram: (conversation: Conversation) => Effect.Effect<Heard, NetError>
}>()("kubeprober/infra/net/Tcp") {}
