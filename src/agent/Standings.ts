/**
 * How every checker of this cluster stands: what the failure threshold and `since` of the next report follow from. Kept
 * over restarts, in the ProbeStatus resources or in the agent's file.
 */
import { Context, DateTime, Deferred, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { type CheckerState, observe, recalled, stand } from "../domain/CheckerState.ts"
import { CheckerStatus, toState } from "../domain/kinds/ProbeStatus.ts"
import { staleAt } from "../domain/Policy.ts"
import type { Report } from "../domain/Report.ts"
import type { Standing } from "../domain/Run.ts"
import { Timestamp } from "../domain/Timestamp.ts"
import { Kube } from "../infra/kube/Kube.ts"
import { ProbeStatus } from "../infra/kube/resources/kubeprober.ts"
import { type MigrationFailed, type Migrations, migrate } from "../infra/sql/Migrations.ts"
import { stalenessOf } from "./probePlan.ts"
import { type StoredProbe, digestOf, keyOf } from "./ProbeStore.ts"
import type { Parent } from "./Round.ts"

/** On a ProbeStatus: which spec was last run to its end, and when that run started. */
export const RAN_ANNOTATION = "kubeprober.io/ran"
export const RAN_AT_ANNOTATION = "kubeprober.io/ran-at"

/** What is known of one Probe. */
export interface ProbeKnowledge {
  readonly checkers: ReadonlyMap<string, CheckerState>
  /** The last run that came to its end. */
  readonly ran?: { readonly digest: string; readonly at: DateTime.Utc } | undefined
}

const nothing: ProbeKnowledge = { checkers: new Map() }

/** So long the last word of a checker keeps its children from being run: one that runs hourly must not for an hour. */
const PARENT_PATIENCE = Duration.minutes(5)

/** Whether a later run is due soon, so that an ERROR is of now. */
const isOfNow = (probe: StoredProbe, { lastRun }: CheckerState, now: DateTime.Utc): boolean => {
  const limit = staleAt(stalenessOf(probe), lastRun)
  return limit !== undefined && DateTime.isLessThan(now, limit) &&
    DateTime.isLessThan(now, DateTime.addDuration(lastRun, PARENT_PATIENCE))
}

export class Standings extends Context.Service<Standings, {
  /** Completes when what was known before the agent's start is known again. */
  readonly seeded: Effect.Effect<void>
  readonly of: (probe: StoredProbe) => Effect.Effect<ProbeKnowledge>
  /**
   * Of the probes of the catalogue with these ids those that stand at ERROR now, whichever Probe they are checks of. None
   * of a Probe that runs beside the others, and none that flaps.
   */
  readonly failed: (ids: ReadonlySet<string>) => Effect.Effect<ReadonlyMap<string, Parent>>
  /** Takes in a report; how its checker stands now. */
  readonly take: (probe: StoredProbe, report: Report, failureThreshold: number) => Effect.Effect<Standing>
  /**
   * A run came to its end. Checkers that are not `current` are forgotten. When it was of a `part` of the Probe, what is
   * known of the last run of the whole stays.
   */
  readonly finish: (
    probe: StoredProbe,
    run: {
      readonly startedAt: DateTime.Utc
      readonly part?: boolean | undefined
      readonly current: (checker: string) => boolean
    }
  ) => Effect.Effect<void>
  /** Forgets all Probes but these. */
  readonly retain: (probes: ReadonlyArray<StoredProbe>) => Effect.Effect<void>
}>()("kubeprober/agent/Standings") {
  /** For one life of the process. */
  static readonly layerMemory: Layer.Layer<Standings> = Layer.effect(
    Standings,
    Effect.map(make(() => Effect.void, () => Effect.void), ({ standings }) => ({ ...standings, seeded: Effect.void }))
  )

  /** Begins with what the ProbeStatus resources of the namespace say; the `StatusWriter` writes them. */
  static readonly layerKubernetes = (namespace: string): Layer.Layer<Standings, never, Kube> =>
    Layer.effect(Standings, makeKubernetes(namespace))

  /** In the agent's file. */
  static readonly layerSqlite: Layer.Layer<Standings, MigrationFailed, SqlClient.SqlClient> = Layer.effect(
    Standings,
    Effect.suspend(() => makeSqlite)
  )
}

function make(
  keep: (key: string, knowledge: ProbeKnowledge) => Effect.Effect<void>,
  forget: (keys: ReadonlyArray<string>) => Effect.Effect<void>
) {
  return Effect.sync(() => {
    const known = new Map<string, ProbeKnowledge>()
    let present: ReadonlyArray<StoredProbe> = []
    const standings: Omit<Standings["Service"], "seeded"> = {
      of: (probe) => Effect.sync(() => known.get(keyOf(probe)) ?? nothing),
      failed: (ids) =>
        Effect.map(DateTime.now, (now) => {
          const good = new Set<string>()
          const failed = new Map<string, Parent>()
          for (const probe of present) {
            if (probe.spec.rollout?.shadow === true) continue
            for (const { name, use } of probe.spec.checks ?? []) {
              const state = ids.has(use) ? known.get(keyOf(probe))?.checkers.get(name) : undefined
              if (state === undefined || !isOfNow(probe, state, now)) continue
              const { code, status } = state
              if (status === "ERROR") {
                failed.set(use, { checker: name, status, ...(code === undefined ? {} : { code }) })
              } else if (status === "PASS" || status === "INFO") good.add(use)
            }
          }
          // One Probe with a limit that nothing keeps must not silence the cluster when another says that all is well.
          for (const id of good) failed.delete(id)
          return failed
        }),
      take: (probe, report, failureThreshold) =>
        Effect.map(DateTime.now, (now) => {
          const before = known.get(keyOf(probe)) ?? nothing
          const found = before.checkers.get(report.checker)
          const previous = found === undefined ? undefined : recalled(found, report.startedAt, now)
          const checkers = new Map(before.checkers)
          checkers.set(report.checker, observe(previous, report, failureThreshold))
          known.set(keyOf(probe), { ...before, checkers })
          return stand(previous, report, failureThreshold)
        }),
      finish: (probe, run) =>
        Effect.suspend(() => {
          const before = known.get(keyOf(probe)) ?? nothing
          const knowledge: ProbeKnowledge = {
            checkers: new Map([...before.checkers].filter(([name]) => run.current(name))),
            ran: run.part === true ? before.ran : { digest: digestOf(probe), at: run.startedAt }
          }
          known.set(keyOf(probe), knowledge)
          return keep(keyOf(probe), knowledge)
        }),
      retain: (probes) =>
        Effect.suspend(() => {
          present = probes
          const staying = new Set(probes.map(keyOf))
          const gone = [...known.keys()].filter((key) => !staying.has(key))
          for (const key of gone) known.delete(key)
          return gone.length === 0 ? Effect.void : forget(gone)
        })
    }
    const seed = (key: string, knowledge: ProbeKnowledge) => {
      if (!known.has(key)) known.set(key, knowledge)
    }
    return { standings, seed }
  })
}

const statesOf = (checkers: ReadonlyArray<CheckerStatus>): ReadonlyMap<string, CheckerState> =>
  new Map(checkers.flatMap((checker) => {
    const state = toState(checker)
    return state === undefined ? [] : [[state.name, state] as const]
  }))

const seedRetries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("15 seconds")]).pipe(
  Schedule.jittered
)

const decodeTime = Schema.decodeUnknownOption(Timestamp)

const ranOf = (annotations: Readonly<Record<string, string>> | undefined): ProbeKnowledge["ran"] => {
  const digest = annotations?.[RAN_ANNOTATION]
  const at = decodeTime(annotations?.[RAN_AT_ANNOTATION])
  return digest === undefined || at._tag === "None" ? undefined : { digest, at: at.value }
}

const makeKubernetes = Effect.fnUntraced(function*(namespace: string) {
  const kube = yield* Kube
  const { seed, standings } = yield* make(() => Effect.void, () => Effect.void)
  const seeded = yield* Deferred.make<void>()
  yield* kube.list(ProbeStatus, { namespace }).pipe(
    Effect.tapError((error) => Effect.logWarning(`earlier results cannot be read: ${error.message}`)),
    Effect.retry({ schedule: seedRetries, while: ({ reason }) => reason._tag !== "Undecodable" }),
    Effect.map(({ items }) => {
      for (const { metadata, spec } of items) {
        seed(keyOf({ namespace, name: metadata.name ?? "" }), {
          checkers: statesOf(spec?.checkers ?? []),
          ran: ranOf(metadata.annotations)
        })
      }
    }),
    Effect.ignore,
    Effect.andThen(Deferred.succeed(seeded, undefined)),
    Effect.forkScoped
  )
  return Standings.of({ ...standings, seeded: Deferred.await(seeded) })
})

const migrations: Migrations = {
  "1_standings": ["CREATE TABLE standings (probe TEXT PRIMARY KEY, knowledge TEXT NOT NULL) WITHOUT ROWID"]
}

const Knowledge = Schema.fromJsonString(Schema.Struct({
  checkers: Schema.Array(CheckerStatus),
  ran: Schema.optionalKey(Schema.Struct({ digest: Schema.String, at: Timestamp }))
}))
const Rows = Schema.Array(Schema.Struct({ probe: Schema.String, knowledge: Knowledge }))

const makeSqlite = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* migrate("standings", migrations)
  const unkept = (effect: Effect.Effect<unknown, { readonly message: string }>) =>
    effect.pipe(
      Effect.catch((error) => Effect.logError(`how checkers stand could not be kept: ${error.message}`)),
      Effect.asVoid
    )
  const { seed, standings } = yield* make(
    (probe, { checkers, ran }) =>
      unkept(Effect.flatMap(
        Schema.encodeEffect(Knowledge)({ checkers: [...checkers.values()], ...(ran === undefined ? {} : { ran }) }),
        (knowledge) => sql`INSERT OR REPLACE INTO standings (probe, knowledge) VALUES (${probe}, ${knowledge})`
      )),
    (probes) =>
      unkept(sql`DELETE FROM standings WHERE probe IN (SELECT value FROM json_each(${JSON.stringify(probes)}))`)
  )
  yield* sql`SELECT probe, knowledge FROM standings`.pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Rows)),
    Effect.map((rows) => {
      for (const { knowledge: { checkers, ran }, probe } of rows) {
        seed(probe, { checkers: statesOf(checkers), ...(ran === undefined ? {} : { ran }) })
      }
    }),
    Effect.catch((error) => Effect.logError(`how checkers stood could not be read: ${error.message}`))
  )
  return Standings.of({ ...standings, seeded: Effect.void })
})
