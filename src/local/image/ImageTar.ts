import { Effect, FileSystem, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import type { PlatformError } from "effect/PlatformError"
import { createHash } from "node:crypto"

/** What an image contains at one absolute path. Folders above it are made. */
export type ImageFile =
  & { readonly path: string }
  & (
    /** A file of this machine, with its permissions unless others are given. */
    | { readonly source: string; readonly mode?: number }
    | { readonly content: string; readonly mode?: number }
    | { readonly link: string }
    | { readonly directory: true; readonly mode?: number }
  )

export interface Image {
  /** With registry and tag: `kubeprober.local/busybox:1`. */
  readonly name: string
  readonly files: ReadonlyArray<ImageFile>
  readonly entrypoint?: ReadonlyArray<string>
  readonly cmd?: ReadonlyArray<string>
  readonly env?: Record<string, string>
  /** `uid` or `uid:gid`. */
  readonly user?: string
  readonly workingDir?: string
}

/**
 * Writes a container image of one layer as the archive that `docker save` writes
 * (https://github.com/moby/docker-image-spec/blob/main/spec.md), which `ctr images import`, `docker load` and
 * `kind load image-archive` read. No daemon or registry takes part, and equal input makes an equal archive. Beside the
 * output there must be room for a file of the same size, for a while.
 */
export const imageTar = Effect.fn("ImageTar.imageTar")(function*(image: Image, output: string) {
  const fs = yield* FileSystem.FileSystem
  // What the image is called by depends on the whole layer, so that is written first.
  const layerPath = `${output}.layer`
  yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(layerPath, { force: true })))
  const layer = createHash("sha256")
  yield* Stream.fromIterable(yield* layerEntries(image.files)).pipe(
    Stream.pipeThroughChannelOrFail(Tar.encode<never, unknown, Tar.Entry<PlatformError>>()),
    Stream.tap((bytes) => Effect.sync(() => layer.update(bytes))),
    Stream.run(fs.sink(layerPath))
  )
  const layerDigest = layer.digest("hex")
  const { size } = yield* fs.stat(layerPath)

  const config = JSON.stringify({
    architecture: ARCHITECTURES[process.arch] ?? process.arch,
    os: "linux",
    config: {
      Entrypoint: image.entrypoint ?? null,
      Cmd: image.cmd ?? null,
      Env: Object.entries({ PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ...image.env })
        .map(([name, value]) => `${name}=${value}`),
      User: image.user ?? "",
      WorkingDir: image.workingDir ?? ""
    },
    rootfs: { type: "layers", diff_ids: [`sha256:${layerDigest}`] },
    history: [{ created_by: "kubeprober" }]
  })
  const configName = `${createHash("sha256").update(config).digest("hex")}.json`
  const layerName = `${layerDigest}/layer.tar`
  const archive: ReadonlyArray<Tar.Entry<PlatformError>> = [
    Tar.file(configName, config),
    Tar.fileStream(layerName, Number(size), fs.stream(layerPath)),
    Tar.file("manifest.json", JSON.stringify([{ Config: configName, RepoTags: [image.name], Layers: [layerName] }]))
  ]
  yield* Stream.fromIterable(archive).pipe(
    Stream.pipeThroughChannelOrFail(Tar.encode<never, unknown, Tar.Entry<PlatformError>>()),
    Stream.run(fs.sink(output))
  )
}, Effect.scoped)

/** As Go, and so the image specification, calls the architectures of Node. */
const ARCHITECTURES: Partial<Record<NodeJS.Architecture, string>> = { x64: "amd64", ia32: "386" }

/** The files with all folders above them, each once and before what is in it. */
const layerEntries = Effect.fnUntraced(function*(files: ReadonlyArray<ImageFile>) {
  const entries = new Map<string, Tar.Entry<PlatformError>>()
  for (const file of files) {
    const path = file.path.replace(/^\/+|\/+$/g, "")
    const folders = path.split("/").slice(0, -1)
    for (let depth = 1; depth <= folders.length; depth++) {
      const folder = folders.slice(0, depth).join("/")
      if (!entries.has(folder)) entries.set(folder, Tar.directory(folder))
    }
    entries.set(path, yield* layerEntry(path, file))
  }
  return [...entries.values()]
})

const layerEntry = Effect.fnUntraced(
  function*(path: string, file: ImageFile): Effect.fn.Return<
    Tar.Entry<PlatformError>,
    PlatformError,
    FileSystem.FileSystem
  > {
    if ("directory" in file) return Tar.directory(path, { mode: file.mode })
    if ("link" in file) return Tar.symlink(path, file.link)
    if ("content" in file) return Tar.file(path, file.content, { mode: file.mode })
    const fs = yield* FileSystem.FileSystem
    const info = yield* fs.stat(file.source)
    return Tar.fileStream(path, Number(info.size), fs.stream(file.source), { mode: file.mode ?? info.mode & 0o777 })
  }
)
