/**
 * The two blindnesses that any probe of the API has besides missing rights: an API server that does not answer, and
 * credentials it does not accept. For a file's cluster, which is not touched.
 */
import { assert } from "@effect/vitest"
import type * as Vitest from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import { blind } from "./proof.ts"

/** Reserved for nobody (RFC 6335, port 1 is tcpmux, long unused): a connection is refused at once. */
const NOBODY = "https://127.0.0.1:1"

/** Adds both tests of `probe` to a suite on a `TestCluster`. */
export const blindToAll = (it: Vitest.Vitest.MethodsNonLive<TestCluster>, probe: AnyProbe): void => {
  const connected = (server: string, token: string) =>
    Effect.flatMap(TestCluster, ({ cluster }) =>
      KubeHttp.make(KubeConnection.make({
        cluster: cluster.name,
        server,
        identity: { tls: { ca: cluster.caCertPem }, authorization: Redacted.make(`Bearer ${token}`) }
      })))

  it.effect(
    blind(probe, "API_UNREACHABLE", "is UNKNOWN when the API server does not answer"),
    () =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        const { blame, code, status } = yield* run(probe, { as: yield* connected(NOBODY, "any") })
        assert.deepStrictEqual({ blame, code, status }, {
          blame: "checker",
          code: "API_UNREACHABLE",
          status: "UNKNOWN"
        })
      })
  )

  it.effect(
    blind(probe, "UNAUTHENTICATED", "is UNKNOWN with credentials that are not accepted"),
    () =>
      Effect.gen(function*() {
        const { cluster, run } = yield* TestCluster
        const { blame, code, status } = yield* run(probe, { as: yield* connected(cluster.server, "nobody") })
        assert.deepStrictEqual({ blame, code, status }, {
          blame: "checker",
          code: "UNAUTHENTICATED",
          status: "UNKNOWN"
        })
      })
  )
}
