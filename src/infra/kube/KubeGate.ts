/**
 * Asked before each request to an API server: may it be sent now? Who pays for it the fiber knows that sends it, so that one
 * client serves all; by default nobody asks anything.
 */
import { Context, Effect } from "effect"
import type { BudgetExhausted, KubeCall } from "./KubeError.ts"

/** What is about to be sent. */
export interface GatedRequest {
  readonly call: KubeCall
  /** Whether the server will store what it says: not for reads and dry runs. */
  readonly stores: boolean
  /** The manifest or patch, as it will be sent. */
  readonly body?: unknown
}

export interface Gate {
  /** Returns when it may be sent. Its time is no part of the request's own. */
  readonly admit: (request: GatedRequest) => Effect.Effect<void, BudgetExhausted>
}

export const KubeGate: Context.Reference<Gate> = Context.Reference<Gate>("kubeprober/infra/kube/KubeGate", {
  defaultValue: () => ({ admit: () => Effect.void })
})
