/**
 * How clusters differ from those they should be like.
 *
 * Each report that carries facts (`k8s.config.drift` without a baseline) is held against the latest facts of the other
 * clusters that run the same check of the same Probe and have the same label `kubeprober.io/group`. What follows is a record
 * of the same run under the check's name and `/fleet`: kept, shown, stale and told of like any other.
 */
import { Context, DateTime, Duration, Effect, Layer, Option } from "effect"
import * as CheckerState from "../domain/CheckerState.ts"
import * as Facts from "../domain/Facts.ts"
import * as Report from "../domain/Report.ts"
import type { ProbeRef, RunRecord } from "../domain/Run.ts"
import { codes } from "../probes/kubernetes/configDrift.ts"
import { Desired } from "./Desired.ts"
import { FLEET, keyOf } from "./fleet/shown.ts"
import { type CellState, History, type HistoryError, type Recorded } from "./History.ts"

export class Drift extends Context.Service<Drift, {
  /**
   * The records that follow from these, to be kept together with them. Facts are taken in by it: those of a later run
   * replace those of an earlier, in whatever order they come.
   */
  readonly derive: (
    cluster: string,
    records: ReadonlyArray<RunRecord>
  ) => Effect.Effect<ReadonlyArray<RunRecord>>
  /** Take in what was kept: how derived checkers stand from here on. */
  readonly observe: (recorded: ReadonlyArray<Recorded>) => Effect.Effect<void>
  /** Forget a cluster that was removed. */
  readonly forget: (cluster: string) => Effect.Effect<void>
}>()("kubeprober/master/Drift") {
  /** Begins with the facts that the history holds. */
  static readonly layer: Layer.Layer<Drift, HistoryError, Desired | History> = Layer.effect(
    Drift,
    Effect.suspend(() => make)
  )
}

/** Facts older than this count no more: their cluster is gone, or does not run the check any longer. */
export const MAX_AGE = Duration.hours(48)

/** How often facts that are too old are looked for, which is a pass over all of them. */
const SWEEP = Duration.minutes(1)

/** The facts of one cluster that count in a group. */
interface Member {
  readonly cluster: string
  readonly group: string
  readonly startedAt: DateTime.Utc
  readonly facts: Facts.Facts
}

const groupOf = (probe: ProbeRef, checker: string, label: string): string => `${keyOf({ probe, checker })} ${label}`

const told = (value: string | undefined): string => value ?? Facts.ABSENT

/** What is told of a run: its findings, or one sentence when there are none. */
interface Judged {
  readonly findings: ReadonlyArray<Report.Finding>
  readonly summary: string
}

/** What is said of one deviation. */
const findingOf = (deviation: Facts.FleetDeviation): Report.Finding => {
  const { actual, agree, critical, expected, key, of } = deviation
  const code = critical
    ? codes.FLEET_DRIFTED_CRITICAL
    : expected === undefined
    ? codes.FLEET_FACT_NEW
    : codes.FLEET_DRIFTED
  return code({
    message: `${key} is ${told(actual)}, where ${agree} of ${of} clusters have ${told(expected)}`,
    subject: { kind: "Fact", name: key },
    evidence: { key, expected: told(expected), actual: told(actual), agree, of }
  })
}

/** The verdict on a cluster among those of its group, itself counted in `tally`. */
export const judge = (tally: Facts.Tally, own: Facts.Facts): Judged =>
  tally.size < Facts.MIN_CLUSTERS
    ? {
      summary: "",
      findings: [codes.FLEET_TOO_SMALL({
        message: `${tally.size} of the ${Facts.MIN_CLUSTERS} clusters that a comparison takes have told their facts`,
        evidence: { clusters: tally.size, needed: Facts.MIN_CLUSTERS }
      })]
    }
    : {
      summary: `${own.values.size} facts, none of which most of ${tally.size} clusters have otherwise`,
      findings: tally.deviations(own).map(findingOf)
    }

const make = Effect.gen(function*() {
  const desired = yield* Desired
  const history = yield* History

  /** By cluster and cell. */
  const members = new Map<string, Map<string, Member>>()
  const tallies = new Map<string, Facts.Tally>()
  /** How derived checkers stand, by cluster and cell. */
  const standings = new Map<string, Map<string, CheckerState.CheckerState>>()
  let swept = yield* DateTime.now

  const leave = (cluster: string, cell: string) => {
    const known = members.get(cluster)?.get(cell)
    if (known === undefined) return
    members.get(cluster)?.delete(cell)
    const tally = tallies.get(known.group)
    tally?.remove(known.facts)
    if (tally?.size === 0) tallies.delete(known.group)
  }

  const join = (cell: string, member: Member) => {
    leave(member.cluster, cell)
    const tally = tallies.get(member.group) ?? new Facts.Tally()
    tallies.set(member.group, tally)
    tally.add(member.facts)
    const cells = members.get(member.cluster) ?? new Map<string, Member>()
    members.set(member.cluster, cells.set(cell, member))
  }

  const sweep = (now: DateTime.Utc) => {
    if (Duration.isLessThan(DateTime.distance(swept, now), SWEEP)) return
    swept = now
    const oldest = DateTime.subtractDuration(now, MAX_AGE)
    for (const [cluster, cells] of members) {
      for (const [cell, { startedAt }] of cells) if (DateTime.isLessThan(startedAt, oldest)) leave(cluster, cell)
    }
  }

  const labelOf = (cluster: string) =>
    Effect.map(desired.cluster(cluster), (known) => Option.getOrUndefined(known)?.labels[Facts.GROUP_LABEL] ?? "")

  const thresholdOf = Effect.fnUntraced(function*(cluster: string, { name, namespace }: ProbeRef) {
    const set = yield* desired.of(cluster)
    return Option.getOrUndefined(set)?.set.probes
      .find((probe) => probe.name === name && probe.namespace === namespace)?.spec.policy?.failureThreshold
  })

  const observeCell = ({ checker, probe, state }: CellState, cells: Map<string, CheckerState.CheckerState>) => {
    if (checker.endsWith(FLEET)) cells.set(keyOf({ probe, checker }), state)
  }

  /** Read from the history when first asked for: most clusters of most fleets tell no facts. */
  const standingsOf = Effect.fnUntraced(function*(cluster: string) {
    const known = standings.get(cluster)
    if (known !== undefined) return known
    const cells = new Map<string, CheckerState.CheckerState>()
    const latest = yield* Effect.catch(
      history.latest(cluster),
      (error) => Effect.as(Effect.logWarning(error.message), [])
    )
    for (const cell of latest) observeCell(cell, cells)
    standings.set(cluster, cells)
    return cells
  })

  const judgeRecord = Effect.fnUntraced(function*(cluster: string, record: RunRecord) {
    const { probe, report } = record
    if (report.checker.endsWith(FLEET)) return undefined
    const cell = keyOf({ probe, checker: report.checker })
    const own = Facts.fromReport(report)
    if (own !== undefined) {
      const group = groupOf(probe, report.checker, yield* labelOf(cluster))
      const known = members.get(cluster)?.get(cell)
      if (known === undefined || !DateTime.isLessThan(report.startedAt, known.startedAt)) {
        join(cell, { cluster, group, startedAt: report.startedAt, facts: own })
      }
      return judge(tallies.get(group) ?? new Facts.Tally(), own)
    }
    // What could not be looked at may be as it was; what was judged by a baseline is compared no more.
    if (report.status !== "UNKNOWN") leave(cluster, cell)
    return undefined
  })

  for (const { cluster, facts, probe, checker, startedAt } of yield* history.facts) {
    join(keyOf({ probe, checker }), {
      cluster,
      group: groupOf(probe, checker, yield* labelOf(cluster)),
      startedAt,
      facts
    })
  }
  return Drift.of({
    derive: Effect.fnUntraced(function*(cluster, records) {
      sweep(yield* DateTime.now)
      const derived: Array<RunRecord> = []
      for (const record of records) {
        const judged = yield* judgeRecord(cluster, record)
        if (judged === undefined) continue
        const { layer, probe, report: { checker, startedAt }, run, trigger } = record
        const report = Report.fromFindings({ ...judged, checker: `${checker}${FLEET}`, startedAt, duration: 0 })
        const before = (yield* standingsOf(cluster)).get(keyOf({ probe, checker: report.checker }))
        const threshold = yield* thresholdOf(cluster, probe)
        derived.push({ run, probe, layer, trigger, report, standing: CheckerState.stand(before, report, threshold) })
      }
      return derived
    }),
    observe: (recorded) =>
      Effect.sync(() => {
        for (const { cell, isLatest } of recorded) {
          const cells = standings.get(cell.cluster)
          if (isLatest && cells !== undefined) observeCell(cell, cells)
        }
      }),
    forget: (cluster) =>
      Effect.sync(() => {
        for (const cell of members.get(cluster)?.keys() ?? []) leave(cluster, cell)
        members.delete(cluster)
        standings.delete(cluster)
      })
  })
})
