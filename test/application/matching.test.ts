/** Paths of configurations over answers that nobody can vouch for. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { isDeeperThan } from "../../src/domain/depth.ts"
import { document, jsonPath } from "../../src/probes/application/matching.ts"

const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth)

describe("a JSON path", () => {
  it.effect("leads to a value, through filters, functions and one descent", () =>
    Effect.gen(function*() {
      const answer = { pods: [{ name: "a", tags: [] }, { name: "b", tags: ["x"], deep: { value: 7 } }] }
      for (
        const [path, value] of [
          ["$.pods[0].name", "a"],
          ["$..value", 7],
          ["$.pods[?count(@.tags[*]) > 0].name", "b"],
          ["$.pods[?length(@.name) == 1 && @.deep].name", "b"],
          ["$.pods[?@.name == 'match(search(..))']", undefined]
        ] as const
      ) {
        assert.deepStrictEqual((yield* jsonPath(path))(answer)?.value, value, path)
      }
    }))

  it.effect("that could take any time is refused, and what to do instead is said", () =>
    Effect.gen(function*() {
      for (
        const [path, said] of [
          ["$[?search(@, '(a+)+b')]", "search() is not for paths here; give an expression as matches"],
          ["$.a[?!(@.b == 1 || match(@.c, '(a|aa)+'))]", "match() is not for paths here"],
          ["$..a..b", "`..` once at most"],
          ["$..[?count(@..x) > 1]", "`..` once at most"],
          ["$[", "no JSON path"]
        ] as const
      ) {
        const { code, message } = (yield* Effect.flip(jsonPath(path))).finding
        assert.strictEqual(code, "INVALID_CONFIG")
        assert.include(message, said)
      }
    }))

  it.effect("finds nothing in what is nested without end", () =>
    Effect.gen(function*() {
      const walk = yield* jsonPath("$..*")
      for (const depth of [257, 100_000]) {
        assert.isTrue(Option.isNone(document(nested(depth))))
        assert.isTrue(isDeeperThan(JSON.parse(nested(depth)), depth - 1))
        assert.isFalse(isDeeperThan(JSON.parse(nested(depth)), depth))
        assert.isUndefined(walk(JSON.parse(nested(depth))))
      }
      assert.isDefined(Option.flatMapNullishOr(document(nested(256)), walk).pipe(Option.getOrUndefined))
    }))
})
