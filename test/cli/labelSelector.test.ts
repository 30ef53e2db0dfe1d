import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LabelSelector from "../../src/cli/LabelSelector.ts"
import { matches } from "../../src/domain/ClusterSelector.ts"

const selects = (text: string, labels: Readonly<Record<string, string>>) =>
  Effect.map(LabelSelector.parse(text), (selector) => matches(selector, labels))

describe("a label selector as typed after -l", () => {
  const prod = { env: "prod", "example.com/tier": "a" }

  it.effect("means what it means to kubectl", () =>
    Effect.gen(function*() {
      const yes = [
        "env=prod",
        "env==prod",
        "env!=dev",
        "other!=x",
        "env in (dev, prod)",
        "env notin (dev)",
        "env",
        "!other"
      ]
      const no = ["env=dev", "env!=prod", "env in (dev)", "env notin (prod,dev)", "!env", "other", "env=prod,other"]
      for (const text of [...yes, "env=prod,example.com/tier in (a,b),!legacy"]) {
        assert.isTrue(yield* selects(text, prod), text)
      }
      for (const text of no) assert.isFalse(yield* selects(text, prod), text)
      assert.isTrue(yield* selects("empty=", { empty: "" }))
    }))

  it.effect("is refused with an example when it is none", () =>
    Effect.gen(function*() {
      for (const text of ["", "env=prod,", "=prod", "env=a b", "env in prod", "env in (a b)", "env>1"]) {
        const refused = yield* Effect.flip(LabelSelector.parse(text))
        assert.include(refused.message, "env=prod", text)
      }
    }))
})
