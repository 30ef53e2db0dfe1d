/** {@link EtcdGateway} with Node's HTTP. */
import { Duration, Effect, Redacted } from "effect"
import * as Http from "node:http"
import * as Https from "node:https"
import * as Net from "node:net"
import { IN_SHORT, type SocketFault, codeOf, socketFaultOf } from "../net/socketFault.ts"
import { type EtcdAnswer, EtcdGateway, type EtcdTarget, EtcdUnanswered, endpointOf } from "./EtcdGateway.ts"

const KINDS: Readonly<Record<SocketFault, EtcdUnanswered["kind"]>> = {
  ...IN_SHORT,
  unroutable: "unreachable",
  expired: "expired",
  protocol: "protocol"
}

const agentOf = ({ tls, url }: EtcdTarget): Http.Agent => {
  const options = { keepAlive: true, maxSockets: 2 }
  if (url.protocol !== "https:") return new Http.Agent(options)
  const { ca, certificate, key, serverName } = tls ?? {}
  const host = serverName ?? hostOf(url)
  return new Https.Agent({
    ...options,
    ...(ca === undefined ? {} : { ca }),
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key: Redacted.value(key) }),
    // A name only: RFC 6066 section 3 knows no addresses here, and Node checks the certificate by the host then.
    ...(Net.isIP(host) === 0 ? { servername: host } : {})
  })
}

/** Without the brackets of IPv6. */
const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/gu, "")

/** Stateless but for the connections of each scope. */
export const service = EtcdGateway.of({
  connect: Effect.fnUntraced(function*(target) {
    const { url } = target
    const endpoint = endpointOf(url)
    const unanswered = (kind: EtcdUnanswered["kind"], detail: string) => new EtcdUnanswered({ endpoint, kind, detail })
    const failure = (error: Error) => {
      const code = codeOf(error)
      return unanswered(KINDS[socketFaultOf(code)], code === "" ? error.message : `${code}, ${error.message}`)
    }
    // A key that is none, or not the certificate's, is told when it is first used; here it would be a crash.
    const made = yield* Effect.acquireRelease(
      Effect.sync(() => ({ agent: undefined as Http.Agent | undefined })),
      ({ agent }) => Effect.sync(() => agent?.destroy())
    )
    const start = url.protocol === "https:" ? Https.request : Http.request

    return {
      endpoint,
      ask: ({ body, maximumBody, method, path, timeout }) =>
        Effect.callback<EtcdAnswer, EtcdUnanswered>((resume) => {
          let request: Http.ClientRequest
          try {
            made.agent ??= agentOf(target)
            request = start({
              agent: made.agent,
              host: hostOf(url),
              port: url.port === "" ? undefined : url.port,
              method,
              path,
              headers: {
                accept: "*/*",
                ...(body === undefined ? {} : {
                  "content-type": "application/json",
                  "content-length": String(Buffer.byteLength(body))
                })
              }
            })
          } catch (cause) {
            // The key or certificate cannot be read: `secureContext` is made with the first socket.
            resume(Effect.fail(unanswered("tls", cause instanceof Error ? cause.message : String(cause))))
            return Effect.void
          }
          request.on("error", (error) => resume(Effect.fail(failure(error))))
          request.on("response", (response) => {
            const chunks: Array<Buffer> = []
            let length = 0
            const done = (truncated: boolean) =>
              resume(Effect.succeed({
                status: response.statusCode ?? 0,
                body: Buffer.concat(chunks).subarray(0, maximumBody).toString("utf8"),
                truncated
              }))
            response.on("data", (chunk: Buffer) => {
              chunks.push(chunk)
              length += chunk.length
              if (length > maximumBody) {
                done(true)
                request.destroy()
              }
            })
            response.on("end", () => done(false))
            response.on("error", (error) => resume(Effect.fail(failure(error))))
          })
          request.end(body)
          return Effect.sync(() => request.destroy())
        }).pipe(
          Effect.timeoutOrElse({
            duration: timeout,
            orElse: () =>
              Effect.fail(
                unanswered("timeout", `no answer within ${Duration.format(Duration.fromInputUnsafe(timeout))}`)
              )
          })
        )
    }
  })
})
