/** What the master may ask of this agent, answered. */
import { Cause, Effect, FiberMap, Layer, Option, Queue, Schedule, Stream } from "effect"
import { Control, ProbeNotFound, RunRefused, UnknownChecks } from "../domain/rpc/Control.ts"
import type { RunId, RunRecord } from "../domain/Run.ts"
import { ControlHandlers } from "../infra/link/LinkClient.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import { CAPABILITIES } from "./capabilities.ts"
import { ClusterFacts } from "./ClusterFacts.ts"
import { Execution, type RunRequest } from "./Execution.ts"
import { ProbeStore, type StoredProbe } from "./ProbeStore.ts"

/** Runs on request that go on at a time. */
const MAX_RUNS = 64

/** How long a request waits for the Probes to be known at all, which they are not at the very start. */
const PATIENCE = "5 seconds"

/** The name that records of checks without a Probe carry. */
export const AD_HOC = "checks"

export interface ControlServerOptions {
  readonly available: ReadonlyArray<AnyProbe>
  readonly probeNamespace: string
}

/** While the set cannot be kept; the master gives up on its own. */
const keepRetries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

export const layer = (
  options: ControlServerOptions
): Layer.Layer<ControlHandlers, never, ClusterFacts | Execution | ProbeStore> =>
  Layer.effect(ControlHandlers, make(options))

const make = Effect.fnUntraced(function*({ available, probeNamespace }: ControlServerOptions) {
  const cluster = yield* ClusterFacts
  const execution = yield* Execution
  const store = yield* ProbeStore
  const runs = yield* FiberMap.make<RunId>()

  const find = Effect.fnUntraced(function*(run: RunId, ref: { readonly namespace: string; readonly name: string }) {
    const probes = yield* Effect.timeoutOption(Stream.runHead(store.probes), PATIENCE)
    if (Option.isNone(probes)) {
      return yield* new RunRefused({ run, reason: "the agent has not been able to read its Probes yet" })
    }
    const found = Option.getOrElse(probes.value, () => []).find(({ name, namespace }) =>
      name === ref.name && namespace === ref.namespace
    )
    return found ?? (yield* new ProbeNotFound({ probe: ref }))
  })

  type RunNow = Parameters<ControlHandlers["Service"]["runNow"]>[0]

  const requestOf = Effect.fnUntraced(function*({ run, target, timeout }: RunNow) {
    const common = { run, trigger: "manual" as const, timeout }
    if (target._tag === "Probe") return { ...common, probe: yield* find(run, target.probe) } satisfies RunRequest
    const uses = target.checks.map(({ use }) => use).filter((use) => !available.some(({ id }) => id === use))
    if (uses.length > 0) return yield* new UnknownChecks({ uses: [...new Set(uses)] })
    const probe: StoredProbe = { namespace: probeNamespace, name: AD_HOC, spec: { checks: target.checks } }
    return { ...common, probe, unkept: true } satisfies RunRequest
  })

  const runNow = Effect.fnUntraced(function*(payload: RunNow) {
    const { run } = payload
    const request = yield* requestOf(payload)
    if (yield* FiberMap.has(runs, run)) return yield* new RunRefused({ run, reason: "a run of this id is going on" })
    if ((yield* FiberMap.size(runs)) >= MAX_RUNS) {
      return yield* new RunRefused({ run, reason: `${MAX_RUNS} runs are going on here; try again when one has ended` })
    }
    // As many as the run has checkers, and nobody need read them: the run goes on when whoever asked has gone.
    const records = yield* Queue.unbounded<RunRecord, Cause.Done>()
    yield* FiberMap.run(
      runs,
      run,
      execution.run({ ...request, onRecord: (record) => Effect.asVoid(Queue.offer(records, record)) }).pipe(
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.logError("a run on request broke", cause)
        ),
        Effect.ensuring(Queue.end(records))
      )
    )
    return Stream.fromQueue(records)
  })

  return ControlHandlers.of(Control.of({
    describe: () =>
      Effect.gen(function*() {
        const { versions } = yield* cluster.now
        const applied = yield* store.applied
        return {
          versions,
          capabilities: CAPABILITIES,
          catalogue: available.map(({ id }) => id),
          ...(Option.isNone(applied) ? {} : { applied: applied.value })
        }
      }),
    applyProbes: ({ desired, hash }) =>
      store.apply(hash, desired).pipe(
        Effect.tapErrorTag("ProbeStoreError", (error) => Effect.logWarning(error.message)),
        Effect.retry({ while: ({ _tag }) => _tag === "ProbeStoreError", schedule: keepRetries }),
        Effect.catchTag("ProbeStoreError", (error) => Effect.die(error)),
        Effect.map((refused) => ({ applied: hash, refused }))
      ),
    runNow: (payload) => Stream.unwrap(runNow(payload)),
    cancel: ({ run }) =>
      Effect.gen(function*() {
        const cancelled = yield* FiberMap.has(runs, run)
        yield* FiberMap.remove(runs, run)
        return { cancelled }
      })
  }))
})
