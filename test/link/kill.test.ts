import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, FileSystem, Redacted, References, Schema } from "effect"
import { lowPort } from "../net/lowPort.ts"
import { AT_ONCE, eventually, invite, startAgent, startMaster, withState } from "./fixture.ts"
import { MasterOutput } from "./masterInput.ts"
import * as Program from "./process.ts"

const agentProgram = new URL("agent.main.ts", import.meta.url)
const masterProgram = new URL("master.main.ts", import.meta.url)

describe("kill -9", () => {
  it.live("of the agent fails what is in flight at the master, and frees its place", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const token = Redacted.value(yield* invite("staging"))
      const agent = yield* Program.start(agentProgram, { port: master.port, token })
      assert.strictEqual(yield* agent.next(Schema.String), "linked")
      const link = yield* eventually(master.links.find("staging"))
      const inFlight = yield* Effect.forkScoped(Effect.flip(link.control.cancel({ run: "run-1" })))
      yield* link.control.describe()
      const before = yield* Clock.currentTimeMillis
      yield* agent.kill
      assert.strictEqual((yield* Fiber.join(inFlight))._tag, "LinkClosed")
      assert.isBelow((yield* Clock.currentTimeMillis) - before, AT_ONCE)
      yield* eventually(Effect.flip(master.links.find("staging")))
    })))

  it.live("of the master fails what is in flight at the agent, which links again once the master is back", () =>
    Effect.gen(function*() {
      const folder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
      const port = yield* lowPort
      const first = yield* Program.start(masterProgram, { folder, port, members: [] })
      const { member, token } = yield* first.next(MasterOutput)
      const { client } = yield* startAgent({ port, token: Redacted.make(token) })
      const session = yield* client.session
      const registration = { clusterUid: "u", boot: "b", versions: {}, capabilities: [] }
      const inFlight = yield* Effect.forkScoped(Effect.flip(session.uplink.register(registration)))
      yield* session.uplink.deliver({ epoch: 1, seq: 1, records: [] })
      yield* first.kill
      assert.strictEqual((yield* Fiber.join(inFlight))._tag, "LinkClosed")

      const second = yield* Program.start(masterProgram, { folder, port, members: [{ ...member, epoch: 1 }] })
      yield* second.next(MasterOutput)
      const again = yield* eventually(
        Effect.filterOrFail(client.session, (now) => now !== session, () => "the old session")
      )
      assert.deepStrictEqual(yield* again.uplink.deliver({ epoch: 2, seq: 1, records: [] }), { epoch: 2, seq: 1 })
    }).pipe(
      Effect.scoped,
      Effect.provide(NodeServices.layer),
      Effect.provideService(References.MinimumLogLevel, "None")
    ))
})
