/**
 * Writes what is generated of `deploy`: the roles, from the needs of the catalogue and of the operators, the Probes to begin
 * with, and the copies of `crds` that kustomize, which reads nothing outside of a base, can find.
 *
 * `node scripts/deploy.ts` writes, `node scripts/deploy.ts --check` exits 1 and names the files that differ.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, FileSystem, Path } from "effect"
import { Command, Flag } from "effect/cli"
import { stringify } from "yaml"
import { root } from "./bundle.ts"
import { roleFiles } from "./deployRoles.ts"
import { starterFiles } from "./starterProbes.ts"

const HEADER = "# Generated from scripts/deployRoles.ts and the probes' needs by `npm run generate`. Do not edit.\n"

/** Committed files are not what is generated. */
class OutOfDate extends Data.TaggedError("OutOfDate")<{ readonly files: ReadonlyArray<string> }> {
  override get message(): string {
    return `out of date, run \`npm run generate\` and commit: ${this.files.join(", ")}`
  }
}

const roles = Object.entries(roleFiles).map(([file, manifests]) => ({
  file,
  content: HEADER + manifests.map((manifest) => stringify(manifest, { aliasDuplicateObjects: false })).join("---\n")
}))

const probes = Object.entries(starterFiles).map(([file, { about, probes }]) => ({
  file,
  content: `# ${about}\n# Generated from the catalogue by \`npm run generate\`; copy it to choose.\n` +
    probes.map((manifest) => stringify(manifest)).join("---\n")
}))

/** The definitions, and the base that lists them and the roles for people. */
const definitions = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = (yield* fs.readDirectory(path.join(root, "crds"))).filter((name) => name.endsWith(".yaml")).sort()
  const copies = yield* Effect.forEach(names, (name) =>
    Effect.map(
      fs.readFileString(path.join(root, "crds", name)),
      (content) => ({ file: `crds/${name}`, content })
    ))
  const base = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [...names, "people.yaml"]
  }
  return [...copies, { file: "crds/kustomization.yaml", content: HEADER + stringify(base) }]
})

const deploy = Command.make(
  "deploy",
  {
    check: Flag.Boolean("check").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Write nothing; exit 1 when a file differs")
    )
  },
  Effect.fn("deploy")(function*({ check }) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = path.join(root, "deploy")
    const wanted = [...roles, ...probes, ...yield* definitions]
    const changed = yield* Effect.filter(wanted, ({ content, file }) =>
      Effect.map(
        Effect.option(fs.readFileString(path.join(folder, file))),
        (current) => current._tag === "None" || current.value !== content
      ))
    const present = yield* fs.readDirectory(path.join(folder, "crds")).pipe(Effect.orElseSucceed(() => []))
    const obsolete = present.map((name) => `crds/${name}`).filter((name) => !wanted.some(({ file }) => file === name))
    const files = [...changed.map(({ file }) => file), ...obsolete].map((file) => `deploy/${file}`)
    if (check) {
      if (files.length > 0) return yield* new OutOfDate({ files })
      return
    }
    yield* Effect.forEach(
      changed,
      ({ content, file }) =>
        fs.makeDirectory(path.dirname(path.join(folder, file)), { recursive: true }).pipe(
          Effect.andThen(fs.writeFileString(path.join(folder, file), content))
        )
    )
    yield* Effect.forEach(obsolete, (file) => fs.remove(path.join(folder, file)))
    yield* Console.log(files.length === 0 ? "nothing to do" : files.join("\n"))
  })
).pipe(Command.withDescription("Write what is generated of deploy"))

deploy.pipe(
  Command.run({ version: "0" }),
  Effect.catch((error) => Console.error(error.message).pipe(Effect.andThen(Effect.sync(() => process.exitCode = 1)))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
