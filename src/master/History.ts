/**
 * What the fleet's checkers have said: durable before it is acknowledged, each result once.
 *
 * Kept are the latest state of every checker, every run that failed or changed the shown status with its whole report,
 * rollups of the rest, and for a day the names of all runs, so that a repeated delivery is known as such.
 */
import { Context, Data, type DateTime, type Effect, type Option } from "effect"
import type { CheckerState } from "../domain/CheckerState.ts"
import type { Facts } from "../domain/Facts.ts"
import type { ProbeLayer } from "../domain/ProbeLayer.ts"
import type { HistoryEntry } from "../domain/rpc/Fleet.ts"
import type { ProbeRef, RunRecord } from "../domain/Run.ts"
import type { Status } from "../domain/Status.ts"

/** The store could not be read or written. Nothing of the failed call was kept. */
export class HistoryError extends Data.TaggedError("HistoryError")<{
  readonly operation: "record" | "read" | "prune"
  readonly detail: string
}> {
  override get message(): string {
    return `the history could not be ${this.operation === "read" ? "read" : "written"}: ${this.detail}`
  }
}

/** One checker of one probe on one cluster. */
export interface CellKey {
  readonly cluster: string
  readonly probe: ProbeRef
  readonly checker: string
}

/** The latest that is known of a cell. */
export interface CellState extends CellKey {
  readonly layer: ProbeLayer
  readonly state: CheckerState
}

/** A record that was new, and what it did to its cell. */
export interface Recorded {
  readonly cell: CellState
  /** The state shown before; none for a cell's first. */
  readonly previous: Option.Option<CheckerState>
  /** Whether `cell` is this record's: false for a run older than the one known. */
  readonly isLatest: boolean
}

/** The facts that a cell's latest run which carried any told. */
export interface CellFacts extends CellKey {
  readonly startedAt: DateTime.Utc
  readonly facts: Facts
}

/** Counts of runs by shown status in five minutes. */
export interface Rollup {
  readonly start: DateTime.Utc
  readonly counts: Readonly<Partial<Record<Status, number>>>
  /** Of the runs, in milliseconds. */
  readonly longest: number
  readonly total: number
}

export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Absent on the last page. */
  readonly next?: string
}

export class History extends Context.Service<History, {
  /**
   * Keeps the records in one transaction, on disk when this succeeds. Records of a (cluster, run, probe, checker) kept
   * before are left out of the answer.
   */
  readonly record: (
    cluster: string,
    records: ReadonlyArray<RunRecord>
  ) => Effect.Effect<ReadonlyArray<Recorded>, HistoryError>
  /** The latest state of every cell; of one cluster when named. */
  readonly latest: (cluster?: string) => Effect.Effect<ReadonlyArray<CellState>, HistoryError>
  /** The latest facts of every cell that tells any (`Drift.ts`). */
  readonly facts: Effect.Effect<ReadonlyArray<CellFacts>, HistoryError>
  /** Newest first. None of a cursor that is not ours. */
  readonly entries: (
    cell: CellKey,
    options: {
      readonly from?: DateTime.Utc | undefined
      readonly to?: DateTime.Utc | undefined
      readonly after?: string | undefined
      readonly limit: number
    }
  ) => Effect.Effect<Option.Option<Page<HistoryEntry>>, HistoryError>
  /** Oldest first, at most 1,000. */
  readonly rollups: (
    cell: CellKey,
    options: { readonly from: DateTime.Utc; readonly to: DateTime.Utc }
  ) => Effect.Effect<ReadonlyArray<Rollup>, HistoryError>
  /**
   * How often each record of a cluster was kept, by `<run> <namespace>/<probe> <checker>`, for proofs of delivery: every
   * number is 1. Bounded to the last day.
   */
  readonly runs: (cluster: string) => Effect.Effect<ReadonlyMap<string, number>, HistoryError>
  /** Forgets the cells of a cluster that are not among `keep`; all of them for a removed cluster. */
  readonly forget: (
    cluster: string,
    keep?: (cell: CellKey) => boolean
  ) => Effect.Effect<void, HistoryError>
}>()("kubeprober/master/History") {}
