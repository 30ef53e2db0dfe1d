/**
 * The documented rules a CustomResourceDefinition's schema must keep, checked without an API server.
 *
 * An API server answers a breach late and not always loudly: a schema that is not structural is accepted with a
 * condition, and then fields are not pruned and rules not run. Sources:
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
 * (structural), .../#merge-strategy (list types) and .../#validation-rules (rules).
 */
import type { StructuralSchema } from "./StructuralSchema.ts"

/** An API server refuses more than this many characters of `message`. */
const MAX_RULE_MESSAGE = 2048

const OBJECT_KEYWORDS = ["properties", "required", "additionalProperties", "minProperties", "maxProperties"] as const
const ARRAY_KEYWORDS = ["items", "minItems", "maxItems"] as const
const STRING_KEYWORDS = ["pattern", "minLength", "maxLength"] as const
const NUMBER_KEYWORDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] as const

/** Keywords that JSON Schema has and structural schemas have not, or that JSONSchemaProps forbids. */
const FORBIDDEN = new Set([
  "$ref",
  "$defs",
  "definitions",
  "dependencies",
  "deprecated",
  "discriminator",
  "examples",
  "const",
  "id",
  "patternProperties",
  "prefixItems",
  "additionalItems",
  "propertyNames",
  "readOnly",
  "writeOnly",
  "uniqueItems",
  "xml",
  "allOf",
  "anyOf",
  "oneOf",
  "not"
])

const isScalar = (schema: StructuralSchema): boolean =>
  schema.type !== undefined && schema.type !== "object" && schema.type !== "array"

const listBreaches = (schema: StructuralSchema): ReadonlyArray<string> => {
  const items = schema.items
  const keys = schema["x-kubernetes-list-map-keys"]
  if (schema["x-kubernetes-list-type"] !== "map") {
    return keys === undefined ? [] : ["list-map-keys without list-type map"]
  }
  if (keys === undefined || keys.length === 0) return ["list-type map without list-map-keys"]
  if (items?.type !== "object") return ["list-type map of something else than objects"]
  return keys.flatMap((key) => {
    const property = items.properties?.[key]
    if (property === undefined || !isScalar(property)) return [`list-map-key ${key} is not a scalar field of the items`]
    return items.required?.includes(key) === true || property.default !== undefined
      ? []
      : [`list-map-key ${key} is neither required nor has a default`]
  })
}

const typeBreaches = (schema: StructuralSchema): ReadonlyArray<string> => {
  const keysOf: Partial<Record<NonNullable<StructuralSchema["type"]>, ReadonlyArray<string>>> = {
    object: OBJECT_KEYWORDS,
    array: ARRAY_KEYWORDS,
    string: STRING_KEYWORDS,
    integer: NUMBER_KEYWORDS,
    number: NUMBER_KEYWORDS
  }
  const fitting = new Set(schema.type === undefined ? [] : keysOf[schema.type])
  const misplaced = Object.values(keysOf).flat().filter((key) => key in schema && !fitting.has(key))
  return [...new Set(misplaced)].map((key) => `${key} on a value of type ${schema.type ?? "any"}`)
}

/** Every breach as `path: what`, none for a schema an API server treats as structural. */
export const violations = (schema: StructuralSchema, path: string): ReadonlyArray<string> => {
  const rules = schema["x-kubernetes-validations"] ?? []
  const breaches = [
    ...Object.keys(schema).filter((key) => FORBIDDEN.has(key)).map((key) => `${key} is not structural`),
    ...(schema.type === undefined && schema["x-kubernetes-int-or-string"] !== true &&
        schema["x-kubernetes-preserve-unknown-fields"] !== true
      ? ["no type"]
      : []),
    ...(schema.properties !== undefined && schema.additionalProperties !== undefined
      ? ["properties beside additionalProperties"]
      : []),
    ...(schema.required ?? []).filter((name) => schema.properties?.[name] === undefined).map((name) =>
      `required field ${name} is not defined`
    ),
    ...(schema.type === "array" && schema.items === undefined ? ["an array without items"] : []),
    ...(schema.nullable === true && schema.enum !== undefined ? ["an enum that is nullable refuses null"] : []),
    ...typeBreaches(schema),
    ...listBreaches(schema),
    ...rules.filter(({ rule }) => rule.trim() === "").map(() => "an empty rule"),
    ...rules.filter(({ message }) =>
      message.trim() === "" || message.length > MAX_RULE_MESSAGE || /[\r\n]/.test(message)
    )
      .map(({ rule }) => `the message of ${rule} is empty, too long or has line breaks`)
  ]
  return [
    ...breaches.map((breach) => `${path}: ${breach}`),
    ...Object.entries(schema.properties ?? {}).flatMap(([name, child]) => violations(child, `${path}.${name}`)),
    ...(schema.items === undefined ? [] : violations(schema.items, `${path}[]`)),
    ...(schema.additionalProperties === undefined ? [] : violations(schema.additionalProperties, `${path}[*]`))
  ]
}

/**
 * Every breach of a whole object's schema: as {@link violations}, and `metadata` says nothing of its own, because the
 * API server defines it (only the names in it may be restricted).
 */
export const objectViolations = (schema: StructuralSchema, kind: string): ReadonlyArray<string> => {
  const metadata = schema.properties?.["metadata"]
  return [
    ...violations(schema, kind),
    ...Object.keys(metadata ?? {}).filter((key) => key !== "type" && key !== "properties").map((key) =>
      `${kind}.metadata: ${key} is not ours to say`
    ),
    ...Object.keys(metadata?.properties ?? {}).filter((name) => name !== "name" && name !== "generateName").map((
      name
    ) => `${kind}.metadata.${name}: only name and generateName may be restricted`)
  ]
}

const hasRules = (schema: StructuralSchema): boolean =>
  (schema["x-kubernetes-validations"] ?? []).length > 0 ||
  [...Object.values(schema.properties ?? {}), schema.items, schema.additionalProperties].some((child) =>
    child !== undefined && hasRules(child)
  )

/**
 * Lists and maps with rules below them that have no upper bound. The API server multiplies a rule's estimated cost by
 * the most items there can be, and refuses a definition that exceeds its budget.
 */
export const unbounded = (schema: StructuralSchema, path: string): ReadonlyArray<string> => [
  ...(schema.items !== undefined && schema.maxItems === undefined && hasRules(schema.items)
    ? [`${path}: rules below a list without maxItems`]
    : []),
  ...(schema.additionalProperties !== undefined && schema.maxProperties === undefined &&
      hasRules(schema.additionalProperties)
    ? [`${path}: rules below a map without maxProperties`]
    : []),
  ...Object.entries(schema.properties ?? {}).flatMap(([name, child]) => unbounded(child, `${path}.${name}`)),
  ...(schema.items === undefined ? [] : unbounded(schema.items, `${path}[]`)),
  ...(schema.additionalProperties === undefined ? [] : unbounded(schema.additionalProperties, `${path}[*]`))
]

/** Fields without a description: each is a line of `kubectl explain` that says nothing. `metadata` has its own. */
export const undocumented = (schema: StructuralSchema, path: string): ReadonlyArray<string> => [
  ...Object.entries(schema.properties ?? {}).filter(([name]) => name !== "metadata").flatMap(([name, child]) => [
    ...(child.description === undefined || child.description.trim() === "" ? [`${path}.${name}`] : []),
    ...undocumented(child, `${path}.${name}`)
  ]),
  ...(schema.items === undefined ? [] : undocumented(schema.items, `${path}[]`)),
  ...(schema.additionalProperties === undefined ? [] : undocumented(schema.additionalProperties, `${path}[*]`))
]
