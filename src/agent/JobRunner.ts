/** Runs container probes: one Job a run, in the original's formats. */
import { Context, type DateTime, type Duration, type Effect } from "effect"
import type { ProbeSpec } from "../domain/kinds/Probe.ts"
import type { Report } from "../domain/Report.ts"
import type { StoredProbe } from "./ProbeStore.ts"

/** One run of a Probe with a template. */
export interface JobRequest {
  readonly probe: StoredProbe
  readonly template: NonNullable<ProbeSpec["template"]>
  readonly configs: NonNullable<ProbeSpec["configs"]>
  readonly runId: string
  readonly timeout: Duration.Duration
  /** When whatever the run created may be swept. */
  readonly expiresAt: DateTime.Utc
  /** Checkers that earlier runs reported: in a run that breaks, those it did not reach are UNKNOWN with its cause. */
  readonly known?: ReadonlyArray<string> | undefined
}

export class JobRunner extends Context.Service<JobRunner, {
  /**
   * The reports of the run's checkers when it is over. Never fails and is never silent: a prober that crashed, was
   * evicted, could not start or said nothing is UNKNOWN with its cause.
   */
  readonly run: (request: JobRequest) => Effect.Effect<ReadonlyArray<Report>>
}>()("kubeprober/agent/JobRunner") {}
