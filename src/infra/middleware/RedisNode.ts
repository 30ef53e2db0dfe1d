/**
 * {@link Redis} with ioredis, one connection a server.
 *
 * Both clients that Redis keeps were tried, ioredis 6.0 and @redis/client 6.3. What they do for Sentinel and Cluster, to
 * find the master and to follow redirections, is what a probe must see and not have done for it, so neither's is used; as a
 * single connection both do. ioredis lets the socket be ours, which tells a host that does not answer from a server that
 * does not, and is an eighth of the other's size.
 */
import { Effect, Redacted } from "effect"
import type { Redis as Client, RedisOptions } from "ioredis"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { Redis, type RedisReply } from "./Redis.ts"
import type { ServiceError, ServiceServer } from "./Service.ts"
import {
  type Sieve,
  acceptance,
  failures,
  guarded,
  isStumble,
  loaded,
  tlsOptions,
  withinTimeout
} from "./ServiceNode.ts"

const isReply = (value: unknown): value is RedisReply =>
  value === null || typeof value === "string" || typeof value === "number" ||
  (Array.isArray(value) && value.every(isReply))

/** Error replies begin with a word in capitals by convention (https://redis.io/docs/latest/develop/reference/protocol-spec/). */
const wordOf = (message: string): string => /^[A-Z]+/u.exec(message)?.[0] ?? "ERR"

/** ioredis' words for bytes that begin no answer, and for an answer to nothing. */
const UNREADABLE = /RESP type|Command queue state error/u

/** Whether anything comes back for a command without TLS. */
const speaksPlainly = ({ host, port }: ServiceServer): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const socket = Net.connect({ host, port })
    socket.on("error", () => resume(Effect.succeed(false)))
      .once("data", (chunk) => resume(Effect.succeed(/^[+-]/u.test(chunk.toString("latin1")))))
    socket.write("PING\r\n")
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: "1 second", orElse: () => Effect.succeed(false) }))

/** Elements that lists of one session may announce. A thousand nodes of a cluster are below one hundredth of it. */
const MAXIMUM_ELEMENTS = 1_000_000

/** ioredis makes room for a list before its elements come: a few bytes that announce many would take all memory. */
const announced = (): Sieve => {
  let last = "\n"
  let total = 0
  return (chunk) => {
    const text = last + chunk.toString("latin1")
    for (const [, count] of text.matchAll(/\n[*%~>|](\d+)\r(?=\n)/gu)) total += Number(count)
    if (total > MAXIMUM_ELEMENTS) throw new Error(`lists of ${total} elements`)
    // A line that has begun; longer ones announce no list.
    last = text.slice(text.lastIndexOf("\n")).slice(0, 64)
    return [chunk]
  }
}

/**
 * What ioredis throws over an answer, such as one that nobody asked for, it throws again where nobody can catch it, so that
 * faults in listeners of replies are seen. We have none of those; here it ends the connection, as other garbage does.
 */
const load = async () => {
  const [driver, handler] = await Promise.all([import("ioredis"), import("ioredis/built/DataHandler.js")])
  // A module of CommonJS: what loads it hands on all of its exports as the default one, or the default one of these.
  const exported: unknown = handler.default
  const handlerClass = typeof exported === "object" && exported !== null ? Reflect.get(exported, "default") : exported
  if (typeof handlerClass !== "function") throw new TypeError("ioredis has no DataHandler")
  Object.assign(handlerClass.prototype, { dispatch: (answer: () => void) => answer() })
  return driver
}

const connect = Effect.fn("Redis.connect")(function*(server: ServiceServer) {
  const failed = failures("Redis", server)
  const { AbstractConnector, Redis: Ioredis } = yield* loaded(load, failed)
  const progress = acceptance(server)

  /** Our own sockets, so that we see whether they are accepted. */
  class Connector extends AbstractConnector {
    constructor() {
      // How long a half-closed connection may stay: ours end with the run.
      super(100)
    }
    override connect() {
      this.connecting = true
      const { host, port, tls } = server
      this.stream = guarded(
        progress.watch(
          tls === undefined ? Net.connect({ host, port }) : Tls.connect({ host, port, ...tlsOptions(server) })
        ),
        announced()
      )
      return Promise.resolve(this.stream)
    }
  }

  const options = {
    Connector,
    lazyConnect: true,
    protocol: 2,
    retryStrategy: () => null,
    reconnectOnError: null,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    enableOfflineQueue: false,
    disableClientInfo: true,
    // The deadline is ours.
    connectTimeout: 0,
    ...(server.tls === undefined ? {} : { tls: {} }),
    ...(server.username === undefined ? {} : { username: server.username }),
    ...(server.password === undefined ? {} : { password: Redacted.value(server.password) })
  } satisfies RedisOptions
  // A client ends with the words "Connection is closed"; why is told by an event.
  let why: unknown
  const client = yield* Effect.acquireRelease(
    Effect.sync((): Client => {
      const made = new Ioredis(options)
      made.on("error", (error) => {
        why = error
      })
      return made
    }),
    (client) => Effect.sync(() => client.disconnect())
  )

  const failure = (cause: unknown): ServiceError => {
    const first = cause instanceof Error && cause.name !== "ReplyError" && why !== undefined ? why : cause
    if (first instanceof Error && (isStumble(first) || UNREADABLE.test(first.message))) {
      return failed.make(
        "unreadable",
        "",
        `the answer is not Redis' protocol: ${first.message.replace(/\. Please report this\.$/u, "")}`
      )
    }
    return first instanceof Error && first.name === "ReplyError"
      ? failed.make("rejected", wordOf(first.message), first.message)
      : failed.ofNode(first)
  }

  yield* Effect.tryPromise({ try: () => client.connect(), catch: failure }).pipe(
    withinTimeout(server, failed, "connect", progress.kind),
    Effect.catchIf(
      (error) => error.kind === "silent" && server.tls !== undefined,
      // A server without TLS waits for the end of what it takes for a command.
      (error) =>
        Effect.flatMap(
          speaksPlainly(server),
          (plainly) => Effect.fail(plainly ? failed.make("tls", "", "the server answers without TLS") : error)
        )
    )
  )
  return {
    send: Effect.fnUntraced(function*(command: string, ...rest: ReadonlyArray<string>) {
      const reply: unknown = yield* Effect.tryPromise({ try: () => client.call(command, ...rest), catch: failure })
        .pipe(
          withinTimeout(server, failed, command)
        )
      return isReply(reply)
        ? reply
        : yield* failed.make("unreadable", "", `an answer to ${command} that cannot be read`)
    })
  }
})

/** Stateless: each connection ends with its scope. */
export const service = Redis.of({ connect })
