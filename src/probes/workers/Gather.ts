/** The work of several pods, of which some may not do it. */
import { Effect, Result } from "effect"
import type { Finding } from "../../domain/Report.ts"
import { findingOfWorkerFault } from "../Attempt.ts"
import { WorkerFault } from "./Workers.ts"

export interface Gathered<A> {
  readonly done: ReadonlyArray<A>
  /** One UNKNOWN for each pod that did not do its work. */
  readonly blind: ReadonlyArray<Finding>
}

/** Pods at a time: a node has few to start, and the cluster's budget of pods is shared. */
const AT_ONCE = 10

/** Runs them together, at most {@link AT_ONCE} or `atOnce` at a time. A pod that fails is told and stops nobody; every other failure ends the probe's run. */
export const gather = Effect.fnUntraced(
  function*<A, E, R>(work: ReadonlyArray<Effect.Effect<A, WorkerFault | E, R>>, atOnce = AT_ONCE) {
    const done: Array<A> = []
    const blind: Array<Finding> = []
    for (const result of yield* Effect.forEach(work, Effect.result, { concurrency: Math.min(atOnce, AT_ONCE) })) {
      if (Result.isSuccess(result)) done.push(result.success)
      else if (result.failure instanceof WorkerFault) blind.push(findingOfWorkerFault(result.failure))
      else return yield* Effect.fail(result.failure)
    }
    const gathered: Gathered<A> = { done, blind }
    return gathered
  }
)
