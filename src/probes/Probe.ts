/**
 * A probe: a typed program that asks one question of a cluster.
 *
 * It declares what it writes, which permissions it needs, which codes it can report, how long it may take and how its
 * reads are retried; `run` is the program. The runner provides {@link Kube} (which refuses what `needs` does not
 * declare), {@link RunContext}, {@link Scratch}, {@link Workers}, {@link Nodes} and what {@link World} names.
 *
 * Failures decide blame: a `TargetFault` becomes the finding it carries, every other failure becomes UNKNOWN with its
 * cause (see `Attempt`). Findings returned normally are reported as they are.
 */
import { Duration, Effect, type Schedule, Schema } from "effect"
import type { ProbeLayer } from "../domain/ProbeLayer.ts"
import { WriteLevel } from "../domain/Profile.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import { attempt } from "./Attempt.ts"
import type { Codes } from "./Codes.ts"
import { type Need, describe } from "./Needs.ts"
import * as Outcome from "./Outcome.ts"
import * as Retry from "./Retry.ts"
import type { RunContext } from "./RunContext.ts"
import type { Scratch } from "./Scratch.ts"
import * as Watch from "./Watch.ts"
import type { Nodes } from "./workers/Nodes.ts"
import type { Workers } from "./workers/Workers.ts"
import type { World } from "./World.ts"

/** What a run of a probe may use. */
export type ProbeServices = Kube | RunContext | Scratch | Workers | Nodes | World

/** Where a probe's work is done: in the agent alone, also in worker pods, or also in the node agents. */
export type Placement = "agent" | "workers" | "nodes"

/**
 * How a WARN or ERROR that did not stand before is confirmed. `rerun`: the probe is run once more, a moment later and in
 * what is left of its timeout. `none`: it never is, because it looks more than once by itself or another run is too dear.
 * `unless`: it is, but not for these codes, which it has confirmed by itself.
 */
export type Confirm = "rerun" | "none" | { readonly unless: ReadonlyArray<string> }

/**
 * Which codes may say no more than that a request of ours went out late: `any`, unless the probe names them. When a run
 * waited for the prober's budget, these are not believed and all others are. Name those that follow from a deadline around
 * requests; what was read late is as true as ever, and a `Stopwatch` leaves waits out.
 */
export type Timed = "any" | ReadonlyArray<string>

/** A probe whose configuration is `Config`, written by people as `Encoded`. */
export interface Probe<out Config, out Encoded> {
  readonly _tag: "Probe"
  /** Dotted and stable: `k8s.node.readiness`. */
  readonly id: string
  readonly layer: ProbeLayer
  /** What a PASS proves, as a sentence. */
  readonly proves: string
  readonly writes: WriteLevel
  readonly placement: Placement
  /** What it asks: the cluster it is in, or something that only its configuration names. */
  readonly asks: "cluster" | "configured"
  /** What a run takes of the cluster, as a sentence: API requests, pods, data. */
  readonly costs: string
  readonly needs: ReadonlyArray<Need>
  readonly codes: Codes
  readonly config: Schema.Codec<Config, Encoded>
  /** How often to run it where nobody says otherwise: as often as what it costs is not felt. */
  readonly interval: Duration.Duration
  /** For the whole run, retries included. */
  readonly timeout: Duration.Duration
  /** Between tries after transient checker faults. */
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly confirm: Confirm
  readonly timed: Timed
  /** Changes that re-run it at once, where an agent may watch them. */
  readonly onChange: ReadonlyArray<Watch.Watch>
  /** Ids of probes whose ERROR makes this one UNKNOWN instead of run. */
  readonly dependsOn: ReadonlyArray<string>
  // A method, so that probes of any configuration fit one list; `run` only ever sees what `config` decoded.
  run(config: Config): Effect.Effect<Outcome.Outcome, unknown, ProbeServices>
}

/** A probe whose configuration type is not known here. */
export type AnyProbe = Probe<unknown, unknown>

export interface ProbeOptions<Config, Encoded, E> {
  readonly layer: ProbeLayer
  readonly proves: string
  readonly writes: WriteLevel
  /** `agent` when absent. */
  readonly placement?: Placement | undefined
  /** `cluster` when absent. One that asks what is `configured` is NOT_APPLICABLE without configuration, and in no plan. */
  readonly asks?: "cluster" | "configured" | undefined
  readonly costs?: string | undefined
  /** A minute for a probe that stores nothing, 5 minutes for one that writes, when absent. */
  readonly interval?: Duration.Input | undefined
  readonly needs: ReadonlyArray<ReadonlyArray<Need>>
  readonly codes: Codes
  readonly config: Schema.Codec<Config, Encoded>
  readonly timeout: Duration.Input
  /** `Retry.read` by default, and `Retry.none` for a probe that writes: half of it may have happened. */
  readonly retry?: Schedule.Schedule<unknown, unknown> | undefined
  /** `rerun` when absent. */
  readonly confirm?: Confirm | undefined
  /** `any` when absent. */
  readonly timed?: Timed | undefined
  /** What watching takes is added to `needs`, as optional. */
  readonly onChange?: ReadonlyArray<Watch.Watch> | undefined
  readonly dependsOn?: ReadonlyArray<string> | undefined
  readonly run: (config: Config) => Effect.Effect<Outcome.Outcome, E, ProbeServices>
}

/** The needs with what is watched, where that is not needed anyway. */
const withWatches = (needs: ReadonlyArray<Need>, watches: ReadonlyArray<Watch.Watch>): ReadonlyArray<Need> => {
  const known = new Set(needs.map((need) => describe(need)))
  const more = new Map(Watch.needs(...watches).map((need) => [describe(need), need]))
  return [...needs, ...[...more].filter(([rule]) => !known.has(rule)).map(([, need]) => need)]
}

const storesNothing = (writes: WriteLevel): boolean => writes === "nothing" || writes === "dry-run"

/** Define a probe. */
export const make = <Config, Encoded, E>(
  id: string,
  options: ProbeOptions<Config, Encoded, E>
): Probe<Config, Encoded> => ({
  _tag: "Probe",
  id,
  layer: options.layer,
  proves: options.proves,
  writes: options.writes,
  placement: options.placement ?? "agent",
  asks: options.asks ?? "cluster",
  costs: options.costs ?? "",
  needs: withWatches(options.needs.flat(), options.onChange ?? []),
  codes: options.codes,
  config: options.config,
  interval: Duration.fromInputUnsafe(options.interval ?? (storesNothing(options.writes) ? "1 minute" : "5 minutes")),
  timeout: Duration.fromInputUnsafe(options.timeout),
  retry: options.retry ?? (storesNothing(options.writes) ? Retry.read : Retry.none),
  confirm: options.confirm ?? "rerun",
  timed: options.timed ?? "any",
  onChange: options.onChange ?? [],
  dependsOn: options.dependsOn ?? [],
  run: options.run
})

/** No configuration. */
export const NoConfig = Schema.Struct({})

/** A probe with its configuration, under the name its reports carry: one line of a plan. */
export interface Check {
  readonly _tag: "Check"
  readonly name: string
  readonly probe: AnyProbe
  /** As people write it; decoded by the probe when it runs. */
  readonly with: unknown
}

/** Give a probe its configuration, checked by the compiler here and decoded at run time. */
export const configure = <Config, Encoded>(
  probe: Probe<Config, Encoded>,
  config: Encoded,
  options: { readonly name?: string } = {}
): Check => ({ _tag: "Check", name: options.name ?? probe.id, probe, with: config })

/** A check of a probe with its defaults. */
export const toCheck = (probe: AnyProbe | Check): Check =>
  probe._tag === "Check" ? probe : { _tag: "Check", name: probe.id, probe, with: {} }

/** The same probe, run only after `parents`, and UNKNOWN when one of them is ERROR. */
export const dependsOn = <Config, Encoded>(
  probe: Probe<Config, Encoded>,
  ...parents: ReadonlyArray<AnyProbe>
): Probe<Config, Encoded> => ({ ...probe, dependsOn: [...probe.dependsOn, ...parents.map((parent) => parent.id)] })

/** The same probe with another retry schedule. */
export const retry = <Config, Encoded>(
  probe: Probe<Config, Encoded>,
  schedule: Schedule.Schedule<unknown, unknown>
): Probe<Config, Encoded> => ({ ...probe, retry: schedule })

/** The same probe with another timeout. */
export const timeout = <Config, Encoded>(
  probe: Probe<Config, Encoded>,
  duration: Duration.Input
): Probe<Config, Encoded> => ({ ...probe, timeout: Duration.fromInputUnsafe(duration) })

/** The same probe under another id and configuration: `from` turns the new configuration into the old. */
export const mapConfig = <Config, Encoded, Config2, Encoded2>(
  probe: Probe<Config, Encoded>,
  options: {
    readonly id: string
    readonly config: Schema.Codec<Config2, Encoded2>
    readonly from: (config: Config2) => Config
  }
): Probe<Config2, Encoded2> => ({
  ...probe,
  id: options.id,
  config: options.config,
  run: (config) => probe.run(options.from(config))
})

/** The strongest of two write levels: what a composition writes at most. */
const strongest = (a: WriteLevel, b: WriteLevel): WriteLevel =>
  WriteLevel.literals.indexOf(a) >= WriteLevel.literals.indexOf(b) ? a : b

const PLACEMENTS: ReadonlyArray<Placement> = ["agent", "workers", "nodes"]

const farthest = (a: Placement, b: Placement): Placement => PLACEMENTS.indexOf(a) >= PLACEMENTS.indexOf(b) ? a : b

/** What each part confirms by itself the composition has confirmed; another run of it runs all parts. */
const together = (parts: ReadonlyArray<AnyProbe>): Confirm => {
  if (parts.every(({ confirm }) => confirm === "rerun")) return "rerun"
  if (parts.every(({ confirm }) => confirm === "none")) return "none"
  return {
    unless: parts.flatMap(({ codes, confirm }) =>
      confirm === "none" ? Object.keys(codes) : confirm === "rerun" ? [] : confirm.unless
    )
  }
}

/** How much longer a composition may take than its slowest part, so that a part that times out is told as that. */
const COMPOSITION_SLACK = Duration.seconds(1)

/**
 * Several probes as one: run together, each within its own timeout and with its own retries, findings joined. It needs,
 * writes and may say what its parts do. A part that finds a fault or cannot look does not silence the others.
 */
export const all = (
  id: string,
  options: Pick<AnyProbe, "layer" | "proves">,
  parts: readonly [Check | AnyProbe, ...ReadonlyArray<Check | AnyProbe>]
): Probe<{}, {}> => {
  const checks = parts.map(toCheck)
  const probes = checks.map((check) => check.probe)
  return make(id, {
    ...options,
    writes: probes.map((probe) => probe.writes).reduce(strongest),
    placement: probes.map((probe) => probe.placement).reduce(farthest),
    costs: [...new Set(probes.map((probe) => probe.costs))].filter((costs) => costs !== "").join(" "),
    needs: probes.map((probe) => probe.needs),
    codes: Object.assign({}, ...probes.map((probe) => probe.codes)),
    config: NoConfig,
    // Of the part that is to run least often, which then costs no more than alone.
    interval: probes.map((probe) => probe.interval).reduce((a, b) => Duration.max(a, b)),
    timeout: Duration.sum(probes.map((probe) => probe.timeout).reduce((a, b) => Duration.max(a, b)), COMPOSITION_SLACK),
    retry: Retry.none,
    confirm: together(probes),
    // Each part has seen to it.
    timed: [],
    onChange: probes.flatMap((probe) => probe.onChange),
    dependsOn: [...new Set(probes.flatMap((probe) => probe.dependsOn))],
    run: Effect.fnUntraced(function*() {
      const outcomes = yield* Effect.forEach(checks, attempt, { concurrency: checks.length })
      return Outcome.make(
        outcomes.map((outcome) => outcome.summary).filter((summary) => summary !== "").join("; "),
        outcomes.flatMap((outcome) => outcome.findings)
      )
    })
  })
}
