/**
 * The seam between a link and what carries it: one reliable, ordered, full-duplex byte stream, dialled by the agent.
 *
 * Both transports (WebSocket, and later HTTP/2 on the TLS socket itself) begin as an HTTP/1.1 Upgrade over mutual TLS on
 * the master's port and pass the same tests.
 */
import { Context, type Effect, type Scope } from "effect"
import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"
import type { Credential } from "../pki/Credential.ts"
import type { MasterUnreachable, Refusal } from "./LinkError.ts"

/** The bytes of one link. Destroying the stream ends it. */
export interface Connection {
  readonly duplex: Duplex
  /** Bytes received so far: any of them shows that the peer lives. */
  readonly received: () => number
}

export class Transport extends Context.Service<Transport, {
  /** Agent: connects to `https://host:port`, with the agent's certificate, trusting its authorities alone. */
  readonly dial: (
    master: URL,
    credential: Credential
  ) => Effect.Effect<Connection, MasterUnreachable | Refusal, Scope.Scope>
  /** Master: answers the Upgrade request of an agent that was authenticated. */
  readonly accept: (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer
  ) => Effect.Effect<Connection, Refusal, Scope.Scope>
}>()("kubeprober/link/Transport") {}

/** Where links are dialled. */
export const LINK_PATH = "/v1/link"

/** TCP, TLS and HTTP together must be done by then; an attacker's slow handshake holds no more than that. */
export const HANDSHAKE_TIMEOUT = 10_000
