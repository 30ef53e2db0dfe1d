import { Schema } from "effect"
import { Progress } from "./Progress.ts"

/** What a supervisor is asked for, as its only argument (JSON). */
export const SupervisorOptions = Schema.Struct({
  name: Schema.String,
  nodes: Schema.optionalKey(Schema.Int),
  nodeTimings: Schema.optionalKey(Schema.Literals(["fast", "default"]))
})
export type SupervisorOptions = typeof SupervisorOptions.Type

/** What a supervisor tells who started it, a line of JSON each on standard output, until its cluster is ready or it gives up. */
export const SupervisorEvent = Schema.Union([
  Progress,
  Schema.TaggedStruct("Ready", {}),
  Schema.TaggedStruct("GaveUp", { message: Schema.String })
])
export type SupervisorEvent = typeof SupervisorEvent.Type
