/** A fleet as its users run it: the master and the agents are processes of the program, and so is every question. */
import { Effect, Schema, type Scope } from "effect"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { type Cell, MatrixRow } from "../../src/domain/rpc/Fleet.ts"
import { type Ended, kubeprober, launcher } from "../cli/Kubeprober.ts"
import { eventually } from "../clusters/TestCluster.ts"
import { lowPort } from "../net/lowPort.ts"

/** A process that goes on until it is told to end. */
export interface Running {
  /** All it has printed, on either stream. */
  readonly output: () => string
  /** SIGKILL; returns when it is gone. */
  readonly kill: Effect.Effect<void>
  /** SIGTERM, as Ctrl-C or an operator would; its exit code. */
  readonly stop: Effect.Effect<number | null>
}

/** Starts the program; it is killed when the scope ends. */
export const start = (home: string, args: ReadonlyArray<string>): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.gen(function*() {
    let output = ""
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(process.execPath, [launcher, ...args], {
          env: { PATH: process.env["PATH"], HOME: home },
          stdio: ["ignore", "pipe", "pipe"]
        })
        for (const stream of [child.stdout, child.stderr]) {
          stream.setEncoding("utf8").on("data", (text) => {
            output += text
            if (process.env["TEST_LOG"] !== undefined) process.stderr.write(text)
          })
        }
        return child
      }),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const gone = Effect.callback<number | null>((resume) => {
      if (child.exitCode !== null || child.signalCode !== null) resume(Effect.succeed(child.exitCode))
      else child.once("exit", (code) => resume(Effect.succeed(code)))
    })
    const end = (signal: NodeJS.Signals) => Effect.andThen(Effect.sync(() => child.kill(signal)), gone)
    return { output: () => output, kill: Effect.asVoid(end("SIGKILL")), stop: end("SIGTERM") }
  })

/** Waits until a process has printed this. */
export const said = (process: Running, what: RegExp, options?: { readonly within?: `${number} seconds` }) =>
  eventually(Effect.sync(() => process.output()), (text) => what.test(text), { within: "30 seconds", ...options })

const decodeRows = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(MatrixRow)))

/** A master that can be started again on the same addresses, and its users' commands. */
export interface MasterHost {
  /** Of its users. */
  readonly home: string
  readonly state: string
  /** Where agents link. */
  readonly url: string
  /** Starts it and waits until it serves. */
  readonly start: Effect.Effect<Running, never, Scope.Scope>
  /** A command of its user, to its end. */
  readonly run: (...args: ReadonlyArray<string>) => Effect.Effect<Ended>
  /** As {@link run}; dies when the exit code is not 0. */
  readonly must: (...args: ReadonlyArray<string>) => Effect.Effect<string>
  /** `kubeprober status -o json`; what it said when it failed, as it may on a machine that is busy. */
  readonly look: Effect.Effect<{ readonly rows?: ReadonlyArray<MatrixRow>; readonly failure?: string }>
  /** Looks until the rows are as wanted, 90 seconds when nothing else is said; a look that fails is another to come. */
  readonly until: (
    wanted: (rows: ReadonlyArray<MatrixRow>) => boolean,
    options?: Parameters<typeof eventually>[2]
  ) => Effect.Effect<ReadonlyArray<MatrixRow>>
  readonly apply: (name: string, spec: typeof ProbeSpec.Encoded) => Effect.Effect<void>
  /** `kubeprober cluster add`: the file with the token. */
  readonly add: (cluster: string) => Effect.Effect<string>
}

export const masterHost = Effect.fnUntraced(function*(folder: string): Effect.fn.Return<MasterHost> {
  const home = join(folder, "home")
  const state = join(folder, "master")
  mkdirSync(home, { recursive: true })
  const link = yield* lowPort
  const api = yield* lowPort
  const run: MasterHost["run"] = (...args) => kubeprober(home, args)
  const must: MasterHost["must"] = (...args) =>
    Effect.flatMap(run(...args), (ended) =>
      ended.code === 0
        ? Effect.succeed(ended.stdout)
        : Effect.die(
          new Error(`kubeprober ${args.join(" ")}: exit code ${ended.code}\n${ended.stdout}${ended.stderr}`)
        ))
  const look: MasterHost["look"] = Effect.gen(function*() {
    const ended = yield* run("status", "-o", "json")
    return ended.code === 0
      ? { rows: yield* Effect.orDie(decodeRows(ended.stdout)) }
      : { failure: `exit code ${ended.code}\n${ended.stdout}${ended.stderr}` }
  })
  return {
    home,
    state,
    url: `https://127.0.0.1:${link}`,
    start: start(home, [
      "master",
      "--state",
      state,
      "--link-listen",
      `127.0.0.1:${link}`,
      "--api-listen",
      `127.0.0.1:${api}`
    ]).pipe(Effect.tap((master) => said(master, /the master serves/u))),
    run,
    must,
    look,
    until: (wanted, options) =>
      eventually(look, ({ rows }) => rows !== undefined && wanted(rows), { within: "90 seconds", ...options }).pipe(
        Effect.map(({ rows = [] }) => rows)
      ),
    apply: Effect.fnUntraced(function*(name, spec) {
      const file = join(folder, `${name}.json`)
      writeFileSync(
        file,
        JSON.stringify({ apiVersion: "kubeprober.erda.cloud/v1", kind: "Probe", metadata: { name }, spec })
      )
      yield* must("probe", "apply", "-f", file)
    }),
    add: Effect.fnUntraced(function*(cluster) {
      const file = join(folder, `${cluster}.token`)
      yield* must("cluster", "add", cluster, "--token-out", file)
      return file
    })
  }
})

/** An agent outside its cluster, which stores nothing there; or, with `namespace`, what an installed one stores. */
export const startAgent = (master: Pick<MasterHost, "home" | "url">, options: {
  readonly state: string
  readonly kubeconfig: string
  readonly tokenFile?: string | undefined
  readonly namespace?: string | undefined
}) =>
  start(master.home, [
    "agent",
    ...options.namespace === undefined
      ? ["--store", "memory"]
      : ["--store", "resources", "--namespace", options.namespace],
    "--master",
    master.url,
    "--state",
    options.state,
    "--kubeconfig",
    options.kubeconfig,
    ...options.tokenFile === undefined || !existsSync(options.tokenFile)
      ? []
      : ["--join-token-file", options.tokenFile]
  ])

/** What a cell shows: its status and, beside, its code. */
export const shown = (cell: Cell): string => [cell.status, cell.code].join(" ").trim()

/** The cell of a checker on a cluster. */
export const cellOf = (rows: ReadonlyArray<MatrixRow>, cluster: string, checker: string): Cell | undefined =>
  rows.find((row) => row.cluster === cluster)?.cells.find((cell) => cell.checker === checker)
