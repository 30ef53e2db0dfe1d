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

/** The licence as the last section of a readme, where it is there in full and not by its name alone. */
const sectionOf = (readme: string): string | undefined => {
  const text = /^#+\s*licen[cs]e\s*$(.*)/ims.exec(readme)?.[1]
  return text !== undefined && /^Copyright/m.test(text) && /WARRANT/.test(text) ? text : undefined
}

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
      const files = yield* fs.readDirectory(folder)
      const file = files.find((name) => /^licen[cs]e/i.test(name))
      const readme = files.find((name) => /^readme/i.test(name))
      const text = file !== undefined
        ? yield* fs.readFileString(path.join(folder, file))
        : readme === undefined
        ? undefined
        : sectionOf(yield* fs.readFileString(path.join(folder, readme)))
      if (text === undefined) return yield* new NoticeMissing({ folder })
      return `${name} ${version} (${license})\n\n${text.trim()}\n`
    }))
  return `The programs in this folder contain these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`
})
