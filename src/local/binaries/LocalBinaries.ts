import { Context, Effect, FileSystem, Layer, Option, Path, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { BinariesMissing, BinaryUnusable, type BuildFailed, LocalIoError } from "../LocalError.ts"
import { LocalPaths } from "../LocalPaths.ts"
import type { OnProgress } from "../Progress.ts"
import * as GoBuild from "./GoBuild.ts"

export type BinaryName =
  | "etcd"
  | "kube-apiserver"
  | "kube-controller-manager"
  | "kube-scheduler"
  | "kubelet"
  | "kube-proxy"
  | "kubectl"
  | "coredns"

export interface Binary {
  readonly name: BinaryName
  readonly path: string
  /** Without the leading `v`: `1.35.4`. */
  readonly version: string
  /** Where it comes from: `KUBEBUILDER_ASSETS`, `PATH`, or built here (now or earlier). */
  readonly source: "assets" | "path" | "built"
}

/** What can keep binaries from being there. */
export type BinariesError = BinariesMissing | BinaryUnusable | BuildFailed | LocalIoError

/**
 * The programs that Kubernetes is made of. Each is looked for on its own: in `KUBEBUILDER_ASSETS`, then on `PATH`, then
 * among those built earlier; what is in none of them is built with Go, once.
 */
export class LocalBinaries extends Context.Service<LocalBinaries, {
  /**
   * Those of Kubernetes itself (kubectl aside, which may be older or newer) come from one minor version, because a
   * component that is newer than its API server is unsupported
   * (https://kubernetes.io/releases/version-skew-policy/): when those at hand do not, the pinned version is built
   * in their stead.
   */
  readonly resolve: <Name extends BinaryName>(
    names: ReadonlyArray<Name>,
    onProgress?: OnProgress
  ) => Effect.Effect<{ readonly [N in Name]: Binary }, BinariesError>
}>()("kubeprober/local/LocalBinaries") {
  static readonly layer = Layer.effect(
    LocalBinaries,
    Effect.gen(function*() {
      const paths = yield* LocalPaths
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const services = yield* Effect.context<
        FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
      >()
      const folders = [
        ...Option.toArray(Option.map(paths.assets, (folder) => ({ folder, source: "assets" as const }))),
        ...paths.searchPath.map((folder) => ({ folder, source: "path" as const }))
      ]
      const known = new Map<string, Binary>()

      const executable = (file: string) =>
        fs.stat(file).pipe(
          Effect.map((info) => info.type === "File" && (info.mode & 0o111) !== 0),
          Effect.orElseSucceed(() => false)
        )

      /** One in `KUBEBUILDER_ASSETS` is meant to be used, and must work; one that happens to be on PATH need not. */
      const provided = Effect.fnUntraced(function*(name: BinaryName) {
        for (const { folder, source } of folders) {
          const file = path.join(folder, name)
          const before = known.get(file)
          if (before !== undefined) return Option.some(before)
          if (!(yield* executable(file))) continue
          const output = yield* tellVersion(file, recipes[name].versionArgs)
          const version = parseVersion(output)
          if (version !== undefined) {
            const binary: Binary = { name, path: file, version, source }
            known.set(file, binary)
            return Option.some(binary)
          }
          if (source === "assets") return yield* new BinaryUnusable({ path: file, output: output.slice(0, 300) })
        }
        return Option.none<Binary>()
      })

      const findGo = Effect.findFirst(
        [...paths.searchPath, path.join(paths.goRoot, "bin")].map((folder) => path.join(folder, "go")),
        Effect.fnUntraced(function*(file) {
          return (yield* executable(file)) && (yield* tellVersion(file, ["version"])).startsWith("go version ")
        })
      )

      const goPackage = (name: BinaryName): GoBuild.GoPackage => {
        const { module, ...recipe } = recipes[name]
        return { binary: name, module: path.join(paths.goModules, module), ...recipe }
      }

      const resolve = Effect.fn("LocalBinaries.resolve")(function*(
        names: ReadonlyArray<BinaryName>,
        onProgress: OnProgress
      ) {
        const candidates = yield* Effect.forEach(names, provided, { concurrency: 2 })
        const at = (name: BinaryName) => candidates[names.indexOf(name)] ?? Option.none<Binary>()
        const family = names.filter((name) => recipes[name].family)
        const minors = new Set(family.map((name) => Option.getOrUndefined(Option.map(at(name), minor))))
        const pinned = yield* Effect.map(GoBuild.target(goPackage("kube-apiserver"), paths.cache), minor)
        const usable = (name: BinaryName) =>
          Option.filter(at(name), (binary) => !recipes[name].family || minors.size === 1 || minor(binary) === pinned)

        const lacking = names.filter((name) => Option.isNone(usable(name)))
        const targets = yield* Effect.forEach(lacking, (name) => GoBuild.target(goPackage(name), paths.cache))
        const unbuilt = yield* Effect.filter(
          lacking.map((name, index) => ({ name, path: targets[index]?.path ?? "" })),
          (target) => Effect.map(executable(target.path), (exists) => !exists)
        )
        const go = unbuilt.length > 0 ? yield* findGo : Option.none<string>()
        if (unbuilt.length > 0 && Option.isNone(go)) {
          const refused = unbuilt.flatMap(({ name }) => Option.toArray(at(name)))
          return yield* new BinariesMissing({
            names: unbuilt.map(({ name }) => name),
            searched: [
              Option.getOrElse(paths.assets, () => "KUBEBUILDER_ASSETS (unset)"),
              "PATH",
              `${paths.cache}/bin`
            ],
            cause: [
              `there is no go command on PATH or in ${paths.goRoot}/bin to build them with`,
              ...refused.map((binary) => `${binary.path} is ${binary.version}, which does not go with the others`)
            ].join("; ")
          })
        }
        if (Option.isSome(go)) {
          yield* Effect.forEach(unbuilt, ({ name }, index) =>
            GoBuild.build(goPackage(name), {
              go: go.value,
              cache: paths.cache,
              step: index + 1,
              of: unbuilt.length,
              onProgress
            }))
        }
        return names.map((name): Binary => {
          const target = targets[lacking.indexOf(name)]
          return target === undefined
            ? Option.getOrThrow(usable(name))
            : { name, path: target.path, version: target.version, source: "built" }
        })
      })

      return LocalBinaries.of({
        resolve: <Name extends BinaryName>(names: ReadonlyArray<Name>, onProgress: OnProgress = () => Effect.void) =>
          resolve(names, onProgress).pipe(
            Effect.map((binaries) =>
              // The keys are the names that were asked for, which the type of fromEntries cannot say.
              Object.fromEntries(binaries.map((binary) => [binary.name, binary])) as { [N in Name]: Binary }
            ),
            Effect.catchTag(
              ["PlatformError", "LockFailed"],
              (cause) => Effect.fail(new LocalIoError({ doing: "Looking for binaries", cause }))
            ),
            Effect.provideContext(services)
          )
      })
    })
  )
}

interface Recipe extends Pick<GoBuild.GoPackage, "dependency" | "package" | "ldflags" | "versionArgs"> {
  /** The folder below `go/`. */
  readonly module: string
  /** Whether the version skew policy binds it to the API server. */
  readonly family: boolean
}

/** Without these a server calls itself v0.0.0, and clients refuse features. */
const kubernetesFlags = (version: string): string => {
  const [major = "", minor = ""] = version.replace(/^v/, "").split(".")
  const variable = "-X k8s.io/component-base/version"
  return `-s -w ${variable}.gitVersion=${version} ${variable}.gitMajor=${major} ${variable}.gitMinor=${minor}`
}

const kubernetes = (command: string, family = true, versionArgs: ReadonlyArray<string> = ["--version"]): Recipe => ({
  module: "kubernetes",
  dependency: "k8s.io/kubernetes",
  package: `k8s.io/kubernetes/cmd/${command}`,
  ldflags: kubernetesFlags,
  versionArgs,
  family
})

const stripped = () => "-s -w"

const recipes: Record<BinaryName, Recipe> = {
  "etcd": {
    module: "etcd",
    dependency: "go.etcd.io/etcd/server/v3",
    package: "go.etcd.io/etcd/server/v3",
    ldflags: stripped,
    versionArgs: ["--version"],
    family: false
  },
  "kube-apiserver": kubernetes("kube-apiserver"),
  "kube-controller-manager": kubernetes("kube-controller-manager"),
  "kube-scheduler": kubernetes("kube-scheduler"),
  "kubelet": kubernetes("kubelet"),
  "kube-proxy": kubernetes("kube-proxy"),
  "kubectl": kubernetes("kubectl", false, ["version", "--client"]),
  "coredns": {
    module: "coredns",
    dependency: "github.com/coredns/coredns",
    package: "github.com/coredns/coredns",
    ldflags: stripped,
    versionArgs: ["-version"],
    family: false
  }
}

/** `1.35` of `1.35.4`. */
const minor = (binary: { readonly version: string }): string => binary.version.split(".").slice(0, 2).join(".")

/** The first semantic version in what a program says of itself, without the leading `v`. */
export const parseVersion = (output: string): string | undefined =>
  /(?<![\d.])v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)/.exec(output)?.[1]

const tellVersion = Effect.fnUntraced(function*(file: string, args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  return yield* spawner.streamString(ChildProcess.make(file, args, { stdin: "ignore" }), { includeStderr: true }).pipe(
    Stream.mkString,
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.succeed("no answer within 10 seconds") }),
    Effect.catchTag("PlatformError", (error) => Effect.succeed(error.message))
  )
})
