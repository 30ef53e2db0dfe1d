/**
 * ProbeStatus: what the checkers of the Probe of the same name last said, in the managed cluster itself.
 *
 * As in the original the checkers are under `spec`, because probers once wrote them; ours are written by the agent.
 */
import { Schema } from "effect"
import { type CheckerState, Memory } from "../CheckerState.ts"
import * as Rule from "../crd/Rule.ts"
import { Blame, Code, MAX_MESSAGE } from "../Report.ts"
import { Status } from "../Status.ts"
import { Timestamp } from "../Timestamp.ts"
import * as Kind from "./Kind.ts"

/** One checker. Only the name is certain: objects written by the original have no more than its four fields. */
export const CheckerStatus = Schema.Struct({
  name: Schema.String.pipe(Rule.described("The checker's name.")),
  status: Schema.optionalKey(Status.pipe(Rule.described(
    "PASS, INFO, UNKNOWN, WARN or ERROR. UNKNOWN means that the checker could not look."
  ))),
  message: Schema.optionalKey(Schema.String.pipe(Rule.described(
    `What the checker noticed, in at most ${MAX_MESSAGE} characters.`
  ))),
  lastRun: Schema.optionalKey(Timestamp.pipe(Rule.described("When the reported run started."))),
  code: Schema.optionalKey(Code.pipe(Rule.described(
    "Stable identifier of what was noticed, explained in the probe reference."
  ))),
  blame: Schema.optionalKey(Blame.pipe(Rule.described(
    "Whose fault it is: target (the cluster is broken) or checker (we could not look)."
  ))),
  since: Schema.optionalKey(Timestamp.pipe(Rule.described(
    "Start of the first run of the unbroken row with this status."
  ))),
  consecutiveFailures: Schema.optionalKey(Schema.Natural.pipe(Rule.described(
    "Runs in a row that said WARN or ERROR."
  ))),
  memory: Schema.optionalKey(Memory.pipe(Rule.described(
    "What the agent remembers of earlier runs, to judge the next by."
  )))
})
export type CheckerStatus = typeof CheckerStatus.Type

/** The checkers of a Probe. */
export const ProbeStatusSpec = Schema.Struct({
  checkers: Schema.optionalKey(
    Schema.Array(CheckerStatus).pipe(
      Rule.keyedBy("name"),
      Rule.described("What each checker last said.")
    )
  )
})
export type ProbeStatusSpec = typeof ProbeStatusSpec.Type

/** The verdict over all checkers. */
export const ProbeStatusState = Schema.Struct({
  status: Schema.optionalKey(Status.pipe(Rule.described("The worst status of all checkers."))),
  message: Schema.optionalKey(Schema.String.pipe(Rule.described("What the worst checker says."))),
  lastRun: Schema.optionalKey(Timestamp.pipe(Rule.described("Start of the latest reported run."))),
  failing: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "How many checkers show WARN or ERROR, of how many, as in 2/14."
  ))),
  staleAt: Schema.optionalKey(Timestamp.pipe(Rule.described(
    "When this status stops being true for want of a newer run; absent when no other run is due."
  )))
})
export type ProbeStatusState = typeof ProbeStatusState.Type

/**
 * A checker as the algorithms of `CheckerState` take it, or `undefined` when it has never run.
 *
 * A status the original left empty is UNKNOWN, not PASS; a status whose beginning is not known began with its run.
 */
export const toState = (checker: CheckerStatus): CheckerState | undefined =>
  checker.lastRun === undefined ? undefined : {
    ...checker,
    status: checker.status ?? "UNKNOWN",
    message: checker.message ?? "",
    lastRun: checker.lastRun,
    since: checker.since ?? checker.lastRun,
    consecutiveFailures: checker.consecutiveFailures ?? 0
  }

export const ProbeStatus = Kind.make({
  kind: "ProbeStatus",
  plural: "probestatuses",
  shortNames: ["kps"],
  description: "What the checkers of the Probe of the same name last said.",
  columns: [
    { name: "STATUS", type: "string", jsonPath: ".status.status" },
    { name: "FAILING", type: "string", jsonPath: ".status.failing" },
    { name: "MESSAGE", type: "string", jsonPath: ".status.message" },
    { name: "LASTRUN", type: "string", jsonPath: ".status.lastRun" },
    { name: "STALEAT", type: "string", jsonPath: ".status.staleAt", wide: true },
    { name: "AGE", type: "date", jsonPath: ".metadata.creationTimestamp" }
  ],
  fields: {
    spec: Schema.optionalKey(ProbeStatusSpec.pipe(Rule.described("What each checker last said."))),
    status: Schema.optionalKey(ProbeStatusState.pipe(Rule.described("The verdict over all checkers.")))
  }
})
