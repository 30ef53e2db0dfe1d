/**
 * Told of every wait for ourselves that a request has: for the prober's budget, and for a turn at its connections. Who times
 * requests leaves it out, since it is nothing of the server's; by default nobody listens.
 */
import { Context, type Effect } from "effect"

export interface Waits {
  /** Runs `wait` as it is; its time is none of the request's own. */
  readonly during: <A, E, R>(wait: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const KubeWaits: Context.Reference<Waits> = Context.Reference<Waits>("kubeprober/infra/kube/KubeWaits", {
  defaultValue: () => ({ during: (wait) => wait })
})
