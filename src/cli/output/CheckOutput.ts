/** A finished check in the format that was asked for. */
import { Effect, Schema } from "effect"
import { CheckResult } from "../../domain/CheckResult.ts"
import * as Junit from "./Junit.ts"
import * as Matrix from "./Matrix.ts"
import type { OutputFormat } from "./OutputFormat.ts"
import * as Structured from "./Structured.ts"

const encode = Schema.encodeSync(CheckResult)

/** Rows in planned order; reports nobody planned (a clean-up that failed) follow. */
export const rowsOf = (
  planned: ReadonlyArray<Matrix.MatrixRow>,
  result: CheckResult
): ReadonlyArray<Matrix.MatrixRow> => {
  const known = new Set(planned.map((row) => row.checker))
  const more = new Map(
    result.clusters.flatMap((cluster) => cluster.reports)
      .filter((report) => !known.has(report.checker))
      .map((report) => [report.checker, { checker: report.checker, layer: report.layer }])
  )
  return [...planned, ...more.values()]
}

/** The text for standard output, without a final newline. */
export const render = (options: {
  readonly format: OutputFormat
  readonly result: CheckResult
  readonly planned: ReadonlyArray<Matrix.MatrixRow>
  readonly matrix: Omit<Matrix.MatrixOptions, "wide">
}): Effect.Effect<string> => {
  const { format, result } = options
  switch (format) {
    case "json":
    case "yaml":
      return Structured.render(encode(result), format)
    case "junit":
      return Effect.sync(() => Junit.render(result))
    case "table":
    case "wide": {
      const matrix = { ...options.matrix, wide: format === "wide" }
      const columns = result.clusters.map(Matrix.columnOf)
      return Effect.sync(() =>
        [
          ...Matrix.table(rowsOf(options.planned, result), columns, matrix),
          ...Matrix.findings(columns, matrix),
          "",
          ...Matrix.notRun(columns, matrix),
          Matrix.summary(result, matrix.style)
        ].join("\n")
      )
    }
  }
}
