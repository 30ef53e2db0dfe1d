/** What a table of the fleet does not hold: every finding of what is not good, and what to do about it. */
import { DateTime, Effect } from "effect"
import type { FleetClient } from "../client/FleetClient.ts"
import type { Finding } from "../domain/Report.ts"
import type { Cell, MatrixRow, ProbeView } from "../domain/rpc/Fleet.ts"
import * as Status from "../domain/Status.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import type { Details } from "./output/FleetTable.ts"
import * as NextStep from "./output/NextStep.ts"

/** Cells whose findings are asked for, worst first: one call each. The others have their message. */
const MOST_CELLS = 500

/** Calls at once. */
const AT_ONCE = 8

const keyOf = (cluster: string, { checker, probe }: Cell): string =>
  `${cluster}/${probe.namespace}/${probe.name}/${checker}`

/** Names what is told of a check beside its verdict (what was left behind, how it compares) by the check. */
const nameOf = (checker: string): string => checker.replace(/\/(cleanup|fleet)$/u, "")

/** What to do about a code of a cell, by the catalogue's probe that its check uses. */
export const fixesOf =
  (catalogue: ReadonlyArray<AnyProbe>, probes: ReadonlyArray<ProbeView>) =>
  ({ checker, code, message, probe }: Cell): string | undefined => {
    const name = nameOf(checker)
    const use =
      probes.find((view) => view.name === probe.name)?.spec.checks?.find((check) => check.name === name)?.use ??
        name
    const shared: Readonly<Record<string, { readonly spec: { readonly fix: string } }>> = checkerCodes
    const own = catalogue.find(({ id }) => id === use)?.codes
    return NextStep.of({ checker, code, message }, (_, asked) => (own?.[asked] ?? shared[asked])?.spec.fix)
  }

/** The findings of the run that a cell shows; nothing when the history does not have that run. */
const findingsOf = Effect.fnUntraced(function*(fleet: FleetClient["Service"], cluster: string, cell: Cell) {
  const { entries } = yield* fleet.history({ cluster, probe: cell.probe, checker: cell.checker, limit: 1 })
  const report = entries[0]?.record.report
  return report !== undefined && cell.lastRun !== undefined && DateTime.Equivalence(report.startedAt, cell.lastRun)
    ? report.findings
    : []
})

/** What to do about each code, without the findings. Who may not read the Probes has what there is without. */
export const fixes = Effect.fn("FleetDetails.fixes")(function*(fleet: FleetClient["Service"]) {
  const { catalogue } = yield* Effect.promise(() => import("../probes/Catalogue.ts"))
  const probes = yield* fleet.probes({}).pipe(
    Effect.map((found) => found.probes),
    Effect.orElseSucceed((): ReadonlyArray<ProbeView> => [])
  )
  return { findingsOf: () => [], fixOf: fixesOf(catalogue, probes) } satisfies Details
})

/** For these rows now. Who may not read the history has what there is without. */
export const load = Effect.fn("FleetDetails.load")(function*(
  fleet: FleetClient["Service"],
  rows: ReadonlyArray<MatrixRow>
) {
  const { fixOf } = yield* fixes(fleet)
  const cells = rows.flatMap(({ cells, cluster }) =>
    cells.filter(({ code, lastRun, status }) => code !== undefined && lastRun !== undefined && status !== "PASS")
      .map((cell) => ({ cluster, cell }))
  ).toSorted((a, b) => Status.order(b.cell.status, a.cell.status)).slice(0, MOST_CELLS)
  const found = yield* Effect.forEach(cells, ({ cell, cluster }) =>
    findingsOf(fleet, cluster, cell).pipe(
      Effect.orElseSucceed((): ReadonlyArray<Finding> => []),
      Effect.map((findings) => [keyOf(cluster, cell), findings] as const)
    ), { concurrency: AT_ONCE })
  const findings = new Map(found)
  return {
    findingsOf: (cluster, cell) => findings.get(keyOf(cluster, cell)) ?? [],
    fixOf
  } satisfies Details
})
