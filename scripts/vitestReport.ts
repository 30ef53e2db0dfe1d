/** What is read of vitest's JSON reports, and where those of the last full run are. */
import { Schema } from "effect"
import { join } from "node:path"
import { root } from "./bundle.ts"

/** A file that could not be loaded has failed without a test of its own. */
export const VitestReport = Schema.Struct({
  numPassedTests: Schema.Int,
  numFailedTests: Schema.Int,
  numPendingTests: Schema.Int,
  numTodoTests: Schema.Int,
  testResults: Schema.Array(Schema.Struct({
    /** The file. */
    name: Schema.String,
    status: Schema.String,
    assertionResults: Schema.Array(Schema.Struct({ status: Schema.String, title: Schema.String }))
  }))
})
export type VitestReport = typeof VitestReport.Type

export const VitestReportJson = Schema.fromJsonString(VitestReport)

/** Not committed; of the project `unit` or `integration`. */
export const reportFile = (project: string): string => join(root, ".vitest", `report-${project}.json`)
