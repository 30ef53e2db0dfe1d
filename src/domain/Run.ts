/**
 * Runs: one execution of a probe on one cluster, and what is recorded of it.
 */
import { Schema } from "effect"
import { Episode } from "./Flapping.ts"
import { ProbeLayer } from "./ProbeLayer.ts"
import { Report } from "./Report.ts"
import { Status } from "./Status.ts"
import { Timestamp } from "./Timestamp.ts"

/**
 * Names a run for ever. Fits a label value (`kubeprober.io/run`) and the end of an object's name; the original's
 * one-shot ids (unix seconds) are valid too.
 */
export const RunId = Schema.String.check(
  Schema.isMaxCodePoints(40),
  Schema.isPattern(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/u, {
    message: "a run id is lower-case letters, digits and inner dashes"
  })
)
export type RunId = typeof RunId.Type

/** Why a run happened. */
export const Trigger = Schema.Literals(["schedule", "manual", "watch"])
export type Trigger = typeof Trigger.Type

/** Of an object's name (RFC 1123 subdomain). */
const MAX_OBJECT_NAME = 253

/** A Probe resource in a managed cluster, by name. */
export const ProbeRef = Schema.Struct({
  namespace: Schema.String.check(Schema.isMaxLength(MAX_OBJECT_NAME)),
  name: Schema.String.check(Schema.isMaxLength(MAX_OBJECT_NAME))
})
export type ProbeRef = typeof ProbeRef.Type

/** How a checker stands after a run, which takes its history to know. */
export const Standing = Schema.Struct({
  /** The status to show: a failure below its threshold shows as INFO. */
  status: Status,
  /** Start of the first run of the unbroken row with this status. */
  since: Timestamp,
  /** Runs in a row that said WARN or ERROR. */
  consecutiveFailures: Schema.Natural,
  /** It is shown as flapping, whatever this run said. */
  flapping: Schema.optionalKey(Episode)
})
export type Standing = typeof Standing.Type

/**
 * One checker's report of one run, as it travels. A master keeps one record for each cluster, run, probe and checker,
 * however often it is delivered.
 */
export const RunRecord = Schema.Struct({
  run: RunId,
  probe: ProbeRef,
  /** The Probe's layer, else the catalogue's for this checker. */
  layer: ProbeLayer,
  trigger: Trigger,
  report: Report,
  standing: Standing
})
export type RunRecord = typeof RunRecord.Type
