/** The table while it fills: redrawn in place on a terminal, silent elsewhere. */
import { Effect, Ref } from "effect"
import type { CheckEvent } from "../CheckClusters.ts"
import type { Surface } from "../Screen.ts"
import * as LiveLines from "./LiveLines.ts"
import type { MatrixColumn, MatrixOptions, MatrixRow } from "./Matrix.ts"
import * as Matrix from "./Matrix.ts"

const emptyColumn = (cluster: string): MatrixColumn => ({
  cluster,
  kubernetesVersion: undefined,
  reports: new Map(),
  notRun: new Map(),
  running: new Set()
})

const without = (running: ReadonlySet<string>, checker: string): ReadonlySet<string> =>
  new Set([...running].filter((other) => other !== checker))

/** What the column becomes after `event`. */
export const update = (column: MatrixColumn, event: CheckEvent): MatrixColumn => {
  switch (event._tag) {
    case "Version":
      return { ...column, kubernetesVersion: event.version }
    case "Planned":
      return { ...column, notRun: new Map(event.notRun.map((entry) => [entry.checker, entry.reason])) }
    case "Started":
      return { ...column, running: new Set([...column.running, event.checker]) }
    case "Finished":
      return {
        ...column,
        reports: new Map([...column.reports, [event.result.checker, event.result]]),
        running: without(column.running, event.result.checker)
      }
    case "Swept":
      return column
  }
}

/**
 * Draws until the scope closes, then removes what it drew, so that the final table takes its place.
 *
 * Answers the function to tell events to.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly surface: Surface
  readonly clusters: ReadonlyArray<string>
  readonly rows: ReadonlyArray<MatrixRow>
  readonly matrix: MatrixOptions
}) {
  const { surface } = options
  if (!surface.isTerminal) return () => Effect.void
  const columns = yield* Ref.make(new Map(options.clusters.map((cluster) => [cluster, emptyColumn(cluster)])))
  yield* LiveLines.make(
    surface,
    ({ width }) =>
      Effect.map(
        Ref.get(columns),
        (current) => Matrix.table(options.rows, [...current.values()], { ...options.matrix, width })
      )
  )
  return (event: CheckEvent) =>
    Ref.update(columns, (current) => {
      const column = current.get(event.cluster) ?? emptyColumn(event.cluster)
      return new Map([...current, [event.cluster, update(column, event)]])
    })
})
