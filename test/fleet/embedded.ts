/** A master and an agent in this process over the real link, for a test cluster: what `kubeprober up` runs. */
import { ConfigProvider, Effect, FileSystem, Option } from "effect"
import * as EmbeddedFleet from "../../src/cli/EmbeddedFleet.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import { TestCluster } from "../clusters/TestCluster.ts"

/** For as long as the scope, with these Probes. */
export const start = Effect.fnUntraced(function*(probes: Readonly<Record<string, ProbeSpec>>) {
  const { cluster } = yield* TestCluster
  const fs = yield* FileSystem.FileSystem
  const home = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-embedded-" })
  const config = yield* KubeConfigFile.load({ path: cluster.kubeconfigPath })
  const connection = yield* config.connection(config.currentContext ?? "")
  const [name = ""] = EmbeddedFleet.clusterNames([connection])
  const { fleet } = yield* EmbeddedFleet.start({
    connections: [connection],
    probes: Object.entries(probes).map(([name, spec]) => ({ name, labels: {}, spec })),
    own: [],
    profile: "observe",
    workerImage: Option.none(),
    probeNamespace: Option.none(),
    state: Option.none(),
    apiPort: 0
  }).pipe(
    // The file by which commands of this user find the master stays theirs.
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ XDG_STATE_HOME: home })))
  )
  return { fleet, name }
})
