/**
 * `npm run image`: makes the container image of every role, without Docker or a registry.
 *
 * By default as an archive, `dist/image.tar`, for `docker load`, `ctr images import` and `kind load image-archive`. With
 * `--rootfs FOLDER` as the files alone, which is how the Dockerfile gets them. Equal sources, Node and libraries make an
 * equal archive.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Option, Path } from "effect"
import { Command, Flag } from "effect/cli"
import manifest from "../package.json" with { type: "json" }
import { imageTar } from "../src/local/image/ImageTar.ts"
import { root } from "./bundle.ts"
import { image, imageFiles, sizeOf, writeRootfs } from "./imageFiles.ts"

const make = Command.make(
  "image",
  {
    tag: Flag.String("tag").pipe(
      Flag.withDescription("What the image is called, with its registry if it has one"),
      Flag.withDefault(`kubeprober:${manifest.version}`)
    ),
    output: Flag.String("output").pipe(Flag.withDescription("The archive to write"), Flag.optional),
    rootfs: Flag.String("rootfs").pipe(
      Flag.withDescription("Write the files of the image below this new folder, and no archive"),
      Flag.withMetavar("FOLDER"),
      Flag.optional
    )
  },
  Effect.fn("image")(function*(options) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const files = yield* imageFiles(yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-image-" }))
    const output = Option.isSome(options.rootfs)
      ? path.resolve(options.rootfs.value)
      : path.resolve(Option.getOrElse(options.output, () => path.join(root, "dist", "image.tar")))
    if (Option.isSome(options.rootfs)) yield* writeRootfs(files, output)
    else {
      yield* fs.makeDirectory(path.dirname(output), { recursive: true })
      yield* imageTar(image(options.tag, files), output)
    }
    yield* Console.log(`${output}: ${options.tag}, ${Math.round((yield* sizeOf(files)) / 1e6)} MB`)
  }, Effect.scoped)
).pipe(Command.withDescription("Make the container image"))

make.pipe(
  Command.run({ version: "0" }),
  Effect.catch((error) => Console.error(error.message).pipe(Effect.andThen(Effect.sync(() => process.exitCode = 1)))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
