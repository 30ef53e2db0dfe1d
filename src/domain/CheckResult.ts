/**
 * What `kubeprober check` found: every cluster, every checker, once. Printed by `-o json` and `-o yaml`.
 *
 * Additive changes only: other programs read it.
 */
import { Schema } from "effect"
import { ProbeLayer } from "./ProbeLayer.ts"
import { Profile } from "./Profile.ts"
import { Report } from "./Report.ts"
import { Status } from "./Status.ts"

/** A report with the probe it comes from. */
export const CheckerResult = Schema.Struct({
  probe: Schema.String,
  layer: ProbeLayer,
  ...Report.fields
})
export type CheckerResult = typeof CheckerResult.Type

/** A checker that was left out, and why: silence is never shown as PASS. */
export const NotRun = Schema.Struct({ checker: Schema.String, probe: Schema.String, reason: Schema.String })
export type NotRun = typeof NotRun.Type

/** One cluster. `requests` counts HTTP requests to its API server; `duration` is in milliseconds. */
export const ClusterResult = Schema.Struct({
  cluster: Schema.String,
  server: Schema.String,
  kubernetesVersion: Schema.optionalKey(Schema.String),
  status: Status,
  reports: Schema.Array(CheckerResult),
  notRun: Schema.Array(NotRun),
  requests: Schema.Int,
  duration: Schema.Finite
})
export type ClusterResult = typeof ClusterResult.Type

/** All clusters of one call. */
export const CheckResult = Schema.Struct({
  apiVersion: Schema.Literal("kubeprober.erda.cloud/v1"),
  kind: Schema.Literal("CheckResult"),
  profile: Profile,
  status: Status,
  startedAt: Schema.DateTimeUtcFromString,
  duration: Schema.Finite,
  clusters: Schema.Array(ClusterResult)
})
export type CheckResult = typeof CheckResult.Type
