import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Option, Path } from "effect"
import * as CheckClusters from "../../src/cli/CheckClusters.ts"
import * as Plan from "../../src/cli/Plan.ts"
import * as Targets from "../../src/cli/Targets.ts"

/** One context whose server refuses, one that names a cluster and one that names a user that is not there. */
const KUBECONFIG = JSON.stringify({
  apiVersion: "v1",
  kind: "Config",
  clusters: [{ name: "c", cluster: { server: "https://127.0.0.1:1" } }],
  users: [{ name: "u", user: { token: "t" } }],
  contexts: [
    { name: "real", context: { cluster: "c", user: "u" } },
    { name: "ghost", context: { cluster: "nowhere", user: "u" } },
    { name: "dead", context: { cluster: "c", user: "nobody" } }
  ]
})

describe("the contexts of a kubeconfig", () => {
  layer(NodeServices.layer, { excludeTestServices: true })((it) => {
    it.effect(
      "that cannot be used are UNKNOWN, and keep nobody from looking at the others",
      () =>
        Effect.gen(function*() {
          const fs = yield* FileSystem.FileSystem
          const path = yield* Path.Path
          const file = path.join(yield* fs.makeTempDirectoryScoped(), "config")
          yield* fs.writeFileString(file, KUBECONFIG)
          const connections = yield* Targets.fromKubeconfig({ kubeconfig: Option.some(file), contexts: [] })
          const { checks, named } = yield* Plan.make({
            only: ["k8s.api.health", "k8s.node.readiness"],
            except: [],
            modules: [],
            manifests: [],
            namespaces: Option.none()
          })
          const result = yield* CheckClusters.run({
            connections,
            checks,
            named,
            profile: "observe",
            probeNamespace: Option.none(),
            workerImage: Option.none(),
            concurrency: 3,
            onEvent: () => Effect.void
          })
          assert.deepStrictEqual(result.clusters.map(({ cluster, status }) => [cluster, status]), [
            ["real", "ERROR"],
            ["ghost", "UNKNOWN"],
            ["dead", "UNKNOWN"]
          ])
          const ghost = result.clusters[1]?.reports.map(({ message }) => message).join()
          assert.include(ghost, "nowhere")
        }),
      60_000
    )
  })
})
