/** What changes in a cluster is in the fleet's view although the next turn of its Probe is an hour away. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as Embedded from "./embedded.ts"

const hourly = Duration.hours(1)

layer(Layer.merge(TestCluster.layer({ name: "onchange", nodes: 2 }), NodeServices.layer), {
  excludeTestServices: true,
  timeout: "180 seconds"
})("changes", (it) => {
  it.effect("a cordon is shown, and gone with it, by runs that a watch has triggered", () =>
    Effect.gen(function*() {
      const { cluster, kubectl } = yield* TestCluster
      const node = cluster.nodes[1]?.name ?? ""
      // A try that has failed may have left it cordoned.
      yield* kubectl("uncordon", node)
      const { fleet, name } = yield* Embedded.start({
        kubernetes: {
          checks: [
            { name: "nodes", use: "k8s.node.readiness" },
            { name: "deletions", use: "k8s.finalizers.stuck" }
          ],
          policy: { interval: hourly }
        }
      })
      const cell = (checker: string) =>
        Effect.map(fleet.matrix({ filter: {} }), ({ rows }) => rows[0]?.cells.find((cell) => cell.checker === checker))
      const shows = (code: string | undefined) =>
        eventually(cell("nodes"), (found) => found?.lastRun !== undefined && found.code === code, {
          within: "30 seconds"
        })
      yield* shows(undefined)
      const quiet = yield* eventually(cell("deletions"), (found) => found?.lastRun !== undefined)
      const { probe } = (yield* cell("nodes")) ?? assert.fail("there is a cell")
      const entries = Effect.map(
        fleet.history({ cluster: name, probe, checker: "nodes" }),
        ({ entries }) => entries.map(({ record }) => record)
      )
      yield* kubectl("cordon", node)
      const cordoned = yield* shows("NODE_CORDONED")
      assert.include(cordoned?.message, node)
      yield* kubectl("uncordon", node)
      yield* shows(undefined)

      const records = yield* eventually(entries, (found) => found.length >= 2, { within: "10 seconds" })
      const triggers = records.map(({ report, trigger }) => [report.status, trigger])
      assert.deepInclude(triggers, ["INFO", "watch"])
      assert.deepInclude(triggers, ["PASS", "watch"])
      // The check that watches something else has not run again, and says what it said.
      const after = yield* cell("deletions")
      assert.deepStrictEqual(after?.lastRun, quiet?.lastRun)
      assert.strictEqual(after?.freshness, "fresh")
    }).pipe(Effect.scoped))
})
