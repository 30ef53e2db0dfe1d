import { Config, Context, Effect, FileSystem, Layer, Option, Path, Schema } from "effect"

const PackageManifest = Schema.fromJsonString(Schema.Struct({ name: Schema.optionalKey(Schema.String) }))

/**
 * Where local clusters keep their things, from the environment: `XDG_STATE_HOME` (state of running clusters),
 * `XDG_CACHE_HOME` (binaries, packages, images), `KUBEBUILDER_ASSETS`, `PATH` and `GOROOT` (programs of
 * others).
 */
export class LocalPaths extends Context.Service<LocalPaths, {
  /** One folder per running cluster, and the lock of the folder. */
  readonly state: string
  /** Things that are made once and kept. */
  readonly cache: string
  /** Folders that may hold binaries, in the order in which they are asked. */
  readonly assets: Option.Option<string>
  readonly searchPath: ReadonlyArray<string>
  /** Where Go is when it is not in the search path: `GOROOT`, else where its own archive puts it. */
  readonly goRoot: string
  /** The pinned Go modules that binaries are built from. */
  readonly goModules: string
  /** The entry file of the process that owns a detached cluster. */
  readonly supervisor: string
  /** What makes another process find the same. */
  readonly environment: Readonly<Record<string, string>>
}>()("kubeprober/local/LocalPaths") {
  static readonly layer = Layer.effect(
    LocalPaths,
    Effect.gen(function*() {
      const path = yield* Path.Path
      const home = yield* Config.NonEmptyString("HOME")
      const state = yield* Config.NonEmptyString("XDG_STATE_HOME").pipe(
        Config.withDefault(path.join(home, ".local", "state"))
      )
      const cache = yield* Config.NonEmptyString("XDG_CACHE_HOME").pipe(Config.withDefault(path.join(home, ".cache")))
      const assets = yield* Config.option(Config.NonEmptyString("KUBEBUILDER_ASSETS"))
      const searchPath = yield* Config.String("PATH").pipe(Config.withDefault(""))
      const goRoot = yield* Config.NonEmptyString("GOROOT").pipe(Config.withDefault("/usr/local/go"))
      const root = yield* packageRoot(import.meta.dirname)
      return LocalPaths.of({
        state: path.join(state, "kubeprober", "local"),
        cache: path.join(cache, "kubeprober"),
        assets,
        searchPath: searchPath.split(":").filter((entry) => path.isAbsolute(entry)),
        goRoot,
        goModules: path.join(root, "src", "local", "go"),
        supervisor: path.extname(import.meta.filename) === ".ts"
          ? path.join(root, "src", "local", "supervisor.ts")
          : path.join(root, "dist", "bin", "local-supervisor.js"),
        environment: {
          XDG_STATE_HOME: state,
          XDG_CACHE_HOME: cache,
          PATH: searchPath,
          ...Option.match(assets, { onNone: () => ({}), onSome: (assets) => ({ KUBEBUILDER_ASSETS: assets }) })
        }
      })
    })
  )
}

/**
 * The folder of this package, found upwards from a module of it, so that it is the same from `src/` and from the
 * bundles in `dist/`.
 */
const packageRoot = Effect.fnUntraced(function*(from: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  for (let folder = from; folder !== path.dirname(folder); folder = path.dirname(folder)) {
    const manifest = yield* fs.readFileString(path.join(folder, "package.json")).pipe(
      Effect.flatMap(Schema.decodeEffect(PackageManifest)),
      Effect.option
    )
    if (Option.isSome(manifest) && manifest.value.name === "kubeprober") return folder
  }
  return path.resolve(from, "..", "..")
})
