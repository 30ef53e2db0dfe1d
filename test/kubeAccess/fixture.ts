/** A master's kube access over TLS, and agents linked to it, in front of any API server. */
import { NodeServices } from "@effect/platform-node"
import { Context, Effect, FiberSet, FileSystem, Layer, Path, Redacted, type Scope } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import { type Server, createServer, request as httpsRequest } from "node:https"
import type { AddressInfo } from "node:net"
import * as KubeGateway from "../../src/agent/KubeGateway.ts"
import type * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Links } from "../../src/infra/link/Links.ts"
import { LinkServer } from "../../src/infra/link/LinkServer.ts"
import { Membership } from "../../src/infra/link/Membership.ts"
import { StreamHandler } from "../../src/infra/link/Mux.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { JoinTokenStore } from "../../src/infra/pki/JoinTokens.ts"
import * as Sqlite from "../../src/infra/sql/Sqlite.ts"
import type { Authentication } from "../../src/master/api/Authentication.ts"
import type { Authorization } from "../../src/master/api/Authorization.ts"
import * as Fleet from "../../src/master/Fleet.ts"
import * as HistorySqlite from "../../src/master/history/HistorySqlite.ts"
import { KubeAccess } from "../../src/master/KubeAccess.ts"
import { Registry } from "../../src/master/Registry.ts"
import * as ResourcesSqlite from "../../src/master/resources/ResourcesSqlite.ts"
import { eventually, startAgent } from "../link/fixture.ts"
import { memoryStore } from "../pki/memoryStore.ts"

/** Where a test's files are, for as long as its master. */
export class Folder extends Context.Service<Folder, { readonly path: string }>()("kubeprober/test/Folder") {
  static readonly layer = Layer.effect(
    Folder,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      return { path: yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" }) }
    })
  ).pipe(Layer.provide(NodeServices.layer))
}

const state = Layer.unwrap(Effect.gen(function*() {
  const path = yield* Path.Path
  const { path: folder } = yield* Folder
  return Layer.mergeAll(ResourcesSqlite.layer({ namespace: "default" }), HistorySqlite.layer()).pipe(
    Layer.provide(Sqlite.layer({ file: path.join(folder, "master.db") }))
  )
})).pipe(Layer.provide(NodeServices.layer))

/** A master up to who may do what with it. */
export const masterWith = <E, R>(access: Layer.Layer<Authentication | Authorization, E, R>) =>
  KubeAccess.layer.pipe(
    Layer.provide(access),
    Layer.provideMerge(Fleet.layer({ host: "127.0.0.1", port: 0, names: ["127.0.0.1", "localhost"] })),
    Layer.provide(state),
    Layer.provideMerge(Membership.layerMemory()),
    Layer.provide(JoinTokenStore.layerMemory),
    Layer.provideMerge(CertificateAuthority.layer),
    Layer.provide(memoryStore),
    Layer.provideMerge(Folder.layer)
  )

/** Kube access on a port of its own, as the master's API serves it. */
export const listen = Effect.gen(function*() {
  const authority = yield* CertificateAuthority
  const { handle } = yield* KubeAccess
  const { authorities, certificate, key } = yield* authority.issueServer(["127.0.0.1"])
  const run = yield* FiberSet.makeRuntime<never>()
  const server = yield* Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      const server = createServer({ cert: certificate, key: Redacted.value(key) }, (request, response) => {
        run(handle(request, response))
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
  const { port } = server.address() as AddressInfo
  return { url: `https://127.0.0.1:${port}`, ca: authorities }
})

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

export type AccessServices = Layer.Success<ReturnType<typeof masterWith>> | Scope.Scope
