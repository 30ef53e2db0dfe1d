import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Budget } from "../../src/agent/Budget.ts"
import { DEFAULT_BUDGET } from "../../src/domain/ClusterBudget.ts"
import type { GatedRequest } from "../../src/infra/kube/KubeGate.ts"
import { type Pair, askingAtOnce, judge, mesh, sampleSize } from "../../src/probes/infrastructure/mesh.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { withoutServer } from "../agent/Checks.ts"
import * as Kills from "../clusters/Kills.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { WORKER_IMAGE } from "../clusters/workerImage.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"

describe("judging who reached whom", () => {
  const good = { connects: true, carries: true, sent: 100, echoed: 100, fits: true, p99Millis: 1, why: "" }
  const dead = { connects: false, carries: false, sent: 20, echoed: 0, fits: false, p99Millis: 0, why: "timeout" }
  /** All pairs of these nodes, changed where `change` says so. */
  const says = (nodes: string, change: (from: string, to: string) => Partial<Pair>) =>
    judge(
      { loss: 1, slow: Duration.millis(50) },
      [...nodes].flatMap((from) => [...nodes].map((to): Pair => ({ from, to, ...good, ...change(from, to) })))
    ).map(({ code, subject }) => `${code} ${subject?.name ?? ""}`.trim())
  const between = (a: string, b: string) => (from: string, to: string) =>
    from === a && to === b || from === b && to === a
  const around = (node: string) => (from: string, to: string) => from !== to && (from === node || to === node)

  it("has nothing to say when all is well", () => assert.deepStrictEqual(says("abc", () => ({})), []))

  it("tells a node that is cut off from a path that is broken", () => {
    assert.deepStrictEqual(says("abc", (...pair) => around("b")(...pair) ? dead : {}), ["NODE_CUT_OFF b"])
    assert.deepStrictEqual(says("abc", (...pair) => between("a", "b")(...pair) ? dead : {}), ["PATH_BROKEN a b"])
    assert.deepStrictEqual(says("abc", (from, to) => from === "a" && to === "b" ? dead : {}), ["PATH_BROKEN a b"])
    assert.deepStrictEqual(says("abcd", (from, to) => around("a")(from, to) || around("b")(from, to) ? dead : {}), [
      "NODE_CUT_OFF a",
      "NODE_CUT_OFF b"
    ])
    assert.deepStrictEqual(says("abc", (from, to) => from === to ? {} : dead), ["NETWORK_DOWN"])
    // Of two nobody can tell which one it is.
    assert.deepStrictEqual(says("ab", (from, to) => from === to ? {} : dead), ["PATH_BROKEN a b"])
  })

  it("does not blame the network for pods that are gone or kept apart", () => {
    assert.deepStrictEqual(says("abc", (_from, to) => to === "b" ? dead : {}), ["POD_SILENT"])
    assert.deepStrictEqual(says("abc", () => dead), ["POD_SILENT"])
    // A node that has lost everything is cut off all the same.
    assert.deepStrictEqual(says("abc", (from, to) => from === "b" || to === "b" ? dead : {}), ["NODE_CUT_OFF b"])
    assert.deepStrictEqual(says("abc", (from, to) => from === "b" && to === "b" ? dead : {}), ["NODE_APART b"])
  })

  it("allows a lost datagram of a hundred, and not two", () => {
    const lost = (echoed: number) => says("abc", (...pair) => between("a", "b")(...pair) ? { echoed } : {})
    assert.deepStrictEqual([lost(99), lost(98)], [[], ["PACKETS_LOST a b"]])
  })

  it("counts only time between nodes, not that within a busy one", () => {
    const slow = (own: number) => says("abc", (from, to) => ({ p99Millis: from === to ? own : 80 }))
    assert.deepStrictEqual([slow(1), slow(40)], [["PATH_SLOW"], []])
  })

  it("tells loss of any packets from loss of large ones", () => {
    const some = (change: Partial<Pair>) => says("abc", (...pair) => between("a", "b")(...pair) ? change : {})
    assert.deepStrictEqual(some({ carries: false, fits: false }), ["LARGE_PACKETS_LOST a b"])
    assert.deepStrictEqual(some({ fits: false }), ["LARGE_DATAGRAMS_LOST a b"])
    assert.deepStrictEqual(some({ echoed: 40, carries: false, fits: false }), ["PACKETS_LOST a b"])
    assert.deepStrictEqual(some({ echoed: 0, fits: false }), ["UDP_LOST a b"])
  })

  it.effect("has room in the budget of pods however many nodes there are, with another probe beside it", () =>
    Effect.gen(function*() {
      const budget = yield* Budget
      for (const [nodes, configured] of [[3, 6], [226, 6], [10_000, 6], [100, 16], [100, 50]] as const) {
        yield* Effect.scoped(Effect.gen(function*() {
          const session = (account: string) =>
            budget.session({ account, lane: "schedule", part: "", checks: 1, patience: 20_000 })
          const pod = (verb: "create" | "delete", name: string): GatedRequest => ({
            call: { verb, resource: "pods", namespace: "probes", name },
            stores: true,
            body: { apiVersion: "v1", kind: "Pod" }
          })
          const { admit } = yield* session("mesh")
          const answering = Array.from(
            { length: sampleSize(nodes, configured, DEFAULT_BUDGET.pods) },
            (_, at) => `${at}`
          )
          const asking = yield* Effect.forkChild(Effect.andThen(
            Effect.forEach(answering, (name) => admit(pod("create", `answers-${name}`))),
            Effect.forEach(
              answering,
              (name) =>
                Effect.andThen(
                  admit(pod("create", `asks-${name}`)),
                  Effect.andThen(Effect.sleep("1 second"), admit(pod("delete", `asks-${name}`)))
                ),
              { concurrency: askingAtOnce(answering.length, DEFAULT_BUDGET.pods) }
            )
          ))
          yield* TestClock.adjust("500 millis")
          const beside = yield* Effect.forkScoped(
            Effect.flatMap(session("other"), ({ admit }) => admit(pod("create", "beside")))
          )
          yield* TestClock.adjust(0)
          assert.isTrue(beside.pollUnsafe() !== undefined, `nothing else has a pod beside ${answering.length}`)
          yield* TestClock.adjust("10 seconds")
          assert.isTrue(asking.pollUnsafe() !== undefined, `${answering.length} have not all asked`)
          assert.isTrue(Exit.isSuccess(yield* Fiber.await(asking)))
        }))
        // New pods of an hour are limited too.
        yield* TestClock.adjust("1 hour")
      }
    }).pipe(Effect.provide(Budget.layer(DEFAULT_BUDGET)), withoutServer, Effect.scoped))

  it("looks at all nodes of small clusters, and at the square root of large ones", () => {
    assert.deepStrictEqual([3, 6, 30, 100, 10_000].map((nodes) => sampleSize(nodes, 6)), [3, 6, 6, 10, 50])
    assert.deepStrictEqual([16, 40, 4].map((pods) => sampleSize(10_000, 6, pods)), [10, 34, 2])
  })
})

layer(WorkerCluster.layer({ name: "mesh", nodes: 3 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "infra.net.mesh",
  (it) => {
    const { world } = WorkerCluster
    const three = Effect.map(TestCluster, ({ cluster: { nodes: [a, b, c] } }) => {
      if (a === undefined || b === undefined || c === undefined) throw new Error("the cluster has three nodes")
      return { a, b, c }
    })
    type LocalNode = Effect.Success<typeof three>["a"]

    /** Slow is what a test says is slow: two cores are shared by all of these nodes. */
    const look = (config: Partial<typeof mesh.config.Encoded> = {}) =>
      Effect.flatMap(TestCluster, ({ run }) => run(Probe.configure(mesh, { slow: "5s", ...config }), { world }))
    const found = (report: Effect.Success<ReturnType<typeof look>>) =>
      report.findings.map(({ code, subject }) => `${code} ${subject?.kind ?? ""} ${subject?.name ?? ""}`.trim())
    /** For as long as the scope. */
    const rule = ({ exec }: LocalNode, ...args: ReadonlyArray<string>) =>
      Effect.acquireRelease(
        Effect.orDie(exec(["iptables", "-I", "FORWARD", ...args])),
        () => Effect.orDie(exec(["iptables", "-D", "FORWARD", ...args]))
      )
    const from = (one: LocalNode, other: LocalNode) => ["-s", one.podCidr, "-d", other.podCidr]
    const path = (one: LocalNode, other: LocalNode) => [one.name, other.name].sort().join(" ")
    // Each fault is found alone, which says of those before it that they are not found any more.

    it.effect(healthy(mesh, "passes with its declared needs alone"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const as = yield* userWith(mesh.needs)
        const report = yield* run(Probe.configure(mesh, { slow: "5s" }), { world, as })
        assert.strictEqual(report.status, "PASS", JSON.stringify(report))
        assert.include(report.message, "6 paths between 3 of 3 nodes")
        assert.include(report.message, "1500 bytes")
      }))

    it.effect(blind(mesh, "ACCESS_MISSING", "without each of its rights"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        for (const lacking of mesh.needs.filter(({ optional }) => !optional)) {
          const report = yield* run(mesh, {
            world,
            as: yield* userWith(mesh.needs.filter((need) => need !== lacking))
          })
          assert.strictEqual(report.code, "ACCESS_MISSING")
          assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
        }
      }))

    it.effect(
      blind(mesh, "WORKER_UNAVAILABLE", "where no image is known for worker pods"),
      () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          assert.strictEqual((yield* run(mesh)).code, "WORKER_UNAVAILABLE")
        })
    )

    blindToAll(it, mesh)

    it.effect(
      blind(mesh, "POD_SILENT", "pods are kept apart on every node, as by a network policy"),
      () =>
        Effect.gen(function*() {
          const { cluster } = yield* TestCluster
          yield* Effect.scoped(Effect.gen(function*() {
            for (const node of cluster.nodes) {
              for (const { podCidr } of cluster.nodes) yield* rule(node, "-d", podCidr, "-j", "DROP")
            }
            assert.deepStrictEqual(found(yield* look()), ["POD_SILENT"])
          }))
        })
    )

    it.effect(
      fault(mesh, "NODE_CUT_OFF", "nothing is forwarded between the pods of one node and others"),
      () =>
        Effect.gen(function*() {
          const { a, b, c } = yield* three
          yield* Effect.scoped(Effect.gen(function*() {
            for (const other of [a, c]) {
              yield* rule(b, ...from(b, other), "-j", "DROP")
              yield* rule(b, ...from(other, b), "-j", "DROP")
            }
            assert.deepStrictEqual(found(yield* look()), [`NODE_CUT_OFF Node ${b.name}`])
          }))
        })
    )

    it.effect(fault(mesh, "NETWORK_DOWN", "nothing is forwarded between nodes"), () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        yield* Effect.scoped(Effect.gen(function*() {
          for (const node of cluster.nodes) yield* rule(node, "!", "-s", node.podCidr, "-d", node.podCidr, "-j", "DROP")
          assert.deepStrictEqual(found(yield* look()), ["NETWORK_DOWN"])
        }))
      }))

    it.effect(
      fault(mesh, "PATH_BROKEN", "connections are dropped between two nodes, one way and both"),
      () =>
        Effect.gen(function*() {
          const { a, b } = yield* three
          yield* Effect.scoped(Effect.gen(function*() {
            yield* rule(b, ...from(a, b), "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
            const oneWay = yield* look()
            assert.deepStrictEqual(found(oneWay), [`PATH_BROKEN Path ${path(a, b)}`])
            assert.include(oneWay.message, `from node ${a.name} to node ${b.name}`)
            yield* rule(b, ...from(a, b), "-j", "DROP")
            const bothWays = yield* look()
            assert.deepStrictEqual(found(bothWays), [`PATH_BROKEN Path ${path(a, b)}`])
            assert.include(bothWays.message, "both ways")
          }))
        })
    )

    it.effect(fault(mesh, "NODE_APART", "the pods of one node are kept from each other"), () =>
      Effect.gen(function*() {
        const { b } = yield* three
        yield* Effect.scoped(Effect.gen(function*() {
          yield* rule(b, ...from(b, b), "-j", "DROP")
          assert.deepStrictEqual(found(yield* look()), [`NODE_APART Node ${b.name}`])
        }))
      }))

    it.effect(
      fault(mesh, "PACKETS_LOST", "a third of the packets from one node to another is lost, one way"),
      () =>
        Effect.gen(function*() {
          const { a, b } = yield* three
          yield* Effect.scoped(Effect.gen(function*() {
            const third = ["-m", "statistic", "--mode", "random", "--probability", "0.33"]
            yield* rule(b, ...from(a, b), "-p", "udp", ...third, "-j", "DROP")
            const report = yield* look()
            assert.deepStrictEqual(found(report), [`PACKETS_LOST Path ${path(a, b)}`])
            assert.include(report.message, "both ways")
          }))
        })
    )

    it.effect(fault(mesh, "UDP_LOST", "UDP is dropped between two nodes"), () =>
      Effect.gen(function*() {
        const { a, b } = yield* three
        yield* Effect.scoped(Effect.gen(function*() {
          yield* rule(b, ...from(a, b), "-p", "udp", "-j", "DROP")
          assert.deepStrictEqual(found(yield* look()), [`UDP_LOST Path ${path(a, b)}`])
        }))
      }))

    it.effect(
      fault(mesh, "LARGE_PACKETS_LOST", "packets above 1,200 bytes are dropped silently between two nodes"),
      () =>
        Effect.gen(function*() {
          const { a, b } = yield* three
          yield* Effect.scoped(Effect.gen(function*() {
            yield* rule(b, ...from(a, b), "-m", "length", "--length", "1201:65535", "-j", "DROP")
            assert.deepStrictEqual(found(yield* look()), [`LARGE_PACKETS_LOST Path ${path(a, b)}`])
          }))
        })
    )

    it.effect(
      fault(mesh, "LARGE_DATAGRAMS_LOST", "one node's interface has a smaller MTU than all others"),
      () =>
        Effect.gen(function*() {
          const { b } = yield* three
          const mtu = (bytes: number) => Effect.orDie(b.exec(["ip", "link", "set", "eth0", "mtu", String(bytes)]))
          // TCP passes: these interfaces are virtual and hand over segments that are cut later.
          yield* Effect.acquireUseRelease(
            mtu(1000),
            () =>
              Effect.map(
                look(),
                (report) => assert.deepStrictEqual(found(report), [`LARGE_DATAGRAMS_LOST Node ${b.name}`])
              ),
            () => mtu(1500)
          )
        })
    )

    it.effect(
      fault(mesh, "PATH_SLOW", "the link of one node is narrow, so that packets wait"),
      () =>
        Effect.gen(function*() {
          const { b } = yield* three
          const shape = "tc qdisc add dev eth0 root tbf rate 128kbit burst 2kb latency 1500ms"
          yield* Effect.acquireUseRelease(
            Effect.orDie(b.exec(["sh", "-c", shape])),
            () =>
              Effect.gen(function*() {
                const slowOf = (report: Parameters<typeof found>[0]) =>
                  found(report).filter((one) => one.startsWith("PATH_SLOW"))
                // How much waits in the queue depends on how fast pods of a busy machine send; and other paths may be slow on
                // it for a moment.
                yield* eventually(
                  look({ slow: "100ms", loss: 100 }),
                  (report) => slowOf(report).length > 0 && slowOf(report).every((one) => one.includes(b.name)),
                  { within: "120 seconds" }
                )
              }),
            () => Effect.orDie(b.exec(["tc", "qdisc", "del", "dev", "eth0", "root"]))
          )
          yield* eventually(look(), ({ status }) => status === "PASS")
        }),
      300_000
    )

    it.effect(killed(mesh, "at each object it makes or deletes"), () =>
      Effect.gen(function*() {
        const boundaries = yield* Kills.atEachBoundary(mesh, { workerImage: WORKER_IMAGE, config: { nodes: 2 } })
        // A ConfigMap and its Secret, and two pods on each of two nodes.
        assert.isAtLeast(boundaries.creates, 6)
        assert.isAtLeast(boundaries.deletes, 5)
      }), 240_000)
  }
)
