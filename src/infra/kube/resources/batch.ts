/** Kinds of `batch/v1`. */
import { Schema } from "effect"
import { Condition, count, flag, listOf, make, maybe, part, time } from "../KubeResource.ts"

export const Job = make({
  group: "batch",
  kind: "Job",
  plural: "jobs",
  scope: "Namespaced",
  fields: {
    spec: part({
      suspend: flag,
      parallelism: maybe(Schema.Int),
      completions: maybe(Schema.Int),
      backoffLimit: maybe(Schema.Int),
      activeDeadlineSeconds: maybe(Schema.Int)
    }),
    status: part({
      startTime: time,
      completionTime: time,
      active: count,
      ready: count,
      succeeded: count,
      failed: count,
      conditions: listOf(Condition)
    })
  }
})
export type Job = typeof Job.object.Type

export const CronJob = make({
  group: "batch",
  kind: "CronJob",
  plural: "cronjobs",
  scope: "Namespaced",
  fields: {
    spec: part({ schedule: maybe(Schema.String), timeZone: maybe(Schema.String), suspend: flag }),
    status: part({ lastScheduleTime: time, lastSuccessfulTime: time })
  }
})
export type CronJob = typeof CronJob.object.Type
