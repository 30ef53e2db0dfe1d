/**
 * Runs one Probe once, and sees to it that every checker of it has something to say of this run.
 *
 * Whatever happens, no checker is left with what it said before: what could not be run, was not finished or is not known
 * here is UNKNOWN with its cause.
 */
import { Cause, Context, DateTime, Duration, Effect, Exit, Layer, Option, Result, Semaphore } from "effect"
import { DEFAULT_TIMEOUT, TEMPLATE_TIMEOUT } from "../domain/Policy.ts"
import type { ProbeLayer } from "../domain/ProbeLayer.ts"
import { type Profile, mayRun, permits } from "../domain/Profile.ts"
import * as Report from "../domain/Report.ts"
import type { RunId, RunRecord, Trigger } from "../domain/Run.ts"
import { Kube } from "../infra/kube/Kube.ts"
import type { BudgetExhausted } from "../infra/kube/KubeError.ts"
import { type Gate, KubeGate } from "../infra/kube/KubeGate.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import * as Preflight from "../probes/Preflight.ts"
import type { AnyProbe, Check } from "../probes/Probe.ts"
import * as ServerTime from "../probes/ServerTime.ts"
import { Budget, LANES, type Lane, lanes } from "./Budget.ts"
import { JobRunner } from "./JobRunner.ts"
import { Outbox } from "./Outbox.ts"
import { BACKSTOP, checksOf, cleanupOf, hasChecker, planOf } from "./probePlan.ts"
import { type StoredProbe, keyOf } from "./ProbeStore.ts"
import type { ProbeWorld } from "./ProbeWorld.ts"
import * as Round from "./Round.ts"
import { Standings } from "./Standings.ts"
import { StatusWriter } from "./StatusWriter.ts"
import { Sweeping } from "./Sweeping.ts"

/** Of the checks that run at a time in a lane, how many one Probe may have. */
const CHECKS_OF_ONE = 4

/** How long after its deadline a run's objects are left alone by the sweeper. */
const SWEEP_GRACE = Duration.minutes(10)

export interface RunRequest {
  readonly probe: StoredProbe
  readonly run: RunId
  readonly trigger: Trigger
  /**
   * Names of the checks to run; all when absent. The others keep what they said. Of the Probe as a whole nothing counts as
   * run when the trigger is a change.
   */
  readonly only?: ReadonlySet<string> | undefined
  /** Instead of the policy's. */
  readonly timeout?: Duration.Duration | undefined
  /** Tell only who asked: nothing is kept of it. For checks that belong to no Probe. */
  readonly unkept?: boolean | undefined
  /** Is told of each record as it is there, and must return soon. */
  readonly onRecord?: ((record: RunRecord) => Effect.Effect<void>) | undefined
}

export interface ExecutionOptions {
  /** The catalogue and the user's own modules. */
  readonly available: ReadonlyArray<AnyProbe>
  /** Where probes create objects. */
  readonly probeNamespace: string
  /** What probes may write. */
  readonly profile: Profile
  /** Ids of probes that may run whatever they write. */
  readonly named: ReadonlySet<string>
  /** Whether the agent runs in the cluster, with a ServiceAccount made for it. */
  readonly inside: boolean
  /** What probes use besides the API. */
  readonly world: ProbeWorld
}

export class Execution extends Context.Service<Execution, {
  /** Runs it to its end; records go to the status, the outbox and whoever asked. When interrupted, cleanup still happens. */
  readonly run: (request: RunRequest) => Effect.Effect<void>
}>()("kubeprober/agent/Execution") {
  static readonly layer = (
    options: ExecutionOptions
  ): Layer.Layer<Execution, never, Budget | Kube | JobRunner | Outbox | Standings | StatusWriter | Sweeping> =>
    Layer.effect(Execution, make(options))
}

/** One checker's say, before it is known how the checker stands. */
interface Said {
  readonly report: Report.Report
  readonly layer: ProbeLayer
}

/** It creates objects and waits for what becomes of them. */
const isSlowCheck = ({ probe }: Check): boolean => !permits("observe", probe.writes)

const make = Effect.fnUntraced(function*(options: ExecutionOptions) {
  const kube = yield* Kube
  const budget = yield* Budget
  const jobs = yield* JobRunner
  const outbox = yield* Outbox
  const standings = yield* Standings
  const writer = yield* StatusWriter
  const sweeping = yield* Sweeping
  const rules = yield* Preflight.rememberedRules()
  const serverTime = yield* ServerTime.remembered
  /** Checks that run at a time inside the agent, and Jobs, each of which is a pod in the cluster. */
  const places = new Map(
    yield* Effect.forEach(lanes, (lane) => Effect.map(Semaphore.make(LANES[lane]), (made) => [lane, made] as const))
  )

  const unknown = (checker: string, finding: Report.Finding, startedAt: DateTime.Utc) =>
    Effect.map(DateTime.now, (now) =>
      Report.fromFindings({
        checker,
        findings: [finding],
        summary: "",
        startedAt,
        duration: Math.max(0, Duration.toMillis(DateTime.distance(startedAt, now)))
      }))

  const forbidden = (check: Check): Report.Finding | undefined =>
    mayRun(check.probe, options) ? undefined : checkerCodes.ACCESS_MISSING({
      message: `not run: ${check.probe.id} writes (${check.probe.writes}) and this agent's profile is ` +
        `${options.profile}; start the agent with --allow ${check.probe.id} or a profile that permits it, or leave the ` +
        "check out here",
      evidence: { writes: check.probe.writes, profile: options.profile }
    })

  const runChecks = Effect.fnUntraced(function*(
    { only, probe, run }: RunRequest,
    startedAt: DateTime.Utc,
    deadline: Duration.Duration,
    say: (said: Said) => Effect.Effect<void>
  ) {
    const layerOf = (check: Check) => probe.spec.layer ?? check.probe.layer
    const runnable: Array<Check> = []
    for (const planned of checksOf(probe, options)) {
      if (only?.has(planned._tag === "Known" ? planned.check.name : planned.name) === false) continue
      if (planned._tag === "Unknown") {
        const finding = checkerCodes.INVALID_CONFIG({
          message: `not in the agent's catalogue: ${planned.use}; update the agent or load the module that has it`
        })
        yield* say({
          report: yield* unknown(planned.name, finding, startedAt),
          layer: probe.spec.layer ?? "kubernetes"
        })
        continue
      }
      const finding = forbidden(planned.check)
      if (finding === undefined) runnable.push(planned.check)
      else {
        const report = yield* unknown(planned.check.name, finding, startedAt)
        yield* say({ report, layer: layerOf(planned.check) })
      }
    }
    if (runnable.length === 0) return
    // Those that look have their say before those that wait for what becomes of objects.
    runnable.sort((a, b) => Number(isSlowCheck(a)) - Number(isSlowCheck(b)))
    const { checkers } = yield* standings.of(probe)
    yield* Round.run({
      checks: runnable,
      context: {
        runId: run,
        probeNamespace: options.probeNamespace,
        expiresAt: DateTime.addDuration(startedAt, Duration.sum(deadline, SWEEP_GRACE)),
        podsAtOnce: (yield* budget.usage).pods.limit,
        leftovers: yield* sweeping.leftovers
      },
      concurrency: CHECKS_OF_ONE,
      rules,
      world: options.world,
      standing: new Map([...checkers].map(([name, { memory }]) => [name, new Set(memory?.standing)])),
      failed: yield* standings.failed(new Set(runnable.flatMap((check) => check.probe.dependsOn))),
      deadline: DateTime.addDuration(startedAt, deadline),
      onEvent: (event) =>
        event._tag === "Started" ? Effect.void : Effect.gen(function*() {
          const { check, result } = event
          const layer = layerOf(check)
          yield* say({ report: result.report, layer })
          yield* Option.match(result.cleanup, {
            onSome: (report) => say({ report, layer }),
            onNone: () => Effect.void
          })
        })
    }).pipe(Effect.provideService(Kube, kube), Effect.provideService(ServerTime.Reading, serverTime))
  })

  const runTemplate = Effect.fnUntraced(function*(
    { probe, run }: RunRequest,
    template: NonNullable<StoredProbe["spec"]["template"]>,
    startedAt: DateTime.Utc,
    deadline: Duration.Duration,
    known: ReadonlyArray<string>,
    say: (said: Said) => Effect.Effect<void>
  ) {
    if (!permits(options.profile, "namespace")) {
      const finding = checkerCodes.ACCESS_MISSING({
        message: `not run: a template is a Job, and this agent's profile is ${options.profile}; give the agent the ` +
          "profile standard, or leave the Probe out here",
        evidence: { profile: options.profile }
      })
      const names = known.length === 0 ? [probe.name] : known
      yield* Effect.forEach(
        names,
        Effect.fnUntraced(function*(checker) {
          yield* say({ report: yield* unknown(checker, finding, startedAt), layer: probe.spec.layer ?? "kubernetes" })
        }),
        { discard: true }
      )
      return
    }
    const reports = yield* jobs.run({
      probe,
      template,
      configs: probe.spec.configs ?? [],
      runId: run,
      timeout: deadline,
      expiresAt: DateTime.addDuration(startedAt, Duration.sum(deadline, SWEEP_GRACE)),
      known
    })
    yield* Effect.forEach(reports, (report) => say({ report, layer: probe.spec.layer ?? "kubernetes" }), {
      discard: true
    })
  })

  const isSlow = ({ only, probe }: RunRequest): boolean =>
    checksOf(probe, options).some((planned) =>
      planned._tag === "Known" && only?.has(planned.check.name) !== false && isSlowCheck(planned.check)
    )

  const laneOf = (request: RunRequest): Lane => {
    if (request.probe.spec.template !== undefined) return "job"
    return isSlow(request) ? `slow-${request.trigger}` : request.trigger
  }

  /** Waits for its turn; that takes nothing of the run's own time. */
  const gate = (request: RunRequest) => <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    const { only, probe: { spec } } = request
    const wanted = spec.template === undefined ? Math.min(CHECKS_OF_ONE, only?.size ?? spec.checks?.length ?? 1) : 1
    return places.get(laneOf(request))?.withPermits(wanted)(effect) ?? effect
  }

  const timeoutOf = ({ probe, timeout }: RunRequest): Duration.Duration | undefined =>
    timeout ?? probe.spec.policy?.timeout

  /** How long a run may wait for room in the budget: as long as it may take. */
  const patienceOf = (request: RunRequest): Duration.Duration => {
    const { only, probe } = request
    const given = timeoutOf(request)
    if (given !== undefined) return given
    if (probe.spec.template !== undefined) return TEMPLATE_TIMEOUT
    const timeouts = checksOf(probe, options).flatMap((planned) =>
      planned._tag === "Known" && only?.has(planned.check.name) !== false ? [planned.check.probe.timeout] : []
    )
    return timeouts.reduce((a, b) => Duration.max(a, b), DEFAULT_TIMEOUT)
  }

  /** Room in the budget for what is asked. */
  const room = (request: RunRequest) => {
    const { only, probe: { spec } } = request
    return budget.session({
      account: keyOf(request.probe),
      part: only === undefined ? "" : [...only].toSorted().join(","),
      checks: only?.size ?? spec.checks?.length ?? 1,
      patience: Duration.toMillis(patienceOf(request)),
      lane: laneOf(request)
    })
  }

  const perform = Effect.fnUntraced(function*(request: RunRequest, admitted: Result.Result<Gate, BudgetExhausted>) {
    const { probe, run, trigger } = request
    const ref = { namespace: probe.namespace, name: probe.name }
    const startedAt = yield* DateTime.now
    const before = yield* standings.of(probe)
    const plan = planOf(probe)
    const failureThreshold = Result.isSuccess(plan) ? plan.success.failureThreshold : 1
    const said = new Set<string>()

    const say = Effect.fnUntraced(function*({ layer, report }: Said) {
      said.add(report.checker)
      const standing = request.unkept === true
        ? { status: report.status, since: report.startedAt, consecutiveFailures: 0 }
        : yield* standings.take(probe, report, failureThreshold)
      const record: RunRecord = { run, probe: ref, layer, trigger, report, standing }
      if (request.unkept !== true) {
        yield* outbox.append([record])
        yield* writer.changed(probe)
      }
      if (request.onRecord !== undefined) yield* request.onRecord(record)
    }, Effect.uninterruptible)

    const expected = probe.spec.checks === undefined
      ? [...before.checkers.keys()]
      : probe.spec.checks.map(({ name }) => name).filter((name) => request.only?.has(name) !== false)
    const layerOf = (checker: string): ProbeLayer => {
      const use = probe.spec.checks?.find(({ name }) => name === checker)?.use
      return probe.spec.layer ?? options.available.find(({ id }) => id === use)?.layer ?? "kubernetes"
    }
    /** What has not been said is UNKNOWN. */
    const sayOfAll = (finding: Report.Finding) =>
      Effect.forEach(
        (expected.length === 0 ? [probe.name] : expected).filter((name) => !said.has(name)),
        Effect.fnUntraced(function*(checker: string) {
          yield* say({ report: yield* unknown(checker, finding, startedAt), layer: layerOf(checker) })
        }),
        { discard: true }
      )

    if (Result.isFailure(plan)) {
      yield* sayOfAll(checkerCodes.INVALID_CONFIG({
        message: `Probe ${ref.namespace}/${ref.name} cannot run: ${plan.failure}`
      }))
    } else if (Result.isFailure(admitted)) {
      yield* sayOfAll(checkerCodes.BUDGET_EXHAUSTED({ message: `not run: ${admitted.failure.detail}` }))
    } else {
      const { template } = probe.spec
      const given = timeoutOf(request)
      const deadline = given ?? (template === undefined ? BACKSTOP : plan.success.timeout)
      const program = (template === undefined
        ? runChecks(request, startedAt, deadline, say)
        : runTemplate(request, template, startedAt, deadline, expected, say)).pipe(
          Effect.provideService(KubeGate, admitted.success)
        )
      // A Job is ended by its own deadline, which says more of it.
      const patience = template === undefined ? deadline : Duration.sum(deadline, SWEEP_GRACE)
      const exit = yield* Effect.exit(Effect.timeoutOption(program, patience))
      if (Exit.isFailure(exit)) {
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.failCause(exit.cause)
        yield* Effect.logError("a run failed for a reason of the agent's own", exit.cause)
        yield* sayOfAll(checkerCodes.CHECKER_FAILED({
          message: `the agent could not run it: ${Cause.pretty(exit.cause).split("\n")[0] ?? "unknown cause"}`
        }))
      } else if (Option.isNone(exit.value)) {
        yield* sayOfAll(checkerCodes.TIMED_OUT({
          message: `not finished within the Probe's ${Duration.format(deadline)}`
        }))
      } else if (template === undefined || said.size === 0) {
        // Which checkers a prober has today it alone knows; that it has none is a fault.
        yield* sayOfAll(checkerCodes.CHECKER_FAILED({ message: "the run ended without a word of this checker" }))
      }
    }

    // What a former run left behind has been told as such; this one left nothing.
    const now = yield* DateTime.now
    yield* Effect.forEach(
      expected.map(cleanupOf).filter((name) => before.checkers.has(name) && !said.has(name)),
      (checker) =>
        say({
          report: Report.fromFindings({
            checker,
            findings: [],
            summary: "nothing was left behind",
            startedAt,
            duration: 0
          }),
          layer: layerOf(checker.slice(0, -"/cleanup".length))
        }),
      { discard: true }
    )
    if (request.unkept === true) return
    yield* standings.finish(probe, {
      startedAt,
      part: trigger === "watch",
      current: (checker) => said.has(checker) || (probe.spec.checks !== undefined && hasChecker(probe, checker))
    })
    yield* writer.changed(probe)
    yield* Effect.logDebug("ran").pipe(
      Effect.annotateLogs({
        probe: `${ref.namespace}/${ref.name}`,
        run,
        took: Duration.format(DateTime.distance(startedAt, now))
      })
    )
  })

  // Who waits for room in the budget takes nobody's place among those that run.
  const run = Effect.fn("Execution.run")(function*(request: RunRequest) {
    const admitted = yield* Effect.result(room(request))
    yield* Result.isFailure(admitted) ? perform(request, admitted) : gate(request)(perform(request, admitted))
  }, Effect.scoped)

  return Execution.of({ run })
})
