/** A fleet on this machine, for when no cluster is at hand: started, told about, and gone with the scope. */
import { Effect, Redacted } from "effect"
import * as KubeConnection from "../infra/kube/KubeConnection.ts"
import * as Kubeconfig from "../local/Kubeconfig.ts"
import { LocalCluster } from "../local/LocalCluster.ts"
import * as LocalProgress from "./LocalProgress.ts"
import { note } from "./Screen.ts"

/** One with a real node where this machine allows it, one control plane beside it: the smallest fleet there is. */
const FLEET = [{ name: "local-1", nodes: 1 }, { name: "local-2", nodes: 0 }] as const

/** How to look into the clusters, for as long as they are there. */
export const access = (
  clusters: ReadonlyArray<{ readonly name: string; readonly kubeconfigPath: string }>
): ReadonlyArray<string> => [
  `Look into ${clusters.length === 1 ? "it" : "them"} from another terminal:`,
  ...clusters.map(({ kubeconfigPath, name }) =>
    `  kubectl --kubeconfig ${kubeconfigPath} --context ${Kubeconfig.contextName(name)} get namespaces`
  )
]

/** Start the fleet; the scope ends it. */
export const start = Effect.fn("LocalTargets.start")(function*() {
  const onProgress = yield* LocalProgress.reporter
  const startMember = (name: string, nodes: number) =>
    LocalCluster.make({ name, nodes, onProgress }).pipe(
      Effect.catchTag("NodeUnsupported", (unsupported) =>
        note([`${unsupported.message} ${name} is a control plane without a node.`]).pipe(
          Effect.andThen(LocalCluster.make({ name, nodes: 0, onProgress }))
        ))
    )
  const clusters = yield* Effect.forEach(FLEET, ({ name, nodes }) =>
    startMember(name, nodes).pipe(
      // Another fleet of this user runs already; this one stands beside it.
      Effect.catchTag("ClusterExists", () => startMember(`${name}-${process.pid}`, nodes))
    ), { concurrency: FLEET.length })
  yield* note(["", ...access(clusters), ""])
  return clusters.map((cluster) =>
    KubeConnection.make({
      cluster: cluster.name,
      server: cluster.server,
      identity: {
        tls: { ca: cluster.caCertPem, cert: cluster.adminCertPem, key: Redacted.make(cluster.adminKeyPem) }
      }
    })
  )
})
