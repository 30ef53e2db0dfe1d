/**
 * Programs of this checkout, bundled once for all tests: a process then starts in a fifth of the time that it takes to
 * read the sources, and is what people install.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem } from "effect"
import { createHash } from "node:crypto"
import { globSync, statSync } from "node:fs"
import { join } from "node:path"
import { bundle, program, root } from "../scripts/bundle.ts"
import * as FileLock from "../src/local/process/FileLock.ts"

/** Not in `node_modules`, where programs do not look for the package that they are of. */
const FOLDER = join(root, ".vitest", "bundled")

/** How long (ms) bundles of other states are left alone. */
const KEPT = 3_600_000

/** Of all that a bundle can be made of. */
export const digestOfSources = Effect.sync(() => {
  const hash = createHash("sha256")
  const sources = globSync("{src,scripts,test/clusters}/**/*.ts", { cwd: root })
  for (const file of [...sources, "package.json", "package-lock.json"].sort()) {
    const { mtimeMs, size } = statSync(join(root, file))
    hash.update(`${file} ${size} ${mtimeMs}\n`)
  }
  return hash.digest("hex").slice(0, 16)
})

const folder = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const output = join(FOLDER, yield* digestOfSources)
  yield* fs.makeDirectory(FOLDER, { recursive: true })
  yield* FileLock.lock(join(FOLDER, "lock"))
  if (yield* fs.exists(output)) return output
  // Tests of an earlier state of the sources may still run.
  for (const old of (yield* fs.readDirectory(FOLDER)).filter((name) => name !== "lock")) {
    const { mtimeMs } = statSync(join(FOLDER, old))
    if (Date.now() - mtimeMs > KEPT) yield* fs.remove(join(FOLDER, old), { recursive: true, force: true })
  }
  const input = { ...program.input, "probe-process": "test/clusters/probeProcess.main.ts" }
  yield* bundle(`${output}.partial`, { ...program, input })
  yield* fs.rename(`${output}.partial`, output)
  return output
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

/** The path of a bundled program. */
export const bundled = (name: "kubeprober" | "probe-process"): Promise<string> =>
  Effect.runPromise(Effect.map(folder, (folder) => join(folder, `${name}.js`)))
