/** The table while it fills: redrawn in place on a terminal, silent elsewhere. */
import { Effect, Ref, Schedule } from "effect"
import type { CheckEvent } from "../CheckClusters.ts"
import type { Surface } from "../Screen.ts"
import type { MatrixColumn, MatrixOptions, MatrixRow } from "./Matrix.ts"
import * as Matrix from "./Matrix.ts"
import * as Table from "./Table.ts"

const REDRAW_EVERY = "100 millis"

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

const CLEAR_BELOW = "\u001B[0J"
const up = (lines: number): string => lines === 0 ? "\r" : `\r\u001B[${lines}A`

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
  let drawn = 0
  let shown = ""
  const draw = Effect.gen(function*() {
    const width = yield* surface.width
    // A line scrolled off cannot be redrawn: while live, show what fits.
    const room = Math.max(1, ((yield* surface.height) ?? 24) - 1)
    const lines = Matrix.table(options.rows, [...(yield* Ref.get(columns)).values()], { ...options.matrix, width })
      .slice(0, room)
      // A line that wraps would take two, and be redrawn in the wrong place.
      .map((line) => width === undefined ? line : Table.clip(line, width))
    const text = lines.join("\n")
    if (text === shown) return
    yield* surface.write(`${up(drawn)}${CLEAR_BELOW}${text}`)
    shown = text
    drawn = lines.length - 1
  })
  yield* Effect.addFinalizer(() => surface.write(`${up(drawn)}${CLEAR_BELOW}`))
  yield* draw.pipe(Effect.repeat(Schedule.spaced(REDRAW_EVERY)), Effect.forkScoped)
  return (event: CheckEvent) =>
    Ref.update(columns, (current) => {
      const column = current.get(event.cluster) ?? emptyColumn(event.cluster)
      return new Map([...current, [event.cluster, update(column, event)]])
    })
})
