/** Compressed answers of which no more is decoded than is read. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, type Scope } from "effect"
import * as Http from "node:http"
import { Readable, Writable } from "node:stream"
import * as Zlib from "node:zlib"
import { vi } from "vitest"
import { service } from "../../src/infra/net/HttpCallNode.ts"

const serving = Effect.fnUntraced(function*(listener: Http.RequestListener) {
  const server = Http.createServer(listener)
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
  const address = server.address()
  return new URL(`http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/`)
})

/** The next decoder that an answer is led into while the scope lasts. */
const nextDecoder: Effect.Effect<Deferred.Deferred<Writable>, never, Scope.Scope> = Effect.gen(function*() {
  const made = yield* Deferred.make<Writable>()
  const { pipe } = Readable.prototype
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      vi.spyOn(Http.IncomingMessage.prototype, "pipe").mockImplementation(
        function(this: Http.IncomingMessage, decoder, options) {
          const led = pipe.call(this, decoder, options)
          if (decoder instanceof Writable) Deferred.doneUnsafe(made, Effect.succeed(decoder))
          return led
        }
      )
    ),
    (spy) => Effect.sync(() => spy.mockRestore())
  )
  return made
})

const MAXIMUM = 1 << 20
const ask = (url: URL) =>
  service.send({ url, method: "GET", redirects: 0, timeout: "60 seconds", maximumBody: MAXIMUM })

/** 200 MB of zeros, a few hundred bytes long. */
const bomb = Effect.sync(() =>
  Zlib.brotliCompressSync(Buffer.alloc(200_000_000), {
    params: { [Zlib.constants.BROTLI_PARAM_QUALITY]: 3, [Zlib.constants.BROTLI_PARAM_LGWIN]: 24 }
  })
)

const brotli = { "content-encoding": "br" }

describe("a compressed answer", () => {
  it.live("is decoded up to what is kept of it, and no further", () =>
    Effect.gen(function*() {
      const body = yield* bomb
      const url = yield* serving((_, response) => response.writeHead(200, brotli).end(body))
      const made = yield* nextDecoder
      const answer = yield* ask(url)
      assert.isTrue(answer.truncated)
      assert.strictEqual(answer.body.length, MAXIMUM)
      assert.isTrue((yield* Deferred.await(made)).destroyed)
    }).pipe(Effect.scoped), 60_000)

  it.live("is decoded no further when nobody waits for it any more", () =>
    Effect.gen(function*() {
      const body = Zlib.brotliCompressSync(Buffer.alloc(1000))
      // Never ended.
      const url = yield* serving((_, response) => response.writeHead(200, brotli).write(body.subarray(0, -1)))
      const made = yield* nextDecoder
      const asking = yield* Effect.forkChild(ask(url))
      const decoder = yield* Deferred.await(made)
      assert.isFalse(decoder.destroyed)
      yield* Fiber.interrupt(asking)
      assert.isTrue(decoder.destroyed)
    }).pipe(Effect.scoped), 60_000)

  it.live("that is whole is read whole", () =>
    Effect.gen(function*() {
      const text = "as it was ".repeat(1000)
      const url = yield* serving((_, response) => response.writeHead(200, brotli).end(Zlib.brotliCompressSync(text)))
      const answer = yield* ask(url)
      assert.strictEqual(answer.body, text)
      assert.isFalse(answer.truncated)
    }).pipe(Effect.scoped), 60_000)
})
