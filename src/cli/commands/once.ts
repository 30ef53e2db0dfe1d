/** `kubeprober once`: a Probe, or checks of the catalogue, now and on many clusters at once. */
import { DateTime, Duration, Effect, Option, Ref, Schema, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { RunTarget } from "../../domain/rpc/Control.ts"
import type { Cell, FleetRunEvent, MatrixRow } from "../../domain/rpc/Fleet.ts"
import { RunRecord } from "../../domain/Run.ts"
import * as Status from "../../domain/Status.ts"
import * as ExitCode from "../ExitCode.ts"
import { Failure } from "../Failure.ts"
import * as LiveLines from "../output/LiveLines.ts"
import * as Structured from "../output/Structured.ts"
import { Screen, note, print } from "../Screen.ts"
import * as flags from "./flags.ts"

export const once = Command.make(
  "once",
  {
    ...flags.master,
    probe: Argument.String("PROBE").pipe(
      Argument.withDescription("A Probe of the fleet, as `kubeprober probe get` lists them"),
      Argument.optional
    ),
    uses: flags.uses,
    ...flags.onClusters,
    timeout: flags.duration("timeout").pipe(
      Flag.withDescription("When to stop waiting for clusters that have not answered, such as 30s"),
      Flag.withDefault(Duration.minutes(2))
    ),
    failOn: flags.failOn,
    output: flags.listOutput
  },
  Effect.fn("once")(function*(options) {
    const target = yield* targetOf(options)
    const [MasterSession, FleetTable, FleetDetails, FleetNames] = yield* Effect.promise(() =>
      Promise.all([
        import("../MasterSession.ts"),
        import("../output/FleetTable.ts"),
        import("../FleetDetails.ts"),
        import("../FleetNames.ts")
      ])
    )
    yield* MasterSession.withFleet(options, (fleet) =>
      Effect.gen(function*() {
        const screen = yield* Screen
        const filter = yield* flags.filterOf({ ...options, layers: [], probes: [] })
        yield* FleetNames.ensureKnown(fleet, {
          clusters: options.clusters,
          probes: target._tag === "Probe" ? [target.probe.name] : []
        })
        const structured = options.output === "json" || options.output === "yaml"
        const run = yield* Ref.make(nothing)
        yield* Effect.scoped(Effect.gen(function*() {
          if (!structured) {
            yield* LiveLines.make(screen.out, ({ width }) =>
              Effect.map(Effect.all([Ref.get(run), DateTime.now]), ([state, now]) =>
                FleetTable.table(rowsOf(state), { style: screen.out.style, wide: false, width, now })))
          }
          yield* fleet.run({ filter, target, timeout: options.timeout }).pipe(
            Stream.runForEach((event) =>
              Ref.update(run, (state) =>
                after(state, event))
            )
          )
        }))
        const state = yield* Ref.get(run)
        if (options.output === "json" || options.output === "yaml") {
          yield* print([yield* Structured.render(encode(state), options.output)])
        } else {
          const width = yield* screen.out.width
          const now = yield* DateTime.now
          const table = { style: screen.out.style, wide: options.output === "wide", width, now }
          if (state.clusters.size === 0) {
            yield* note(["no cluster fits; `kubeprober cluster list` shows those there are"])
          } else {
            yield* print(FleetTable.render(rowsOf(state), { ...table, details: yield* FleetDetails.fixes(fleet) }))
          }
          yield* print(
            [...state.clusters].flatMap(([cluster, { ended }]) =>
              ended === undefined || ended.outcome === "finished"
                ? []
                : [`${screen.out.style.status("UNKNOWN")} ${cluster} ${ended.outcome}: ${ended.message ?? ""}`]
            )
          )
        }
        const code = exitCodeOf(state, options.failOn)
        if (code !== 0) return yield* new ExitCode.Exit({ code })
      }))
  })
).pipe(
  Command.withDescription(
    "Run a Probe, or checks of the catalogue, on clusters of the fleet now, and wait for what they say. Exit code: 0 nothing " +
      "at or above --fail-on, 1 something is, 2 some cluster did not answer."
  ),
  Command.withShortDescription("Run a Probe or checks on clusters of the fleet now"),
  Command.withExamples([
    { command: "kubeprober once nodes", description: "The Probe `nodes` on every cluster that has it" },
    { command: "kubeprober once --use k8s.node.readiness -l env=prod", description: "A check of the catalogue" }
  ])
)

const targetOf = Effect.fnUntraced(function*(options: {
  readonly probe: Option.Option<string>
  readonly uses: ReadonlyArray<string>
  readonly probeNamespace: string
}): Effect.fn.Return<RunTarget, Failure> {
  const [first, ...rest] = options.uses.map((use) => ({ name: use, use }))
  if (Option.isSome(options.probe) === (first !== undefined)) {
    return yield* new Failure({
      reason: "give either a PROBE of the fleet or --use with ids of the catalogue (`kubeprober probe list`)"
    })
  }
  return first === undefined
    ? {
      _tag: "Probe",
      probe: { namespace: options.probeNamespace, name: Option.getOrElse(options.probe, () => "") }
    }
    : { _tag: "Checks", checks: [first, ...rest] }
})

/** What is known of one cluster of a run. */
interface ClusterRun {
  readonly records: ReadonlyArray<RunRecord>
  readonly ended: Extract<FleetRunEvent, { readonly _tag: "Ended" }> | undefined
}

interface RunState {
  readonly run: string | undefined
  readonly clusters: ReadonlyMap<string, ClusterRun>
}

const nothing: RunState = { run: undefined, clusters: new Map() }

const after = (state: RunState, event: FleetRunEvent): RunState => {
  const change = (cluster: string, how: (known: ClusterRun) => ClusterRun): RunState => ({
    ...state,
    clusters: new Map(state.clusters).set(
      cluster,
      how(state.clusters.get(cluster) ?? { records: [], ended: undefined })
    )
  })
  switch (event._tag) {
    case "Started":
      return {
        run: event.run,
        clusters: new Map(event.clusters.map((cluster) => [cluster, { records: [], ended: undefined }]))
      }
    case "Reported":
      return change(event.cluster, (known) => ({ ...known, records: [...known.records, event.record] }))
    case "Ended":
      return change(event.cluster, (known) => ({ ...known, ended: event }))
  }
}

const cellOf = ({ layer, probe, report, standing }: RunRecord): Cell => ({
  probe,
  checker: report.checker,
  layer,
  status: report.status,
  freshness: "fresh",
  ...(report.code === undefined ? {} : { code: report.code }),
  ...(report.blame === undefined ? {} : { blame: report.blame }),
  message: report.message,
  lastRun: report.startedAt,
  since: standing.since
})

/** What a cluster that did not finish could not say is unknown, whatever it said before. */
const statusOf = ({ ended, records }: ClusterRun): Status.Status =>
  Status.worst([
    ...records.map(({ report }) => report.status),
    ...(ended?.outcome === "finished" && records.length > 0 ? [] : ["UNKNOWN" as const])
  ])

const rowsOf = (state: RunState): ReadonlyArray<MatrixRow> =>
  [...state.clusters].map(([cluster, run]) => ({
    cluster,
    status: statusOf(run),
    linked: run.ended?.outcome !== "unreachable",
    cells: run.records.map(cellOf)
  }))

const encodeRecord = Schema.encodeSync(RunRecord)

const encode = (state: RunState) => ({
  run: state.run,
  clusters: [...state.clusters].map(([cluster, run]) => ({
    cluster,
    status: statusOf(run),
    outcome: run.ended?.outcome,
    ...(run.ended?.message === undefined ? {} : { message: run.ended.message }),
    records: run.records.map((record) => encodeRecord(record))
  }))
})

const exitCodeOf = (state: RunState, failOn: ExitCode.FailOn): 0 | 1 | 2 => {
  const records = [...state.clusters.values()].flatMap(({ records }) => records)
  if (ExitCode.reaches(Status.worst(records.map(({ report }) => report.status)), failOn)) return 1
  const complete = [...state.clusters.values()].every(({ ended, records }) =>
    ended?.outcome === "finished" && records.length > 0
  )
  return complete && state.clusters.size > 0 ? 0 : 2
}
