/** Kinds of `events.k8s.io/v1`. */
import { Schema } from "effect"
import { count, make, maybe, part, time } from "../KubeResource.ts"

const ObjectReference = part({
  apiVersion: maybe(Schema.String),
  kind: maybe(Schema.String),
  namespace: maybe(Schema.String),
  name: maybe(Schema.String),
  uid: maybe(Schema.String)
})

/**
 * Something that happened to `regarding`. The server serves every Event, also those written as core `v1`, in this form:
 * then `eventTime` is absent and the `deprecated` fields tell when and how often.
 */
export const Event = make({
  group: "events.k8s.io",
  kind: "Event",
  plural: "events",
  scope: "Namespaced",
  fields: {
    /** `Normal` or `Warning`. */
    type: maybe(Schema.String),
    reason: maybe(Schema.String),
    action: maybe(Schema.String),
    note: maybe(Schema.String),
    regarding: ObjectReference,
    reportingController: maybe(Schema.String),
    reportingInstance: maybe(Schema.String),
    eventTime: time,
    series: maybe(Schema.Struct({ count, lastObservedTime: time })),
    deprecatedFirstTimestamp: time,
    deprecatedLastTimestamp: time,
    deprecatedCount: maybe(Schema.Int)
  }
})
export type Event = typeof Event.object.Type
