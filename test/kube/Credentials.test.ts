import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { isTransient } from "../../src/infra/kube/KubeError.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import * as FaultServer from "./FaultServer.ts"

const REQUESTS = 40
const ref = { name: "a", namespace: "n" }
const object = FaultServer.answer(200, { metadata: ref })
const refused = FaultServer.status(401, { message: "Unauthorized" })

/** A client whose token is new after each refresh, and how often it was. */
const renewing = Effect.fnUntraced(function*(server: FaultServer.FaultServer) {
  let runs = 1
  const kube = yield* KubeHttp.make({
    ...server.connection,
    identity: Effect.sync(() => ({ tls: {}, authorization: Redacted.make(`Bearer ${runs}`) })),
    refresh: Effect.sync(() => {
      runs++
    })
  })
  const ask = Effect.forEach(
    Array.from({ length: REQUESTS }),
    () => Effect.result(kube.get(ConfigMap, ref)),
    { concurrency: "unbounded" }
  )
  return { ask, runs: () => runs }
})

describe("credentials the server refuses", () => {
  it.effect("are renewed once for all requests that were refused with them", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      const { ask, runs } = yield* renewing(server)
      server.script([(response) => (response.req.headers.authorization === "Bearer 1" ? refused : object)(response)])
      const results = yield* ask
      assert.strictEqual(runs(), 2)
      assert.isTrue(results.every((result) => result._tag === "Success"))
    }))

  it.effect("are renewed again only after a while when the renewed ones are refused too", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      const { ask, runs } = yield* renewing(server)
      server.script([refused])
      for (const result of yield* ask) {
        assert.strictEqual(result._tag === "Failure" && result.failure.reason._tag, "Unauthorized")
      }
      yield* ask
      assert.strictEqual(runs(), 2)
      yield* TestClock.adjust("6 seconds")
      yield* ask
      assert.strictEqual(runs(), 3)
    }))
})

describe("credentials that cannot be had", () => {
  it.effect("are not reported as the server's refusal", () =>
    Effect.gen(function*() {
      const server = yield* FaultServer.make
      const missing = new KubeConnection.CredentialsUnavailable({
        cluster: "c",
        source: "exec plugin aws",
        detail: "it is not installed"
      })
      const kube = yield* KubeHttp.make({ ...server.connection, identity: Effect.fail(missing) })
      const error = yield* Effect.flip(kube.get(ConfigMap, ref))
      assert.strictEqual(error.reason._tag, "CredentialsUnavailable")
      assert.strictEqual(error.message, `get configmaps/a in n on faulty: ${missing.message}`)
      assert.isFalse(isTransient(error))
      assert.strictEqual(server.asked.length, 0)
    }))
})
