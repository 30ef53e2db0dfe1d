/** A master as a process of its own, from its start to its end. */
import { Context, Effect, FileSystem, Layer, Option, Path } from "effect"
import * as Connection from "../client/Connection.ts"
import * as KubeHttp from "../infra/kube/http/KubeHttp.ts"
import { LinkServer } from "../infra/link/LinkServer.ts"
import { ApiServer } from "../master/api/ApiServer.ts"
import * as Master from "../master/Master.ts"
import type { Address } from "./commands/flags.ts"
import * as OneCluster from "./OneCluster.ts"

export interface MasterProcessOptions extends OneCluster.OneClusterOptions {
  readonly resources: "sqlite" | "kubernetes"
  readonly namespace: string
  readonly resourceNamespace: string
  readonly state: string
  readonly linkListen: Address
  readonly linkNames: ReadonlyArray<string>
  readonly apiListen: Address
  readonly apiNames: ReadonlyArray<string>
  readonly healthListen: Option.Option<Address>
}

/** By these this machine reaches itself. */
const LOCAL_NAMES = ["localhost", "127.0.0.1"]

const urlOf = ({ host }: Address, port: number, names: ReadonlyArray<string>): string =>
  `https://${
    names[0] ?? (host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host.includes(":") ? `[${host}]` : host)
  }:${port}`

const masterOptions = (options: MasterProcessOptions): Master.MasterOptions => ({
  state: options.state,
  link: { ...options.linkListen, names: [...options.linkNames, ...LOCAL_NAMES] },
  api: { ...options.apiListen, names: [...options.apiNames, ...LOCAL_NAMES] },
  ...Option.match(options.healthListen, { onNone: () => ({}), onSome: (health) => ({ health }) })
})

/** Leaves the file by which commands of this user find the master, for as long as the scope. */
export const announce = Effect.fn("MasterProcess.announce")(function*(options: {
  readonly server: string
  readonly ca: string | undefined
  /** Where agents link to. */
  readonly link: string
  readonly state: string
}) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = yield* Connection.localFile
  const { ca, link, server, state } = options
  const content = {
    server,
    link,
    tokenFile: path.resolve(state, Master.TOKEN_FILE),
    ...(ca === undefined ? {} : { ca })
  }
  yield* Connection.write(file, content)
  const written = yield* fs.readFileString(file)
  // Another master may have left its own since.
  yield* Effect.addFinalizer(() =>
    fs.readFileString(file).pipe(
      Effect.flatMap((now) => now === written ? fs.remove(file) : Effect.void),
      Effect.ignore
    )
  )
})

/** Serves until it is interrupted. */
export const run = Effect.fn("MasterProcess.run")(function*(options: MasterProcessOptions) {
  const master = options.resources === "sqlite"
    ? Master.layerEmbedded(masterOptions(options))
    : Master.layerKubernetes({ ...masterOptions(options), ...options }).pipe(
      Layer.provide(KubeHttp.layer(yield* OneCluster.connection(options)))
    )
  const context = yield* Layer.build(master)
  const link = urlOf(options.linkListen, Context.get(context, LinkServer).port, options.linkNames)
  const { ca, port } = Context.get(context, ApiServer)
  const server = urlOf(options.apiListen, port, options.apiNames)
  if (options.resources === "sqlite") yield* announce({ server, ca, link, state: options.state })
  yield* Effect.logInfo("the master serves").pipe(Effect.annotateLogs({ link, api: server, state: options.state }))
  return yield* Effect.never
}, Effect.scoped)
