/**
 * Calls over a link beside plain HTTP calls between the same two processes, and what an idle link costs its master.
 *
 * Run with `node --expose-gc`. Times are of this machine and its load: compare the columns of one run.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Duration, Effect, Redacted, Schema } from "effect"
import { Agent, get } from "node:http"
import { eventually, invite, startMaster, withState } from "../../test/link/fixture.ts"
import * as Program from "../../test/link/process.ts"

const SEQUENTIAL = 5000
const PARALLEL = 20_000
const IN_FLIGHT = 64
const IDLE_LINKS = 200

const agentsProgram = new URL("agents.main.ts", import.meta.url)
const unlimited = { linksPerSecond: 10_000, enrolmentsPerSecond: 10_000 }

const timed = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.timed(effect), ([duration]) => Duration.toMillis(duration))

/** p50 and p99 of calls one at a time, in microseconds. */
const sequential = Effect.fnUntraced(function*<E>(call: Effect.Effect<unknown, E>) {
  yield* Effect.replicateEffect(call, 500, { discard: true })
  const times = (yield* Effect.replicateEffect(timed(call), SEQUENTIAL)).sort((a, b) => a - b)
  const at = (share: number) => Math.round((times[Math.floor(times.length * share)] ?? 0) * 1000)
  return { "p50 us": at(0.5), "p99 us": at(0.99) }
})

/** Calls a second, so many in flight. */
const parallel = Effect.fnUntraced(function*<E>(call: Effect.Effect<unknown, E>) {
  const all = Effect.forEach(Array.from({ length: PARALLEL }), () => call, { concurrency: IN_FLIGHT, discard: true })
  return { [`calls/s, ${IN_FLIGHT} in flight`]: Math.round(PARALLEL / (yield* timed(all)) * 1000) }
})

const residentKiB = Effect.gen(function*() {
  for (let round = 0; round < 5; round++) {
    yield* Effect.sync(() => globalThis.gc?.())
    yield* Effect.sleep("200 millis")
  }
  return process.memoryUsage().rss / 1024
})

const agents = Effect.fnUntraced(function*(port: number, clusters: ReadonlyArray<string>) {
  const tokens = yield* Effect.forEach(clusters, (cluster) => Effect.map(invite(cluster), Redacted.value))
  const program = yield* Program.start(agentsProgram, { port, tokens })
  return yield* program.next(Schema.Struct({ http: Schema.Int }))
})

const program = Effect.gen(function*() {
  const master = yield* startMaster({ limits: unlimited })
  const { http } = yield* agents(master.port, ["bench"])
  const link = yield* eventually(master.links.find("bench"))
  const keepAlive = new Agent({ keepAlive: true, maxSockets: IN_FLIGHT })
  yield* Effect.addFinalizer(() => Effect.sync(() => keepAlive.destroy()))
  const plain = Effect.callback<string, Error>((resume) => {
    get({ host: "127.0.0.1", port: http, agent: keepAlive }, (response) => {
      let body = ""
      response.on("data", (chunk) => (body += String(chunk)))
      response.on("end", () => resume(Effect.succeed(body)))
    }).on("error", (cause) => resume(Effect.fail(cause)))
  })

  const rows = { "RPC over the link": link.control.describe(), "plain HTTP": plain }
  const table = yield* Effect.forEach(
    Object.entries<Effect.Effect<unknown, unknown>>(rows),
    ([name, call]) =>
      Effect.gen(function*() {
        return [name, { ...(yield* sequential(call)), ...(yield* parallel(call)) }] as const
      })
  )
  yield* Console.table(Object.fromEntries(table))

  const before = yield* residentKiB
  yield* agents(master.port, Array.from({ length: IDLE_LINKS }, (_, n) => `idle-${n}`))
  const growth = ((yield* residentKiB) - before) / IDLE_LINKS
  yield* Console.log(`resident memory of the master for each of ${IDLE_LINKS} idle links: ${Math.round(growth)} KiB`)
})

withState(program).pipe(NodeRuntime.runMain)
