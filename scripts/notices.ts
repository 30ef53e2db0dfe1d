/** The licences of what is bundled: most of them ask that their text goes wherever the code goes. */
import { Data, Effect, FileSystem, Path, Schema } from "effect"

const Manifest = Schema.fromJsonString(Schema.Struct({
  name: Schema.String,
  version: Schema.String,
  license: Schema.String
}))

/** A bundled package does not carry the text of its licence. */
export class NoticeMissing extends Data.TaggedError("NoticeMissing")<{ readonly folder: string }> {
  override get message(): string {
    return `${this.folder} has no licence file; bundle it only when its licence may be left out`
  }
}

/** `/a/node_modules/@x/y/dist/z.js` belongs to `/a/node_modules/@x/y`; a module of ours to no package. */
const packageOf = (module: string): string | undefined => /^.*\/node_modules\/(@[^/]+\/)?[^/]+/.exec(module)?.[0]

/** One text with the licence of every package that these modules come from. */
export const notices = Effect.fn("notices")(function*(modules: Iterable<string>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folders = new Set(Array.from(modules, packageOf).filter((folder) => folder !== undefined))
  const texts = yield* Effect.forEach([...folders].toSorted(), (folder) =>
    Effect.gen(function*() {
      const { license, name, version } = yield* fs.readFileString(path.join(folder, "package.json")).pipe(
        Effect.flatMap(Schema.decodeEffect(Manifest))
      )
      const file = (yield* fs.readDirectory(folder)).find((name) => /^licen[cs]e/i.test(name))
      if (file === undefined) return yield* new NoticeMissing({ folder })
      return `${name} ${version} (${license})\n\n${(yield* fs.readFileString(path.join(folder, file))).trim()}\n`
    }))
  return `The programs in this folder contain these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`
})
