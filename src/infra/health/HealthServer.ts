/**
 * `/healthz` (the process works) and `/readyz` (it does what it is for) for a kubelet, over plain HTTP: they tell nothing
 * but themselves (https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).
 */
import { Context, Data, Effect, FiberSet, Layer } from "effect"
import { type Server, type ServerResponse, createServer } from "node:http"

/** The port cannot be opened. */
export class HealthServerError extends Data.TaggedError("HealthServerError")<{
  readonly address: string
  readonly detail: string
}> {
  override get message(): string {
    return `health cannot be served at ${this.address}: ${this.detail}; choose another --health-listen`
  }
}

export interface HealthServerOptions {
  readonly host: string
  /** 0 for any free one. */
  readonly port: number
  /** Why it is not ready; nothing when it is. */
  readonly unready: Effect.Effect<string | undefined>
}

/** A kubelet has one connection open; nobody needs many. */
const CONNECTIONS = 64

/** A request that is not complete by then (ms) is dropped. */
const PATIENCE = 5_000

export class HealthServer extends Context.Service<HealthServer, {
  /** The port that is listened on. */
  readonly port: number
}>()("kubeprober/infra/HealthServer") {
  static readonly layer = (options: HealthServerOptions) => Layer.effect(HealthServer, make(options))
}

const make = Effect.fnUntraced(function*({ host, port, unready }: HealthServerOptions) {
  const run = yield* FiberSet.makeRuntime<never>()
  const server = yield* Effect.acquireRelease(
    Effect.callback<Server, HealthServerError>((resume) => {
      const server = createServer({ headersTimeout: PATIENCE, requestTimeout: PATIENCE })
      server.maxConnections = CONNECTIONS
      server.once(
        "error",
        (cause) => resume(Effect.fail(new HealthServerError({ address: `${host}:${port}`, detail: cause.message })))
      )
      server.listen(port, host, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  server.on("request", ({ method, url }, response) => {
    if (method !== "GET" && method !== "HEAD") answer(response, 405, "only GET")
    else if (url === "/healthz") answer(response, 200, "ok")
    else if (url !== "/readyz") answer(response, 404, "there are /healthz and /readyz")
    else {
      run(Effect.map(unready, (reason) => answer(response, reason === undefined ? 200 : 503, reason ?? "ok")))
    }
  })
  const address = server.address()
  return HealthServer.of({ port: typeof address === "object" && address !== null ? address.port : port })
})

const answer = (response: ServerResponse, status: number, text: string): void => {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(`${text}\n`)
}
