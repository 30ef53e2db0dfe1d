/** Questions that never leave: by an address or a name to which nothing can be sent. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { service } from "../../src/infra/net/DnsNode.ts"

const ask = (server: string) =>
  Effect.flip(service.ask({ server, port: 53, name: "shop", type: "A", protocol: "udp", timeout: "20 seconds" }))

describe("a question by UDP", () => {
  it.live("fails where the machine has no way to the server", () =>
    Effect.gen(function*() {
      // Broadcast is refused to sockets that did not ask for it, with or without a network.
      const { code, kind, stage } = yield* ask("255.255.255.255")
      assert.deepStrictEqual({ code, kind, stage }, { code: "EACCES", kind: "unreachable", stage: "connect" })
    }), 30_000)

  it.live("fails where the server is a name that nobody has", () =>
    Effect.gen(function*() {
      const { kind, stage } = yield* ask("nobody.invalid")
      assert.deepStrictEqual({ kind, stage }, { kind: "dns", stage: "connect" })
    }), 30_000)
})
