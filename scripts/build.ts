/**
 * `npm run build`: makes `dist/`, what the package ships (docs/decisions/0003-packaging.md).
 *
 * - `dist/bin`: the program with its own copy of everything, `effect` too; starts fast.
 * - `dist/lib`: the exports of the package and the same program, sharing chunks, with `effect` left to the project that
 *   depends on us, so that its probes and our runner are made of one copy.
 * - `dist/types`: the declarations of the exports.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Path, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { BuildFailed, bundle, program as executable, root } from "./bundle.ts"
import { notices } from "./notices.ts"

const types = Effect.gen(function*() {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const tsc = yield* spawner.spawn(
    ChildProcess.make("node_modules/.bin/tsc", ["-p", "tsconfig.types.json"], { cwd: root, stdin: "ignore" })
  )
  const said = yield* tsc.all.pipe(Stream.decodeText(), Stream.mkString)
  if ((yield* tsc.exitCode) === 0) return
  yield* Console.error(said)
  return yield* new BuildFailed({ part: "dist/types" })
}).pipe(Effect.scoped)

/** The bytes of a folder's files. */
const size = Effect.fnUntraced(function*(folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const files = yield* fs.readDirectory(folder, { recursive: true })
  const sizes = yield* Effect.forEach(files, (file) => fs.stat(path.join(folder, file)))
  return sizes.reduce((sum, info) => info.type === "File" ? sum + Number(info.size) : sum, 0)
})

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const dist = path.join(root, "dist")
  yield* fs.remove(dist, { recursive: true, force: true })
  const bin = yield* bundle("dist/bin", {
    ...executable,
    input: { ...executable.input, "kubectl-probe": "src/cli/kubectlProbe.ts" }
  })
  const lib = yield* bundle("dist/lib", {
    input: {
      cli: "src/cli/main.ts",
      client: "src/client/index.ts",
      domain: "src/domain/index.ts",
      probes: "src/probes/index.ts"
    },
    external: [/^effect(\/|$)/],
    minify: false
  })
  yield* types
  yield* fs.writeFileString(path.join(dist, "LICENSES.txt"), yield* notices([...bin, ...lib]))
  for (const command of ["kubeprober.js", "kubectl-probe.js"]) {
    yield* fs.chmod(path.join(dist, "bin", command), 0o755)
  }
  for (const part of ["bin", "lib", "types"]) {
    const bytes = yield* size(path.join(dist, part))
    // Not to standard output, which belongs to `npm pack --json`.
    yield* Console.error(`dist/${part}: ${Math.round(bytes / 1024)} KiB`)
  }
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
