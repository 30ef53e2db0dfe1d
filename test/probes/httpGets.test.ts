/** What a worker pod counts of a URL, asked of a real server on this machine. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Http from "node:http"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import { httpGets } from "../../src/probes/workers/tasks/httpGets.ts"

/** A Service of two pods: one answers from the start, the other, in turn with it, from the `from`th connection on. */
const service = (from: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly server: Http.Server }>((resume) => {
      let asked = 0
      const server = Http.createServer((_request, response) => {
        asked++
        response.end(JSON.stringify({ pod: asked >= from && asked % 2 === 0 ? "late" : "early" }))
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({
          url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/`,
          server
        }))
      })
    }),
    ({ server }) => Effect.sync(() => server.close())
  )

const TIMES = 4

const ask = Effect.fnUntraced(function*(from: number, first: (typeof httpGets.input.Type)["first"]) {
  const { url } = yield* service(from)
  return yield* httpGets.run({ url, times: TIMES, timeoutMillis: 5_000, ...(first === undefined ? {} : { first }) })
})

describe("http.gets", () => {
  it.live("begins to count when the routes to all pods are made, not to the first", () =>
    Effect.gen(function*() {
      const { good, pods } = yield* ask(TIMES + 3, { until: "answered", pods: 2, withinMillis: 60_000 })
      assert.strictEqual(good, TIMES)
      assert.deepStrictEqual(pods, { early: TIMES / 2, late: TIMES / 2 })
    }).pipe(Effect.scoped, Effect.provide(LocalWorld.context)))

  it.live("counts what there is when a pod is never heard", () =>
    Effect.gen(function*() {
      const { good, pods } = yield* ask(Infinity, { until: "answered", pods: 2, withinMillis: 500 })
      assert.strictEqual(good, TIMES)
      assert.deepStrictEqual(pods, { early: TIMES })
    }).pipe(Effect.scoped, Effect.provide(LocalWorld.context)))
})
