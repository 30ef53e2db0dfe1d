/** The certificate that the API server of a test's cluster shows, to be replaced while it runs. */
import { Effect, FileSystem, Path } from "effect"
import { TestCluster } from "./TestCluster.ts"

export interface Pair {
  readonly cert: string
  readonly key: string
}

export const servingCertificate = Effect.gen(function*() {
  const { cluster } = yield* TestCluster
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = path.join(path.dirname(cluster.kubeconfigPath), "control-plane")
  const read = (file: string) => fs.readFileString(path.join(folder, file))
  return {
    /** Of the cluster's authority. */
    issuer: { cert: yield* read("ca.crt"), key: yield* read("ca.key") } satisfies Pair,
    /** What it shows at first. */
    serving: { cert: yield* read("apiserver.crt"), key: yield* read("apiserver.key") } satisfies Pair,
    /** The API server loads its certificate again when the files change. */
    serve: (pair: Pair) =>
      Effect.andThen(
        fs.writeFileString(path.join(folder, "apiserver.key"), pair.key),
        fs.writeFileString(path.join(folder, "apiserver.crt"), pair.cert)
      )
  }
})
