/** A master with its API served over HTTPS, its state in an SQLite file. */
import { NodeServices } from "@effect/platform-node"
import { Context, Effect, FileSystem, Layer, Path, Redacted, type Scope } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import { request as httpsRequest } from "node:https"
import { FleetClient } from "../../../src/client/FleetClient.ts"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { CertificateAuthority } from "../../../src/infra/pki/CertificateAuthority.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import { ApiServer, type ApiServerOptions } from "../../../src/master/api/ApiServer.ts"
import { Authentication } from "../../../src/master/api/Authentication.ts"
import { Authorization } from "../../../src/master/api/Authorization.ts"
import * as Fleet from "../../../src/master/Fleet.ts"
import * as HistorySqlite from "../../../src/master/history/HistorySqlite.ts"
import { KubeAccess } from "../../../src/master/KubeAccess.ts"
import * as ResourcesSqlite from "../../../src/master/resources/ResourcesSqlite.ts"
import { memoryStore } from "../../pki/memoryStore.ts"

/** Where a test's files are, for as long as its master. */
export class Folder extends Context.Service<Folder, {
  readonly tokenFile: string
  readonly database: string
}>()("kubeprober/test/ApiFolder") {
  static readonly layer = Layer.effect(
    Folder,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
      return { tokenFile: path.join(folder, "state", "token"), database: path.join(folder, "master.db") }
    })
  ).pipe(Layer.provide(NodeServices.layer))
}

const state = Layer.unwrap(Effect.gen(function*() {
  const { database } = yield* Folder
  return Layer.mergeAll(ResourcesSqlite.layer({ namespace: "default" }), HistorySqlite.layer()).pipe(
    Layer.provide(Sqlite.layer({ file: database }))
  )
})).pipe(Layer.provide(NodeServices.layer))

/** As the embedded master decides who may do what: one token, in a file. */
export const embedded = Layer.mergeAll(
  Layer.unwrap(Effect.map(Folder, ({ tokenFile }) => Authentication.layerToken(tokenFile))).pipe(
    Layer.provide(NodeServices.layer)
  ),
  Authorization.layerAdmin
)

const here = { host: "127.0.0.1", port: 0, names: ["127.0.0.1", "localhost"] }

/** A master, with its API. */
export const apiWith = <E, R>(
  access: Layer.Layer<Authentication | Authorization, E, R>,
  options: Partial<ApiServerOptions> = {}
) =>
  ApiServer.layer({ ...here, ...options }).pipe(
    Layer.provide(NodeServices.layer),
    Layer.provide(KubeAccess.layer),
    Layer.provideMerge(access),
    Layer.provideMerge(Fleet.layer(here)),
    Layer.provideMerge(state),
    Layer.provideMerge(Membership.layerMemory()),
    Layer.provide(JoinTokenStore.layerMemory),
    Layer.provideMerge(CertificateAuthority.layer),
    Layer.provide(memoryStore),
    Layer.provideMerge(Folder.layer)
  )

/** The client of whoever has this token; of the administrator when absent. Ends with the scope. */
export const clientOf = Effect.fnUntraced(function*(token?: string) {
  const { ca, port } = yield* ApiServer
  const context = yield* Layer.build(Layer.fresh(FleetClient.layer({
    server: `https://127.0.0.1:${port}`,
    token: Redacted.make(token ?? (yield* tokenOf)),
    ca
  })))
  return Context.get(context, FleetClient)
})

/** What is in the token file. */
export const tokenOf = Effect.gen(function*() {
  const { tokenFile } = yield* Folder
  const fs = yield* FileSystem.FileSystem
  return (yield* fs.readFileString(tokenFile)).trim()
}).pipe(Effect.orDie, Effect.provide(NodeServices.layer))

export interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** One plain request. */
export const ask = Effect.fnUntraced(function*(options: {
  readonly path: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}) {
  const { ca, port } = yield* ApiServer
  const { body, headers = {}, method = "GET", path } = options
  return yield* Effect.callback<Answered>((resume) => {
    const request = httpsRequest({ host: "127.0.0.1", port, ca, path, method, headers, agent: false }, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("close", () =>
        resume(Effect.succeed({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString()
        })))
    })
    request.on("error", (cause) => resume(Effect.die(cause)))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })
})

export type ApiServices = Layer.Success<ReturnType<typeof apiWith>> | Scope.Scope
