import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { ClusterSelector, type Labels, attaches, matches } from "../../src/domain/ClusterSelector.ts"

const production: Labels = { stage: "production", region: "eu" }

const selects = (selector: unknown, labels: Labels = production) =>
  Effect.map(Schema.decodeUnknownEffect(ClusterSelector)(selector), (decoded) => matches(decoded, labels))

/** Few keys and values, so that generated labels and selectors meet. */
const Key = Schema.Literals(["a", "b"])
const Value = Schema.Literals(["1", "2"])
const SomeLabels = Schema.Array(Schema.Tuple([Key, Value])).check(Schema.isMaxLength(3))
const Values = Schema.NonEmptyArray(Value).check(Schema.isMaxLength(2))

describe("a cluster selector", () => {
  it.effect("without requirements selects every cluster", () =>
    Effect.gen(function*() {
      assert.isTrue(yield* selects({}))
      assert.isTrue(yield* selects({}, {}))
    }))

  it.effect("needs all of its labels", () =>
    Effect.gen(function*() {
      assert.isTrue(yield* selects({ matchLabels: { stage: "production", region: "eu" } }))
      assert.isFalse(yield* selects({ matchLabels: { stage: "production", region: "us" } }))
      assert.isFalse(yield* selects({ matchLabels: { tier: "" } }), "an absent label is not an empty one")
    }))

  it.effect("needs all of its expressions", () =>
    Effect.gen(function*() {
      const region = (operator: string, values?: ReadonlyArray<string>) =>
        selects({ matchExpressions: [{ key: "region", operator, ...(values === undefined ? {} : { values }) }] })
      assert.isTrue(yield* region("In", ["us", "eu"]))
      assert.isFalse(yield* region("NotIn", ["us", "eu"]))
      assert.isTrue(yield* region("Exists"))
      assert.isFalse(yield* region("DoesNotExist"))
      const tier = (operator: string, values?: ReadonlyArray<string>) =>
        selects({ matchExpressions: [{ key: "tier", operator, ...(values === undefined ? {} : { values }) }] })
      assert.isFalse(yield* tier("In", ["gold"]))
      assert.isTrue(yield* tier("NotIn", ["gold"]), "as in Kubernetes, NotIn selects what has no such label")
      assert.isFalse(yield* tier("Exists"))
      assert.isTrue(yield* tier("DoesNotExist"))
    }))

  it.effect("takes no label from an object's own properties", () =>
    Effect.gen(function*() {
      assert.isFalse(yield* selects({ matchExpressions: [{ key: "constructor", operator: "Exists" }] }))
    }))

  it.effect("is refused when an operator has the wrong values", () =>
    Effect.gen(function*() {
      for (
        const requirement of [{ operator: "In" }, { operator: "NotIn", values: [] }, {
          operator: "Exists",
          values: ["x"]
        }]
      ) {
        const error = yield* Effect.flip(selects({ matchExpressions: [{ key: "a", ...requirement }] }))
        assert.include(error.message, "In and NotIn need values, Exists and DoesNotExist take none")
      }
    }))

  it.effect.prop(
    "says of a requirement and its opposite one thing each",
    { labels: SomeLabels, key: Key, values: Values },
    ({ key, labels, values }) =>
      Effect.sync(() => {
        const one = (operator: "In" | "NotIn" | "Exists" | "DoesNotExist") =>
          matches(
            { matchExpressions: [{ key, operator, ...(operator.endsWith("In") ? { values } : {}) }] },
            Object.fromEntries(labels)
          )
        assert.strictEqual(one("In"), !one("NotIn"))
        assert.strictEqual(one("Exists"), !one("DoesNotExist"))
        assert.isTrue(!one("In") || one("Exists"))
      })
  )
})

describe("a Probe", () => {
  it("runs where its selector matches or the original's label asks for it", () => {
    const clusterSelector = { matchLabels: { stage: "production" } }
    assert.isTrue(attaches({ name: "dns", clusterSelector }, production))
    assert.isFalse(attaches({ name: "dns", clusterSelector }, { stage: "test" }))
    assert.isTrue(attaches({ name: "dns", clusterSelector }, { stage: "test", "probe/dns": "true" }))
    assert.isFalse(attaches({ name: "dns" }, production))
    assert.isTrue(attaches({ name: "dns" }, { "probe/dns": "true" }))
    assert.isFalse(attaches({ name: "dns" }, { "probe/dns": "false", "probe/other": "true" }))
  })
})
