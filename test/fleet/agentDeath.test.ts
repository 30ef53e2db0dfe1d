/** An agent that dies is noticed, and is back by itself when it is started again. */
import { assert, layer } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { mkdtempSync } from "node:fs"
import { join } from "node:path"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import { masterHost, startAgent } from "./fleetProcesses.ts"

const folders = temporaryFolder()

/** How long a dead agent's results may still be shown as they were; five times less is usual. */
const NOTICED_WITHIN = 45_000

layer(TestCluster.layer({ name: "death" }), { excludeTestServices: true, timeout: "120 seconds" })(
  "on a real cluster",
  (it) => {
    it.effect(
      "what a killed agent said is never green any more, until it is started again",
      () =>
        Effect.gen(function*() {
          const { kubeconfigPath: kubeconfig } = yield* LocalCluster
          const folder = mkdtempSync(join(folders, "try-"))
          const master = yield* masterHost(folder)
          yield* master.start
          yield* master.apply("api", {
            clusterSelector: {},
            checks: [{ name: "health", use: "k8s.api.health" }],
            policy: { interval: "5s" }
          })
          const state = join(folder, "agent")
          const agent = yield* startAgent(master, { state, kubeconfig, tokenFile: yield* master.add("edge-1") })
          const green = master.until(([row]) =>
            row !== undefined && row.linked && row.status === "PASS" && row.cells.length === 1 &&
            row.cells.every((cell) => cell.status === "PASS" && cell.freshness === "fresh")
          )
          yield* green

          yield* agent.kill
          const killed = yield* Clock.currentTimeMillis
          let lastGreen = killed
          let noticed: number | undefined
          // Asked all the time, and for a while after it was noticed: it must not come back.
          while ((yield* Clock.currentTimeMillis) < (noticed ?? killed + NOTICED_WITHIN) + 5_000) {
            const { rows } = yield* master.look
            const now = yield* Clock.currentTimeMillis
            if (rows === undefined) continue
            const [row] = rows
            assert.isDefined(row)
            assert.isAbove(row.cells.length, 0)
            if (row.status === "PASS" || row.cells.some((cell) => cell.status === "PASS")) {
              assert.isUndefined(noticed, "what was noticed is forgotten")
              lastGreen = now
            } else if (noticed === undefined && !row.linked) {
              assert.deepStrictEqual(row.cells.map((cell) => [cell.status, cell.freshness]), [[
                "UNKNOWN",
                "unreachable"
              ]])
              noticed = now
            }
          }
          assert.isDefined(noticed, "the death was never noticed")
          assert.isBelow(lastGreen - killed, NOTICED_WITHIN)
          // With --fail-on a fleet that cannot be vouched for is no success.
          assert.strictEqual((yield* master.run("status", "--fail-on", "error")).code, 2)
          const once = yield* master.run("once", "api", "--timeout", "5s")
          assert.strictEqual(once.code, 2, once.stdout)
          assert.match(once.stdout, /edge-1 unreachable/u)

          // The token has been used; the certificate in the state folder is enough.
          yield* startAgent(master, { state, kubeconfig })
          yield* green
        }),
      300_000
    )
  }
)
