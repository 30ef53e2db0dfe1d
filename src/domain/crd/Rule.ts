/**
 * What a schema says to the API server beyond its types: documentation, validation rules and Kubernetes' own keywords.
 *
 * All of it is kept as annotations of the encoded side, because a custom resource is validated as people write it.
 * A {@link Rule} says the same thing twice, once in CEL for the API server and once in TypeScript for everyone who
 * reads an object that no API server has checked; tests hold the two together.
 */
import { Schema } from "effect"

/** A CEL expression over `self` and the sentence shown when it is false. */
export interface Cel {
  readonly cel: string
  readonly message: string
}

/** A rule with its TypeScript twin over the decoded value. */
export interface Rule<in T> extends Cel {
  readonly holds: (value: T) => boolean
  /** How to make values for which the rule holds, for property tests. */
  readonly arbitrary?: Schema.Annotations.ToArbitrary.FilterConstraint
}

/**
 * The rule that a text matches a regular expression, whole. Unlike `Schema.isPattern` it has a message of its own on
 * the API server too. `pattern` must mean the same to JavaScript and RE2, and hold no quotes or backslashes.
 */
export const matching = (pattern: string, message: string): Rule<string> => {
  const expression = new RegExp(`^(?:${pattern})$`, "u")
  return {
    cel: `self.matches('^(?:${pattern})$')`,
    message,
    holds: (text) => expression.test(text),
    arbitrary: { patterns: [{ source: expression.source, flags: expression.flags }] }
  }
}

/** One entry of `x-kubernetes-validations`. */
export const Validation = Schema.Struct({ rule: Schema.String, message: Schema.String })
export type Validation = typeof Validation.Type

const VALIDATIONS = "x-kubernetes-validations"
const isValidations = Schema.is(Schema.Array(Validation))

const validationsOf = (schema: Schema.Top): ReadonlyArray<Validation> => {
  const found = Schema.resolveAnnotations(Schema.flip(schema))?.[VALIDATIONS]
  return isValidations(found) ? found : []
}

/** Document a field. The text becomes the field's description in `kubectl explain`. */
export const described =
  (description: string, ...more: ReadonlyArray<string>) => <S extends Schema.Top>(schema: S): S["Rebuild"] =>
    schema.pipe(Schema.annotateEncoded({ description: [description, ...more].join(" ") }))

/** Rules for the API server alone; use it where decoding checks the same thing in another way. */
export const annotate = (rules: ReadonlyArray<Cel>) => <S extends Schema.Top>(schema: S): S["Rebuild"] =>
  schema.pipe(Schema.annotateEncoded({
    [VALIDATIONS]: [...validationsOf(schema), ...rules.map(({ cel, message }) => ({ rule: cel, message }))]
  }))

/** Rules for the API server and for every decoder. */
export const enforce =
  <S extends Schema.Top>(rules: readonly [Rule<S["Type"]>, ...Array<Rule<S["Type"]>>]) => (schema: S): S["Rebuild"] => {
    const [first, ...rest] = rules.map(({ arbitrary, holds, message }) =>
      Schema.makeFilter((value: S["Type"]) => holds(value) ? undefined : message, {
        // The rule's CEL twin is the JSON Schema form of this check.
        toJsonSchema: () => ({}),
        ...(arbitrary === undefined ? {} : { arbitraryConstraint: arbitrary })
      })
    )
    return first === undefined ? schema : schema.check(first, ...rest).pipe(annotate(rules))
  }

/** Keep fields the schema does not name, as in a PodSpec. */
export const preserveUnknown = <S extends Schema.Top>(schema: S): S["Rebuild"] =>
  schema.pipe(Schema.annotateEncoded({ "x-kubernetes-preserve-unknown-fields": true }))

/** A list whose items are told apart by one field: duplicates are refused, and server-side apply merges by it. */
export const keyedBy = (key: string) => <S extends Schema.Top>(schema: S): S["Rebuild"] =>
  schema.pipe(Schema.annotateEncoded({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key] }))
