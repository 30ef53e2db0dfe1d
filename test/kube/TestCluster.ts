/** A real control plane for a test file, and ways to reach it as different users. */
import { Effect, Layer, Redacted } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import * as Local from "../../src/local/Local.ts"
import { LocalCluster, type LocalClusterOptions } from "../../src/local/LocalCluster.ts"

/** The cluster and, as its administrator, `Kube`; the process id in its name keeps runs of the tests side by side apart. */
export const layer = (name: string, options: Omit<LocalClusterOptions, "name"> = {}) =>
  Layer.unwrap(Effect.map(LocalCluster, (cluster) => KubeHttp.layer(admin(cluster)))).pipe(
    Layer.provideMerge(LocalCluster.layer({ ...options, name: `${name}-${process.pid}` })),
    Layer.provideMerge(Local.layer),
    Layer.orDie
  )

export const admin = (cluster: LocalCluster["Service"], server = cluster.server): KubeConnection.KubeConnection =>
  KubeConnection.make({
    cluster: cluster.name,
    server,
    identity: {
      tls: { ca: cluster.caCertPem, cert: cluster.adminCertPem, key: Redacted.make(cluster.adminKeyPem) }
    }
  })

/** As a user without any rights but those of everyone. */
export const user = Effect.fnUntraced(function*(cluster: LocalCluster["Service"], name: string) {
  const pair = yield* cluster.issueClientCertificate({ user: name })
  return KubeConnection.make({
    cluster: cluster.name,
    server: cluster.server,
    identity: { tls: { ca: cluster.caCertPem, cert: pair.cert, key: Redacted.make(pair.key) } }
  })
})

/** As whoever a bearer token is. */
export const bearer = (cluster: LocalCluster["Service"], token: string): KubeConnection.KubeConnection =>
  KubeConnection.make({
    cluster: cluster.name,
    server: cluster.server,
    identity: { tls: { ca: cluster.caCertPem }, authorization: Redacted.make(`Bearer ${token}`) }
  })
