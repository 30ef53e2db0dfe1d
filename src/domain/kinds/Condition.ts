/**
 * Conditions, as every Kubernetes resource reports them
 * (https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties).
 */
import { Schema } from "effect"
import * as Rule from "../crd/Rule.ts"
import { Timestamp } from "../Timestamp.ts"

/** One aspect of an object's state. */
export const Condition = Schema.Struct({
  type: Schema.String.pipe(Rule.described("What the condition is about, in CamelCase.")),
  status: Schema.Literals(["True", "False", "Unknown"]).pipe(Rule.described("Whether it holds.")),
  reason: Schema.String.pipe(Rule.described("Why, as one stable CamelCase word.")),
  message: Schema.String.pipe(Rule.described("Why, for people, with the next step.")),
  lastTransitionTime: Timestamp.pipe(Rule.described("When status last changed.")),
  observedGeneration: Schema.optionalKey(
    Schema.Int.pipe(Rule.described("The metadata.generation the condition was set for."))
  )
})
export type Condition = typeof Condition.Type

/** An object's conditions, one of a type. */
export const Conditions = Schema.Array(Condition).pipe(
  Rule.keyedBy("type"),
  Rule.described("The object's conditions, one of a type.")
)
