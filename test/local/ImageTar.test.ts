import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Option, Schema, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import { createHash } from "node:crypto"
import { type Image, imageTar } from "../../src/local/image/ImageTar.ts"

interface Member {
  readonly header: Tar.Header
  readonly content: Uint8Array
}

const members = (archive: Stream.Stream<Uint8Array, unknown>) =>
  archive.pipe(
    Stream.pipeThroughChannelOrFail(Tar.decode()),
    Stream.mapEffect(({ body, header }) =>
      Effect.map(Stream.mkUint8Array(body), (content): Member => ({ header, content }))
    ),
    Stream.runCollect,
    Effect.map((all) => new Map(all.map((member) => [member.header.path, member])))
  )

const Manifest = Schema.fromJsonString(
  Schema.Tuple([
    Schema.Struct({
      Config: Schema.String,
      RepoTags: Schema.Array(Schema.String),
      Layers: Schema.Tuple([Schema.String])
    })
  ])
)

const Config = Schema.fromJsonString(Schema.Struct({
  architecture: Schema.String,
  config: Schema.Struct({
    Entrypoint: Schema.NullOr(Schema.Array(Schema.String)),
    Env: Schema.Array(Schema.String),
    User: Schema.String
  }),
  rootfs: Schema.Struct({ diff_ids: Schema.Array(Schema.String) })
}))

const text = (member: Member | undefined): string => new TextDecoder().decode(member?.content)

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Writes the image and reads it as a container runtime does: by its manifest. */
const roundTrip = Effect.fnUntraced(function*(image: Image) {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  yield* imageTar(image, `${folder}/image.tar`)
  assert.deepStrictEqual(yield* fs.readDirectory(folder), ["image.tar"])
  const archive = yield* fs.readFile(`${folder}/image.tar`)
  const outer = yield* members(Stream.make(archive))
  const [manifest] = yield* Schema.decodeEffect(Manifest)(text(outer.get("manifest.json")))
  const config = outer.get(manifest.Config)
  const layer = outer.get(manifest.Layers[0])
  assert.strictEqual(manifest.Config, `${sha256(config?.content ?? new Uint8Array())}.json`)
  const decoded = yield* Schema.decodeEffect(Config)(text(config))
  assert.deepStrictEqual(decoded.rootfs.diff_ids, [`sha256:${sha256(layer?.content ?? new Uint8Array())}`])
  return { archive, manifest, config: decoded, files: yield* members(Stream.make(layer?.content ?? new Uint8Array())) }
})

describe("an image archive", () => {
  it.effect("holds the files with their folders, permissions, links and content", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const source = yield* fs.makeTempFileScoped()
      yield* fs.writeFileString(source, "x".repeat(100_000))
      yield* fs.chmod(source, 0o750)
      const long = `/a/${"long/".repeat(60)}name`
      const { files } = yield* roundTrip({
        name: "kubeprober.local/files:1",
        files: [
          { path: "/usr/bin/program", source },
          { path: "/bin/program", link: "../usr/bin/program" },
          { path: "/etc/motd", content: "grüezi\n", mode: 0o600 },
          { path: "/tmp", directory: true, mode: 0o1777 },
          { path: long, content: "" }
        ]
      })
      const order = [...files.keys()]
      assert.isBelow(order.indexOf("usr/"), order.indexOf("usr/bin/"))
      assert.isBelow(order.indexOf("usr/bin/"), order.indexOf("usr/bin/program"))
      assert.strictEqual(files.get("usr/bin/program")?.header.mode, 0o750)
      assert.strictEqual(files.get("usr/bin/program")?.content.length, 100_000)
      assert.strictEqual(files.get("bin/program")?.header.linkTarget, "../usr/bin/program")
      assert.strictEqual(text(files.get("etc/motd")), "grüezi\n")
      assert.strictEqual(files.get("etc/motd")?.header.mode, 0o600)
      assert.strictEqual(files.get("tmp/")?.header.mode, 0o1777)
      assert.isTrue(Option.isSome(Option.fromNullishOr(files.get(long.slice(1)))))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("says how it is called and run", () =>
    Effect.gen(function*() {
      const { config, manifest } = yield* roundTrip({
        name: "kubeprober.local/run:7",
        files: [],
        entrypoint: ["/program", "--flag"],
        env: { A: "b" },
        user: "65534:65534"
      })
      assert.deepStrictEqual(manifest.RepoTags, ["kubeprober.local/run:7"])
      assert.deepStrictEqual(config.config.Entrypoint, ["/program", "--flag"])
      assert.include(config.config.Env, "A=b")
      assert.strictEqual(config.config.User, "65534:65534")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("is the same for the same image", () =>
    Effect.gen(function*() {
      const image: Image = { name: "kubeprober.local/same:1", files: [{ path: "/file", content: "same" }] }
      assert.deepStrictEqual((yield* roundTrip(image)).archive, (yield* roundTrip(image)).archive)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("fails for a file that is not there", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const image: Image = { name: "kubeprober.local/none:1", files: [{ path: "/file", source: `${folder}/none` }] }
      const error = yield* Effect.flip(imageTar(image, `${folder}/image.tar`))
      assert.include(error.message, `${folder}/none`)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
