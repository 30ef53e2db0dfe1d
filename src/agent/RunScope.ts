/** What belongs to one run, for services that act with its rights and in its name. */
import type { Scope } from "effect"
import type { Kube } from "../infra/kube/Kube.ts"
import type { RunContext } from "../probes/RunContext.ts"
import type { Scratch } from "../probes/Scratch.ts"

export interface RunScope {
  /** Sends only what the probe declares. */
  readonly kube: Kube["Service"]
  readonly scratch: Scratch["Service"]
  readonly context: RunContext["Service"]
  /** Ends with the run, once the probe has. */
  readonly scope: Scope.Scope
}
