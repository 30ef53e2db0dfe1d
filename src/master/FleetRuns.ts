/** Manual runs on many clusters at once. */
import { Context, type Duration, type Stream } from "effect"
import type { ProbeNotFound, RunTarget, UnknownChecks } from "../domain/rpc/Control.ts"
import type { FleetFilter, FleetRunEvent } from "../domain/rpc/Fleet.ts"

export class FleetRuns extends Context.Service<FleetRuns, {
  /** Ends with every cluster's end; at the deadline those that have not answered end as timed out. */
  readonly run: (options: {
    readonly filter: FleetFilter
    readonly target: RunTarget
    readonly timeout: Duration.Duration
  }) => Stream.Stream<FleetRunEvent, ProbeNotFound | UnknownChecks>
}>()("kubeprober/master/FleetRuns") {}
