/**
 * Writes what is generated from the sources: the CustomResourceDefinitions under `crds/`, and the reference of probes under
 * `docs/probes/`.
 *
 * `npm run generate` writes, `npm run generate -- --check` exits 1 and names the files that differ.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, FileSystem, Path } from "effect"
import { Command, Flag } from "effect/cli"
import { stringify } from "yaml"
import * as CustomResourceDefinition from "../src/domain/crd/CustomResourceDefinition.ts"
import { objectViolations } from "../src/domain/crd/StructuralRules.ts"
import { type AnyKind, GROUP } from "../src/domain/kinds/Kind.ts"
import { kinds } from "../src/domain/kinds/Kinds.ts"
import { catalogue } from "../src/probes/Catalogue.ts"
import { pages } from "./probeDocs.ts"

const HEADER = "# Generated from src/domain by `npm run generate`. Do not edit.\n"

/** A generated definition breaks rules the API server has. */
class Unsound extends Data.TaggedError("Unsound")<{ readonly kind: string; readonly breaches: ReadonlyArray<string> }> {
  override get message(): string {
    return `the definition of ${this.kind} would not be structural:\n${this.breaches.join("\n")}`
  }
}

/** Who runs a probe must know beforehand what it takes. */
class CostsMissing extends Data.TaggedError("CostsMissing")<{ readonly probes: ReadonlyArray<string> }> {
  override get message(): string {
    return `these probes do not say what a run costs: ${this.probes.join(", ")}`
  }
}

/** Committed files are not what the domain generates. */
class OutOfDate extends Data.TaggedError("OutOfDate")<{ readonly files: ReadonlyArray<string> }> {
  override get message(): string {
    return `out of date, run \`npm run generate\` and commit: ${this.files.join(", ")}`
  }
}

const render = Effect.fnUntraced(function*(kind: AnyKind) {
  const definition = yield* Effect.fromResult(CustomResourceDefinition.make(kind))
  const breaches = objectViolations(definition.spec.versions[0].schema.openAPIV3Schema, kind.kind)
  if (breaches.length > 0) return yield* new Unsound({ kind: kind.kind, breaches })
  return {
    name: `${kind.group}_${kind.plural}.yaml`,
    // Anchors would save little and read badly.
    content: HEADER + stringify(definition, { lineWidth: 120, aliasDuplicateObjects: false })
  }
})

/** What a folder must hold. Other files in it that `owns` are obsolete. */
interface Folder {
  readonly name: string
  readonly owns: (file: string) => boolean
  readonly files: ReadonlyArray<{ readonly name: string; readonly content: string }>
}

const folders = Effect.gen(function*() {
  const silent = catalogue.filter(({ costs }) => costs === "").map(({ id }) => id)
  if (silent.length > 0) return yield* new CostsMissing({ probes: silent })
  const definitions: Folder = {
    name: "crds",
    owns: (file) => file.startsWith(`${GROUP}_`),
    files: yield* Effect.forEach(kinds, render)
  }
  const reference: Folder = { name: "docs/probes", owns: (file) => file.endsWith(".md"), files: pages(catalogue) }
  return [definitions, reference]
})

/** Brings a folder in line, or only looks; the files that were not. */
const bring = Effect.fnUntraced(function*({ files: wanted, name: folderName, owns }: Folder, check: boolean) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* path.fromFileUrl(new URL(`../${folderName}/`, import.meta.url))
  yield* fs.makeDirectory(folder, { recursive: true })
  const present = yield* fs.readDirectory(folder)
  const obsolete = present.filter((name) => owns(name) && !wanted.some((file) => file.name === name))
  const changed = yield* Effect.filter(wanted, ({ content, name }) =>
    present.includes(name)
      ? Effect.map(fs.readFileString(path.join(folder, name)), (current) => current !== content)
      : Effect.succeed(true))
  if (!check) {
    yield* Effect.forEach(changed, ({ content, name }) => fs.writeFileString(path.join(folder, name), content))
    yield* Effect.forEach(obsolete, (name) => fs.remove(path.join(folder, name)))
  }
  return [...changed.map(({ name }) => name), ...obsolete].map((name) => `${folderName}/${name}`)
})

const generate = Command.make(
  "generate",
  {
    check: Flag.Boolean("check").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Write nothing; exit 1 when a file differs")
    )
  },
  Effect.fn("generate")(function*({ check }) {
    const files = (yield* Effect.forEach(yield* folders, (folder) => bring(folder, check))).flat()
    if (!check) return yield* Console.log(files.length === 0 ? "nothing to do" : files.join("\n"))
    if (files.length > 0) return yield* new OutOfDate({ files })
  })
).pipe(Command.withDescription("Write what is generated from the sources"))

generate.pipe(
  Command.run({ version: "0" }),
  Effect.catch((error) => Console.error(error.message).pipe(Effect.andThen(Effect.sync(() => process.exitCode = 1)))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
