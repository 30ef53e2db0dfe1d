/** From what is known of a cluster's checkers to what is shown of them. */
import { DateTime, Duration, Predicate, Result } from "effect"
import type { DesiredProbe } from "../../domain/DesiredSet.ts"
import * as Freshness from "../../domain/Freshness.ts"
import * as Policy from "../../domain/Policy.ts"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import type { RefusedProbe } from "../../domain/rpc/Control.ts"
import { type Cell, NEVER_RAN } from "../../domain/rpc/Fleet.ts"
import type { CellKey, CellState } from "../History.ts"

/** Names a cell within its cluster. */
export const keyOf = ({ checker, probe }: Pick<CellKey, "checker" | "probe">): string =>
  `${probe.namespace}/${probe.name}/${checker}`

/** What could not be removed after a run is told under the checker's own name and this. */
const CLEANUP = "/cleanup"

/** What a comparison with other clusters says of a checker's facts is told under its name and this (`Drift.ts`). */
export const FLEET = "/fleet"

/** A Probe's schedule, or why there is none. What a suspended one said grows stale as if it were not. */
export const scheduleOf = ({ spec }: DesiredProbe): Result.Result<Policy.RunSchedule, Policy.InvalidPolicy> => {
  const { suspend: _, ...policy } = spec.policy ?? {}
  return Policy.schedule(policy, spec.checks === undefined ? undefined : Policy.DEFAULT_SCHEDULE)
}

/** The layer of a checker that has not said it yet: by the catalogue's naming. */
const layerOf = (probe: DesiredProbe, use: string): ProbeLayer =>
  probe.spec.layer ??
    (use.startsWith("infra.")
      ? "infrastructure"
      : use.startsWith("mw.")
      ? "middleware"
      : use.startsWith("app.")
      ? "application"
      : "kubernetes")

/** Whether a check holds its cluster against a baseline of its own, and is then not compared with others. */
const isPinned = (config: unknown): boolean =>
  Predicate.hasProperty(config, "baseline") && Predicate.isObject(config.baseline) &&
  Object.keys(config.baseline).length > 0

/** Whether a Probe still has a checker. Which checkers a template has only its runs tell. */
const has = ({ spec }: DesiredProbe, checker: string): boolean =>
  spec.checks === undefined ||
  spec.checks.some(({ name, with: config }) =>
    name === checker || `${name}${CLEANUP}` === checker || (`${name}${FLEET}` === checker && !isPinned(config))
  )

/** Whether a cell is of something the cluster is to run. */
export const isWanted = (probes: ReadonlyArray<DesiredProbe>, { checker, probe }: Pick<CellKey, "checker" | "probe">) =>
  probes.some((wanted) => wanted.namespace === probe.namespace && wanted.name === probe.name && has(wanted, checker))

/** A cell as shown, and when that changes without any news. */
export interface Shown {
  readonly cell: Cell
  readonly until: DateTime.Utc | undefined
  /** Runs beside the others and does not count. */
  readonly shadow: boolean
}

/** Why the cluster's agent does not run a Probe as it is: what anyone can tell of it, or what the agent has told. */
const refusalOf = (probe: DesiredProbe, refused: ReadonlyArray<RefusedProbe>): string | undefined => {
  const followed = scheduleOf(probe)
  if (Result.isFailure(followed)) return followed.failure.message
  const told = refused.find((each) => each.probe.namespace === probe.namespace && each.probe.name === probe.name)
  return told === undefined ? undefined : `the cluster's agent does not run this Probe as it is now: ${told.reason}`
}

/** How old a result is for a Probe's schedule, whether or not its agent follows that. */
const measure = (probe: DesiredProbe, { state }: CellState, linked: boolean, now: DateTime.Utc) => {
  const schedule = Result.getOrElse(scheduleOf(probe), () => Policy.RunSchedule.Manual())
  return { schedule, measured: Freshness.freshness({ schedule, lastRun: state.lastRun, linked, now }) }
}

const show = (
  probe: DesiredProbe,
  known: CellState,
  refusal: string | undefined,
  linked: boolean,
  now: DateTime.Utc
): Shown => {
  const { measured, schedule } = measure(probe, known, linked, now)
  const { state } = known
  // What was found of an earlier form of the Probe says nothing of what it asks for now.
  const freshness = refusal !== undefined && measured === "fresh" ? "stale" : measured
  const status = Freshness.shown(state.status, freshness)
  return {
    cell: {
      probe: known.probe,
      checker: known.checker,
      layer: known.layer,
      status,
      freshness,
      ...(state.code === undefined ? {} : { code: state.code }),
      ...(state.blame === undefined ? {} : { blame: state.blame }),
      message: refusal === undefined
        ? state.message
        // What was found wrong stands until a run says otherwise.
        : status === "UNKNOWN"
        ? refusal
        : `${refusal}; before that it said: ${state.message}`,
      lastRun: state.lastRun,
      since: state.since
    },
    until: freshness === "fresh" ? Policy.staleAt(schedule, state.lastRun) : undefined,
    shadow: probe.spec.rollout?.shadow === true
  }
}

const showMissing = (
  probe: DesiredProbe,
  checker: string,
  use: string,
  refusal: string | undefined,
  linked: boolean
): Shown => ({
  cell: {
    probe: { namespace: probe.namespace, name: probe.name },
    checker,
    layer: layerOf(probe, use),
    status: "UNKNOWN",
    freshness: linked ? "stale" : "unreachable",
    message: refusal ?? NEVER_RAN[linked ? "linked" : "unlinked"]
  },
  until: undefined,
  shadow: probe.spec.rollout?.shadow === true
})

const layerIndex = (layer: ProbeLayer): number => ProbeLayer.literals.indexOf(layer)

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

const byLayer = (a: Shown, b: Shown): number =>
  layerIndex(a.cell.layer) - layerIndex(b.cell.layer) || compare(a.cell.probe.name, b.cell.probe.name) ||
  compare(a.cell.checker, b.cell.checker)

/**
 * Every checker the cluster is to run, by layer from the top: those that have reported, as far as that still holds, and
 * those that have not, as UNKNOWN.
 */
export const cellsOf = (options: {
  readonly probes: ReadonlyArray<DesiredProbe>
  readonly known: ReadonlyMap<string, CellState>
  /** Of these, what the cluster's agent has refused. */
  readonly refused: ReadonlyArray<RefusedProbe>
  readonly linked: boolean
  readonly now: DateTime.Utc
}): ReadonlyArray<Shown> => {
  const { known, linked, now, probes, refused } = options
  return probes.flatMap((probe) => {
    const refusal = refusalOf(probe, refused)
    const ref = { namespace: probe.namespace, name: probe.name }
    const mine = [...known.values()].filter((cell) =>
      cell.probe.namespace === ref.namespace && cell.probe.name === ref.name && has(probe, cell.checker)
    )
    // Which checkers a prober has, its runs tell: one that the others outlive is no more.
    const alive = mine.filter((cell) => measure(probe, cell, linked, now).measured === "fresh")
    const shown = (probe.spec.checks === undefined && alive.length > 0 ? alive : mine)
      .map((cell) => show(probe, cell, refusal, linked, now))
    const missing = probe.spec.checks === undefined
      ? mine.length === 0 ? [showMissing(probe, probe.name, "", refusal, linked)] : []
      : probe.spec.checks
        .filter(({ name }) => !known.has(keyOf({ probe: ref, checker: name })))
        .map(({ name, use }) => showMissing(probe, name, use, refusal, linked))
    return [...shown, ...missing]
  }).toSorted(byLayer)
}

/** How long until a moment; zero when it has passed. */
export const until = (moment: DateTime.Utc, now: DateTime.Utc): Duration.Duration =>
  Duration.max(Duration.zero, DateTime.distance(now, moment))

/** How a state is told apart from the one before: by what a person would see. */
export const isSameShow = (a: Cell | undefined, b: Cell): boolean =>
  a !== undefined && a.status === b.status && a.freshness === b.freshness && a.code === b.code
