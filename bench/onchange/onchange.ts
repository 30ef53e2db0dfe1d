/**
 * `npm run bench:onchange`: from a change in a cluster to the fleet's view of it: a node is cordoned and uncordoned, and the
 * time until the master tells that the cell has changed is taken, over the agent, the link and the master.
 *
 * Beside it stand what no program can be faster than (a plain watch of the same nodes, in the same process) and what polling
 * once a minute would take. Figures are of this machine and its load, which is printed: compare what stands side by side.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Clock, Console, Duration, Effect, Layer, Queue, Stream } from "effect"
import { loadavg } from "node:os"
import { SPACING } from "../../src/agent/debounce.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Node } from "../../src/infra/kube/resources/core.ts"
import { TestCluster, eventually } from "../../test/clusters/TestCluster.ts"
import * as Embedded from "../../test/fleet/embedded.ts"

const CHANGES = 60

/** Starts of a check that runs once a minute are on average half of that after a change, and a whole one at worst. */
const POLLING = { p50: 30_000, p99: 59_400 }

const at = (times: ReadonlyArray<number>, share: number): number =>
  times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN

const program = Effect.gen(function*() {
  const { cluster } = yield* TestCluster
  const kube = yield* Kube
  const node = cluster.nodes[1]?.name ?? ""
  const { fleet } = yield* Embedded.start({
    kubernetes: { checks: [{ name: "nodes", use: "k8s.node.readiness" }], policy: { interval: Duration.hours(1) } }
  })
  yield* eventually(
    fleet.matrix({ filter: {} }),
    ({ rows }) => rows[0]?.cells.some(({ lastRun, status }) => status === "PASS" && lastRun !== undefined) === true
  )

  const seen = yield* Queue.unbounded<readonly [cordoned: boolean, at: number]>()
  yield* Effect.forkScoped(
    kube.reflect(Node, { fieldSelector: `metadata.name=${node}` }).pipe(
      Stream.runForEach((event) =>
        event._tag === "Synced"
          ? Effect.void
          : Effect.flatMap(
            Clock.currentTimeMillis,
            (now) => Queue.offer(seen, [event.object.spec.unschedulable, now] as const)
          )
      )
    )
  )
  const shown = yield* Queue.unbounded<readonly [cordoned: boolean, at: number]>()
  yield* Effect.forkScoped(
    fleet.transitions({ filter: {} }).pipe(
      Stream.runForEach(({ code }) =>
        Effect.flatMap(
          Clock.currentTimeMillis,
          (now) => Queue.offer(shown, [code === "NODE_CORDONED", now] as const)
        )
      )
    )
  )
  // Both are listening by then.
  yield* Effect.sleep("2 seconds")

  const until = Effect.fnUntraced(function*(
    queue: Queue.Dequeue<readonly [cordoned: boolean, at: number]>,
    cordoned: boolean
  ) {
    while (true) {
      const [is, time] = yield* Queue.take(queue)
      if (is === cordoned) return time
    }
  })

  const watch: Array<number> = []
  const view: Array<number> = []
  for (let change = 0; change < CHANGES; change++) {
    const unschedulable = change % 2 === 0
    const from = yield* Clock.currentTimeMillis
    yield* kube.patch(Node, { name: node }, { spec: { unschedulable } })
    const answered = yield* Clock.currentTimeMillis
    watch.push(Math.max(0, (yield* until(seen, unschedulable)) - from))
    view.push((yield* until(shown, unschedulable)) - from)
    if (change % 10 === 9) {
      yield* Console.error(`${change + 1} of ${CHANGES}, the last took ${answered - from} ms to make`)
    }
    // More often than its spacing no check runs, and what that costs is not what is measured here.
    yield* Effect.sleep(SPACING + 500)
  }

  yield* Console.log(`load ${loadavg().map((value) => value.toFixed(1)).join(" ")}`)
  yield* Console.log(`${CHANGES} cordons and uncordons, from the request on, in ms:`)
  const rows = {
    "a plain watch": { p50: at(watch, 0.5), p99: at(watch, 0.99), max: at(watch, 1) },
    "the fleet's view": { p50: at(view, 0.5), p99: at(view, 0.99), max: at(view, 1) },
    "polling once a minute": { ...POLLING, max: 60_000 }
  }
  yield* Console.table(rows)
  yield* Console.log(
    `polling : onChange, p50 ${(POLLING.p50 / at(view, 0.5)).toFixed(0)} : 1, p99 ${
      (POLLING.p99 / at(view, 0.99)).toFixed(0)
    } : 1; within a second: ${view.filter((time) => time <= 1000).length} of ${CHANGES}`
  )
})

program.pipe(
  Effect.scoped,
  Effect.provide(Layer.merge(TestCluster.layer({ name: "bench-onchange", nodes: 2 }), NodeServices.layer)),
  NodeRuntime.runMain
)
