/**
 * Keeps the ProbeStatus of every Probe true: what its checkers last said, and that they no longer say it when no run has
 * come since. Writes of one Probe are coalesced; while the API server is away the latest is kept and tried again.
 */
import { Clock, Context, DateTime, Duration, Effect, Latch, Layer, Random, Schema } from "effect"
import { type CheckerState, summarize } from "../domain/CheckerState.ts"
import * as Freshness from "../domain/Freshness.ts"
import { type CheckerStatus, ProbeStatusSpec, ProbeStatusState } from "../domain/kinds/ProbeStatus.ts"
import * as Policy from "../domain/Policy.ts"
import { MAX_MESSAGE } from "../domain/Report.ts"
import { Kube } from "../infra/kube/Kube.ts"
import { apiVersion } from "../infra/kube/KubeResource.ts"
import { Probe, ProbeStatus } from "../infra/kube/resources/kubeprober.ts"
import { hasChecker, stalenessOf } from "./probePlan.ts"
import { type StoredProbe, keyOf } from "./ProbeStore.ts"
import { type ProbeKnowledge, RAN_ANNOTATION, RAN_AT_ANNOTATION, Standings } from "./Standings.ts"

/** What a ProbeStatus says at a moment. */
export interface ShownStatus {
  readonly checkers: ReadonlyArray<CheckerStatus>
  readonly state: ProbeStatusState
  /** When it changes without any news. */
  readonly until: DateTime.Utc | undefined
}

const bounded = (message: string): string =>
  message.length <= MAX_MESSAGE ? message : `${message.slice(0, MAX_MESSAGE - 1)}…`

/** What can be vouched for at `now`. Pure. */
export const show = (probe: StoredProbe, knowledge: ProbeKnowledge, now: DateTime.Utc): ShownStatus => {
  const schedule = stalenessOf(probe)
  let until: DateTime.Utc | undefined
  const reported = [...knowledge.checkers.values()].filter(({ name }) => hasChecker(probe, name)).map((state) => {
    const freshness = Freshness.freshness({ schedule, lastRun: state.lastRun, linked: true, now })
    const limit = Policy.staleAt(schedule, state.lastRun)
    if (limit !== undefined && freshness === "fresh" && (until === undefined || DateTime.isLessThan(limit, until))) {
      until = limit
    }
    const status = Freshness.shown(state.status, freshness)
    return freshness === "fresh" ? state : {
      ...state,
      status,
      message: bounded(
        `no run since ${DateTime.formatIso(state.lastRun)}; that one said ${state.status}: ${state.message}`
      )
    }
  })
  const missing = (probe.spec.checks ?? []).filter(({ name }) => !knowledge.checkers.has(name))
    .map(({ name }) => ({ name, status: "UNKNOWN" as const, message: "it has not run yet" }))
  const checkers: ReadonlyArray<CheckerStatus> = [...reported.map(statusOf), ...missing]
    .toSorted((a, b) => a.name < b.name ? -1 : 1)
  // Never ran: as old as can be, so that it decides nothing but the status.
  const summary = summarize([
    ...reported,
    ...missing.map((checker): CheckerState => ({ ...checker, lastRun: NEVER, since: NEVER, consecutiveFailures: 0 }))
  ])
  const { lastRun, ...rest } = summary
  return {
    checkers,
    state: {
      ...rest,
      message: bounded(rest.message),
      ...(lastRun === undefined || reported.length === 0 ? {} : { lastRun }),
      ...(until === undefined ? {} : { staleAt: until })
    },
    until
  }
}

const NEVER = DateTime.makeUnsafe(0)

const statusOf = (state: CheckerState): CheckerStatus => ({ ...state })

export class StatusWriter extends Context.Service<StatusWriter, {
  /** There is something new of this Probe. Returns at once. */
  readonly changed: (probe: StoredProbe) => Effect.Effect<void>
  /** The Probes there are now; of all others nothing is written any more. */
  readonly retain: (probes: ReadonlyArray<StoredProbe>) => Effect.Effect<void>
  /** Waits until everything known is written. */
  readonly flushed: Effect.Effect<void>
}>()("kubeprober/agent/StatusWriter") {
  /** ProbeStatus resources, each owned by its Probe. Needs get, list, create and patch on them and their status. */
  static readonly layerKubernetes: Layer.Layer<StatusWriter, never, Kube | Standings> = Layer.effect(
    StatusWriter,
    Effect.suspend(() => make)
  )

  /** Where nothing of ours may be installed. */
  static readonly layerNone: Layer.Layer<StatusWriter> = Layer.succeed(StatusWriter, {
    changed: () => Effect.void,
    retain: () => Effect.void,
    flushed: Effect.void
  })
}

/** Checkers that end together are written together. */
const TOGETHER = "200 millis"

/** How finely staleness is told. */
const STALENESS = Duration.seconds(1)

const CONCURRENCY = 4
const BACKOFF_BASE = 500
const BACKOFF_CAP = 30_000

const encodeSpec = Schema.encodeSync(ProbeStatusSpec)
const encodeState = Schema.encodeSync(ProbeStatusState)

interface Entry {
  readonly probe: StoredProbe
  dirty: boolean
  /** When it changes without any news (ms). */
  until: number
  /** Not before (ms): the API server refused or was away. */
  notBefore: number
  failures: number
}

const make = Effect.gen(function*() {
  const kube = yield* Kube
  const standings = yield* Standings
  const entries = new Map<string, Entry>()
  const news = yield* Latch.make(false)
  const clean = yield* Latch.make(true)

  const write = Effect.fnUntraced(function*(entry: Entry) {
    const { probe } = entry
    const metadata = { name: probe.name, namespace: probe.namespace }
    const now = yield* DateTime.now
    entry.dirty = false
    const knowledge = yield* standings.of(probe)
    const shown = show(probe, knowledge, now)
    entry.until = shown.until === undefined ? Infinity : DateTime.toEpochMillis(shown.until)
    yield* kube.apply(ProbeStatus, {
      metadata: {
        ...metadata,
        ...(knowledge.ran === undefined ? {} : {
          annotations: {
            [RAN_ANNOTATION]: knowledge.ran.digest,
            [RAN_AT_ANNOTATION]: DateTime.formatIso(knowledge.ran.at)
          }
        }),
        ...(probe.uid === undefined ? {} : {
          ownerReferences: [{ apiVersion: apiVersion(Probe), kind: Probe.kind, name: probe.name, uid: probe.uid }]
        })
      },
      spec: encodeSpec({ checkers: shown.checkers })
    }, { force: true })
    yield* kube.applyStatus(ProbeStatus, { metadata, status: encodeState(shown.state) }, { force: true })
    entry.failures = 0
  })

  const attempt = (entry: Entry) =>
    write(entry).pipe(
      Effect.timeout("20 seconds"),
      Effect.catch(Effect.fnUntraced(function*(error) {
        const ceiling = Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** Math.min(entry.failures, 16))
        const wait = yield* Random.nextBetween(ceiling / 2, ceiling)
        entry.dirty = true
        entry.failures++
        entry.notBefore = (yield* Clock.currentTimeMillis) + wait
        yield* Effect.logWarning(`ProbeStatus ${keyOf(entry.probe)} could not be written: ${error.message}`)
      }))
    )

  const pass = Effect.gen(function*() {
    yield* news.close
    const now = yield* Clock.currentTimeMillis
    const due = [...entries.values()].filter((entry) => entry.notBefore <= now && (entry.dirty || entry.until < now))
    yield* Effect.forEach(due, attempt, { concurrency: CONCURRENCY, discard: true })
    if (![...entries.values()].some(({ dirty }) => dirty)) yield* clean.open
  })

  yield* Effect.forkScoped(Effect.andThen(
    standings.seeded,
    Effect.forever(Effect.andThen(
      pass,
      Effect.andThen(Effect.timeoutOption(news.await, STALENESS), Effect.sleep(TOGETHER))
    ))
  ))

  const enter = (probe: StoredProbe) => {
    const before = entries.get(keyOf(probe))
    entries.set(keyOf(probe), {
      probe,
      dirty: true,
      until: before?.until ?? Infinity,
      notBefore: before?.notBefore ?? 0,
      failures: before?.failures ?? 0
    })
  }
  const isShown = ({ spec }: StoredProbe) => spec.rollout?.shadow !== true

  return StatusWriter.of({
    changed: (probe) =>
      Effect.suspend(() => {
        // A run that outlives its Probe says nothing any more.
        if (entries.get(keyOf(probe))?.probe.uid !== probe.uid) return Effect.void
        if (!isShown(probe)) return Effect.void
        const entry = entries.get(keyOf(probe))
        if (entry !== undefined) entry.dirty = true
        return Effect.andThen(clean.close, news.open)
      }),
    retain: (probes) =>
      Effect.suspend(() => {
        const staying = new Map(probes.filter(isShown).map((probe) => [keyOf(probe), probe]))
        for (const key of entries.keys()) if (!staying.has(key)) entries.delete(key)
        let isNew = false
        for (const [key, probe] of staying) {
          if (entries.get(key)?.probe === probe) continue
          enter(probe)
          isNew = true
        }
        return isNew ? Effect.andThen(clean.close, news.open) : Effect.void
      }),
    flushed: clean.await
  })
})
