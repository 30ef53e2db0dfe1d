/**
 * `npm run bench:fleet`: what the packed program costs as a fleet: results a second that a master makes durable, how long
 * `kubeprober once` takes, memory of a master and an agent, sizes.
 *
 * Figures are of this machine and its load, which is printed: compare what stands side by side.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import {
  Array,
  Clock,
  Console,
  Effect,
  FileSystem,
  Order,
  Path,
  Redacted,
  Ref,
  References,
  Schema,
  Stream
} from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { createServer } from "node:http"
import { loadavg } from "node:os"
import { fileURLToPath } from "node:url"
import { LinkServer } from "../../src/infra/link/LinkServer.ts"
import { Registry } from "../../src/master/Registry.ts"
import { TestCluster, eventually } from "../../test/clusters/TestCluster.ts"
import * as Program from "../../test/link/process.ts"
import { master as masterLayer } from "../../test/master/control/fleetFixture.ts"

const BATCHES = 44
const BATCH = 500
const RUNS = 20
const WORKING = "2 minutes"

const dist = fileURLToPath(new URL("../../dist/", import.meta.url))
const kubeprober = `${dist}bin/kubeprober.js`

/** Reads what it is sent and keeps nothing. */
const plainServer = Effect.acquireRelease(
  Effect.callback<ReturnType<typeof createServer>>((resume) => {
    const server = createServer((request, response) => {
      request.resume().on("end", () => response.end("{}"))
    })
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => server.close())
)

const durability = Effect.gen(function*() {
  const registry = yield* Registry
  const { token } = yield* registry.add("bench", {})
  const address = (yield* plainServer).address()
  const agent = yield* Program.start(new URL("deliver.main.ts", import.meta.url), {
    link: (yield* LinkServer).port,
    http: typeof address === "object" && address !== null ? address.port : 0,
    token: Redacted.value(token),
    batches: BATCHES,
    size: BATCH
  })
  const said = yield* agent.next(Schema.Struct({ durable: Schema.Finite, plain: Schema.Finite, bytes: Schema.Finite }))
  yield* Console.log(`results of ${Math.round(said.bytes)} bytes, in batches of ${BATCH}, one batch at a time:`)
  yield* Console.log(`  on the master's disk, over the link   ${Math.round(said.durable)} a second`)
  yield* Console.log(`  POSTed to a server that keeps nothing ${Math.round(said.plain)} a second`)
  yield* Console.log(`  ratio ${(said.plain / said.durable).toFixed(1)}`)
}).pipe(Effect.scoped, Effect.provide(masterLayer), Effect.provideService(References.MinimumLogLevel, "None"))

const start = Effect.fnUntraced(function*(home: string, ...args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, args, { env: { HOME: home }, extendEnv: false, stdin: "ignore" })
  )
  const printed = yield* Ref.make("")
  yield* Effect.forkScoped(
    Stream.runForEach(Stream.decodeText(child.all), (text) => Ref.update(printed, (before) => before + text))
  )
  return { pid: child.pid, code: child.exitCode, printed: Ref.get(printed) }
})

/** Milliseconds from the start of a command to its end. */
const time = Effect.fnUntraced(function*(home: string, ...args: ReadonlyArray<string>) {
  const from = yield* Clock.currentTimeNanos
  const child = yield* start(home, ...args)
  const code = yield* child.code
  const to = yield* Clock.currentTimeNanos
  if (code !== 0) return yield* Effect.die(new Error(`${args.join(" ")}: ${code}\n${yield* child.printed}`))
  return Number(to - from) / 1e6
}, Effect.scoped)

const median = (times: ReadonlyArray<number>): number =>
  Array.sort(times, Order.Number)[Math.floor(times.length / 2)] ?? Number.NaN

/** MiB in memory, of proc(5). */
const resident = Effect.fnUntraced(function*(pid: number) {
  const fs = yield* FileSystem.FileSystem
  const status = yield* fs.readFileString(`/proc/${pid}/status`)
  return Math.round(Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1] ?? Number.NaN) / 1024)
})

const commands = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { cluster } = yield* TestCluster
  const home = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-bench-" })
  const master = yield* start(
    home,
    kubeprober,
    "master",
    "--link-listen",
    "127.0.0.1:0",
    "--api-listen",
    "127.0.0.1:0"
  )
  const serving = yield* eventually(master.printed, (text) => text.includes("the master serves"))
  const link = /link="?(https:[^"\s]+)/u.exec(serving)?.[1] ?? ""
  const token = path.join(home, "token")
  yield* time(home, kubeprober, "cluster", "add", "bench", "--token-out", token)
  const agent = yield* start(
    home,
    kubeprober,
    "agent",
    "--store",
    "memory",
    "--master",
    link,
    "--join-token-file",
    token,
    "--kubeconfig",
    cluster.kubeconfigPath
  )
  yield* eventually(agent.printed, (text) => text.includes("registered"))
  yield* Effect.sleep("10 seconds")
  const idle = [yield* resident(master.pid), yield* resident(agent.pid)] as const

  const probe = path.join(home, "probe.json")
  yield* fs.writeFileString(
    probe,
    JSON.stringify({
      apiVersion: "kubeprober.erda.cloud/v1",
      kind: "Probe",
      metadata: { name: "standard" },
      spec: {
        clusterSelector: {},
        checks: [
          "k8s.api.health",
          "k8s.self.access",
          "k8s.version.skew",
          "k8s.node.readiness",
          "k8s.workloads.health",
          "k8s.finalizers.stuck",
          "k8s.admission.webhooks",
          "k8s.cert.expiry"
        ].map((use) => ({ name: use.slice(4).replaceAll(".", "-"), use })),
        policy: { interval: "5s" }
      }
    })
  )
  yield* time(home, kubeprober, "probe", "apply", "-f", probe)
  yield* Effect.sleep(WORKING)
  const working = [yield* resident(master.pid), yield* resident(agent.pid)] as const

  const once = [kubeprober, "once", "--use", "k8s.api.health"]
  yield* time(home, ...once)
  const turns = yield* Effect.forEach(
    Array.range(1, RUNS),
    () => Effect.all([time(home, "-e", "0"), time(home, kubeprober, "--version"), time(home, ...once)])
  )
  const [node, version, verdict] = [0, 1, 2].map((at) => median(turns.map((turn) => turn[at] ?? Number.NaN)))
  const rows = { "node -e 0": node, "kubeprober --version": version, "kubeprober once --use k8s.api.health": verdict }
  yield* Console.log(`median of ${RUNS}, a master and an agent at work:`)
  for (const [name, value = Number.NaN] of Object.entries(rows)) {
    yield* Console.log(`  ${name.padEnd(38)}${value.toFixed(0).padStart(5)} ms ${(value / (node ?? 1)).toFixed(1)}`)
  }
  yield* Console.log("resident memory:       master   agent")
  yield* Console.log(`  idle                ${idle.map((mib) => `${mib} MiB`.padStart(8)).join("")}`)
  yield* Console.log(`  8 checks every 5 s  ${working.map((mib) => `${mib} MiB`.padStart(8)).join("")}`)
}).pipe(Effect.scoped, Effect.provide(TestCluster.layer({ name: "bench" })))

const sizes = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  for (const part of ["bin", "lib", "types"]) {
    const files = yield* fs.readDirectory(`${dist}${part}`, { recursive: true })
    const infos = yield* Effect.forEach(files, (file) => fs.stat(`${dist}${part}/${file}`))
    const bytes = infos.reduce((sum, info) => info.type === "File" ? sum + Number(info.size) : sum, 0)
    yield* Console.log(`dist/${part}: ${Math.round(bytes / 1024)} KiB`)
  }
})

const load = Effect.suspend(() => Console.log(`load ${loadavg().map((value) => value.toFixed(1)).join(" ")}`))

Effect.all([load, durability, load, commands, load, sizes], { discard: true }).pipe(
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
