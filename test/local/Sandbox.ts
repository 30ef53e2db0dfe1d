/** Local clusters with a state folder of their own, so that tests see nothing of other clusters of this user. */
import { NodeServices } from "@effect/platform-node"
import { ConfigProvider, Context, Effect, FileSystem, Layer } from "effect"
import * as Local from "../../src/local/Local.ts"

export class Sandbox extends Context.Service<Sandbox, {
  /** The folder of all clusters. */
  readonly state: string
  /** The environment that makes a process use this sandbox. */
  readonly environment: Record<string, string | undefined>
}>()("kubeprober/test/local/Sandbox") {
  static readonly layer = (environment: Record<string, string | undefined> = {}) =>
    Layer.unwrap(Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const home = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
      const own = { ...process.env, XDG_STATE_HOME: home, ...environment }
      return Local.layer.pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(own))),
        Layer.merge(Layer.succeed(Sandbox, { state: `${home}/kubeprober/local`, environment: own }))
      )
    })).pipe(Layer.provide(NodeServices.layer))
}
