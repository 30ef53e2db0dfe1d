/** Redis servers and Sentinels for tests. */
import { type Duration, Effect, type Scope } from "effect"
import * as Net from "node:net"
import { makeAuthority } from "../../src/local/Certificates.ts"
import * as Ports from "../../src/local/Ports.ts"
import { mint } from "../clusters/Mint.ts"
import { eventually } from "../kube/eventually.ts"
import * as ServerProcess from "./ServerProcess.ts"

const USER = "redis"
const HOST = "127.0.0.1"

export interface RedisServer {
  readonly port: number
  readonly address: string
  readonly process: ServerProcess.ServerProcess
  /** As the default user, on a connection without TLS or password; `options` go to redis-cli. */
  readonly cli: (...command: ReadonlyArray<string>) => Effect.Effect<string>
}

/** The lines of configuration go to a file, as a password would show in the arguments. */
export const start = Effect.fnUntraced(function*(
  options: {
    readonly lines?: ReadonlyArray<string>
    readonly port?: number
    readonly kind?: "redis-server" | "redis-sentinel"
    /** Options of redis-cli, such as `-a secret`. */
    readonly cli?: ReadonlyArray<string>
  } = {}
): Effect.fn.Return<RedisServer, never, Scope.Scope> {
  const { kind = "redis-server", lines = [] } = options
  const port = options.port ?? (yield* Effect.orDie(Ports.free(HOST, ["redis"]))).redis
  const folder = yield* ServerProcess.folder(USER)
  const base = [
    `bind ${HOST}`,
    `dir ${folder}`,
    "daemonize no",
    ...(lines.some((line) => line.startsWith("port ")) ? [] : [`port ${port}`]),
    ...(kind === "redis-server" ? ["save \"\""] : [])
  ]
  const file = yield* ServerProcess.file(USER, `${folder}/redis.conf`, [...base, ...lines, ""].join("\n"))
  const process = yield* ServerProcess.start(USER, kind, file)
  const cli = (...command: ReadonlyArray<string>) =>
    Effect.map(
      ServerProcess.command(
        USER,
        "redis-cli",
        "--no-auth-warning",
        "-h",
        HOST,
        "-p",
        String(port),
        ...options.cli ?? [],
        ...command
      ),
      (text) => text.trim()
    )
  yield* Effect.orDie(eventually(
    `${kind} on ${port}`,
    Effect.map(
      Effect.catchCause(cli("ping"), () => Effect.succeed("")),
      (answer) => /^PONG|^NOAUTH/u.test(answer)
    )
  ))
  return { port, address: `${HOST}:${port}`, process, cli }
})

/** A field of INFO. */
export const field = (server: RedisServer, name: string) =>
  Effect.map(
    server.cli("info"),
    (text) => new RegExp(`^${name}:(.*?)\\r?$`, "mu").exec(text)?.[1] ?? ""
  )

/** Waits until a master counts so many replicas as in step, which is a moment later than they do themselves. */
export const online = (master: RedisServer, count: number) =>
  eventually(
    `${count} replicas of ${master.port}`,
    Effect.map(master.cli("info", "replication"), (text) => text.split("state=online").length - 1 === count),
    40
  )

/** A replica in step. */
export const replica = Effect.fnUntraced(function*(master: RedisServer, lines: ReadonlyArray<string> = []) {
  const made = yield* start({
    lines: [`replicaof ${HOST} ${master.port}`, "repl-diskless-sync-delay 0", "repl-diskless-load swapdb", ...lines]
  })
  yield* inStep(made)
  return made
})

/** Waits until a replica has its link. */
export const inStep = (replica: RedisServer) =>
  eventually(`link of ${replica.port}`, Effect.map(field(replica, "master_link_status"), (link) => link === "up"))

/** A Sentinel that watches a master under the name `shop`. */
export const sentinel = (master: RedisServer, quorum: number) =>
  start({
    kind: "redis-sentinel",
    lines: [
      `sentinel monitor shop ${HOST} ${master.port} ${quorum}`,
      // A server that has no turn on a busy machine for a second or two is not down.
      "sentinel down-after-milliseconds shop 5000",
      "sentinel failover-timeout shop 2000"
    ]
  })

/** A cluster of masters alone, with all slots. */
export const cluster = Effect.fnUntraced(function*(size: number, lines: ReadonlyArray<string> = []) {
  const nodes = yield* Effect.forEach(Array.from({ length: size }), () =>
    Effect.gen(function*() {
      const { bus } = yield* Effect.orDie(Ports.free(HOST, ["bus"]))
      return yield* start({
        lines: ["cluster-enabled yes", `cluster-port ${bus}`, "cluster-node-timeout 5000", ...lines]
      })
    }), { concurrency: "unbounded" })
  yield* ServerProcess.command(
    USER,
    "redis-cli",
    "--cluster",
    "create",
    ...nodes.map(({ address }) => address),
    "--cluster-yes"
  )
  yield* Effect.forEach(nodes, (node) =>
    eventually(
      `cluster at ${node.port}`,
      Effect.map(node.cli("cluster", "info"), (text) => text.includes("cluster_state:ok"))
    ))
  return nodes
})

/** Connections that do nothing. */
export const idleClients = Effect.fnUntraced(function*(server: RedisServer, count: number) {
  const sockets: Array<Net.Socket> = []
  const close = Effect.sync(() => {
    for (const socket of sockets.splice(0)) socket.destroy()
  })
  yield* Effect.addFinalizer(() => close)
  /** Each is answered once, so that the server counts it. */
  const one = Effect.callback<void>((resume) => {
    const socket = Net.connect(server.port, HOST)
    sockets.push(socket)
    socket.on("error", () => {}).once("data", () => resume(Effect.void))
    socket.write("PING\r\n")
  })
  const add = (more: number) => Effect.forEach(Array.from({ length: more }), () => one, { discard: true })
  yield* add(count)
  return { add, close }
})

/** Connects to a server that takes none, until its system drops what more comes. */
export const fillBacklog = Effect.fnUntraced(function*(server: RedisServer) {
  const sockets: Array<Net.Socket> = []
  yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
  const taken = Effect.callback<boolean>((resume) => {
    const socket = Net.connect(server.port, HOST)
    sockets.push(socket)
    socket.on("error", () => {}).once("connect", () => resume(Effect.succeed(true)))
  }).pipe(Effect.timeoutOrElse({ duration: "300 millis", orElse: () => Effect.succeed(false) }))
  yield* Effect.repeat(taken, { while: (more) => more, times: 100 })
})

export interface TlsRedisServer extends RedisServer {
  /** PEM, of the authority that signs its certificates. */
  readonly ca: string
  /** Gives it another certificate. */
  readonly renew: (options: { readonly left: Duration.Input }) => Effect.Effect<void>
}

/** A server that speaks TLS on the port of the address. */
export const startTls = Effect.fnUntraced(function*(
  options: { readonly left: Duration.Input }
): Effect.fn.Return<TlsRedisServer, never, Scope.Scope> {
  const ca = yield* makeAuthority("authority")
  const folder = yield* ServerProcess.folder(USER)
  const write = Effect.fnUntraced(function*({ left }: { readonly left: Duration.Input }) {
    const pair = yield* mint({ commonName: "redis", age: "300 days", left, issuer: ca })
    yield* ServerProcess.file(USER, `${folder}/tls.crt`, pair.cert)
    yield* ServerProcess.file(USER, `${folder}/tls.key`, pair.key)
  })
  yield* write(options)
  const { tls } = yield* Effect.orDie(Ports.free(HOST, ["tls"]))
  const server = yield* start({
    lines: [
      `tls-port ${tls}`,
      `tls-cert-file ${folder}/tls.crt`,
      `tls-key-file ${folder}/tls.key`,
      "tls-auth-clients no"
    ]
  })
  return {
    ...server,
    address: `${HOST}:${tls}`,
    ca: ca.cert,
    renew: Effect.fnUntraced(function*(options) {
      yield* write(options)
      // The files are read again when one of the settings is set.
      yield* server.cli("config", "set", "tls-cert-file", `${folder}/tls.crt`)
    })
  }
})
