import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { kubeprober, temporaryFolder } from "./Kubeprober.ts"

const folder = temporaryFolder()

describe("a call that is wrong", () => {
  it.effect("is told on standard error with what is near, nothing on standard output, and exit code 2", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* kubeprober(folder, ["check", "--profil", "full"])
      assert.deepStrictEqual([code, stdout], [2, ""])
      assert.include(stderr, "--profile")
      assert.include(stderr, "kubeprober check --help")
    }))

  it.effect("is no call for help, which goes to standard output", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* kubeprober(folder, ["check", "--help"])
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.include(stdout, "--fail-on")
    }))
})
