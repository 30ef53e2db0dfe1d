/** An installed agent, whose place among others hangs on its API server, tells that this is down all the same. */
import { assert, layer } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { apiHealth } from "../../src/probes/kubernetes/apiHealth.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { installCrds } from "../clusters/installCrds.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import * as TcpProxy from "../kube/TcpProxy.ts"
import { fault } from "../proofs/proof.ts"
import { cellOf, masterHost, said, shown, startAgent } from "./fleetProcesses.ts"

/** Of the Probes that a master gives away. */
const namespace = "kubeprober"
const base = temporaryFolder()

/** Longer than a leader without a master goes on when its Lease cannot be renewed (30 s). */
const OUTAGE = "40 seconds"

/** Of an API server that is well, but listens on this machine alone: Kubernetes writes no endpoints for a loopback address. */
const WELL = "WARN API_NO_ENDPOINTS"

layer(TestCluster.layer({ name: "api-down" }), { excludeTestServices: true, timeout: "120 seconds" })(
  "an installed agent",
  (it) => {
    const install = Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      yield* installCrds
      // With the identity that an earlier try may have left there.
      yield* kubectl("delete", "namespace", namespace, "--ignore-not-found")
      yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } })
    })

    it.effect(
      fault(
        apiHealth,
        "API_DOWN",
        "an installed agent tells it for as long as it is so, unless another agent can do more"
      ),
      () =>
        Effect.gen(function*() {
          const { cluster } = yield* TestCluster
          // A master that knows nothing of an earlier try.
          const folder = mkdtempSync(join(base, "try-"))
          yield* install
          const master = yield* masterHost(folder)
          yield* master.start
          yield* master.apply("kubernetes", {
            clusterSelector: {},
            checks: [{ name: "api", use: "k8s.api.health" }, { name: "child", use: "k8s.finalizers.stuck" }],
            policy: { interval: "5s" }
          })
          const cells = (api: string, child: string, since: DateTime.Utc) =>
            master.until(
              (rows) =>
                [["api", api], ["child", child]].every(([checker = "", wanted]) => {
                  const cell = cellOf(rows, "edge", checker)
                  return cell !== undefined && cell.freshness === "fresh" && shown(cell) === wanted &&
                    cell.lastRun !== undefined && DateTime.isGreaterThan(cell.lastRun, since)
                }),
              { every: "1 second" }
            )

          const way = yield* TcpProxy.make(cluster.server)
          const kubeconfig = join(folder, "kubeconfig")
          writeFileSync(kubeconfig, readFileSync(cluster.kubeconfigPath, "utf8").replace(cluster.server, way.server))
          const agent = yield* startAgent(master, {
            state: join(folder, "first"),
            kubeconfig,
            tokenFile: yield* master.add("edge"),
            namespace
          })
          yield* cells(WELL, "PASS", yield* DateTime.now)

          yield* cluster.components.apiServer.stop
          const stopped = yield* DateTime.now
          yield* Effect.ensuring(
            cells("ERROR API_DOWN", "UNKNOWN PARENT_FAILED", DateTime.addDuration(stopped, OUTAGE)),
            Effect.orDie(cluster.components.apiServer.start)
          )
          yield* said(agent, /the lease is renewed again/u, { within: "60 seconds" })
          yield* cells(WELL, "PASS", yield* DateTime.now)
          assert.notInclude(agent.output(), "no longer leading")
          assert.lengthOf(agent.output().match(/\blinked\b/gu) ?? [], 1, "the link did not break")

          // Only this one has lost its way there: another agent leads then, and the two do not take the link in turns.
          mkdirSync(join(folder, "second"))
          const second = yield* startAgent(master, {
            state: join(folder, "second"),
            kubeconfig: cluster.kubeconfigPath,
            namespace
          })
          way.freeze(true)
          yield* said(second, /\bregistered\b/u, { within: "90 seconds" })
          yield* said(agent, /no longer leading/u)
          yield* cells(WELL, "PASS", yield* DateTime.now)
          assert.lengthOf(second.output().match(/\blinked\b/gu) ?? [], 1, second.output())
        }),
      400_000
    )
  }
)
