/** Real servers for probes of applications, and runs of such probes. */
import { Context, DateTime, Effect, FileSystem, Path, Redacted, Schedule, type Scope } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Net from "node:net"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import * as Runner from "../../src/agent/Runner.ts"
import { Credentials } from "../../src/infra/credentials/Credentials.ts"
import * as CredentialsNode from "../../src/infra/credentials/CredentialsNode.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import * as Ports from "../../src/local/Ports.ts"
import { type AnyProbe, type Check, toCheck } from "../../src/probes/Probe.ts"

/** The world of a prober whose credentials are in this folder. */
export const worldWith = (folder: string): ProbeWorld.ProbeWorld => ({
  ...ProbeWorld.outside,
  world: Context.add(ProbeWorld.outside.world, Credentials, CredentialsNode.make(folder))
})

/** The report of one check of a probe that asks no API: there is none. */
export const run = (check: AnyProbe | Check, world: ProbeWorld.ProbeWorld = ProbeWorld.outside) =>
  Runner.run(toCheck(check), {
    context: { runId: "run-1", probeNamespace: "none", expiresAt: DateTime.makeUnsafe("2100-01-01T00:00:00Z") },
    missing: [],
    world
  }).pipe(
    Effect.provideServiceEffect(
      Kube,
      KubeHttp.make(KubeConnection.make({
        cluster: "nowhere",
        server: "https://127.0.0.1:1",
        identity: { tls: {}, authorization: Redacted.make("Bearer none") }
      }))
    ),
    Effect.scoped,
    Effect.map(({ report }) => report)
  )

export const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** A folder of credentials: `write("shop", { token: "..." })`. */
export const credentials = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-credentials-" })
  return {
    folder,
    world: worldWith(folder),
    write: Effect.fnUntraced(function*(name: string, values: Readonly<Record<string, string>>) {
      yield* fs.makeDirectory(path.join(folder, name), { recursive: true })
      for (const [key, value] of Object.entries(values)) yield* fs.writeFileString(path.join(folder, name, key), value)
    }, Effect.orDie)
  }
})

/** Free TCP ports of 127.0.0.1. */
export const ports = <Name extends string>(...names: ReadonlyArray<Name>) =>
  Effect.orDie(Ports.free("127.0.0.1", names))

/** Listens on 127.0.0.1 until the scope ends and does with each connection what it is told. */
export const listener = (
  onConnection: (socket: Net.Socket) => void,
  port = 0
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((socket) => {
          sockets.add(socket)
          socket.on("error", () => {}).on("close", () => sockets.delete(socket))
          onConnection(socket)
        }).listen(port, "127.0.0.1", () => {
          const address = server.address()
          const close = () => {
            server.close()
            for (const socket of sockets) socket.destroy()
          }
          resume(Effect.succeed({ port: typeof address === "object" && address !== null ? address.port : 0, close }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ port }) => port
  )

/** Starts a program that is ended with the scope. */
const program = Effect.fnUntraced(function*(command: string, args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  return yield* Effect.orDie(spawner.spawn(ChildProcess.make(command, args, {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore"
  })))
})

/** Asks a server until it answers so; dies when it does not in time. */
export const untilServed = (url: string, wanted: (body: string) => boolean) =>
  Effect.tryPromise(async () => await (await fetch(url)).text()).pipe(
    Effect.filterOrFail(wanted),
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.timeout("20 seconds"),
    Effect.orDie,
    Effect.asVoid
  )

/**
 * A real nginx. `serve` takes the `server` blocks and returns when they are in force; files named in them are relative to
 * its folder.
 */
export const nginx = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-nginx-" })
  const { control } = yield* ports("control")
  let generation = 0
  const write = (servers: string) =>
    fs.writeFileString(
      path.join(folder, "nginx.conf"),
      `daemon off; user root; worker_processes 1; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
events { worker_connections 64; }
http {
  access_log off; default_type text/plain; root ${folder};
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server { listen 127.0.0.1:${control}; location / { return 200 "${generation}"; } }
  ${servers}
}
`
    )
  const inForce = Effect.suspend(() =>
    untilServed(`http://127.0.0.1:${control}/`, (body) => body === String(generation))
  )
  yield* write("")
  const process = yield* program("nginx", ["-p", folder, "-c", path.join(folder, "nginx.conf"), "-e", "error.log"])
  yield* inForce
  /** Those that take connections: the title of one that ends is longer. */
  const workers = Effect.gen(function*() {
    const pid = String(process.pid)
    const children = yield* fs.readFileString(`/proc/${pid}/task/${pid}/children`)
    const titled = yield* Effect.forEach(
      children.trim().split(" "),
      (child) =>
        fs.readFileString(`/proc/${child}/cmdline`).pipe(
          Effect.map((title) => [child, title.replaceAll("\0", "").trim()] as const),
          Effect.orElseSucceed(() => [child, ""] as const)
        )
    )
    return new Set(titled.filter(([, title]) => title === "nginx: worker process").map(([child]) => child))
  }).pipe(Effect.orDie)
  return {
    /** Where a file of its folder is. */
    path: (name: string) => path.join(folder, name),
    file: (name: string, content: string) => Effect.orDie(fs.writeFileString(path.join(folder, name), content)),
    serve: Effect.fnUntraced(function*(servers: string) {
      generation++
      yield* Effect.orDie(write(servers))
      const old = yield* workers
      yield* Effect.sync(() => globalThis.process.kill(Number(process.pid), "SIGHUP"))
      yield* inForce
      // Until then they answer too, by what was in force before.
      yield* Effect.repeat(workers, {
        schedule: Schedule.spaced("20 millis"),
        until: (now) => ![...old].some((pid) => now.has(pid))
      })
    })
  }
})

/** A real Prometheus, which scrapes what is listed (`host:port`) every second. */
export const prometheus = Effect.fnUntraced(function*(targets: ReadonlyArray<string>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-prometheus-" })
  const { port } = yield* ports("port")
  const config = path.join(folder, "prometheus.yml")
  yield* fs.writeFileString(
    config,
    JSON.stringify({
      global: { scrape_interval: "1s", scrape_timeout: "1s" },
      scrape_configs: [
        { job_name: "self", static_configs: [{ targets: [`127.0.0.1:${port}`] }] },
        { job_name: "shop", static_configs: [{ targets }] }
      ]
    })
  )
  const process = yield* program("prometheus", [
    `--config.file=${config}`,
    `--storage.tsdb.path=${path.join(folder, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`
  ])
  const url = `http://127.0.0.1:${port}`
  yield* untilServed(`${url}/-/ready`, (body) => body.includes("Ready") || body.includes("ready"))
  return { url, kill: Effect.orDie(process.kill({ killSignal: "SIGKILL" })) }
})
