/**
 * Trust by pin: finds the authority a join token pins among what the master presents.
 *
 * Nothing is said over the connection that finds it. The certificate it returns is then the only root the agent trusts,
 * and every later connection is verified by TLS in the usual way.
 */
import { Effect } from "effect"
import { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import { type DetailedPeerCertificate, type TLSSocket, connect } from "node:tls"
import { pinOf } from "./Credential.ts"
import { PinMismatch } from "./PkiError.ts"

/** A chain longer than this is no master's. */
const MAX_CHAIN = 8

/** The pinned authority's certificate, PEM. `E` is how the caller tells that the master was not reached. */
export const findAuthority = <E>(options: {
  readonly master: URL
  readonly pin: string
  readonly onUnreachable: (cause: Error) => E
}): Effect.Effect<string, E | PinMismatch> => {
  const { hostname, host, port } = options.master
  const name = hostname.replace(/^\[(.*)\]$/u, "$1")
  const handshake = (socket: TLSSocket) =>
    Effect.callback<void, E>((resume) => {
      socket.once("secureConnect", () => resume(Effect.void))
      socket.once("error", (cause) => resume(Effect.fail(options.onUnreachable(cause))))
      socket.once("close", () =>
        resume(Effect.fail(options.onUnreachable(new Error("the connection ended before the TLS handshake did")))))
    })
  // Made and only then waited for: what is acquired cannot be interrupted, and a peer may never answer.
  return Effect.acquireUseRelease(
    Effect.sync(() =>
      connect({
        host: name,
        port: port === "" ? 443 : Number(port),
        ...(isIP(name) === 0 && { servername: name }),
        minVersion: "TLSv1.3",
        rejectUnauthorized: false
      }).on("error", () => {
        // Whoever waits listens too; without a listener Node would end the process.
      })
    ),
    Effect.fnUntraced(function*(socket) {
      yield* handshake(socket)
      const pinned = chainOf(socket).find((certificate) => certificate.ca && pinOf(certificate) === options.pin)
      if (pinned === undefined) return yield* new PinMismatch({ master: host, expected: options.pin })
      return pinned.toString()
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
}

const chainOf = (socket: TLSSocket): ReadonlyArray<X509Certificate> => {
  const chain: Array<X509Certificate> = []
  let current: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (current?.raw !== undefined && chain.length < MAX_CHAIN) {
    chain.push(new X509Certificate(current.raw))
    // A root is its own issuer.
    current = current.issuerCertificate === current ? undefined : current.issuerCertificate
  }
  return chain
}
