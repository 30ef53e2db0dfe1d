/** The other side of `ProbeProcess.ts`: runs what standard input describes. */
import { Console, DateTime, Duration, Effect, Redacted, Schema } from "effect"
import { readFileSync } from "node:fs"
import * as Runner from "../../src/agent/Runner.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"

const Input = Schema.fromJsonString(Schema.Struct({
  cluster: Schema.String,
  server: Schema.String,
  ca: Schema.String,
  cert: Schema.String,
  key: Schema.String,
  probe: Schema.String,
  config: Schema.Unknown,
  runId: Schema.String,
  namespace: Schema.String,
  expiresInMillis: Schema.Finite
}))

const program = Effect.gen(function*() {
  const input = yield* Schema.decodeUnknownEffect(Input)(readFileSync(0, "utf8"))
  const probe = yield* Effect.fromNullishOr(catalogue.find(({ id }) => id === input.probe))
  const kube = yield* KubeHttp.make(KubeConnection.make({
    cluster: input.cluster,
    server: input.server,
    identity: { tls: { ca: input.ca, cert: input.cert, key: Redacted.make(input.key) } }
  }))
  const { report } = yield* Runner.run({ _tag: "Check", name: probe.id, probe, with: input.config }, {
    context: {
      runId: input.runId,
      probeNamespace: input.namespace,
      expiresAt: DateTime.addDuration(yield* DateTime.now, Duration.millis(input.expiresInMillis))
    },
    missing: []
  }).pipe(Effect.provideService(Kube, kube))
  yield* Console.log(`${report.status} ${report.message}`)
})

Effect.runPromise(Effect.scoped(program)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  }
)
