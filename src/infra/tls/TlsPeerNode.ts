/** {@link TlsPeer} with Node's TLS. */
import { DateTime, Duration, Effect, Layer } from "effect"
import type { X509Certificate } from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { type ShownCertificate, TlsPeer, TlsPeerError } from "./TlsPeer.ts"

/** Chains in use have two or three. */
const MAXIMUM_CHAIN = 10

const KINDS: ReadonlyArray<readonly [RegExp, TlsPeerError["kind"]]> = [
  [/^ECONNREFUSED$/, "refused"],
  [/^(ENOTFOUND|EAI_\w+)$/, "dns"],
  [/^ETIMEDOUT$/, "timeout"],
  [/^(ECONNRESET|EPIPE)$/, "reset"],
  [/^(ERR_SSL_.+|ERR_TLS_\w+|EPROTO)$/, "tls"]
]

const oneLine = (name: string): string => name.split("\n").toReversed().join(",")

const shown = (certificate: X509Certificate): ShownCertificate => ({
  subject: oneLine(certificate.subject),
  issuer: oneLine(certificate.issuer),
  notBefore: DateTime.fromDateUnsafe(certificate.validFromDate),
  notAfter: DateTime.fromDateUnsafe(certificate.validToDate)
})

/** A certificate and its issuers as shown, at most {@link MAXIMUM_CHAIN}. */
export const chainOf = (leaf: X509Certificate | undefined): ReadonlyArray<ShownCertificate> => {
  const chain: Array<ShownCertificate> = []
  for (
    let certificate = leaf;
    certificate !== undefined && chain.length < MAXIMUM_CHAIN;
    certificate = certificate.issuerCertificate
  ) chain.push(shown(certificate))
  return chain
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
        const chain = chainOf(socket.getPeerX509Certificate())
        socket.destroy()
        resume(
          chain.length > 0 ? Effect.succeed(chain) : Effect.fail(failure("tls", "the server showed no certificate"))
        )
      })
      socket.on("error", (error: NodeJS.ErrnoException) => {
        const code = error.code ?? ""
        const kind = KINDS.find(([pattern]) => pattern.test(code))?.[1] ?? "unknown"
        resume(Effect.fail(failure(kind, code === "" ? error.message : `${code}, ${error.message}`)))
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
