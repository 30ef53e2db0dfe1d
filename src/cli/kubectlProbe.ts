#!/usr/bin/env node
/** The kubectl plugin (`kubectl probe`): the original's verbs, run by kubeprober's own launcher. */
import { translate } from "./pluginArguments.ts"

const translation = translate(process.argv.slice(2))
if (translation._tag === "Run") {
  process.argv.splice(2, Infinity, ...translation.argv)
  await import("./launcher.ts")
} else {
  process.stderr.write(`kubectl-probe: ${translation.message}\n`)
  process.exitCode = 2
}
