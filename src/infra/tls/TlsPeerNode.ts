/** {@link TlsPeer} with Node's TLS. */
import { Duration, Effect, Layer, Option, Result } from "effect"
import type { X509Certificate } from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { IN_SHORT, type SocketFault, codeOf, socketFaultOf } from "../net/socketFault.ts"
import { type ShownCertificate, TlsPeer, TlsPeerError } from "./TlsPeer.ts"
import { UNREADABLE_DATE, validityOf } from "./validity.ts"

/** Chains in use have two or three. */
const MAXIMUM_CHAIN = 10

const KINDS: Readonly<Record<SocketFault, TlsPeerError["kind"]>> = {
  ...IN_SHORT,
  unroutable: "unknown",
  protocol: "tls"
}

/** Node has no text of an empty name, which a certificate may have whose names are all alternative ones (RFC 5280, 4.1.2.6). */
const oneLine = (name: string | undefined): string => (name ?? "").split("\n").toReversed().join(",")

/** A certificate and its issuers as shown, at most {@link MAXIMUM_CHAIN}; or what is wrong with one of them. */
export const chainOf = (
  leaf: X509Certificate | undefined
): Result.Result<ReadonlyArray<ShownCertificate>, typeof UNREADABLE_DATE> => {
  const chain: Array<ShownCertificate> = []
  for (
    let certificate = leaf;
    certificate !== undefined && chain.length < MAXIMUM_CHAIN;
    certificate = certificate.issuerCertificate
  ) {
    const validity = validityOf(certificate)
    if (Option.isNone(validity)) return Result.fail(UNREADABLE_DATE)
    chain.push({ subject: oneLine(certificate.subject), issuer: oneLine(certificate.issuer), ...validity.value })
  }
  return Result.succeed(chain)
}

/** Stateless: each call is one connection, closed when the handshake is done. */
export const service = TlsPeer.of({
  certificates: Effect.fn("TlsPeer.certificates")(({ host, port, serverName, timeout }) => {
    const failure = (kind: TlsPeerError["kind"], detail: string) => new TlsPeerError({ host, port, kind, detail })
    const name = serverName ?? host
    return Effect.callback<ReadonlyArray<ShownCertificate>, TlsPeerError>((resume) => {
      const socket = Tls.connect({
        host,
        port,
        ...(Net.isIP(name) === 0 ? { servername: name } : {}),
        // The question is when a certificate expires, also of one that has, or whose issuer we do not know.
        rejectUnauthorized: false
      })
      socket.once("secureConnect", () => {
        const leaf = socket.getPeerX509Certificate()
        socket.destroy()
        // Not here: what is thrown in a listener ends the process.
        resume(Effect.suspend(() =>
          Result.match(chainOf(leaf), {
            onFailure: (detail) => Effect.fail(failure("tls", detail)),
            onSuccess: (chain) =>
              chain.length > 0 ? Effect.succeed(chain) : Effect.fail(failure("tls", "the server showed no certificate"))
          })
        ))
      })
      socket.on("error", (error) => {
        const code = codeOf(error)
        resume(
          Effect.fail(failure(KINDS[socketFaultOf(code)], code === "" ? error.message : `${code}, ${error.message}`))
        )
      })
      socket.once("close", () => resume(Effect.fail(failure("reset", "the connection ended before the handshake did"))))
      return Effect.sync(() => socket.destroy())
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(failure("timeout", `no handshake within ${Duration.format(Duration.fromInputUnsafe(timeout))}`))
      })
    )
  })
})

export const layer = Layer.succeed(TlsPeer, service)
