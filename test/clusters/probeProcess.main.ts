/** The other side of `ProbeProcess.ts`: runs what standard input describes. */
import { Console, DateTime, Duration, Effect, Redacted, Schema } from "effect"
import { readFileSync } from "node:fs"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
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
  expiresInMillis: Schema.Finite,
  workerImage: Schema.optionalKey(Schema.String),
  die: Schema.optionalKey(Schema.Struct({ boundary: Schema.Literals(["create", "delete"]), at: Schema.Int }))
}))

/** Questions about oneself are no objects. */
const QUESTIONS: ReadonlySet<string> = new Set(["SelfSubjectAccessReview", "SelfSubjectRulesReview"])

const dying = (kube: Kube["Service"], die: { readonly boundary: "create" | "delete"; readonly at: number }) => {
  let reached = 0
  const boundary = Effect.suspend(() => {
    if (++reached !== die.at) return Effect.void
    process.kill(process.pid, "SIGKILL")
    return Effect.never
  })
  return Kube.of({
    ...kube,
    create: (resource, manifest, options) =>
      die.boundary === "create" && !QUESTIONS.has(resource.kind) && options?.dryRun !== true
        ? Effect.tap(kube.create(resource, manifest, options), () => boundary)
        : kube.create(resource, manifest, options),
    delete: (resource, ref, options) =>
      die.boundary === "delete"
        ? Effect.andThen(boundary, kube.delete(resource, ref, options))
        : kube.delete(resource, ref, options)
  })
}

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
    missing: [],
    world: ProbeWorld.make(
      input.workerImage === undefined
        ? {}
        : { workers: Effect.succeed({ image: input.workerImage, imagePullPolicy: "Never" }) }
    )
  }).pipe(Effect.provideService(Kube, input.die === undefined ? kube : dying(kube, input.die)))
  yield* Console.log(`${report.status} ${report.message}`)
})

Effect.runPromise(Effect.scoped(program)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  }
)
