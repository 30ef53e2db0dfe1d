import { Effect, FileSystem } from "effect"
import { createHash } from "node:crypto"
import type { Binary } from "../binaries/LocalBinaries.ts"
import * as Command from "../process/Command.ts"
import * as FileLock from "../process/FileLock.ts"
import { type Image, imageTar } from "./ImageTar.ts"

/** Every applet of busybox. Its tag is not `latest`, so nodes use what they have and never pull. */
export const BUSYBOX_IMAGE = "kubeprober.local/busybox:1"

/** Keeps the namespaces of a pod. */
export const PAUSE_IMAGE = "kubeprober.local/pause:1"

export const COREDNS_IMAGE = "kubeprober.local/coredns:1"

/** The archives that every node has, from the cache. */
export const builtIn = Effect.fn("Images.builtIn")(function*(cache: string, busybox: string, coredns: Binary) {
  const applets = (yield* Command.run([busybox, "--list"])).split("\n").filter((name) =>
    name !== "" && name !== "busybox"
  )
  const images: ReadonlyArray<Image> = [
    {
      name: BUSYBOX_IMAGE,
      cmd: ["/bin/sh"],
      files: [
        { path: "/bin/busybox", source: busybox, mode: 0o755 },
        ...applets.map((name) => ({ path: `/bin/${name}`, link: "busybox" })),
        { path: "/tmp", directory: true, mode: 0o1777 },
        { path: "/etc/passwd", content: "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n" },
        { path: "/etc/group", content: "root:x:0:\nnobody:x:65534:\n" }
      ]
    },
    {
      name: PAUSE_IMAGE,
      cmd: ["/bin/sleep", "2147483647"],
      files: [
        { path: "/bin/busybox", source: busybox, mode: 0o755 },
        { path: "/bin/sleep", link: "busybox" }
      ]
    },
    {
      name: COREDNS_IMAGE,
      entrypoint: ["/coredns"],
      files: [{ path: "/coredns", source: coredns.path, mode: 0o755 }]
    }
  ]
  return yield* Effect.forEach(images, (image) => cached(`${cache}/images`, image))
})

/** Makes the archive unless one of the same content is there. */
const cached = Effect.fnUntraced(function*(folder: string, image: Image) {
  const fs = yield* FileSystem.FileSystem
  const digest = createHash("sha256").update(JSON.stringify(image))
  for (const file of image.files) {
    if (!("source" in file)) continue
    const info = yield* fs.stat(file.source)
    digest.update(`${info.size} ${JSON.stringify(info.mtime)}`)
  }
  const output = `${folder}/${digest.digest("hex").slice(0, 16)}.tar`
  if (yield* fs.exists(output)) return output
  yield* fs.makeDirectory(folder, { recursive: true, mode: 0o700 })
  yield* FileLock.lock(`${folder}/lock`)
  if (yield* fs.exists(output)) return output
  yield* imageTar(image, `${output}.partial`).pipe(Effect.catchTag("TarError", Effect.die))
  yield* fs.rename(`${output}.partial`, output)
  return output
}, Effect.scoped)
