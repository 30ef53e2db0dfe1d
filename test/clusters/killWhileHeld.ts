/** A run of a probe that is killed while the API server asks a webhook whether a write of the run is admitted. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import * as ProbeProcess from "./ProbeProcess.ts"
import { TestCluster, eventually } from "./TestCluster.ts"
import type { WebhookServer } from "./WebhookServer.ts"

/** Longer than it takes to kill. */
const HELD = 10_000

/** `registered`: makes the API server ask, in the scope. Afterwards the write of the run named `killed` is given up. */
export const killWhileHeld = Effect.fnUntraced(function*<E, R>(
  probe: AnyProbe,
  { namespace, registered, server }: {
    readonly namespace: string
    readonly server: WebhookServer
    readonly registered: Effect.Effect<unknown, E, R>
  }
) {
  const { cluster } = yield* TestCluster
  yield* server.answer({ allowed: true, delay: HELD })
  yield* registered
  const process = yield* ProbeProcess.start(cluster, probe, { runId: "killed", namespace, expiresInMillis: 0 })
  yield* eventually(Effect.sync(() => server.waiting()), (waiting) => waiting > 0)
  assert.isTrue(yield* process.kill)
  yield* server.answer({ allowed: true })
  // The API server gives the request up when nobody waits for it.
  yield* eventually(Effect.sync(() => server.waiting()), (waiting) => waiting === 0)
}, Effect.scoped)
