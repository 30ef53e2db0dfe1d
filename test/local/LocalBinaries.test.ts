import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Layer } from "effect"
import { LocalBinaries, parseVersion } from "../../src/local/binaries/LocalBinaries.ts"
import { LocalPaths } from "../../src/local/LocalPaths.ts"

/** Programs that do nothing but tell a version: an output for each name. */
type Programs = Readonly<Record<string, string>>

/** The service on a machine with these programs and nothing else: no go command, an empty cache. */
const onMachine = (machine: { readonly assets?: Programs; readonly path?: Programs; readonly "go/bin"?: Programs }) =>
  Layer.unwrap(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const root = yield* fs.makeTempDirectoryScoped()
    for (const [folder, programs] of Object.entries({ assets: {}, path: {}, ...machine })) {
      yield* fs.makeDirectory(`${root}/${folder}`, { recursive: true })
      for (const [name, output] of Object.entries(programs)) {
        yield* fs.writeFileString(`${root}/${folder}/${name}`, `#!/bin/sh\necho '${output}'\n`, { mode: 0o755 })
      }
    }
    return LocalBinaries.layer.pipe(
      Layer.provide(LocalPaths.layer),
      Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({
        HOME: root,
        PATH: `${root}/path`,
        GOROOT: `${root}/go`,
        ...(machine.assets === undefined ? {} : { KUBEBUILDER_ASSETS: `${root}/assets` })
      }))),
      Layer.provide(NodeServices.layer)
    )
  })).pipe(Layer.provide(NodeServices.layer))

const resolve = Effect.fnUntraced(function*(...names: Parameters<LocalBinaries["Service"]["resolve"]>[0]) {
  return yield* (yield* LocalBinaries).resolve(names)
})

describe("binaries", () => {
  it.live("come from KUBEBUILDER_ASSETS before PATH, each on its own", () =>
    Effect.gen(function*() {
      const { "kube-apiserver": apiServer, etcd, kubectl } = yield* resolve("etcd", "kube-apiserver", "kubectl")
      assert.deepInclude(etcd, { version: "3.6.1", source: "assets" })
      assert.deepInclude(apiServer, { version: "1.33.2", source: "assets" })
      assert.deepInclude(kubectl, { version: "1.20.0", source: "path" })
    }).pipe(Effect.provide(onMachine({
      assets: { "etcd": "etcd Version: 3.6.1\nGit SHA: 1234567", "kube-apiserver": "Kubernetes v1.33.2" },
      path: { "etcd": "etcd Version: 3.5.0", "kubectl": "Client Version: v1.20.0" }
    }))))

  it.live("of Kubernetes may be of another minor than the pinned one, when all are", () =>
    Effect.gen(function*() {
      const found = yield* resolve("kube-apiserver", "kube-controller-manager", "kube-scheduler")
      assert.deepStrictEqual(Object.values(found).map(({ version }) => version), ["1.31.0", "1.31.9", "1.31.4"])
    }).pipe(Effect.provide(onMachine({
      path: {
        "kube-apiserver": "Kubernetes v1.31.0",
        "kube-controller-manager": "Kubernetes v1.31.9",
        "kube-scheduler": "Kubernetes v1.31.4"
      }
    }))))

  it.live("that do not go together are not used, and it says which and why", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(resolve("kube-apiserver", "kube-scheduler"))
      assert.strictEqual(error._tag, "BinariesMissing")
      assert.include(error.message, "kube-apiserver is 1.31.0, which does not go with the others")
    }).pipe(Effect.provide(onMachine({
      assets: { "kube-apiserver": "Kubernetes v1.31.0" },
      path: { "kube-scheduler": "Kubernetes v1.32.0" }
    }))))

  it.live("that are nowhere fail with the three ways to provide them", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(resolve("etcd", "kubectl"))
      assert.strictEqual(error._tag, "BinariesMissing")
      for (const words of ["etcd, kubectl", "KUBEBUILDER_ASSETS", "PATH", "install Go"]) {
        assert.include(error.message, words)
      }
    }).pipe(Effect.provide(onMachine({}))))

  it.live("of KUBEBUILDER_ASSETS that tell no version are named", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(resolve("etcd"))
      assert.strictEqual(error._tag, "BinaryUnusable")
      assert.include(error.message, "exec format error")
    }).pipe(
      Effect.provide(onMachine({ assets: { etcd: "exec format error" }, path: { etcd: "etcd Version: 3.6.1" } }))
    ))

  it.live("on PATH that tell no version are as good as absent", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(resolve("etcd"))
      assert.strictEqual(error._tag, "BinariesMissing")
    }).pipe(Effect.provide(onMachine({ path: { etcd: "exec format error" } }))))

  it.live("are built with the go command of GOROOT when that on PATH does not work", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(resolve("etcd"))
      // That go command builds nothing.
      assert.strictEqual(error._tag, "BuildFailed")
    }).pipe(Effect.provide(onMachine({
      path: { go: "exec format error" },
      "go/bin": { go: "go version go1.26.0" }
    }))))
})

describe("a version", () => {
  for (
    const [output, version] of [
      ["Kubernetes v1.35.4", "1.35.4"],
      ["etcd Version: 3.6.16\nGit SHA: Not provided\nGo Version: go1.26.8", "3.6.16"],
      ["Client Version: v1.32.1\nKustomize Version: v5.5.0", "1.32.1"],
      ["CoreDNS-1.14.6\nlinux/amd64, go1.26.8,", "1.14.6"],
      ["Kubernetes v1.36.0-alpha.1+dirty", "1.36.0-alpha.1"],
      ["usage: etcd [flags]", undefined]
    ] as const
  ) {
    it(`is ${version} in ${JSON.stringify(output)}`, () => assert.strictEqual(parseVersion(output), version))
  }
})
