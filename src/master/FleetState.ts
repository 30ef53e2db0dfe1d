/**
 * What is shown of the fleet now: the latest state of every checker of every cluster, as far as it can be vouched for.
 */
import { Context, type Effect, type Option, type Scope, type Stream } from "effect"
import type { FleetFilter, MatrixRow, Transition } from "../domain/rpc/Fleet.ts"

export class FleetState extends Context.Service<FleetState, {
  /** Rows of the clusters that fit, by name, from the one after `after` on, at most `limit`. */
  readonly rows: (options: {
    readonly filter: FleetFilter
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<MatrixRow>>
  readonly row: (cluster: string) => Effect.Effect<Option.Option<MatrixRow>>
  /** Changes of what is shown, from the moment the effect has run: news, staleness, lost and regained links. */
  readonly transitions: (filter: FleetFilter) => Effect.Effect<Stream.Stream<Transition>, never, Scope.Scope>
}>()("kubeprober/master/FleetState") {}
