/**
 * Points in time on the wire and in resources: RFC 3339 in UTC, as in every Kubernetes field.
 */
import { Schema } from "effect"

export const Timestamp = Schema.DateTimeUtcFromString.pipe(Schema.annotateEncoded({ format: "date-time" }))
