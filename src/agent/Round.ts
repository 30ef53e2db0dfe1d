/**
 * Runs a set of checks on one cluster once: parents before children, the rest together.
 *
 * Checks wait for the probes they depend on that are part of the same round. When such a parent says ERROR, its
 * children are UNKNOWN because of it and are not run: they could only repeat it, slower.
 *
 * What would be newly red is looked at twice; see `Confirmation`.
 */
import { DateTime, Deferred, Duration, Effect, Option, Random, Semaphore } from "effect"
import * as Report from "../domain/Report.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { Need } from "../probes/Needs.ts"
import * as Preflight from "../probes/Preflight.ts"
import type { Check } from "../probes/Probe.ts"
import type { RunContext } from "../probes/RunContext.ts"
import * as ServerTime from "../probes/ServerTime.ts"
import * as Confirmation from "./Confirmation.ts"
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
  /** How the rules of the prober's identity are had; asked for in each round when absent. */
  readonly rules?: Preflight.ReadRules | undefined
  /** What probes use besides the API. */
  readonly world?: ProbeWorld | undefined
  /** What stands of each check, by its name and as `Report.keyOf` names it; it needs no second look. */
  readonly standing?: ReadonlyMap<string, ReadonlySet<string>> | undefined
  /** Reports of parents that are no part of this round and stand at ERROR, by the id of their probe. */
  readonly failed?: ReadonlyMap<string, Parent> | undefined
  /** When the round must be over. No second look goes beyond. */
  readonly deadline?: DateTime.Utc | undefined
}

/** Between two looks: longer than a connection takes to be made anew, and different for checks that failed together. */
const PAUSE_MILLIS = { least: 300, most: 500 }

/**
 * How long after a probe's own time what it created may be swept, should its runner have died: to release it takes half a
 * minute, and the clocks of prober and cluster may be some minutes apart.
 */
const SWEEP_GRACE = Duration.minutes(5)

/** Before the deadline of a round everything must have been said. */
const TO_SAY = Duration.millis(250)

const nothing: ReadonlySet<string> = new Set()

/** A checker that others depend on, and what it says. */
export type Parent = Pick<Report.Report, "checker" | "status" | "code">

const becauseOf = (check: Check, parent: Parent, now: DateTime.Utc): Runner.RunResult => ({
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

/** What both looks left behind. */
const leftBy = (first: Runner.RunResult, second: Runner.RunResult): Runner.RunResult["cleanup"] =>
  Option.match(second.cleanup, {
    onNone: () => first.cleanup,
    onSome: (report) =>
      Option.some(Report.fromFindings({
        ...report,
        findings: [
          ...Option.match(first.cleanup, { onNone: () => [], onSome: ({ findings }) => findings }),
          ...report.findings
        ],
        summary: ""
      }))
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
    // Whoever lacks an optional one runs all the same.
    const needs = checks.flatMap((check) => check.probe.needs).filter(({ optional }) => !optional)
    const missingOf = (needs: ReadonlyArray<Need>, rules?: Preflight.ReadRules) =>
      Preflight.missing(needs, context.probeNamespace, rules).pipe(
        Effect.timeout(Duration.seconds(10)),
        // Without an answer nothing is known to be missing; the run itself will say what it could not do, and why.
        Effect.orElseSucceed((): ReadonlyArray<Need> => [])
      )
    const missing = yield* Effect.cached(missingOf(needs, options.rules))
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
        if (report.status === "ERROR") return Option.some<Parent>(report)
      }
      const elsewhere = check.probe.dependsOn.filter((id) => !checks.some(({ probe }) => probe.id === id))
        .map((id) => options.failed?.get(id)).find((parent) => parent !== undefined)
      return Option.fromUndefinedOr(elsewhere)
    })

    const look = Effect.fnUntraced(function*(
      check: Check,
      missing: Effect.Effect<ReadonlyArray<Need>, never, Kube>,
      timeout = check.probe.timeout
    ) {
      const standing = options.standing?.get(check.name)
      const required = check.probe.needs.some((need) => !need.optional)
      const ownExpiry = DateTime.addDuration(yield* DateTime.now, Duration.sum(timeout, SWEEP_GRACE))
      const expiresAt = DateTime.min(ownExpiry, context.expiresAt)
      return yield* Runner.run({ ...check, probe: { ...check.probe, timeout } }, {
        context: { ...context, expiresAt, ...(standing === undefined ? {} : { standing }) },
        missing: required ? yield* missing : [],
        world: options.world
      })
    })

    /** What was remembered must not pass for a fault of the cluster: rights that were taken away since, a clock that was set. */
    const lookAgain = (check: Check, timeout: Duration.Duration) =>
      look(check, missingOf(check.probe.needs.filter(({ optional }) => !optional)), timeout).pipe(
        Effect.provideService(ServerTime.Reading, ServerTime.read)
      )

    /** How long a second look may take: what the first has left of the probe's own time, and of the round's. */
    const left = (check: Check, first: Report.Report, now: DateTime.Utc): Duration.Duration => {
      const own = Duration.subtract(check.probe.timeout, DateTime.distance(first.startedAt, now))
      return options.deadline === undefined
        ? own
        : Duration.min(own, Duration.subtract(DateTime.distance(now, options.deadline), TO_SAY))
    }

    /** The first look's result, or what it and a second one say together. */
    const confirm = Effect.fnUntraced(function*(check: Check, first: Runner.RunResult) {
      const standing = options.standing?.get(check.name) ?? nothing
      const faults = Confirmation.unconfirmed(first.report, standing, check.probe.confirm)
      if (faults.length === 0) return first
      const pause = Duration.millis(yield* Random.nextIntBetween(PAUSE_MILLIS.least, PAUSE_MILLIS.most))
      const conclude = (second: Confirmation.Second) =>
        Confirmation.conclude(first.report, second, { faults, confirm: check.probe.confirm })
      const now = yield* DateTime.now
      if (Duration.isLessThanOrEqualTo(left(check, first.report, now), pause)) {
        return { ...first, report: conclude({ impossible: "there was no time left for it" }) }
      }
      // Others may run meanwhile.
      yield* Effect.sleep(pause)
      const second = yield* permits.withPermits(1)(Effect.gen(function*() {
        const remains = left(check, first.report, yield* DateTime.now)
        return Duration.isLessThanOrEqualTo(remains, Duration.zero)
          ? undefined
          : yield* lookAgain(check, remains)
      }))
      return second === undefined
        ? { ...first, report: conclude({ impossible: "there was no time left for it" }) }
        : {
          report: conclude(second.report),
          cleanup: leftBy(first, second)
        }
    })

    const runCheck = Effect.fnUntraced(function*(check: Check) {
      const fault = yield* parentFault(check)
      if (Option.isSome(fault)) return becauseOf(check, fault.value, yield* DateTime.now)
      const first = yield* permits.withPermits(1)(Effect.andThen(
        options.onEvent({ _tag: "Started", check }),
        look(check, missing)
      ))
      return yield* confirm(check, first)
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
