/** Agents in front of any API server, linked to a master, and what asks the master for them. */
import { Context, Effect, Layer } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import { request as httpsRequest } from "node:https"
import * as KubeGateway from "../../src/agent/KubeGateway.ts"
import type * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Links } from "../../src/infra/link/Links.ts"
import { LinkServer } from "../../src/infra/link/LinkServer.ts"
import { StreamHandler } from "../../src/infra/link/Mux.ts"
import { ApiServer } from "../../src/master/api/ApiServer.ts"
import { Registry } from "../../src/master/Registry.ts"
import { eventually, startAgent } from "../link/fixture.ts"

/** Where kube access is. */
export const front = Effect.map(ApiServer, ({ ca = "", port }) => ({ url: `https://127.0.0.1:${port}`, ca }))

/** Links an agent for this API server as `cluster`; ends with the scope. */
export const link = Effect.fnUntraced(function*(cluster: string, connection: KubeConnection.KubeConnection) {
  const { port } = yield* LinkServer
  const { token } = yield* (yield* Registry).add(cluster, {})
  const streams = Context.get(yield* Layer.build(KubeGateway.layer(connection)), StreamHandler)
  const agent = yield* startAgent({ port, token, streams })
  yield* agent.client.session
  yield* eventually((yield* Links).find(cluster))
  return agent
})

export interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  /** Whether the body came to its end. */
  readonly isWhole: boolean
}

export interface Asked {
  readonly url: string
  readonly ca: string
  /** Sent as it is, whatever it looks like. */
  readonly path: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string | ReadonlyArray<string>>>
  readonly body?: string
  /** Nothing of the body is read. */
  readonly isPaused?: boolean
  /** Called with what has come so far; true to hang up. */
  readonly onData?: (soFar: string) => boolean
}

/** One request, whose answer is read to its end, unless `onData` says otherwise. */
export const ask = (
  { body, ca, headers, isPaused = false, method = "GET", onData, path, url }: Asked
): Effect.Effect<Answered, Error> =>
  Effect.callback((resume) => {
    const { hostname, port } = new URL(url)
    const asked = httpsRequest(
      { hostname, port, path, method, ca, headers: headers as Record<string, string>, agent: false },
      (response) => {
        if (isPaused) return
        let text = ""
        const done = () =>
          resume(Effect.succeed({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: text,
            isWhole: response.complete
          }))
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => {
          text += chunk
          if (onData?.(text) === true) asked.destroy()
        })
        response.on("error", () => {})
        response.on("close", done)
      }
    )
    asked.on("error", (cause) => resume(Effect.fail(cause)))
    asked.end(body)
    return Effect.sync(() => asked.destroy())
  })
