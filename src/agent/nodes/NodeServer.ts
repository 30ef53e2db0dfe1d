/**
 * What a node agent does: runs tasks for whoever holds the key, over TLS-PSK, and nothing else. It has no token of the API
 * and asks nobody anything by itself, so between two questions it costs its node nothing but memory.
 */
import { Data, Effect, FiberSet, Schema, type Scope, Semaphore } from "effect"
import { readFileSync } from "node:fs"
import { type IncomingMessage, type ServerResponse } from "node:http"
import { type Server, createServer } from "node:https"
import { Socket } from "node:net"
import * as Psk from "../../infra/tls/Psk.ts"
import type { AnyTask } from "../../probes/workers/tasks.ts"
import { perform } from "../workers/WorkerProcess.ts"
import { MAX_INPUT, PSK_IDENTITY, TaskAnswer, taskPath } from "./nodeAgents.ts"

/** The port cannot be opened. */
export class NodeServerError extends Data.TaggedError("NodeServerError")<{
  readonly port: number
  readonly detail: string
}> {
  override get message(): string {
    return `port ${this.port} cannot be served: ${this.detail}; choose another with --port, here and in the agent`
  }
}

/** Tasks at a time; the next wait. A node has other things to do. */
const TASKS_AT_ONCE = 2

/** Connections at a time, and of one address: who has no key may hold some, and not all. */
const CONNECTIONS = 256
const CONNECTIONS_OF_ONE = 8

/** A request that is not complete by then (ms) is dropped. */
const PATIENCE = 5_000

const decodeInput = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))
const encodeAnswer = Schema.encodeSync(TaskAnswer)

/** The body, or nothing when it is too long or cut. */
const bodyOf = (request: IncomingMessage): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    request.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size <= MAX_INPUT) chunks.push(chunk)
    })
    request.once("end", () => resume(Effect.succeed(size <= MAX_INPUT ? Buffer.concat(chunks).toString() : undefined)))
    request.once("error", () => resume(Effect.succeed(undefined)))
  })

const answer = (response: ServerResponse, status: number, body: typeof TaskAnswer.Type): void => {
  response.writeHead(status, { "content-type": "application/json" }).end(encodeAnswer(body))
}

/** The key as it is in the file now; nothing when it is not there, or too short to be one. */
const keyIn = (file: string): Buffer | undefined => {
  try {
    const key = Buffer.from(readFileSync(file, "utf8").trim(), "base64")
    return key.length >= Psk.KEY_BYTES ? key : undefined
  } catch {
    return undefined
  }
}

/** Serves for as long as the scope; the port that is listened on. */
export const serve = Effect.fn("NodeServer.serve")(
  function*(options: {
    /** 0 for any free one. */
    readonly port: number
    /** An IP address of the machine; all of them when absent. */
    readonly address?: string | undefined
    readonly keyFile: string
    readonly tasks: ReadonlyArray<AnyTask>
  }): Effect.fn.Return<number, NodeServerError, Scope.Scope> {
    const run = yield* FiberSet.makeRuntime<never>()
    const permits = yield* Semaphore.make(TASKS_AT_ONCE)
    const byPath = new Map(options.tasks.map((task) => [taskPath(task.id), task]))

    const handle = Effect.fnUntraced(function*(request: IncomingMessage, response: ServerResponse) {
      const task = byPath.get(request.url ?? "")
      if (request.method !== "POST" || task === undefined) {
        request.resume()
        return answer(response, 404, { ok: false, error: "this node agent does not know the task; update it" })
      }
      const body = yield* bodyOf(request)
      const input = body === undefined ? undefined : decodeInput(body)
      if (input?._tag !== "Some") return answer(response, 400, { ok: false, error: "the input cannot be read" })
      answer(response, 200, yield* permits.withPermits(1)(perform(task, input.value)))
    })

    const server = yield* Effect.acquireRelease(
      Effect.callback<Server, NodeServerError>((resume) => {
        const server = createServer({
          ...Psk.server(PSK_IDENTITY, () => keyIn(options.keyFile)),
          headersTimeout: PATIENCE,
          requestTimeout: PATIENCE,
          handshakeTimeout: PATIENCE
        })
        server.maxConnections = CONNECTIONS
        const held = new Map<string, number>()
        server.on("connection", (socket) => {
          const address = socket instanceof Socket ? socket.remoteAddress ?? "" : ""
          const count = (held.get(address) ?? 0) + 1
          if (count > CONNECTIONS_OF_ONE) {
            socket.destroy()
            return
          }
          held.set(address, count)
          socket.once("close", () => {
            const left = (held.get(address) ?? 1) - 1
            if (left === 0) held.delete(address)
            else held.set(address, left)
          })
        })
        server.once(
          "error",
          (cause: Error) => resume(Effect.fail(new NodeServerError({ port: options.port, detail: cause.message })))
        )
        server.listen(
          { port: options.port, ...(options.address === undefined ? {} : { host: options.address }) },
          () => resume(Effect.succeed(server))
        )
      }),
      (server) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    server.on("request", (request, response) => {
      const fiber = run(handle(request, response))
      response.once("close", () => {
        if (!response.writableFinished) fiber.interruptUnsafe()
      })
    })
    const address = server.address()
    return typeof address === "object" && address !== null ? address.port : options.port
  }
)
