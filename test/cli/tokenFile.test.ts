import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Path, Ref } from "effect"
import * as TokenFile from "../../src/cli/TokenFile.ts"

const folder = Effect.gen(function*() {
  const path = yield* Path.Path
  return path.join(yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped(), "edge.token")
})

layer(NodeServices.layer)("the file of a join token", (it) => {
  it.effect("holds the token, for its owner alone", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = yield* folder
      const made = yield* TokenFile.write(file, Effect.succeed("secret"), (token) => token)
      assert.strictEqual(made, "secret")
      assert.strictEqual(yield* fs.readFileString(file), "secret\n")
      assert.strictEqual((yield* fs.stat(file)).mode & 0o777, 0o600)
    }))

  it.effect("that is there already is left as it is, and no token is made", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = yield* folder
      yield* fs.writeFileString(file, "another's")
      const made = yield* Ref.make(0)
      const failure = yield* Effect.flip(
        TokenFile.write(file, Ref.updateAndGet(made, (count) => count + 1), String)
      )
      assert.include(failure.message, "there is such a file already")
      assert.strictEqual(yield* Ref.get(made), 0)
      assert.strictEqual(yield* fs.readFileString(file), "another's")
    }))

  it.effect("is gone again when no token could be made", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = yield* folder
      yield* Effect.flip(TokenFile.write(file, Effect.fail("enrolled"), String))
      assert.isFalse(yield* fs.exists(file))
    }))
})
