/**
 * `npm test`: everything that must hold, in one command, with one true count as its last line.
 *
 * Parts, all by default or those named as arguments: `static` (types, lint, format, generated files), `unit` (tests
 * that need nothing), `integration` (tests on real clusters and on the packed package). Each static check counts as one
 * test, and so does the table of proofs, which all tests together make. The programs of Kubernetes are built beside the first two parts when they are not there yet.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Duration, Effect, Fiber, FileSystem, Option, Path, type PlatformError, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { fileURLToPath } from "node:url"
import { LocalBinaries } from "../src/local/binaries/LocalBinaries.ts"
import * as Local from "../src/local/Local.ts"
import type { Progress } from "../src/local/Progress.ts"
import { proofs } from "./proofs.ts"
import { type VitestReport, VitestReportJson, reportFile } from "./vitestReport.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const passed: Count = { passed: 1, failed: 0, skipped: 0 }
const failed: Count = { passed: 0, failed: 1, skipped: 0 }

const sum = (counts: ReadonlyArray<Count>): Count => ({
  passed: counts.reduce((total, count) => total + count.passed, 0),
  failed: counts.reduce((total, count) => total + count.failed, 0),
  skipped: counts.reduce((total, count) => total + count.skipped, 0)
})

/** Runs a program of this project with its output shown; the exit code. */
const execute = Effect.fnUntraced(function*(command: string, ...args: ReadonlyArray<string>) {
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const bin = path.join(root, "node_modules", ".bin")
  return yield* spawner.exitCode(ChildProcess.make(path.join(bin, command), args, {
    cwd: root,
    // The programs start `node`, which must be the project's own.
    env: { PATH: `${bin}:${process.env["PATH"] ?? ""}` },
    extendEnv: true,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit"
  }))
})

const checks = [
  // Puts Effect's own diagnostics into tsc; not a lifecycle script, which those who install the package would be asked about.
  { name: "diagnostics of Effect", command: ["effect-tsgo", "patch"] },
  { name: "types", command: ["tsc", "-p", "."] },
  { name: "lint", command: ["oxlint", "--deny-warnings"] },
  { name: "format", command: ["dprint", "check"] },
  { name: "generated files", command: ["node", "scripts/generate.ts", "--check"] },
  { name: "generated manifests", command: ["node", "scripts/deploy.ts", "--check"] }
] as const

const runStatic = Effect.forEach(checks, ({ command: [command, ...args], name }) =>
  Effect.gen(function*() {
    const code = yield* execute(command, ...args)
    yield* Console.log(`${code === 0 ? "ok    " : "FAILED"} ${name}`)
    return code === 0 ? passed : failed
  })).pipe(Effect.map(sum))

/** A count, and vitest's own report where there is one. */
interface Told {
  readonly count: Count
  readonly report: Option.Option<VitestReport>
}

/** A crash, an unhandled error and a run without tests each count as a failure. */
const runVitest = Effect.fnUntraced(function*(project: string): Effect.fn.Return<
  Told,
  PlatformError.PlatformError,
  FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const report = reportFile(project)
  yield* fs.makeDirectory(path.dirname(report), { recursive: true })
  yield* fs.remove(report, { force: true })
  const code = yield* execute(
    "vitest",
    "run",
    `--project=${project}`,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`
  )
  const told = yield* fs.readFileString(report).pipe(
    Effect.flatMap(Schema.decodeEffect(VitestReportJson)),
    Effect.option
  )
  if (told._tag === "None") {
    yield* Console.log(`FAILED ${project} tests: vitest ended with code ${code} and no report`)
    return { count: failed, report: told }
  }
  const { numFailedTests, numPassedTests, numPendingTests, numTodoTests, testResults } = told.value
  const unloaded = testResults.filter((file) =>
    file.status === "failed" && !file.assertionResults.some((test) =>
      test.status === "failed"
    )
  ).length
  const count = { passed: numPassedTests, failed: numFailedTests + unloaded, skipped: numPendingTests + numTodoTests }
  const nothingSaid = count.failed === 0 && (code !== 0 || count.passed === 0)
  if (nothingSaid) yield* Console.log(`FAILED ${project} tests: vitest ended with code ${code}, ${count.passed} passed`)
  return { count: nothingSaid ? sum([count, failed]) : count, report: told }
})

const programs = [
  "etcd",
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "kubectl",
  "kubelet",
  "kube-proxy",
  "coredns"
] as const

/** One line when a build starts and one when it ends; every second would bury the tests. */
const announce = (event: Progress) => {
  switch (event._tag) {
    case "Building":
    case "Waiting":
      return Math.floor(Duration.toSeconds(event.elapsed)) === 0
        ? Console.error(`building ${event.binary} (${event.step} of ${event.of})`)
        : Effect.void
    case "Built":
      return Console.error(`built ${event.binary} in ${Math.round(Duration.toSeconds(event.elapsed))} s`)
    case "Reached":
      return Effect.void
  }
}

const prepare = Effect.gen(function*() {
  const binaries = yield* LocalBinaries
  yield* binaries.resolve(programs, announce)
}).pipe(Effect.provide(Local.layer))

const runIntegration = Effect.fnUntraced(function*(prepared: Fiber.Fiber<void, Error>) {
  const failure = yield* Effect.flip(Fiber.join(prepared)).pipe(Effect.option)
  if (failure._tag === "None") return yield* runVitest("integration")
  yield* Console.log(`FAILED integration tests: ${failure.value.message}`)
  return { count: failed, report: Option.none<VitestReport>() }
})

/** One test: the table of proofs is what this run, in full, has proven. */
const runProofs = Effect.fnUntraced(function*(told: ReadonlyArray<Told>, update: boolean) {
  const reports = told.flatMap(({ report }) => Option.toArray(report))
  if (reports.length < told.length) {
    yield* Console.log("FAILED proofs: a report is missing")
    return failed
  }
  return yield* proofs(reports, { update }).pipe(
    Effect.matchEffect({
      onSuccess: () => Effect.as(Console.log("ok     proofs"), passed),
      onFailure: (error) => Effect.as(Console.log(`FAILED proofs: ${error.message}`), failed)
    })
  )
})

const parts = ["static", "unit", "integration"] as const

const test = Command.make(
  "test",
  {
    parts: Argument.Literals("part", parts).pipe(Argument.atLeast(0)),
    updateProofs: Flag.Boolean("update-proofs").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Write the table of proofs from this run, which must be of all tests")
    )
  },
  Effect.fn("test")(function*(options) {
    const chosen = options.parts.length === 0 ? parts : options.parts
    const prepared = yield* Effect.forkScoped(chosen.includes("integration") ? prepare : Effect.void)
    const checked = chosen.includes("static") ? [yield* runStatic] : []
    const told = [
      ...chosen.includes("unit") ? [yield* runVitest("unit")] : [],
      ...chosen.includes("integration") ? [yield* runIntegration(prepared)] : []
    ]
    // A part of the tests proves a part of the table.
    const proven = told.length === 2 ? [yield* runProofs(told, options.updateProofs)] : []
    const total = sum([...checked, ...told.map(({ count }) => count), ...proven])
    yield* Console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
    if (total.failed > 0) yield* Effect.sync(() => process.exitCode = 1)
  }, Effect.scoped)
).pipe(Command.withDescription("Run the tests"))

test.pipe(Command.run({ version: "0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
