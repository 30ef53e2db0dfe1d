import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as LocalProgress from "../../src/cli/LocalProgress.ts"
import * as Style from "../../src/cli/output/Style.ts"
import { Screen } from "../../src/cli/Screen.ts"

const lines: Array<string> = []

const surface = {
  isTerminal: false,
  width: Effect.succeed(undefined),
  height: Effect.succeed(undefined),
  style: Style.plain,
  write: (text: string) => Effect.sync(() => void lines.push(text.trimEnd()))
}

describe("progress in a log", () => {
  it.effect("tells a build when it starts and every half minute, once for all clusters", () =>
    Effect.gen(function*() {
      const report = yield* Effect.provideService(LocalProgress.reporter, Screen, { out: surface, err: surface })
      for (let second = 0; second <= 61; second++) {
        const build = { binary: "etcd", step: 1, of: 4, elapsed: Duration.seconds(second) }
        yield* report({ _tag: "Building", ...build })
        yield* report({ _tag: "Waiting", ...build, of: 7 })
      }
      assert.deepStrictEqual(
        lines,
        ["0s", "30s", "60s"].map((elapsed) => `building etcd (1 of 4, ${elapsed}); this happens once`)
      )
    }))
})
