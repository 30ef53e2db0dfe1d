/** `kubeprober status`: the fleet as its master sees it, once or for as long as one looks. */
import { Effect, Option, Schema, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Finding } from "../../domain/Report.ts"
import { type FleetFilter, MatrixRow, Transition } from "../../domain/rpc/Fleet.ts"
import * as Status from "../../domain/Status.ts"
import * as ExitCode from "../ExitCode.ts"
import type { Details } from "../output/FleetTable.ts"
import * as Structured from "../output/Structured.ts"
import { note, print } from "../Screen.ts"
import * as flags from "./flags.ts"

export const status = Command.make(
  "status",
  {
    ...flags.master,
    ...flags.selecting,
    atLeast: Flag.Literals("at-least", ["INFO", "UNKNOWN", "WARN", "ERROR"]).pipe(
      Flag.withDescription("Only checkers that show at least this"),
      Flag.optional
    ),
    watch: Flag.Boolean("watch").pipe(
      Flag.withAlias("w"),
      Flag.withDescription("Stay: a live table on a terminal, else one line for each change"),
      Flag.withDefault(false)
    ),
    failOn: flags.failOnNever,
    output: flags.listOutput
  },
  Effect.fn("status")(function*(options) {
    const [MasterSession, FleetWatch, FleetDetails, FleetNames] = yield* Effect.promise(() =>
      Promise.all([
        import("../MasterSession.ts"),
        import("../FleetWatch.ts"),
        import("../FleetDetails.ts"),
        import("../FleetNames.ts")
      ])
    )
    yield* MasterSession.withFleet(options, (fleet) =>
      Effect.gen(function*() {
        const filter: FleetFilter = {
          ...(yield* flags.filterOf(options)),
          ...Option.match(options.atLeast, { onNone: () => ({}), onSome: (atLeast) => ({ atLeast }) })
        }
        yield* FleetNames.ensureKnown(fleet, options)
        const wide = options.output === "wide"
        if (options.output === "json" || options.output === "yaml") {
          const found = yield* FleetWatch.rows(fleet, filter)
          const details = yield* FleetDetails.load(fleet, found)
          yield* print([yield* Structured.render(found.map((row) => encode(row, details)), options.output)])
          if (!options.watch) return yield* exit(found, options.failOn)
          return yield* Stream.runForEach(fleet.transitions({ filter }), (change) =>
            print([JSON.stringify(encodeTransition(change))]))
        }
        if (options.watch) {
          return yield* FleetWatch.watch(fleet, filter, { wide })
        }
        const found = yield* FleetWatch.rows(fleet, filter)
        if (found.length === 0) {
          yield* note([Object.keys(filter).length === 0 ? NO_CLUSTER : "nothing of the fleet fits"])
        } else {
          const details = yield* wide ? FleetDetails.load(fleet, found) : FleetDetails.fixes(fleet)
          yield* FleetWatch.printTable(found, wide, details)
        }
        return yield* exit(found, options.failOn)
      }))
  })
).pipe(
  Command.withDescription(
    "Show the fleet as its master sees it: every checker of every cluster, never green when it cannot be vouched for."
  ),
  Command.withShortDescription("Show the fleet as its master sees it"),
  Command.withExamples([
    { command: "kubeprober status", description: "All clusters" },
    { command: "kubeprober status -w", description: "Live" },
    { command: "kubeprober status -l env=prod --at-least WARN", description: "What is wrong in some of them" }
  ])
)

const NO_CLUSTER = "no cluster yet; `kubeprober cluster add NAME` adds one"

const encodeRow = Schema.encodeSync(MatrixRow)
const encodeFinding = Schema.encodeSync(Finding)

/** A row, and beside each cell that is not good what is known besides. */
const encode = (row: MatrixRow, details: Details) => ({
  ...encodeRow(row),
  cells: encodeRow(row).cells.map((encoded, index) => {
    const cell = row.cells[index]
    const findings = cell === undefined ? [] : details.findingsOf(row.cluster, cell)
    const next = cell === undefined || cell.status === "PASS" ? undefined : details.fixOf(cell)
    return {
      ...encoded,
      ...(findings.length === 0 ? {} : { findings: findings.map((finding) => encodeFinding(finding)) }),
      ...(next === undefined ? {} : { next })
    }
  })
})

const encodeTransition = Schema.encodeSync(Transition)

const exit = (rows: ReadonlyArray<MatrixRow>, failOn: ExitCode.FailOn) => {
  const code = exitCodeOf(rows, failOn)
  return code === 0 ? Effect.void : Effect.fail(new ExitCode.Exit({ code }))
}

/** As `check`: 2 when the fleet, or a cluster of it, cannot be vouched for at all. */
const exitCodeOf = (rows: ReadonlyArray<MatrixRow>, failOn: ExitCode.FailOn): 0 | 1 | 2 => {
  if (failOn === "never") return 0
  if (ExitCode.reaches(Status.worst(rows.map((row) => row.status)), failOn)) return 1
  return rows.some((row) => !row.linked) ? 2 : 0
}
