#!/usr/bin/env node
/**
 * The executable: finds the build of the program that goes with what the user asked, and runs it.
 *
 * There are two builds. The one in `dist/bin` holds its own copy of `effect` and starts fast. A module of the user's
 * probes must share `effect` and the probe DSL with whatever runs it, because services and errors are known by identity;
 * so `--probes FILE` is served by the build in `dist/lib` of the kubeprober that FILE itself imports.
 *
 * Every build exports `run(argv)`: the arguments without node and script. This file cannot use `effect`, which would then
 * be loaded in either case.
 */
import { existsSync } from "node:fs"
import module from "node:module"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import type * as Program from "./main.ts"

/** Node 24 strips types from a user's modules and has node:sqlite. */
const NODE_MAJOR = 24

const PACKAGE = "kubeprober"

/** The first of the user's modules among the arguments (`--probes A,B`): those of one call share one kubeprober. */
const probesFile = (argv: ReadonlyArray<string>): string | undefined => {
  const options = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv
  const at = options.findIndex((option) => option === "--probes" || option.startsWith("--probes="))
  const value = options[at] === "--probes" ? options[at + 1] : options[at]?.slice("--probes=".length)
  return value?.split(",").map((file) => file.trim()).find((file) => file !== "")
}

/** Where the kubeprober is that `file` imports, if it can import one. */
const packageSeenBy = (file: string): string | undefined => {
  try {
    return join(module.createRequire(resolve(file)).resolve(`${PACKAGE}/package.json`), "..")
  } catch {
    return undefined
  }
}

/** The build that shares `effect` with `file`. */
const libraryFor = (file: string): string => {
  const own = join(import.meta.dirname, "..", "..")
  const seen = packageSeenBy(file) ?? own
  return seen === own && import.meta.filename.endsWith(".ts")
    ? join(import.meta.dirname, "main.ts")
    : join(seen, "dist", "lib", "cli.js")
}

/** Nothing when the user's module goes with a kubeprober that cannot run it, which is then said. */
const load = async (argv: ReadonlyArray<string>): Promise<typeof Program | undefined> => {
  const file = probesFile(argv)
  if (file === undefined) return import("./main.ts")
  const library = libraryFor(file)
  if (existsSync(library)) return import(pathToFileURL(library).href)
  process.stderr.write(
    `kubeprober: the kubeprober that ${file} imports cannot run it: there is no ${library}. ` +
      "Update it, or build it with `npm run build` when it is a checkout.\n"
  )
  process.exitCode = 2
  return undefined
}

/**
 * Keeps compiled code between runs, which start a fifth faster for it. In the user's own cache, because whoever can write
 * there chooses what runs; Node's default is a folder all users share.
 */
const keepCompiled = (): void => {
  const { HOME: home, XDG_CACHE_HOME: cache = home === undefined ? undefined : join(home, ".cache") } = process.env
  // Below a folder that cannot be made, such as one in /proc, Node 24 would try for ever.
  if (cache !== undefined && existsSync(cache)) module.enableCompileCache(join(cache, PACKAGE, "node"))
}

if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR) {
  process.stderr.write(
    `kubeprober: this is Node ${process.versions.node}; kubeprober needs Node ${NODE_MAJOR} or newer. ` +
      `Put one on PATH, or install it beside kubeprober with \`npm install node@${NODE_MAJOR}\`.\n`
  )
  process.exitCode = 2
} else {
  // The first process of a container is not ended by these as long as nobody listens, and is killed half a minute later.
  const end = (_: NodeJS.Signals, number: number) => process.exit(128 + number)
  process.once("SIGTERM", end).once("SIGINT", end)
  keepCompiled()
  const argv = process.argv.slice(2)
  const program = await load(argv)
  process.off("SIGTERM", end).off("SIGINT", end)
  program?.run(argv)
}
