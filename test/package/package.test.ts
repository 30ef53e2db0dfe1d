/**
 * The package as others get it: packed, installed into copies of the examples, compiled against and run.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, FileSystem, Layer, Path, Ref, Schema, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { fileURLToPath } from "node:url"
import manifest from "../../package.json" with { type: "json" }
import { CheckResult } from "../../src/domain/CheckResult.ts"
import { MatrixRow } from "../../src/domain/rpc/Fleet.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Our own environment without what npm tells its scripts, which would make a nested npm work on this project. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.toLowerCase().startsWith("npm_"))
)

const execute = Effect.fnUntraced(function*(cwd: string, command: string, ...args: ReadonlyArray<string>) {
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const child = yield* spawner.spawn(ChildProcess.make(command, args, {
    cwd,
    env: { ...environment, PATH: `${path.dirname(process.execPath)}:${process.env["PATH"] ?? ""}` },
    extendEnv: false,
    stdin: "ignore"
  }))
  const text = (stream: typeof child.stdout) => stream.pipe(Stream.decodeText(), Stream.mkString)
  const [stdout, stderr] = yield* Effect.all([text(child.stdout), text(child.stderr)], { concurrency: 2 })
  return { code: yield* child.exitCode, stdout, stderr }
}, Effect.scoped)

const succeed = Effect.fnUntraced(function*(cwd: string, command: string, ...args: ReadonlyArray<string>) {
  const { code, stderr, stdout } = yield* execute(cwd, command, ...args)
  return code === 0
    ? stdout
    : yield* Effect.die(new Error(`${command} ${args.join(" ")}: ${code}\n${stdout}\n${stderr}`))
})

/** Starts a program that works until the scope ends; all it has printed so far, on either stream. */
const start = Effect.fnUntraced(function*(options: {
  readonly cwd: string
  readonly home: string
  readonly command: readonly [string, ...ReadonlyArray<string>]
}) {
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const [command, ...args] = options.command
  const child = yield* spawner.spawn(ChildProcess.make(command, args, {
    cwd: options.cwd,
    env: { HOME: options.home, PATH: `${path.dirname(process.execPath)}:${process.env["PATH"] ?? ""}` },
    extendEnv: false,
    stdin: "ignore"
  }))
  const printed = yield* Ref.make("")
  const reading = yield* Effect.forkScoped(
    Stream.runForEach(Stream.decodeText(child.all), (text) => Ref.update(printed, (before) => before + text))
  )
  // What it printed last may be read after its end.
  return { printed: Ref.get(printed), code: Effect.tap(child.exitCode, () => Fiber.join(reading)) }
})

/** What `npm pack --json` prints. */
const Packed = Schema.fromJsonString(Schema.NonEmptyArray(Schema.Struct({
  filename: Schema.String,
  files: Schema.Array(Schema.Struct({ path: Schema.String }))
})))

/** The project of `examples/custom-probe`, and of `examples/fleet-client`, with the packed package installed. */
class Consumer extends Context.Service<Consumer, {
  readonly folder: string
  readonly client: string
  readonly packed: ReadonlyArray<string>
  /** The installed command. */
  readonly kubeprober: (...args: ReadonlyArray<string>) => ReturnType<typeof execute>
}>()("kubeprober/test/Consumer") {
  static readonly layer = Layer.effect(
    Consumer,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-consumer-" })
      const [packed] = yield* succeed(root, "npm", "pack", "--json", "--pack-destination", folder).pipe(
        Effect.flatMap(Schema.decodeEffect(Packed))
      )
      const client = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-client-" })
      const install = Effect.fnUntraced(function*(example: string, main: string, to: string) {
        for (const file of [main, "package.json", "tsconfig.json"]) {
          yield* fs.copyFile(path.join(root, "examples", example, file), path.join(to, file))
        }
        const tarball = path.join(folder, packed.filename)
        yield* succeed(to, "npm", "install", "--no-audit", "--no-fund", "--prefer-offline", tarball)
      })
      yield* fs.copyFile(path.join(root, "test", "package", "consumer", "misuse.ts"), path.join(folder, "misuse.ts"))
      // A second module of probes in the same project: what it imports is the same.
      for (const file of ["shop.ts", "server.ts"]) {
        yield* fs.copyFile(path.join(root, "examples", "scenario", file), path.join(folder, file))
      }
      yield* install("custom-probe", "mine.ts", folder)
      yield* install("fleet-client", "report.ts", client)
      const services = yield* Effect.context<Path.Path | ChildProcessSpawner.ChildProcessSpawner>()
      return {
        folder,
        client,
        packed: packed.files.map((file) => file.path),
        kubeprober: (...args) =>
          execute(folder, path.join(folder, "node_modules", ".bin", "kubeprober"), ...args).pipe(
            Effect.provideContext(services)
          )
      }
    })
  )
}

/** Deployments that break one rule each, both, and none. Nothing runs here: only the API is asked. */
const deployment = (name: string, replicas: number, image: string, initImage = image) => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name, namespace: "default" },
  spec: {
    replicas,
    selector: { matchLabels: { app: name } },
    template: {
      metadata: { labels: { app: name } },
      spec: { containers: [{ name: "main", image }], initContainers: [{ name: "first", image: initImage }] }
    }
  }
})

const live = Layer.mergeAll(Consumer.layer, TestCluster.layer({ name: "package" })).pipe(
  Layer.provideMerge(NodeServices.layer)
)

layer(live, { excludeTestServices: true, timeout: "300 seconds" })("the packed package", (it) => {
  it.effect("holds what it needs to run and nothing else", () =>
    Effect.gen(function*() {
      const { packed } = yield* Consumer
      const kinds = [
        /^dist\/(bin|lib|types)\//,
        /^crds\/[^/]+\.yaml$/,
        /^deploy\/.+\.(yaml|md)$/,
        /^src\/local\/go\//,
        /^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/,
        /^dist\/LICENSES\.txt$/
      ]
      assert.deepStrictEqual(packed.filter((file) => !kinds.some((kind) => kind.test(file))), [])
      const needed = [
        "LICENSE",
        "crds/kubeprober.erda.cloud_probes.yaml",
        "dist/LICENSES.txt",
        "deploy/master/kustomization.yaml",
        "dist/bin/kubectl-probe.js",
        "dist/bin/kubeprober.js",
        "src/local/go/kubernetes/go.sum"
      ]
      for (const file of needed) {
        assert.include(packed, file)
      }
    }))

  it.effect("type-checks in a strict project, libraries included, and refuses misuse", () =>
    Effect.gen(function*() {
      const { client, folder } = yield* Consumer
      const path = yield* Path.Path
      for (const project of [folder, client]) {
        const { code, stdout } = yield* execute(project, path.join(project, "node_modules", ".bin", "tsc"))
        assert.strictEqual(stdout, "")
        assert.strictEqual(code, 0)
      }
    }), 180_000)

  it.effect("shares the project's one copy of effect", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { folder } = yield* Consumer
      const files = yield* fs.readDirectory(path.join(folder, "node_modules"), { recursive: true })
      assert.deepStrictEqual(files.filter((file) => /(^|\/)effect\/package\.json$/.test(file)), ["effect/package.json"])
    }))

  it.effect("exports what it says", () =>
    Effect.gen(function*() {
      const { folder } = yield* Consumer
      const imports = Object.keys(manifest.exports).filter((name) => !name.endsWith(".json")).map((name) =>
        `import(${JSON.stringify(`kubeprober${name.slice(1)}`)})`
      )
      yield* succeed(
        folder,
        process.execPath,
        "--input-type=module",
        "-e",
        `await Promise.all([${imports.join(", ")}])`
      )
    }))

  it.effect("has a command that tells its version", () =>
    Effect.gen(function*() {
      const { kubeprober } = yield* Consumer
      const { code, stdout } = yield* kubeprober("--version")
      assert.include(stdout, manifest.version)
      assert.strictEqual(code, 0)
    }))

  it.effect("is a plugin of kubectl with the original's verbs", () =>
    Effect.gen(function*() {
      const { folder } = yield* Consumer
      const path = yield* Path.Path
      const plugin = path.join(folder, "node_modules", ".bin", "kubectl-probe")
      const version = yield* execute(folder, plugin, "version")
      assert.include(version.stdout, manifest.version)
      assert.strictEqual(version.code, 0)
      const terminal = yield* execute(folder, plugin, "terminal")
      assert.include(terminal.stderr, "kubectl --server")
      assert.strictEqual(terminal.code, 2)
    }))

  it.effect("lists the project's probe beside its own", () =>
    Effect.gen(function*() {
      const { kubeprober } = yield* Consumer
      const own = yield* kubeprober("probe", "list")
      const both = yield* kubeprober("probe", "list", "--probes", "./mine.ts")
      assert.include(own.stdout, "k8s.api.health")
      assert.notInclude(own.stdout, "example.deployment.policy")
      assert.include(both.stdout, "k8s.api.health")
      assert.include(both.stdout, "example.deployment.policy")
    }))

  it.effect("runs the example of a scenario", () =>
    Effect.gen(function*() {
      const { kubeprober } = yield* Consumer
      const { cluster } = yield* TestCluster
      const { code, stdout } = yield* kubeprober(
        "check",
        "--kubeconfig",
        cluster.kubeconfigPath,
        "--probes",
        "./shop.ts",
        "--probe",
        "shop.order",
        "-o",
        "json"
      )
      const result = yield* Schema.decodeEffect(Schema.fromJsonString(CheckResult))(stdout)
      // No credential is mounted on the machine of the tests, so it goes as far as that; test/application goes further.
      assert.deepStrictEqual(
        result.clusters[0]?.reports.map((report) => [report.checker, report.status, report.code]),
        [
          ["shop.order", "UNKNOWN", "CREDENTIAL_MISSING"]
        ]
      )
      assert.notStrictEqual(code, 1)
    }), 60_000)

  it.effect("judges a real cluster by the project's probe", () =>
    Effect.gen(function*() {
      const { kubeprober } = yield* Consumer
      const { apply, cluster } = yield* TestCluster
      const check = Effect.gen(function*() {
        const { code, stderr, stdout } = yield* kubeprober(
          "check",
          "--kubeconfig",
          cluster.kubeconfigPath,
          "--probes",
          "./mine.ts",
          "--probe",
          "example.deployment.policy",
          "-o",
          "json"
        )
        const result = yield* Schema.decodeEffect(Schema.fromJsonString(CheckResult))(stdout).pipe(
          Effect.catch(() => Effect.die(new Error(`no result: ${stdout}\n${stderr}`)))
        )
        return { code, report: result.clusters[0]?.reports[0] }
      })
      yield* apply(
        deployment("right", 2, "registry.k8s.io/pause:3.10"),
        deployment("lonely", 1, "nginx:1.29"),
        deployment("foreign", 2, "nginx:1.29", "quay.io/someone/thing:1")
      )
      const red = yield* check
      assert.strictEqual(red.code, 1)
      assert.deepStrictEqual(
        red.report?.findings.map(({ code, status, subject }) => [status, code, subject?.name]),
        [["ERROR", "IMAGE_NOT_ALLOWED", "foreign"], ["WARN", "REPLICAS_TOO_FEW", "lonely"]]
      )
      yield* apply(deployment("lonely", 2, "nginx:1.29"), deployment("foreign", 2, "docker.io/library/busybox:1"))
      const green = yield* check
      assert.strictEqual(green.code, 0)
      assert.strictEqual(green.report?.status, "PASS")
      assert.include(green.report?.message, "3 Deployments")
    }), 60_000)

  it.effect(
    "has a master and an agent, which runs the project's probe, and a client that tells of it",
    () =>
      Effect.gen(function*() {
        const { client, folder } = yield* Consumer
        const { apply, cluster, kubectl } = yield* TestCluster
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const home = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-home-" })
        const node = process.execPath
        const installed = path.join(folder, "node_modules", ".bin", "kubeprober")
        const run = (...args: ReadonlyArray<string>) =>
          Effect.scoped(Effect.gen(function*() {
            const { code, printed } = yield* start({ cwd: folder, home, command: [installed, ...args] })
            return { code: yield* code, text: yield* printed }
          }))

        yield* kubectl("delete", "deployments", "--all", "-n", "default")
        yield* apply(deployment("right", 2, "registry.k8s.io/pause:3.10"))

        const master = yield* start({
          cwd: folder,
          home,
          command: [installed, "master", "--link-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
        })
        const serving = yield* eventually(master.printed, (text) => text.includes("the master serves"))
        const link = /link="?(https:[^"\s]+)/u.exec(serving)?.[1] ?? ""
        const tokenFile = path.join(home, "edge-1.token")
        assert.strictEqual((yield* run("cluster", "add", "edge-1", "--token-out", tokenFile)).code, 0)
        const agent = yield* start({
          cwd: folder,
          home,
          command: [
            installed,
            "agent",
            "--master",
            link,
            "--join-token-file",
            tokenFile,
            "--store",
            "memory",
            "--kubeconfig",
            cluster.kubeconfigPath,
            "--probes",
            "./mine.ts"
          ]
        })
        yield* eventually(agent.printed, (text) => text.includes("registered"))

        const team = path.join(home, "team.json")
        yield* fs.writeFileString(
          team,
          JSON.stringify({
            apiVersion: "kubeprober.erda.cloud/v1",
            kind: "Probe",
            metadata: { name: "team" },
            spec: {
              clusterSelector: {},
              checks: [{ name: "policy", use: "example.deployment.policy" }],
              policy: { interval: "10s", failureThreshold: 1 }
            }
          })
        )
        const applied = yield* run("probe", "apply", "-f", team)
        assert.strictEqual(applied.code, 0, applied.text)
        const decode = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(MatrixRow)))
        const rows = yield* eventually(
          run("status", "-o", "json").pipe(Effect.flatMap(({ text }) => decode(text))),
          ([row]) => row?.status === "PASS" && row.cells.length === 1,
          { every: "500 millis" }
        )
        assert.deepStrictEqual(
          rows.map(({ cells, cluster }) => [cluster, cells.map(({ checker, message }) => [checker, message])]),
          [["edge-1", [["policy", "1 Deployments follow the policy"]]]]
        )

        const report = yield* start({
          cwd: client,
          home,
          command: [node, "report.ts", "example.deployment.policy", "1"]
        })
        yield* eventually(report.printed, (text) => text.includes("end edge-1"))
        yield* apply(deployment("lonely", 1, "nginx:1.29"))
        assert.strictEqual(yield* report.code, 0, yield* report.printed)
        assert.deepStrictEqual((yield* report.printed).trim().split("\n"), [
          "cluster edge-1 PASS",
          "run of example.deployment.policy on edge-1",
          "result edge-1 example.deployment.policy PASS",
          "end edge-1 finished",
          "change edge-1 policy: PASS -> WARN"
        ])
      }).pipe(Effect.scoped),
    180_000
  )
})
