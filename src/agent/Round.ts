/**
 * Runs a set of checks on one cluster once: parents before children, the rest together.
 *
 * Checks wait for the probes they depend on that are part of the same round. When such a parent says ERROR, its
 * children are UNKNOWN because of it and are not run: they could only repeat it, slower.
 */
import { DateTime, Deferred, Duration, Effect, Option, Semaphore } from "effect"
import * as Report from "../domain/Report.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { Need } from "../probes/Needs.ts"
import * as Preflight from "../probes/Preflight.ts"
import type { Check } from "../probes/Probe.ts"
import type { RunContext } from "../probes/RunContext.ts"
import type { ProbeWorld } from "./ProbeWorld.ts"
import * as Runner from "./Runner.ts"

/** What happens during a round, for those who watch. */
export type RoundEvent =
  | { readonly _tag: "Started"; readonly check: Check }
  | { readonly _tag: "Finished"; readonly check: Check; readonly result: Runner.RunResult }

export interface RoundOptions {
  readonly checks: ReadonlyArray<Check>
  readonly context: RunContext["Service"]
  /** How many checks run at a time on this cluster. */
  readonly concurrency: number
  readonly onEvent: (event: RoundEvent) => Effect.Effect<void>
  /** What probes use besides the API. */
  readonly world?: ProbeWorld | undefined
}

const becauseOf = (check: Check, parent: Report.Report, now: DateTime.Utc): Runner.RunResult => ({
  report: Report.fromFindings({
    checker: check.name,
    findings: [checkerCodes.PARENT_FAILED({
      message: `not run, because ${parent.checker} is ${parent.status}${
        parent.code === undefined ? "" : ` (${parent.code})`
      }`,
      evidence: { parent: parent.checker, ...(parent.code === undefined ? {} : { parentCode: parent.code }) }
    })],
    summary: "",
    startedAt: now,
    duration: 0
  }),
  cleanup: Option.none()
})

/** Parents in this round, by probe id; a probe never waits for itself, nor for one that waits for it. */
const parentsOf = (check: Check, checks: ReadonlyArray<Check>): ReadonlyArray<Check> => {
  const reaches = (from: Check, seen: ReadonlySet<Check>): boolean =>
    checks.some((other) =>
      from.probe.dependsOn.includes(other.probe.id) &&
      (other === check || (!seen.has(other) && reaches(other, new Set([...seen, other]))))
    )
  return checks.filter((other) =>
    other !== check && check.probe.dependsOn.includes(other.probe.id) && !reaches(other, new Set([other]))
  )
}

/** Run every check once. Results come in the order of `checks`. */
export const run = Effect.fn("Round.run")(
  function*(options: RoundOptions): Effect.fn.Return<ReadonlyArray<Runner.RunResult>, never, Kube> {
    const { checks } = options
    const context = { plan: checks.map(({ probe }) => probe), ...options.context }
    const needs = checks.flatMap((check) => check.probe.needs)
    const missing = yield* Effect.cached(
      Preflight.missing(needs, context.probeNamespace).pipe(
        Effect.timeout(Duration.seconds(10)),
        // Without an answer nothing is known to be missing; the run itself will say what it could not do, and why.
        Effect.orElseSucceed((): ReadonlyArray<Need> => [])
      )
    )
    const permits = yield* Semaphore.make(options.concurrency)
    const done = new Map(
      yield* Effect.forEach(
        checks,
        (check) => Effect.map(Deferred.make<Runner.RunResult>(), (result) => [check, result] as const)
      )
    )
    const parentFault = Effect.fnUntraced(function*(check: Check) {
      for (const parent of parentsOf(check, checks)) {
        const result = done.get(parent)
        if (result === undefined) continue
        const { report } = yield* Deferred.await(result)
        if (report.status === "ERROR") return Option.some(report)
      }
      return Option.none<Report.Report>()
    })
    const runCheck = Effect.fnUntraced(function*(check: Check) {
      const fault = yield* parentFault(check)
      if (Option.isSome(fault)) return becauseOf(check, fault.value, yield* DateTime.now)
      return yield* permits.withPermits(1)(Effect.gen(function*() {
        yield* options.onEvent({ _tag: "Started", check })
        const required = check.probe.needs.some((need) => !need.optional)
        return yield* Runner.run(check, { context, missing: required ? yield* missing : [], world: options.world })
      }))
    })
    return yield* Effect.forEach(checks, (check) =>
      runCheck(check).pipe(
        Effect.tap((result) => options.onEvent({ _tag: "Finished", check, result })),
        Effect.tap((result) =>
          Effect.forEach(Option.toArray(Option.fromNullishOr(done.get(check))), (deferred) =>
            Deferred.succeed(deferred, result))
        )
      ), { concurrency: "unbounded" })
  }
)
