import { Clock, Duration, Effect, Fiber, FileSystem, Path, Schedule, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { createHash } from "node:crypto"
import { BuildFailed } from "../LocalError.ts"
import * as Command from "../process/Command.ts"
import * as Component from "../process/Component.ts"
import * as FileLock from "../process/FileLock.ts"
import * as Progress from "../Progress.ts"

/** One main package of a Go module of ours, whose `go.mod` and `go.sum` pin everything it is made of. */
export interface GoPackage {
  /** Name of the binary. */
  readonly binary: string
  /** The folder with go.mod. */
  readonly module: string
  /** The module that the package belongs to; its pinned version is the version of the binary. */
  readonly dependency: string
  /** Import path of the main package. */
  readonly package: string
  /** Link flags, given the pinned version (`v1.35.4`). */
  readonly ldflags: (version: string) => string
  /** What makes it tell its version and end well. */
  readonly versionArgs: ReadonlyArray<string>
}

/** Where a package is, or will be, and which version it is. */
export interface Target {
  readonly path: string
  /** Without the leading `v`. */
  readonly version: string
}

/**
 * The place of a package in the cache. It changes with anything that changes the binary: the pins, the flags, the
 * platform.
 */
export const target = Effect.fnUntraced(function*(goPackage: GoPackage, cache: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const mod = yield* fs.readFileString(path.join(goPackage.module, "go.mod"))
  const sum = yield* fs.readFileString(path.join(goPackage.module, "go.sum"))
  const version = pinnedVersion(mod, goPackage.dependency)
  const key = createHash("sha256")
    .update(JSON.stringify([mod, sum, goPackage.ldflags(version), process.platform, process.arch]))
    .digest("hex")
    .slice(0, 12)
  const folder = `${path.basename(goPackage.module)}-${version}-${key}`
  const built: Target = { path: path.join(cache, "bin", folder, goPackage.binary), version: version.replace(/^v/, "") }
  return built
})

/** The version that a go.mod requires of a module, `v0.0.0` when it does not. */
export const pinnedVersion = (goMod: string, dependency: string): string => {
  for (const line of goMod.split("\n")) {
    const [module, version] = line.trim().replace(/^require\s+/, "").split(/\s+/)
    if (module === dependency && version !== undefined && /^v\d/.test(version)) return version
  }
  return "v0.0.0"
}

/**
 * Builds a package into the cache unless it is there. Processes that start at once share one build; a build that was
 * cut off resumes from Go's own cache. `GOPROXY`, `GOTOOLCHAIN` and the like are the caller's; what would make another
 * program under the same name is not. Only a program that runs gets its name.
 */
export const build = Effect.fn("GoBuild.build")(function*(
  goPackage: GoPackage,
  options: {
    /** The go command. */
    readonly go: string
    readonly cache: string
    readonly step: number
    readonly of: number
    readonly onProgress: Progress.OnProgress
  }
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { onProgress, ...where } = options
  const { path: output, version } = yield* target(goPackage, options.cache)
  if (yield* fs.exists(output)) return output

  const started = yield* Clock.currentTimeMillis
  const elapsed = Effect.map(Clock.currentTimeMillis, (now) => Duration.millis(now - started))
  const about = { binary: goPackage.binary, step: where.step, of: where.of }
  const everySecond = (event: (elapsed: Duration.Duration) => Progress.Progress) =>
    Effect.flatMap(elapsed, (time) => onProgress(event(time))).pipe(
      Effect.repeat(Schedule.spaced("1 second")),
      Effect.forkScoped
    )

  yield* fs.makeDirectory(path.dirname(output), { recursive: true, mode: 0o700 })
  yield* Effect.scoped(Effect.gen(function*() {
    // One lock for all builds: a second build at once would only be slower.
    const buildLock = path.join(options.cache, "bin", "lock")
    yield* Effect.catchTag(
      FileLock.tryLock(buildLock),
      "LockBusy",
      () =>
        Effect.gen(function*() {
          const waiting = yield* everySecond((elapsed) => Progress.Waiting.make({ ...about, elapsed }))
          yield* FileLock.lock(buildLock)
          yield* Fiber.interrupt(waiting)
        })
    )
    if (yield* fs.exists(output)) return
    yield* everySecond((elapsed) => Progress.Building.make({ ...about, elapsed }))
    // The lock makes this name ours; Go does not overwrite what a killed build left under it.
    const partial = `${output}.partial`
    yield* fs.remove(partial, { force: true })
    yield* run(goPackage, options.go, partial, `v${version}`)
    yield* Command.run([partial, ...goPackage.versionArgs]).pipe(
      Effect.timeout("30 seconds"),
      Effect.mapError((error) =>
        new BuildFailed({ binary: goPackage.binary, output: `It was built and does not run: ${error.message}` })
      )
    )
    yield* fs.rename(partial, output)
  }))
  yield* onProgress(Progress.Built.make({ binary: goPackage.binary, path: output, elapsed: yield* elapsed }))
  return output
})

const run = Effect.fnUntraced(function*(goPackage: GoPackage, go: string, output: string, version: string) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const args = ["build", "-trimpath", "-ldflags", goPackage.ldflags(version), "-o", output, goPackage.package]
  const options: ChildProcess.CommandOptions = {
    cwd: goPackage.module,
    env: {
      CGO_ENABLED: "0",
      GOOS: goOs(process.platform),
      GOARCH: goArch(process.arch),
      // The pins are all there is: no workspace, vendored copy or other go.mod of the caller.
      GOFLAGS: "-mod=readonly -buildvcs=false",
      GOWORK: "off"
    },
    extendEnv: true,
    stdin: "ignore",
    killSignal: "SIGKILL"
  }
  // Nobody waits for the build of a process that was killed.
  const leash = yield* Component.leash
  const handle = yield* spawner.spawn(
    leash === "setpriv"
      ? ChildProcess.make("setpriv", ["--pdeathsig", "KILL", go, ...args], options)
      : ChildProcess.make(go, args, options)
  )
  const lastLines = yield* handle.all.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runFold((): ReadonlyArray<string> => [], (lines, line) => [...lines, line].slice(-OUTPUT_LINES))
  )
  if ((yield* handle.exitCode) !== 0) {
    return yield* new BuildFailed({ binary: goPackage.binary, output: lastLines.join("\n") })
  }
})

/** Names of this machine in Go (`go tool dist list`), which are those of Node with few exceptions. */
const goOs = (platform: string): string => platform === "win32" ? "windows" : platform
const goArch = (arch: string): string => arch === "x64" ? "amd64" : arch === "ia32" ? "386" : arch

const OUTPUT_LINES = 20
