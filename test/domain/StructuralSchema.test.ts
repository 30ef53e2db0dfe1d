import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as Rule from "../../src/domain/crd/Rule.ts"
import { objectViolations, unbounded, undocumented, violations } from "../../src/domain/crd/StructuralRules.ts"
import { type StructuralSchema, structural } from "../../src/domain/crd/StructuralSchema.ts"
import { DurationString } from "../../src/domain/Duration.ts"
import { Timestamp } from "../../src/domain/Timestamp.ts"

/** The translation, which must break no rule. */
const translated = (schema: Schema.Constraint): StructuralSchema => {
  const found = structural(schema, "spec")
  if (Result.isFailure(found)) return assert.fail(found.failure.message)
  assert.deepStrictEqual(violations(found.success, "spec"), [])
  return found.success
}

const refused = (schema: Schema.Constraint): string => {
  const found = structural(schema, "spec")
  return Result.isFailure(found) ? found.failure.message : assert.fail(JSON.stringify(found.success))
}

interface Tree {
  readonly children: ReadonlyArray<Tree>
}
const Tree = Schema.Struct({ children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree)) })

class Point extends Schema.Class<Point>("Point")({ x: Schema.Int, y: Schema.Int }) {}

describe("a structural schema", () => {
  it("keeps types, documentation and bounds", () => {
    assert.deepStrictEqual(
      translated(Schema.Struct({
        text: Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(9)).pipe(Rule.described("A text.")),
        flag: Schema.optionalKey(Schema.Boolean.annotate({ default: true })),
        count: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10 })),
        share: Schema.Finite.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1)),
        level: Schema.Literals(["low", "high"]),
        names: Schema.Array(Schema.String).check(Schema.isMaxLength(3)),
        labels: Schema.Record(Schema.String, Schema.String).check(Schema.isMaxProperties(5))
      })),
      {
        type: "object",
        required: ["text", "count", "share", "level", "names", "labels"],
        properties: {
          text: { description: "A text.", type: "string", minLength: 1, maxLength: 9 },
          flag: { type: "boolean", default: true },
          count: { type: "integer", format: "int64", minimum: 0, maximum: 10 },
          share: { type: "number", minimum: 0, exclusiveMinimum: true, maximum: 1 },
          level: { type: "string", enum: ["low", "high"] },
          names: { type: "array", maxItems: 3, items: { type: "string" } },
          labels: { type: "object", maxProperties: 5, additionalProperties: { type: "string" } }
        }
      }
    )
  })

  it("does not pass JavaScript's safe integers off as bounds of the field", () => {
    assert.deepStrictEqual(translated(Schema.Int), { type: "integer", format: "int64" })
    assert.deepStrictEqual(translated(Schema.Natural), { type: "integer", format: "int64", minimum: 0 })
  })

  it("inlines classes and identifiers", () => {
    const point: StructuralSchema = {
      type: "object",
      required: ["x", "y"],
      properties: { x: { type: "integer", format: "int64" }, y: { type: "integer", format: "int64" } }
    }
    assert.deepStrictEqual(translated(Schema.Struct({ from: Point, to: Point })).properties, { from: point, to: point })
    assert.deepStrictEqual(
      translated(Schema.Struct({ name: Schema.String.annotate({ identifier: "Name", description: "Whose." }) }))
        .properties,
      { name: { description: "Whose.", type: "string" } }
    )
  })

  it("refuses recursion", () => {
    assert.include(refused(Tree), "contains itself")
  })

  it("makes null nullable", () => {
    assert.deepStrictEqual(
      translated(Schema.Struct({ note: Schema.NullOr(Schema.String), old: Schema.optional(Schema.Int) })).properties,
      {
        note: { type: "string", nullable: true },
        old: { type: "integer", format: "int64", nullable: true }
      }
    )
    assert.include(refused(Schema.Struct({ nothing: Schema.Null })), "spec.nothing")
  })

  it("makes a non-empty array an array of at least one", () => {
    assert.deepStrictEqual(translated(Schema.NonEmptyArray(Schema.String).check(Schema.isMaxLength(4))), {
      type: "array",
      minItems: 1,
      maxItems: 4,
      items: { type: "string" }
    })
    assert.include(refused(Schema.Tuple([Schema.String, Schema.Int])), "a tuple")
  })

  it("joins unions of literals, and int-or-string", () => {
    assert.deepStrictEqual(translated(Schema.Union([Schema.Literal("a"), Schema.Literals(["b", "c"])])), {
      type: "string",
      enum: ["a", "b", "c"]
    })
    assert.deepStrictEqual(
      translated(Schema.Union([Schema.Int, Schema.String]).annotate({ "x-kubernetes-int-or-string": true })),
      { "x-kubernetes-int-or-string": true }
    )
    assert.include(refused(Schema.Union([Schema.Int, Schema.String])), "an untagged union")
  })

  it("makes a tagged union one object with rules", () => {
    const Check = Schema.Union([
      Schema.Struct({ kind: Schema.tag("http"), url: Schema.String, port: Schema.optionalKey(Schema.Int) }),
      Schema.Struct({ kind: Schema.tag("exec"), command: Schema.NonEmptyArray(Schema.String) })
    ])
    assert.deepStrictEqual(translated(Check), {
      type: "object",
      required: ["kind"],
      properties: {
        kind: { type: "string", enum: ["http", "exec"] },
        url: { type: "string" },
        port: { type: "integer", format: "int64" },
        command: { type: "array", minItems: 1, items: { type: "string" } }
      },
      "x-kubernetes-validations": [
        { rule: "self.kind != 'http' || has(self.url)", message: "url is required when kind is http" },
        { rule: "self.kind != 'http' || !has(self.command)", message: "command is not allowed when kind is http" },
        { rule: "self.kind != 'exec' || has(self.command)", message: "command is required when kind is exec" },
        { rule: "self.kind != 'exec' || !has(self.url)", message: "url is not allowed when kind is exec" },
        { rule: "self.kind != 'exec' || !has(self.port)", message: "port is not allowed when kind is exec" }
      ]
    })
    assert.include(
      refused(Schema.Union([
        Schema.Struct({ kind: Schema.tag("a"), value: Schema.Int }),
        Schema.Struct({ kind: Schema.tag("b"), value: Schema.String })
      ])),
      "spec.value: members of the union disagree"
    )
  })

  it("describes the side people write", () => {
    assert.deepStrictEqual(
      translated(Schema.Struct({
        timeout: DurationString.pipe(Rule.described("How long.")),
        since: Timestamp.pipe(Rule.described("Since when.")),
        token: Schema.RedactedFromValue(Schema.String).pipe(Rule.described("A secret.")),
        retries: Schema.Int.pipe(Rule.described("How often."), Schema.withDecodingDefaultKey(Effect.succeed(3)))
      })),
      {
        type: "object",
        required: ["timeout", "since", "token"],
        properties: {
          timeout: {
            description: "How long.",
            type: "string",
            maxLength: 32,
            "x-kubernetes-validations": [{
              rule: "self.matches('^(?:([0-9]+([.][0-9]+)?(ms|s|m|h))+)$')",
              message: "a duration is written like 90s, 1h30m or 250ms"
            }]
          },
          since: { description: "Since when.", type: "string", format: "date-time" },
          token: { description: "A secret.", type: "string" },
          retries: { description: "How often.", type: "integer", format: "int64" }
        }
      }
    )
  })

  it("keeps what it does not know where it is told to, beside what it does know", () => {
    const Anything = Schema.Record(Schema.String, Schema.Json).pipe(Rule.preserveUnknown)
    const Named = Schema.StructWithRest(Schema.Struct({ name: Schema.String }), [
      Schema.Record(Schema.String, Schema.Json)
    ])
    assert.deepStrictEqual(
      translated(Schema.Struct({
        free: Anything,
        any: Schema.Json.pipe(Rule.preserveUnknown),
        named: Named.pipe(Rule.preserveUnknown)
      })).properties,
      {
        free: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        any: { "x-kubernetes-preserve-unknown-fields": true },
        named: {
          type: "object",
          required: ["name"],
          properties: { name: { type: "string" } },
          "x-kubernetes-preserve-unknown-fields": true
        }
      }
    )
    assert.include(refused(Schema.Struct({ free: Schema.Json })), "spec.free: any value fits here")
    assert.include(refused(Schema.Struct({ free: Schema.Unknown })), "spec.free: any value fits here")
    assert.include(refused(Named), "preserve unknown fields instead")
  })

  it("loses no check on the way", () => {
    const field = (schema: Schema.Constraint) => refused(Schema.Struct({ field: schema }))
    assert.include(field(Schema.String.check(Schema.isPattern(/^a$/))), "give patterns the u flag")
    assert.include(field(Schema.String.check(Schema.isMinLength(3))), "count code points instead of UTF-16 units")
    assert.include(field(Schema.String.check(Schema.isMaxLength(3))), "count code points instead of UTF-16 units")
    assert.include(field(Schema.String.check(Schema.makeFilter((text) => text !== "x"))), "write it as a rule")
    assert.include(
      field(Schema.String.check(Schema.isPattern(/^a/u), Schema.isPattern(/b$/u))),
      "two patterns on one string"
    )
    assert.include(field(Schema.Number), "use Schema.Finite")
    assert.include(field(Schema.Array(Schema.Int).check(Schema.makeFilter((list) => list.length !== 2))), "as a rule")
    assert.include(
      field(Schema.Record(Schema.String.check(Schema.isPattern(/^k/u)), Schema.String)),
      "keys cannot be constrained"
    )
    assert.match(field(Schema.String.check(Schema.isPattern(/^a$/))), /^spec\.field: /)
  })

  it("takes the tighter of two bounds", () => {
    assert.deepStrictEqual(
      translated(Schema.Int.check(
        Schema.isBetween({ minimum: 0, maximum: 10 }),
        Schema.isBetween({ minimum: 5, maximum: 20 })
      )),
      { type: "integer", format: "int64", minimum: 5, maximum: 10 }
    )
  })
})

describe("a rule", () => {
  const Window = Schema.Struct({ from: Schema.Int, to: Schema.Int }).pipe(
    Rule.enforce([{ cel: "self.from < self.to", message: "from is before to", holds: ({ from, to }) => from < to }])
  )

  it.effect("holds for whoever decodes", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Schema.decodeEffect(Window)({ from: 1, to: 2 }), { from: 1, to: 2 })
      assert.include((yield* Effect.flip(Schema.decodeEffect(Window)({ from: 2, to: 1 }))).message, "from is before to")
    }))

  it("is told to the API server, with all others and after documentation", () => {
    const more = Window.pipe(
      Rule.described("A window."),
      Rule.annotate([{ cel: "self.from >= 0", message: "from is not negative" }])
    )
    const { description, "x-kubernetes-validations": rules } = translated(more)
    assert.strictEqual(description, "A window.")
    assert.deepStrictEqual(rules, [
      { rule: "self.from < self.to", message: "from is before to" },
      { rule: "self.from >= 0", message: "from is not negative" }
    ])
  })

  it("of a list comes with its keys", () => {
    const list = Schema.Array(Schema.Struct({ name: Schema.String })).pipe(Rule.keyedBy("name"))
    assert.deepStrictEqual(translated(list)["x-kubernetes-list-map-keys"], ["name"])
  })
})

describe("the rules for structural schemas", () => {
  const breaches = (schema: object): ReadonlyArray<string> => violations(schema, "spec")

  it("name each breach and where it is", () => {
    assert.deepStrictEqual(breaches({ type: "object", properties: { a: {} } }), ["spec.a: no type"])
    assert.deepStrictEqual(breaches({ type: "array" }), ["spec: an array without items"])
    assert.deepStrictEqual(breaches({ type: "string", oneOf: [] }), ["spec: oneOf is not structural"])
    assert.deepStrictEqual(breaches({ type: "object", $ref: "#/x" }), ["spec: $ref is not structural"])
    assert.deepStrictEqual(
      breaches({ type: "object", properties: { a: { type: "string" } }, additionalProperties: { type: "string" } }),
      ["spec: properties beside additionalProperties"]
    )
    assert.deepStrictEqual(breaches({ type: "object", required: ["a"] }), ["spec: required field a is not defined"])
    assert.deepStrictEqual(breaches({ type: "integer", maxLength: 3 }), ["spec: maxLength on a value of type integer"])
    assert.deepStrictEqual(
      breaches({ type: "array", items: { type: "object", properties: { x: { type: "array", items: {} } } } }),
      ["spec[].x[]: no type"]
    )
    assert.deepStrictEqual(breaches({ type: "string", nullable: true, enum: ["a"] }), [
      "spec: an enum that is nullable refuses null"
    ])
  })

  it("hold for keyed lists", () => {
    const list = (keys: ReadonlyArray<string> | undefined, items: object) =>
      breaches({
        type: "array",
        "x-kubernetes-list-type": "map",
        ...(keys === undefined ? {} : { "x-kubernetes-list-map-keys": keys }),
        items
      })
    const item = { type: "object", required: ["name"], properties: { name: { type: "string" } } }
    assert.deepStrictEqual(list(["name"], item), [])
    assert.deepStrictEqual(list(undefined, item), ["spec: list-type map without list-map-keys"])
    assert.deepStrictEqual(list(["id"], item), ["spec: list-map-key id is not a scalar field of the items"])
    assert.deepStrictEqual(list(["name"], { ...item, required: [] }), [
      "spec: list-map-key name is neither required nor has a default"
    ])
    assert.deepStrictEqual(list(["name"], { type: "string" }), ["spec: list-type map of something else than objects"])
  })

  it("leave metadata to the API server", () => {
    const object = (metadata: object) => objectViolations({ type: "object", properties: { metadata } }, "Probe")
    assert.deepStrictEqual(object({ type: "object" }), [])
    assert.deepStrictEqual(object({ type: "object", properties: { name: { type: "string", maxLength: 63 } } }), [])
    assert.deepStrictEqual(object({ type: "object", description: "d", properties: { labels: { type: "object" } } }), [
      "Probe.metadata: description is not ours to say",
      "Probe.metadata.labels: only name and generateName may be restricted"
    ])
  })

  it("want messages people can read", () => {
    assert.deepStrictEqual(
      breaches({ type: "string", "x-kubernetes-validations": [{ rule: "self != ''", message: "two\nlines" }] }),
      ["spec: the message of self != '' is empty, too long or has line breaks"]
    )
  })

  it("find rules whose cost has no bound, and fields without a description", () => {
    const rule = { "x-kubernetes-validations": [{ rule: "true", message: "m" }] }
    const items: StructuralSchema = { type: "object", properties: { a: { type: "string", ...rule } } }
    assert.deepStrictEqual(unbounded({ type: "array", items }, "spec"), ["spec: rules below a list without maxItems"])
    assert.deepStrictEqual(unbounded({ type: "array", maxItems: 2, items }, "spec"), [])
    assert.deepStrictEqual(unbounded({ type: "object", additionalProperties: items }, "spec"), [
      "spec: rules below a map without maxProperties"
    ])
    assert.deepStrictEqual(undocumented({ type: "array", items }, "spec"), ["spec[].a"])
  })
})
