/** An agent that delivers as fast as it is let, and posts the same bytes to a plain HTTP server for comparison. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { DateTime, Duration, Effect, Redacted, References, Schema } from "effect"
import { Agent, request } from "node:http"
import { text } from "node:stream/consumers"
import { fromFindings } from "../../src/domain/Report.ts"
import { RunRecord } from "../../src/domain/Run.ts"
import { startAgent } from "../../test/link/fixture.ts"

const Input = Schema.fromJsonString(Schema.Struct({
  link: Schema.Int,
  http: Schema.Int,
  token: Schema.String,
  batches: Schema.Int,
  size: Schema.Int
}))

const keepAlive = new Agent({ keepAlive: true, maxSockets: 1 })

const post = (port: number, body: string) =>
  Effect.callback<void, Error>((resume) => {
    const sent = request({ host: "127.0.0.1", port, agent: keepAlive, method: "POST" }, (response) => {
      response.resume().on("end", () => resume(Effect.void))
    })
    sent.on("error", (cause) => resume(Effect.fail(cause))).end(body)
  })

const encode = Schema.encodeSync(Schema.fromJsonString(Schema.Array(RunRecord)))

Effect.gen(function*() {
  const { batches, http, link, size, token } = yield* Schema.decodeEffect(Input)(
    yield* Effect.promise(() => text(process.stdin))
  )
  const { client } = yield* startAgent({ port: link, token: Redacted.make(token) })
  const { uplink } = yield* client.session
  const { epoch } = yield* uplink.register({
    clusterUid: "bench",
    boot: "bench",
    versions: { kubernetes: "v1.35.4", agent: "bench" },
    capabilities: []
  })
  const startedAt = yield* DateTime.now
  // Each batch is one run of many checkers; they pass, as nearly all do.
  const batch = (run: number): ReadonlyArray<RunRecord> =>
    Array.from({ length: size }, (_, checker) => ({
      run: `bench-${run}`,
      probe: { namespace: "kubeprober", name: `probe-${checker % 50}` },
      layer: "kubernetes",
      trigger: "schedule",
      report: fromFindings({
        checker: `checker-${checker}`,
        findings: [],
        summary: "3 of 3 nodes are ready",
        startedAt: DateTime.addDuration(startedAt, Duration.seconds(run)),
        duration: 12
      }),
      standing: { status: "PASS", since: startedAt, consecutiveFailures: 0 }
    }))
  const made = Array.from({ length: batches }, (_, run) => batch(run))
  const bodies = made.map((records) => encode(records))
  // The first batches warm both paths.
  const warm = Math.ceil(batches / 10)
  const timed = Effect.fnUntraced(function*<E>(send: (index: number) => Effect.Effect<unknown, E>) {
    yield* Effect.forEach(Array.from({ length: warm }, (_, index) => index), send, { discard: true })
    const [taken] = yield* Effect.timed(
      Effect.forEach(Array.from({ length: batches - warm }, (_, index) => warm + index), send, { discard: true })
    )
    return (batches - warm) * size / Duration.toSeconds(taken)
  })
  const durable = yield* timed((index) => uplink.deliver({ epoch, seq: index + 1, records: made[index] ?? [] }))
  const plain = yield* timed((index) => post(http, bodies[index] ?? ""))
  const bytes = (bodies[0]?.length ?? 0) / size
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ durable, plain, bytes })}\n`))
  keepAlive.destroy()
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"), NodeRuntime.runMain)
