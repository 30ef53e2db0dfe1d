/** What belongs to one run, for services that act with its rights and in its name. */
import type { DateTime, Scope } from "effect"
import type { Kube } from "../infra/kube/Kube.ts"
import type { RunContext } from "../probes/RunContext.ts"
import type { Scratch } from "../probes/Scratch.ts"

export interface RunScope {
  /** Sends only what the probe declares. */
  readonly kube: Kube["Service"]
  readonly scratch: Scratch["Service"]
  readonly context: RunContext["Service"]
  /** When the probe's time is over, and with it all that it has not said by then. */
  readonly deadline: DateTime.Utc
  /** Ends with the run, once the probe has. */
  readonly scope: Scope.Scope
}
