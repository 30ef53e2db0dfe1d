/** For agents to which no prober could report. */
import { DateTime, Effect, Layer } from "effect"
import { fromFindings } from "../domain/Report.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import { JobRunner } from "./JobRunner.ts"

/** Every Probe with a template is UNKNOWN, as are the checkers it once had. */
export const layer: Layer.Layer<JobRunner> = Layer.succeed(JobRunner, {
  run: ({ known = [], probe }) =>
    Effect.map(DateTime.now, (startedAt) =>
      (known.length === 0 ? [probe.name] : known).map((checker) =>
        fromFindings({
          checker,
          findings: [checkerCodes.CHECKER_FAILED({
            message: "this agent runs no container probes; start it with --report-listen, which they report to"
          })],
          summary: "",
          startedAt,
          duration: 0
        })
      ))
})
