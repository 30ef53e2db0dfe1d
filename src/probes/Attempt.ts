/**
 * One attempt at a check: its program run to an end, whatever that end is.
 *
 * Blame is decided here and nowhere else: a `TargetFault` speaks about the cluster, anything else about us.
 */
import { Cause, Duration, Effect, Exit, Fiber, Option, Schema } from "effect"
import { Finding } from "../domain/Report.ts"
import { CredentialMissing } from "../infra/credentials/Credentials.ts"
import { KubeError, isTransient } from "../infra/kube/KubeError.ts"
import { type Gate, KubeGate } from "../infra/kube/KubeGate.ts"
import { checkerCodes } from "./CheckerCodes.ts"
import { TargetFault } from "./Codes.ts"
import * as ConfigFault from "./ConfigFault.ts"
import type { Outcome } from "./Outcome.ts"
import type { AnyProbe, Check, ProbeServices } from "./Probe.ts"
import { WorkerFault } from "./workers/Workers.ts"

/** What a failed request says about the checker, when it says nothing about the target. */
export const findingOfKubeError = (error: KubeError): Finding => {
  const { message } = error
  switch (error.reason._tag) {
    case "Unreachable":
      return checkerCodes.API_UNREACHABLE({ message })
    case "Unauthorized":
    case "CredentialsUnavailable":
      return checkerCodes.UNAUTHENTICATED({ message })
    case "Forbidden":
      return checkerCodes.ACCESS_MISSING({ message })
    case "Undeclared":
      return checkerCodes.UNDECLARED_CALL({ message })
    case "Undecodable":
      return checkerCodes.UNEXPECTED_ANSWER({ message })
    case "NotFound":
      return error.reason.what === "resource"
        ? checkerCodes.KIND_NOT_SERVED({ message })
        : checkerCodes.CHECKER_FAILED({ message })
    case "BudgetExhausted":
      return checkerCodes.BUDGET_EXHAUSTED({ message })
    case "AdmissionDenied":
      return checkerCodes.ADMISSION_REFUSED({ message })
    case "TooManyRequests":
    case "ServerFault":
      return checkerCodes.API_FAULT({ message })
    default:
      return checkerCodes.CHECKER_FAILED({ message })
  }
}

/** What a worker pod that did not do its work says of the checker. A probe that looks for just that says so itself. */
export const findingOfWorkerFault = (fault: WorkerFault): Finding => {
  const { message, node, pod, stage } = fault
  const code = stage === "Unavailable"
    ? checkerCodes.WORKER_UNAVAILABLE
    : stage === "Task"
    ? checkerCodes.CHECKER_FAILED
    : checkerCodes.WORKER_FAILED
  return code({
    message,
    ...(pod === undefined ? {} : { subject: { kind: "Pod", name: pod } }),
    evidence: { stage, ...(node === undefined ? {} : { node }) }
  })
}

/** Waiting this long (ms) in the middle of a run is long enough to be taken for slowness of the cluster. */
const NOTICEABLE = 100

/** The gate, and what came of waiting at it. */
const observed = (gate: Gate) => {
  let waited = 0
  let refused: string | undefined
  const observing: Gate = {
    admit: (request) =>
      Effect.timed(gate.admit(request)).pipe(
        Effect.tap(([took]) => Effect.sync(() => waited += Duration.toMillis(took))),
        Effect.tapError(({ detail }) => Effect.sync(() => refused = detail)),
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            refused ??= "the budget of the prober had no room for a request of it in time; see the agent's log"
          })
        ),
        Effect.asVoid
      )
  }
  /** The outcome, without what the budget may have done to it. */
  const told = (outcome: Outcome, { timed }: AnyProbe): Outcome => {
    if (refused !== undefined) return failed(checkerCodes.BUDGET_EXHAUSTED({ message: refused }))
    if (waited < NOTICEABLE) return outcome
    const isDoubtful = ({ code, status }: Finding) =>
      (status === "WARN" || status === "ERROR") && (timed === "any" || timed.includes(code))
    const bad = outcome.findings.find(isDoubtful)
    if (bad === undefined) return outcome
    const finding = checkerCodes.BUDGET_EXHAUSTED({
      message: `it waited ${Math.round(waited)} ms for its turn in the middle of the run, which may be why it found ` +
        `${bad.code}: ${bad.message}`,
      evidence: { waitedMillis: Math.round(waited) }
    })
    return { ...outcome, findings: [...outcome.findings.filter((each) => !isDoubtful(each)), finding] }
  }
  return { observing, told }
}

/** An outcome of one finding and nothing to be proud of. */
export const failed = (finding: Finding): Outcome => ({ summary: "", findings: [finding] })

const textOf = (failure: unknown): string =>
  failure instanceof Error && failure.message !== "" ? failure.message : String(failure)

const findingOf = (cause: Cause.Cause<unknown>): Finding => {
  if (Cause.hasInterruptsOnly(cause)) {
    return checkerCodes.CHECKER_FAILED({ message: "the probe interrupted itself" })
  }
  return Option.match(Cause.findErrorOption(cause), {
    onNone: () => checkerCodes.CHECKER_FAILED({ message: `the probe crashed: ${textOf(Cause.squash(cause))}` }),
    onSome: (error) => {
      if (error instanceof TargetFault) return error.finding
      if (error instanceof KubeError) return findingOfKubeError(error)
      if (error instanceof WorkerFault) return findingOfWorkerFault(error)
      if (error instanceof CredentialMissing) {
        const { credential, key, message, path } = error
        return checkerCodes.CREDENTIAL_MISSING({ message, evidence: { credential, key, path } })
      }
      return checkerCodes.CHECKER_FAILED({ message: textOf(error) })
    }
  })
}

/** Probes come from anyone, and types do not hold at run time: NaN evidence would make a report that cannot be sent. */
const decodeOutcome = Schema.decodeUnknownEffect(
  Schema.Struct({ summary: Schema.String, findings: Schema.Array(Finding) })
)

/**
 * Run `check` once within its timeout, with its retries. Every end of the probe is an outcome, be it a failure, a crash,
 * an interruption of its own or a value that is none; only an interruption from outside is an interruption.
 */
export const attempt = Effect.fnUntraced(
  function*({ probe, with: written }: Check): Effect.fn.Return<Outcome, never, ProbeServices> {
    const { observing, told } = observed(yield* KubeGate)
    const program = ConfigFault.decode(probe, written).pipe(
      Effect.catch((message) => checkerCodes.INVALID_CONFIG.fail({ message })),
      Effect.flatMap((config) =>
        Effect.retry(Effect.suspend(() => probe.run(config)), {
          schedule: probe.retry,
          while: (error) => error instanceof KubeError && isTransient(error)
        })
      ),
      Effect.timeoutOption(probe.timeout),
      Effect.provideService(KubeGate, observing)
    )
    // In a fiber of its own, because an interruption by the probe and one of the probe are told apart only from outside.
    const exit = yield* Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.forkChild(program, { startImmediately: true }),
        (fiber) => restore(Fiber.await(fiber)).pipe(Effect.onInterrupt(() => Fiber.interrupt(fiber)))
      )
    )
    return yield* Effect.suspend(() =>
      decodeOutcome(Exit.match(exit, {
        onFailure: (cause) => failed(findingOf(cause)),
        onSuccess: Option.getOrElse(() =>
          failed(checkerCodes.TIMED_OUT({
            message: `no result within ${Duration.format(probe.timeout)}`,
            evidence: { timeoutMillis: Duration.toMillis(probe.timeout) }
          }))
        )
      }))
    ).pipe(
      Effect.catchTag("SchemaError", (error) =>
        Effect.succeed(
          failed(checkerCodes.CHECKER_FAILED({ message: `the probe's result is not valid: ${error.message}` }))
        )),
      Effect.map((outcome) => told(outcome, probe)),
      // Reading what others threw can throw: a getter, or a value without a text.
      Effect.catchDefect(() =>
        Effect.succeed(failed(checkerCodes.CHECKER_FAILED({ message: "the probe ended with something unreadable" })))
      )
    )
  }
)
