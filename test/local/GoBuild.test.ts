import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Schedule } from "effect"
import { accessSync, constants } from "node:fs"
import * as GoBuild from "../../src/local/binaries/GoBuild.ts"
import * as Command from "../../src/local/process/Command.ts"
import type { Progress } from "../../src/local/Progress.ts"
import * as Process from "./Process.ts"

/** The go command of this machine. */
const go = [...(process.env["PATH"] ?? "").split(":"), "/usr/local/go/bin"].map((folder) => `${folder}/go`).find(
  (file) => {
    try {
      accessSync(file, constants.X_OK)
      return true
    } catch {
      return false
    }
  }
)

/** A module with one program, a cache, and a go command that notes each call and then does what the script says. */
const setUp = Effect.fnUntraced(function*(script: string) {
  const fs = yield* FileSystem.FileSystem
  const root = yield* fs.makeTempDirectoryScoped()
  const module = `${root}/tiny`
  yield* fs.makeDirectory(module)
  yield* fs.writeFileString(`${module}/go.mod`, "module example.test/tiny\n\ngo 1.21\n")
  yield* fs.writeFileString(`${module}/go.sum`, "")
  yield* fs.writeFileString(`${module}/main.go`, "package main\n\nfunc main() { println(\"tiny\") }\n")
  const command = `${root}/go`
  yield* fs.writeFileString(command, `#!/bin/sh\necho called >> ${root}/calls\n${script}\n`, { mode: 0o755 })
  const calls = Effect.map(
    Effect.orElseSucceed(fs.readFileString(`${root}/calls`), () => ""),
    (calls) => calls.split("\n").length - 1
  )
  return { module, cache: `${root}/cache`, command, calls }
})

const tiny = (module: string): GoBuild.GoPackage => ({
  binary: "tiny",
  module,
  dependency: "example.test/none",
  package: ".",
  ldflags: () => "-s -w",
  versionArgs: []
})

describe("building with Go", () => {
  it.live.skipIf(go === undefined)(
    "is done once by processes that start at once, and not again",
    () =>
      Effect.gen(function*() {
        const { cache, calls, command, module } = yield* setUp(`sleep 1; exec ${go} "$@"`)
        const builders = yield* Effect.forEach([1, 2, 3], () => Process.start("builder", [module, cache, command]))
        const paths = yield* Effect.forEach(builders, (builder) => builder.line((line) => line.startsWith(cache)))
        assert.strictEqual(new Set(paths).size, 1)
        assert.strictEqual(yield* calls, 1)
        assert.match(yield* Command.run(["sh", "-c", `${paths[0]} 2>&1`]), /^tiny$/m)
        const events: Array<Progress> = []
        yield* GoBuild.build(tiny(module), {
          go: command,
          cache,
          step: 1,
          of: 1,
          onProgress: (event) => Effect.asVoid(Effect.sync(() => events.push(event)))
        })
        assert.deepStrictEqual(events, [])
        assert.strictEqual(yield* calls, 1)
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    120_000
  )

  it.live.skipIf(go === undefined)(
    "starts over after the builder was killed, and takes nothing half-made",
    () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const slow = `while [ "$1" != -o ]; do shift; done; echo half > "$2"; exec sleep 600`
        const { cache, calls, command, module } = yield* setUp(slow)
        const killed = yield* Process.start("builder", [module, cache, command])
        yield* Effect.repeat(calls, { until: (count) => count === 1, schedule: Schedule.spaced("20 millis") })
        yield* killed.end("SIGKILL")
        const path = yield* GoBuild.build(tiny(module), {
          go: go ?? "go",
          cache,
          step: 1,
          of: 1,
          onProgress: () => Effect.void
        })
        assert.match(yield* Command.run(["sh", "-c", `${path} 2>&1`]), /^tiny$/m)
        assert.deepStrictEqual(yield* fs.readDirectory(path.slice(0, path.lastIndexOf("/"))), ["tiny"])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    120_000
  )

  it.live.skipIf(go === undefined)(
    "is for this machine, whatever the caller's environment says",
    () =>
      Effect.gen(function*() {
        const { cache, command, module } = yield* setUp(`exec ${go} "$@"`)
        const elsewhere = { ...process.env, GOOS: "plan9", GOARCH: "arm", GOFLAGS: "-mod=vendor" }
        const builder = yield* Process.start("builder", [module, cache, command], elsewhere)
        const path = yield* builder.line((line) => line.startsWith(cache))
        assert.match(yield* Command.run(["sh", "-c", `${path} 2>&1`]), /^tiny$/m)
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    120_000
  )

  it.live("keeps no program that does not run", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { cache, command, module } = yield* setUp(
        `while [ "$1" != -o ]; do shift; done; printf '#!/bin/sh\necho no such machine >&2; exit 1\n' > "$2"; chmod +x "$2"`
      )
      const error = yield* Effect.flip(
        GoBuild.build(tiny(module), { go: command, cache, step: 1, of: 1, onProgress: () => Effect.void })
      )
      assert.include(error.message, "no such machine")
      assert.isFalse(yield* fs.exists((yield* GoBuild.target(tiny(module), cache)).path))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("tells what the compiler said when it fails", () =>
    Effect.gen(function*() {
      const { cache, command, module } = yield* setUp("echo main.go:3: it does not compile >&2; exit 1")
      const error = yield* Effect.flip(
        GoBuild.build(tiny(module), { go: command, cache, step: 1, of: 1, onProgress: () => Effect.void })
      )
      assert.strictEqual(error._tag, "BuildFailed")
      assert.include(error.message, "main.go:3: it does not compile")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("tells every second which binary it is at", () =>
    Effect.gen(function*() {
      const { cache, command, module } = yield* setUp(
        `until [ -e "\${0%/*}/told" ]; do sleep 0.1; done; while [ "$1" != -o ]; do shift; done; ` +
          `echo '#!/bin/sh' > "$2"; chmod +x "$2"`
      )
      const fs = yield* FileSystem.FileSystem
      const events: Array<Progress> = []
      yield* GoBuild.build(tiny(module), {
        go: command,
        cache,
        step: 2,
        of: 5,
        onProgress: (event) =>
          Effect.suspend(() => {
            events.push(event)
            // The build ends once it has been told of twice.
            return events.filter(({ _tag }) => _tag === "Building").length === 2
              ? Effect.orDie(fs.writeFileString(command.replace(/go$/, "told"), ""))
              : Effect.void
          })
      })
      const building = events.flatMap((event) => event._tag === "Building" ? [event] : [])
      assert.isAtLeast(building.length, 2)
      assert.isTrue(building.every(({ binary, of, step }) => binary === "tiny" && step === 2 && of === 5))
      assert.strictEqual(events.at(-1)?._tag, "Built")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("links the pinned version, with its v, into the program", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { cache, command, module } = yield* setUp(
        `flags=$4; while [ "$1" != -o ]; do shift; done; printf '#!/bin/sh\n# %s\n' "$flags" > "$2"; chmod +x "$2"`
      )
      yield* fs.writeFileString(`${module}/go.mod`, "module a\n\nrequire example.test/none v1.2.3\n")
      const versioned = { ...tiny(module), ldflags: (version: string) => `-X a.version=${version}` }
      const path = yield* GoBuild.build(versioned, {
        go: command,
        cache,
        step: 1,
        of: 1,
        onProgress: () => Effect.void
      })
      assert.strictEqual(yield* fs.readFileString(path), "#!/bin/sh\n# -X a.version=v1.2.3\n")
      assert.strictEqual((yield* GoBuild.target(versioned, cache)).version, "1.2.3")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("goes to another place in the cache when a pin changes", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { cache, module } = yield* setUp("exit 1")
      const before = yield* GoBuild.target(tiny(module), cache)
      assert.deepStrictEqual(yield* GoBuild.target(tiny(module), cache), before)
      yield* fs.writeFileString(`${module}/go.sum`, "example.test/other v1.0.0 h1:x\n")
      assert.notStrictEqual((yield* GoBuild.target(tiny(module), cache)).path, before.path)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

describe("the pinned version", () => {
  for (
    const [goMod, version] of [
      ["module a\n\nrequire k8s.io/kubernetes v1.35.4\n", "v1.35.4"],
      [
        "module a\n\nreplace k8s.io/kubernetes => ../x\n\nrequire (\n\tk8s.io/api v0.35.4 // indirect\n\tk8s.io/kubernetes v1.34.0\n)\n",
        "v1.34.0"
      ],
      ["module k8s.io/kubernetes\n", "v0.0.0"]
    ] as const
  ) {
    it(`is ${version} in ${JSON.stringify(goMod)}`, () => {
      assert.strictEqual(GoBuild.pinnedVersion(goMod, "k8s.io/kubernetes"), version)
    })
  }
})
