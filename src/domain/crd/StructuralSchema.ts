/**
 * From an Effect schema to the structural schema a CustomResourceDefinition needs
 * (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema).
 *
 * The schema's JSON side is walked as Effect represents it. What has a counterpart in OpenAPI 3.0 is translated, what
 * has none is refused with {@link NotStructural}: an API server must never accept what our decoder refuses just
 * because a check was lost on the way. A check without a counterpart can be said in CEL (see {@link Rule}).
 */
import { Data, Predicate, Result, Schema, type SchemaRepresentation } from "effect"
import { Validation } from "./Rule.ts"

/** A part of a schema has no structural form. `path` names the field, `reason` what to write instead. */
export class NotStructural extends Data.TaggedError("NotStructural")<{
  readonly path: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** A structural schema: those keywords of `apiextensions.k8s.io/v1` JSONSchemaProps that we emit. */
export interface StructuralSchema {
  readonly description?: string
  readonly type?: "string" | "integer" | "number" | "boolean" | "array" | "object"
  readonly format?: string
  readonly nullable?: boolean
  readonly default?: Schema.Json
  readonly enum?: ReadonlyArray<Schema.Json>
  readonly pattern?: string
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly exclusiveMinimum?: boolean
  readonly maximum?: number
  readonly exclusiveMaximum?: boolean
  readonly multipleOf?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly minProperties?: number
  readonly maxProperties?: number
  readonly required?: ReadonlyArray<string>
  readonly properties?: { readonly [name: string]: StructuralSchema }
  readonly additionalProperties?: StructuralSchema
  readonly items?: StructuralSchema
  readonly "x-kubernetes-preserve-unknown-fields"?: true
  readonly "x-kubernetes-int-or-string"?: true
  readonly "x-kubernetes-list-type"?: "atomic" | "set" | "map"
  readonly "x-kubernetes-list-map-keys"?: ReadonlyArray<string>
  readonly "x-kubernetes-validations"?: ReadonlyArray<Validation>
}

/** What annotations contribute; every other annotation is Effect's own affair. */
const Documented = Schema.Struct({
  description: Schema.optionalKey(Schema.String),
  format: Schema.optionalKey(Schema.String),
  default: Schema.optionalKey(Schema.Json),
  "x-kubernetes-preserve-unknown-fields": Schema.optionalKey(Schema.Literal(true)),
  "x-kubernetes-int-or-string": Schema.optionalKey(Schema.Literal(true)),
  "x-kubernetes-list-type": Schema.optionalKey(Schema.Literals(["atomic", "set", "map"])),
  "x-kubernetes-list-map-keys": Schema.optionalKey(Schema.Array(Schema.String)),
  "x-kubernetes-validations": Schema.optionalKey(Schema.Array(Validation))
})
type Documented = typeof Documented.Type

/** What checks contribute, as JSON Schema 2020-12 says it. */
const Constraint = Schema.Struct({
  type: Schema.optionalKey(Schema.Literals(["integer", "number", "string"])),
  pattern: Schema.optionalKey(Schema.String),
  minLength: Schema.optionalKey(Schema.Finite),
  maxLength: Schema.optionalKey(Schema.Finite),
  minimum: Schema.optionalKey(Schema.Finite),
  exclusiveMinimum: Schema.optionalKey(Schema.Finite),
  maximum: Schema.optionalKey(Schema.Finite),
  exclusiveMaximum: Schema.optionalKey(Schema.Finite),
  multipleOf: Schema.optionalKey(Schema.Finite),
  minItems: Schema.optionalKey(Schema.Finite),
  maxItems: Schema.optionalKey(Schema.Finite),
  minProperties: Schema.optionalKey(Schema.Finite),
  maxProperties: Schema.optionalKey(Schema.Finite)
})
type Constraint = typeof Constraint.Type

const decodeDocumented = Schema.decodeUnknownResult(Documented)
const decodeConstraint = Schema.decodeUnknownResult(Constraint, { onExcessProperty: "error" })

type Walked<A> = Result.Result<A, NotStructural>

const refuse = (path: string, reason: string): Walked<never> => Result.fail(new NotStructural({ path, reason }))

/** Both constraints at once: bounds tighten, and there is room for one pattern only. */
const tighten = (a: Constraint, b: Constraint, path: string): Walked<Constraint> => {
  if (a.pattern !== undefined && b.pattern !== undefined && a.pattern !== b.pattern) {
    return refuse(path, "two patterns on one string; write one of them as a rule")
  }
  const least = (key: "minLength" | "minimum" | "exclusiveMinimum" | "minItems" | "minProperties") =>
    a[key] === undefined || b[key] === undefined ? {} : { [key]: Math.max(a[key], b[key]) }
  const most = (key: "maxLength" | "maximum" | "exclusiveMaximum" | "maxItems" | "maxProperties") =>
    a[key] === undefined || b[key] === undefined ? {} : { [key]: Math.min(a[key], b[key]) }
  return Result.succeed({
    ...a,
    ...b,
    ...least("minLength"),
    ...least("minimum"),
    ...least("exclusiveMinimum"),
    ...least("minItems"),
    ...least("minProperties"),
    ...most("maxLength"),
    ...most("maximum"),
    ...most("exclusiveMaximum"),
    ...most("maxItems"),
    ...most("maxProperties"),
    ...(a.type === "integer" || b.type === "integer" ? { type: "integer" } : {})
  })
}

/** OpenAPI 3.0 makes exclusive bounds flags beside the bound; JavaScript's safe integers are no bound of the field. */
const bounds = (constraint: Constraint): StructuralSchema => {
  const { exclusiveMaximum, exclusiveMinimum, maximum, minimum, type: _, ...rest } = constraint
  return {
    ...rest,
    ...(exclusiveMinimum !== undefined
      ? { minimum: exclusiveMinimum, exclusiveMinimum: true }
      : minimum === undefined || minimum === Number.MIN_SAFE_INTEGER
      ? {}
      : { minimum }),
    ...(exclusiveMaximum !== undefined
      ? { maximum: exclusiveMaximum, exclusiveMaximum: true }
      : maximum === undefined || maximum === Number.MAX_SAFE_INTEGER
      ? {}
      : { maximum })
  }
}

/** The JSON type a check of this node is asked about; some checks mean different things on different types. */
const checkedType = (node: SchemaRepresentation.Representation): "string" | "array" | "object" | undefined =>
  node._tag === "String" ? "string" : node._tag === "Arrays" ? "array" : node._tag === "Objects" ? "object" : undefined

const constraintOf = (
  check: SchemaRepresentation.Check,
  type: ReturnType<typeof checkedType>,
  path: string
): Walked<Constraint> => {
  const compile = check.annotations?.["toJsonSchema"]
  if (Predicate.isFunction(compile)) {
    const output: unknown = compile({ type, schemas: [] })
    if (Array.isArray(output)) {
      return refuse(
        path,
        `the check "${
          check.representation?.id ?? "of our own"
        }" has no exact counterpart; give patterns the u flag, count code points instead of UTF-16 units, or write a rule`
      )
    }
    return Result.mapError(
      decodeConstraint(output),
      (error) => new NotStructural({ path, reason: `a check means more than OpenAPI can say: ${error.message}` })
    )
  }
  return check._tag === "FilterGroup"
    ? check.checks.reduce<Walked<Constraint>>(
      (all, next) =>
        Result.flatMap(all, (a) => Result.flatMap(constraintOf(next, type, path), (b) => tighten(a, b, path))),
      Result.succeed({})
    )
    : refuse(path, "a check has no JSON Schema form; write it as a rule")
}

const documentation = (
  annotations: Schema.Annotations.Annotations | undefined,
  path: string
): Walked<Documented> =>
  Result.mapError(
    decodeDocumented(annotations ?? {}),
    (error) => new NotStructural({ path, reason: `an annotation is not valid: ${error.message}` })
  )

/** Later annotations win, except rules, which add up. The description comes first, as people read. */
const annotate = (schema: StructuralSchema, more: Documented): StructuralSchema => {
  const rules = [...(schema["x-kubernetes-validations"] ?? []), ...(more["x-kubernetes-validations"] ?? [])]
  const description = more.description ?? schema.description
  return {
    ...(description === undefined ? {} : { description }),
    ...schema,
    ...more,
    ...(rules.length === 0 ? {} : { "x-kubernetes-validations": rules })
  }
}

const same = (a: StructuralSchema, b: StructuralSchema): boolean => JSON.stringify(a) === JSON.stringify(b)

/** The one value a property can have, when it is required and can have only one: what tells a union's members apart. */
const tagOf = (schema: StructuralSchema): readonly [key: string, value: string] | undefined => {
  for (const key of schema.required ?? []) {
    const [value, ...others] = schema.properties?.[key]?.enum ?? []
    if (typeof value === "string" && others.length === 0) return [key, value]
  }
  return undefined
}

/** Members of a tagged union become one object; which fields go with which tag becomes rules. */
const mergeTagged = (members: ReadonlyArray<StructuralSchema>, path: string): Walked<StructuralSchema> => {
  const tagged = members.map((member) => [member, tagOf(member)] as const)
  const key = tagged[0]?.[1]?.[0]
  const properties: Record<string, StructuralSchema> = {}
  const values: Array<string> = []
  for (const [member, tag] of tagged) {
    if (key === undefined || tag === undefined || tag[0] !== key) {
      return refuse(path, "an untagged union; tag its members, or annotate it as int-or-string or preserving unknowns")
    }
    values.push(tag[1])
    for (const [name, property] of Object.entries(member.properties ?? {})) {
      const known = properties[name]
      if (name !== key && known !== undefined && !same(known, property)) {
        return refuse(`${path}.${name}`, "members of the union disagree about this field")
      }
      properties[name] = name === key ? { ...property, enum: values } : property
    }
  }
  if (key === undefined) return refuse(path, "a union without members")
  const rules = tagged.flatMap(([member, tag]) => {
    const when = `self.${key} != '${tag?.[1] ?? ""}'`
    const required = (member.required ?? []).filter((name) => name !== key)
    const foreign = Object.keys(properties).filter((name) => member.properties?.[name] === undefined)
    return [
      ...required.map((name) => ({
        rule: `${when} || has(self.${name})`,
        message: `${name} is required when ${key} is ${tag?.[1]}`
      })),
      ...foreign.map((name) => ({
        rule: `${when} || !has(self.${name})`,
        message: `${name} is not allowed when ${key} is ${tag?.[1]}`
      })),
      ...(member["x-kubernetes-validations"] ?? []).map(({ message, rule }) => ({
        rule: `${when} || (${rule})`,
        message
      }))
    ]
  })
  return Result.succeed({ type: "object", properties, required: [key], "x-kubernetes-validations": rules })
}

const walkUnion = (types: ReadonlyArray<StructuralSchema>, path: string): Walked<StructuralSchema> => {
  const [only, ...others] = types
  if (only === undefined) return refuse(path, "nothing but null fits here")
  if (others.length === 0) return Result.succeed(only)
  if (types.some(({ enum: values }) => values?.includes("NaN") === true)) {
    return refuse(path, "NaN and Infinity have no JSON form; use Schema.Finite")
  }
  return types.every((type) => type.type === "string" && type.enum !== undefined)
    ? Result.succeed({ type: "string", enum: types.flatMap((type) => type.enum ?? []) })
    : mergeTagged(types, path)
}

/**
 * Translate the JSON side of a schema.
 *
 * Identifiers are inlined, `null` becomes `nullable`, tagged unions become one object with rules, `NonEmptyArray` an
 * array with `minItems`. `path` is where messages begin, as `kubectl` would print it.
 */
export const structural = (schema: Schema.Constraint, path: string): Walked<StructuralSchema> => {
  const { references, representation } = Schema.toRepresentation(Schema.toEncoded(Schema.toCodecJson(schema)))

  const walk = (
    node: SchemaRepresentation.Representation,
    path: string,
    seen: ReadonlyArray<string>
  ): Walked<StructuralSchema> => {
    if (node._tag === "Reference") {
      const target = references[node.$ref]
      return target === undefined || seen.includes(node.$ref)
        ? refuse(path, `${node.$ref} contains itself; cut the recursion with a field that preserves unknowns`)
        : walk(target, path, [...seen, node.$ref])
    }
    return Result.gen(function*() {
      let notes = yield* documentation(node.annotations, path)
      for (const check of node.checks) {
        notes = annotate(notes, yield* documentation(check.annotations, path))
      }
      if (notes["x-kubernetes-int-or-string"] === true) return notes
      let constraint: Constraint = {}
      for (const check of node.checks) {
        constraint = yield* tighten(constraint, yield* constraintOf(check, checkedType(node), path), path)
      }
      const keepsUnknown = notes["x-kubernetes-preserve-unknown-fields"] === true
      return annotate(yield* shape(node, constraint, keepsUnknown, path, seen), notes)
    })
  }

  const shape = (
    node: Exclude<SchemaRepresentation.Representation, SchemaRepresentation.Reference>,
    constraint: Constraint,
    keepsUnknown: boolean,
    path: string,
    seen: ReadonlyArray<string>
  ): Walked<StructuralSchema> => {
    switch (node._tag) {
      case "String":
        return Result.succeed({ type: "string", ...bounds(constraint) })
      case "Boolean":
        return Result.succeed({ type: "boolean" })
      case "Number":
        return Result.succeed(
          constraint.type === "integer"
            ? { type: "integer", format: "int64", ...bounds(constraint) }
            : { type: "number", ...bounds(constraint) }
        )
      case "Literal": {
        const type = typeof node.literal
        return typeof node.literal === "bigint"
          ? refuse(path, "a bigint literal has no JSON form")
          : Result.succeed({
            type: type === "boolean" ? "boolean" : type === "number" ? "number" : "string",
            enum: [node.literal]
          })
      }
      case "Arrays":
        return Result.gen(function*() {
          const rest = node.rest[0]
          if (rest === undefined || node.rest.length > 1) {
            return yield* refuse(path, "a tuple; use an array or an object with named fields")
          }
          const items = yield* walk(rest, `${path}[]`, seen)
          for (const element of node.elements) {
            if (!same(yield* walk(element.type, `${path}[]`, seen), items)) {
              return yield* refuse(path, "a tuple; use an array or an object with named fields")
            }
          }
          const least = Math.max(node.elements.filter(({ isOptional }) => !isOptional).length, constraint.minItems ?? 0)
          return {
            type: "array",
            ...bounds(constraint),
            ...(least === 0 ? {} : { minItems: least }),
            items
          }
        })
      case "Objects":
        return Result.gen(function*() {
          const properties: Record<string, StructuralSchema> = {}
          for (const { annotations, name, type } of node.propertySignatures) {
            const field = `${path}.${String(name)}`
            properties[String(name)] = annotate(
              yield* walk(type, field, seen),
              yield* documentation(annotations, field)
            )
          }
          const required = node.propertySignatures.filter(({ isOptional }) => !isOptional).map(({ name }) =>
            String(name)
          )
          const named: StructuralSchema = {
            type: "object",
            ...bounds(constraint),
            ...(required.length === 0 ? {} : { required }),
            ...(node.propertySignatures.length === 0 ? {} : { properties })
          }
          const index = node.indexSignatures[0]
          if (index === undefined || keepsUnknown) return named
          if (node.propertySignatures.length > 0 || node.indexSignatures.length > 1) {
            return yield* refuse(path, "named fields beside free ones; preserve unknown fields instead")
          }
          if (index.parameter._tag !== "String" || index.parameter.checks.length > 0) {
            return yield* refuse(path, "keys cannot be constrained; write a rule over the map's keys")
          }
          return { ...named, additionalProperties: yield* walk(index.type, `${path}[*]`, seen) }
        })
      case "Union":
        return Result.gen(function*() {
          const isNull = (type: SchemaRepresentation.Representation) => type._tag === "Null"
          const members = node.types.filter((type) => !isNull(type))
          const walked: Array<StructuralSchema> = []
          for (const member of members) walked.push(yield* walk(member, path, seen))
          const union = yield* walkUnion(walked, path)
          return node.types.some(isNull) ? { ...union, nullable: true } : union
        })
      case "Suspend":
        return walk(node.thunk, path, seen)
      default:
        return keepsUnknown
          ? Result.succeed({})
          : refuse(path, "any value fits here; give it a type or preserve unknown fields")
    }
  }

  return walk(representation, path, [])
}
