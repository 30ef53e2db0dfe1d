/** The image of this checkout, as an archive that nodes of a test cluster can import. */
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem } from "effect"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import manifest from "../../package.json" with { type: "json" }
import { root } from "../../scripts/bundle.ts"
import { image, imageFiles } from "../../scripts/imageFiles.ts"
import { imageTar } from "../../src/local/image/ImageTar.ts"
import * as FileLock from "../../src/local/process/FileLock.ts"
import { digestOfSources } from "../bundled.ts"

export const WORKER_IMAGE = `kubeprober:${manifest.version}`

/** Test files of one run share it: it is made again when a source has changed. */
const FOLDER = join(root, "node_modules", ".cache", "kubeprober")

/** The archive's path. */
export const workerImage: Effect.Effect<string> = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const output = join(FOLDER, `image-${yield* digestOfSources}.tar`)
  yield* fs.makeDirectory(FOLDER, { recursive: true })
  yield* FileLock.lock(join(FOLDER, "image.lock"))
  if (yield* fs.exists(output)) return output
  for (const old of (yield* fs.readDirectory(FOLDER)).filter((name) => name.startsWith("image-"))) {
    yield* fs.remove(join(FOLDER, old), { force: true })
  }
  const folder = mkdtempSync(join(tmpdir(), "kubeprober-image-"))
  yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(folder, { recursive: true, force: true })))
  yield* imageTar(image(WORKER_IMAGE, yield* imageFiles(folder)), `${output}.partial`)
  yield* fs.rename(`${output}.partial`, output)
  return output
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer), Effect.orDie)
