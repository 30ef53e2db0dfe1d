/** Runs one check once and says what came of it. Nothing a probe does can make `run` fail: every failure has a finding. */
import { DateTime, Duration, Effect, Exit, Option, Scope } from "effect"
import * as Report from "../domain/Report.ts"
import { Kube } from "../infra/kube/Kube.ts"
import { attempt, failed } from "../probes/Attempt.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import { guard } from "../probes/KubeGuard.ts"
import { type Need, describe } from "../probes/Needs.ts"
import type { Check } from "../probes/Probe.ts"
import { RunContext } from "../probes/RunContext.ts"
import { Scratch } from "../probes/Scratch.ts"
import { Nodes } from "../probes/workers/Nodes.ts"
import { Workers } from "../probes/workers/Workers.ts"
import * as ProbeWorld from "./ProbeWorld.ts"
import type { RunScope } from "./RunScope.ts"
import * as RunScratch from "./RunScratch.ts"

export { findingOfKubeError } from "../probes/Attempt.ts"

/** What a run produced: its verdict and, only when something could not be deleted, what was left behind. */
export interface RunResult {
  readonly report: Report.Report
  readonly cleanup: Option.Option<Report.Report>
}

/** The part of the world a run happens in. */
export interface RunOptions {
  readonly context: RunContext["Service"]
  /** Needs the prober's identity lacks, as far as a pre-flight could find out. */
  readonly missing: ReadonlyArray<Need>
  /** What there is besides the API; {@link ProbeWorld.outside} when absent. */
  readonly world?: ProbeWorld.ProbeWorld | undefined
}

const missingAccess = (missing: ReadonlyArray<Need>, probeNamespace: string): Report.Finding =>
  checkerCodes.ACCESS_MISSING({
    message: `not allowed to ${missing.map((need) => describe(need, probeNamespace)).join("; ")}; grant ${
      missing.length === 1 ? "this rule" : "these rules"
    } to the prober`,
    evidence: { missing: missing.map((need) => describe(need, probeNamespace)).join("; ") }
  })

/** Run `check` now. The probe's own timeout bounds it; deletions come after, in a time of their own. */
export const run = Effect.fn("Runner.run")(
  function*(check: Check, options: RunOptions): Effect.fn.Return<RunResult, never, Kube> {
    const kube = yield* Kube
    const { probe } = check
    const startedAt = yield* DateTime.now

    const required = new Set(probe.needs.filter((need) => !need.optional).map((need) => describe(need)))
    const missing = options.missing.filter((need) => required.has(describe(need)))
    const program = missing.length > 0
      ? Effect.succeed(failed(missingAccess(missing, options.context.probeNamespace)))
      : attempt(check)

    return yield* Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
      const scope = yield* Scope.make("parallel")
      const guarded = guard(kube, probe.needs, options.context.probeNamespace, probe.writes)
      const { leftovers, scratch } = yield* RunScratch.make(kube, guarded, options.context, scope)
      const world = options.world ?? ProbeWorld.outside
      const deadline = DateTime.addDuration(startedAt, probe.timeout)
      const here: RunScope = { kube: guarded, scratch, context: options.context, deadline, scope }
      const exit = yield* program.pipe(
        Effect.provideService(Kube, guarded),
        Effect.provideService(RunContext, options.context),
        Effect.provideService(Scratch, scratch),
        Effect.provideService(Workers, yield* world.workers(here)),
        Effect.provideService(Nodes, yield* world.nodes(here)),
        Effect.provideContext(world.world),
        restore,
        Effect.exit
      )
      const duration = Duration.toMillis(DateTime.distance(startedAt, yield* DateTime.now))
      yield* Scope.close(scope, Exit.void)
      // An attempt has an outcome unless it was interrupted from outside.
      const outcome = yield* exit
      const left = yield* leftovers
      return {
        report: Report.fromFindings({ checker: check.name, ...outcome, startedAt, duration }),
        cleanup: left.length === 0 ? Option.none() : Option.some(Report.fromFindings({
          checker: `${check.name}/cleanup`,
          findings: left,
          summary: "",
          startedAt,
          duration
        }))
      }
    }))
  }
)
