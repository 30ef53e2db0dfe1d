/** `api.ready` in a pod whose API server starts anew meanwhile. */
import { assert, it } from "@effect/vitest"
import { Clock, ConfigProvider, Duration, Effect, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as Confirmation from "../../src/agent/Confirmation.ts"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import type { Finding } from "../../src/domain/Report.ts"
import { Credentials } from "../../src/infra/credentials/Credentials.ts"
import { type HttpAnswer, HttpCall } from "../../src/infra/net/HttpCall.ts"
import { NetError } from "../../src/infra/net/NetError.ts"
import { apiFromPod } from "../../src/probes/kubernetes/apiFromPod.ts"
import { apiReady } from "../../src/probes/workers/tasks/apiReady.ts"

const took = Duration.millis(5)
const answer: HttpAnswer = {
  url: new URL("https://10.96.0.1:443/readyz"),
  address: "10.96.0.1",
  status: 200,
  headers: {},
  body: "ok",
  truncated: false,
  redirects: 0,
  timings: { name: took, connect: took, handshake: took, firstByte: took, total: took },
  certificates: []
}

/** An API server that refuses connections until so many milliseconds have passed. */
const refusesFor = (millis: number) =>
  HttpCall.of({
    send: () =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        now >= millis
          ? Effect.succeed(answer)
          : Effect.fail(new NetError({ target: "api", kind: "refused", stage: "connect", detail: "refused" })))
  })

it.effect("a pod asks at moments apart, so that not all of them are that of a server that starts anew", () =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(apiReady.run({ times: 3, timeoutMillis: 5000, pauseMillis: 500 }))
    yield* TestClock.adjust("2 seconds")
    const { byAddress, byName } = yield* Fiber.join(running)
    assert.deepStrictEqual([byAddress.good, byName.good], [1, 1])
    assert.strictEqual(byAddress.failure?.kind, "refused")
  }).pipe(
    Effect.provideService(HttpCall, refusesFor(700)),
    Effect.provideService(Credentials, Credentials.of({ read: () => Effect.succeed(Redacted.make("secret")) })),
    Effect.provideService(
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnv({ env: { KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "443" } })
    ),
    Effect.provide(LocalWorld.context)
  ))

it("what a moment may explain is looked at twice, and not what a server says of itself", () => {
  const findings = Object.keys(apiFromPod.codes).map((code): Finding => ({
    code,
    status: "ERROR",
    blame: "target",
    message: ""
  }))
  const again = Confirmation.unconfirmed({ findings }, new Set(), apiFromPod.confirm).map(({ code }) => code)
  assert.includeMembers(again, ["API_UNREACHABLE_FROM_NODE", "API_UNREACHABLE_FROM_PODS", "API_UNRELIABLE_FROM_NODE"])
  assert.notInclude(again, "TOKEN_REJECTED")
  assert.notInclude(again, "API_UNTRUSTED")
})
