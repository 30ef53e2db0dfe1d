/**
 * What the container image contains: Node and the libraries it is linked to, the bundled program, and what any program
 * expects of a machine. No shell and no package manager, because nobody needs them there but an intruder.
 *
 * The same list makes the archive (`scripts/image.ts --output`) and the folder that the Dockerfile copies
 * (`scripts/image.ts --rootfs`), so the two cannot differ.
 */
import { Console, Data, Effect, FileSystem, Path, Schema } from "effect"
import { rootCertificates } from "node:tls"
import manifest from "../package.json" with { type: "json" }
import type { Image, ImageFile } from "../src/local/image/ImageTar.ts"
import * as Command from "../src/local/process/Command.ts"
import { bundle, program } from "./bundle.ts"
import { notices } from "./notices.ts"

/** Something the image needs is not on this machine. */
export class ImageIncomplete extends Data.TaggedError("ImageIncomplete")<{
  readonly missing: string
  readonly advice: string
}> {
  override get message(): string {
    return `the image cannot be made: ${this.missing}; ${this.advice}`
  }
}

/** As distroless calls its unprivileged user; far from the ids that machines give to people. */
export const USER = 65_532

/** Writable in an image that otherwise is not: state when no volume is there, and the home of {@link USER}. */
export const STATE = "/var/lib/kubeprober"

const NODE = "/usr/local/bin/node"
const PROGRAM = "/usr/local/lib/kubeprober"

/** Loaded by the C library at run time, so that `ldd` says nothing of them. Empty since glibc 2.34, yet still asked for. */
const NAME_SERVICES = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"]

/** Debian's packages of the libraries, whose licences are in `/usr/share/doc`. */
const LIBRARY_PACKAGES = ["libc6", "libgcc-s1", "libstdc++6"]

/** Paths in what `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x7f…)`, and `/lib64/ld-linux.so.2 (0x7f…)`. */
export const librariesOf = (said: string): ReadonlyArray<string> =>
  said.split("\n").flatMap((line) => /(?:^\s*|=> )(\/\S+) \(0x/.exec(line)?.[1] ?? [])

const unresolvedIn = (said: string): ReadonlyArray<string> =>
  said.split("\n").flatMap((line) => /^\s*(\S+) => not found/.exec(line)?.[1] ?? [])

const libraries = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const said = yield* Command.run(["ldd", process.execPath])
  const unresolved = unresolvedIn(said)
  if (unresolved.length > 0) {
    return yield* new ImageIncomplete({
      missing: `${process.execPath} needs ${unresolved.join(", ")}`,
      advice: "install what has them (libstdc++6 on Debian)"
    })
  }
  const linked = librariesOf(said)
  const folder = linked.find((file) => /\/libc\.so/.test(file))
  const loaded = folder === undefined ? [] : NAME_SERVICES.map((name) => path.join(path.dirname(folder), name))
  const present = yield* Effect.filter(loaded, (file) => fs.exists(file))
  return [...new Set([...linked, ...present])].sort().map((file): ImageFile => ({
    path: file,
    source: file,
    mode: 0o755
  }))
})

/** The licence of this Node: beside it where it is installed as released, in the package of the binary with npm. */
const nodeLicence = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const home = path.join(path.dirname(process.execPath), "..")
  const candidates = [
    path.join(home, "LICENSE"),
    path.join(home, "node_modules", `node-${process.platform}-${process.arch}`, "LICENSE")
  ]
  const [licence] = yield* Effect.filter(candidates, (file) => fs.exists(file))
  return licence ?? (yield* new ImageIncomplete({
    missing: `the licence of Node is none of ${candidates.join(", ")}`,
    advice: "use the Node that `npm ci` installs: `npm run image`"
  }))
})

const libraryLicences = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const files = LIBRARY_PACKAGES.map((name) => `/usr/share/doc/${name}/copyright`)
  const present = yield* Effect.filter(files, (file) => fs.exists(file))
  const absent = files.filter((file) => !present.includes(file))
  if (absent.length > 0) {
    yield* Console.error(`without the licences of its libraries, which are not at ${absent.join(", ")}`)
  }
  return present.map((file): ImageFile => ({ path: file, source: file, mode: 0o644 }))
})

const NodeVersion = Schema.Struct({ devDependencies: Schema.Struct({ node: Schema.String }) })

/** The Node that runs this goes into the image, so it must be the one all tests ran with. */
const ensurePinnedNode = Effect.gen(function*() {
  const { devDependencies } = yield* Schema.decodeUnknownEffect(NodeVersion)(manifest)
  if (process.versions.node === devDependencies.node) return
  return yield* new ImageIncomplete({
    missing: `this is Node ${process.versions.node}, and the project's is ${devDependencies.node}`,
    advice: "run `npm ci`, and then `npm run image`"
  })
})

/** Bundles the program into `folder` and lists it, started by the Node of the image, for there is no `env`. */
const bundled = Effect.fnUntraced(function*(folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const modules = yield* bundle(folder, program)
  const executable = path.join(folder, "kubeprober.js")
  const code = yield* fs.readFileString(executable)
  yield* fs.writeFileString(executable, code.replace(/^#!.*/, `#!${NODE}`))
  yield* fs.writeFileString(path.join(folder, "LICENSES.txt"), yield* notices(modules))
  const entries = yield* fs.readDirectory(folder, { recursive: true })
  const files = yield* Effect.filter(
    entries,
    (name) => Effect.map(fs.stat(path.join(folder, name)), (info) => info.type === "File")
  )
  return files.sort().map((name): ImageFile => ({
    path: `${PROGRAM}/${name}`,
    source: path.join(folder, name),
    mode: name === "kubeprober.js" ? 0o755 : 0o644
  }))
})

/** All files, with the program bundled into `folder`, which must last as long as the list is used. */
export const imageFiles = Effect.fn("imageFiles")(function*(folder: string) {
  yield* ensurePinnedNode
  const files: ReadonlyArray<ImageFile> = [
    { path: "/etc/group", content: `root:x:0:\nkubeprober:x:${USER}:\n`, mode: 0o644 },
    // Without it the C library asks name servers before it looks into /etc/hosts.
    { path: "/etc/nsswitch.conf", content: "passwd: files\ngroup: files\nhosts: files dns\n", mode: 0o644 },
    {
      path: "/etc/passwd",
      content: `root:x:0:0:root:/root:/sbin/nologin\nkubeprober:x:${USER}:${USER}:kubeprober:${STATE}:/sbin/nologin\n`,
      mode: 0o644
    },
    // Those Node trusts anyway, for whatever else a probe may start.
    { path: "/etc/ssl/certs/ca-certificates.crt", content: `${rootCertificates.join("\n")}\n`, mode: 0o644 },
    { path: "/tmp", directory: true, mode: 0o1777 },
    { path: STATE, directory: true, mode: 0o1777 },
    { path: NODE, source: process.execPath, mode: 0o755 },
    { path: "/usr/local/bin/kubeprober", link: "../lib/kubeprober/kubeprober.js" },
    { path: "/usr/share/doc/node/LICENSE", source: yield* nodeLicence, mode: 0o644 },
    ...yield* libraries,
    ...yield* libraryLicences,
    ...yield* bundled(folder)
  ]
  return files
})

/** The image of every role: its first argument says which (`master`, `agent`, `check`). */
export const image = (name: string, files: ReadonlyArray<ImageFile>): Image => ({
  name,
  files,
  entrypoint: ["kubeprober"],
  user: `${USER}:${USER}`,
  workingDir: STATE,
  env: { HOME: STATE, SSL_CERT_FILE: "/etc/ssl/certs/ca-certificates.crt" }
})

/** Writes the files below `folder`, which must be new or empty: what is there already would be part of the image. */
export const writeRootfs = Effect.fn("writeRootfs")(function*(files: ReadonlyArray<ImageFile>, folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* fs.makeDirectory(folder, { recursive: true })
  if ((yield* fs.readDirectory(folder)).length > 0) {
    return yield* new ImageIncomplete({ missing: `${folder} is not empty`, advice: "name a new folder" })
  }
  yield* Effect.forEach(files, (file) =>
    Effect.gen(function*() {
      const target = path.join(folder, file.path)
      yield* fs.makeDirectory(path.dirname(target), { recursive: true })
      if ("link" in file) return yield* fs.symlink(file.link, target)
      if ("directory" in file) yield* fs.makeDirectory(target, { recursive: true })
      else if ("content" in file) yield* fs.writeFileString(target, file.content)
      else yield* fs.copyFile(file.source, target)
      // Not given when made, because the process' umask would take from it.
      if (file.mode !== undefined) yield* fs.chmod(target, file.mode)
    }), { discard: true })
})

/** Bytes of the files, all told, and those of Node. */
export const sizeOf = Effect.fnUntraced(function*(files: ReadonlyArray<ImageFile>) {
  const fs = yield* FileSystem.FileSystem
  const sizes = yield* Effect.forEach(files, (file) =>
    "source" in file
      ? Effect.map(fs.stat(file.source), ({ size }) => Number(size))
      : Effect.succeed("content" in file ? file.content.length : 0))
  return sizes.reduce((sum, size) => sum + size, 0)
})
