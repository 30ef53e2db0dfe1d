import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { NodeResourcesConfig, judge, nodeResources } from "../../src/probes/infrastructure/nodeResources.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { NODE_AGENT_NAMESPACE } from "../../src/probes/workers/Nodes.ts"
import { mountOf, mountsIn } from "../../src/probes/workers/tasks/mounts.ts"
import { type NodeResources, stalledPercent } from "../../src/probes/workers/tasks/nodeResources.ts"
import * as NodeAgents from "../clusters/NodeAgents.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const roomy = {
  mount: "/var",
  type: "ext4",
  readOnly: false,
  essential: true,
  bytes: 100,
  bytesFree: 50,
  inodes: 100,
  inodesFree: 50
}

const CONNTRACK_MAX = "/proc/sys/net/netfilter/nf_conntrack_max"

const says = (resources: Partial<NodeResources>, config: typeof NodeResourcesConfig.Encoded = {}) =>
  judge(Schema.decodeSync(NodeResourcesConfig)(config), "a", { fileSystems: [roomy], leftOut: 0, ...resources })
    .map(({ code }) => code)

describe("judging a node's resources", () => {
  it("goes by what is free, at the limit in its favour", () => {
    const free = (bytesFree: number, inodesFree: number) => says({ fileSystems: [{ ...roomy, bytesFree, inodesFree }] })
    assert.deepStrictEqual(free(15, 15), [])
    assert.deepStrictEqual(free(14, 50), ["DISK_ALMOST_FULL"])
    assert.deepStrictEqual(free(5, 50), ["DISK_ALMOST_FULL"])
    assert.deepStrictEqual(free(4, 14), ["DISK_FULL", "INODES_ALMOST_USED"])
    assert.deepStrictEqual(free(50, 4), ["INODES_USED"])
  })

  it("asks nothing of file systems without a number of inodes, of images, and of what is to be ignored", () => {
    assert.deepStrictEqual(says({ fileSystems: [{ ...roomy, inodes: 0, inodesFree: 0 }] }), [])
    const full = { ...roomy, bytesFree: 0, inodesFree: 0 }
    assert.deepStrictEqual(says({ fileSystems: [{ ...full, readOnly: true, essential: false }] }), [])
    assert.deepStrictEqual(says({ fileSystems: [full] }, { ignoreMounts: ["/va*"] }), [])
  })

  it("needs to write where the kubelet does, but not to the root of an immutable system", () => {
    assert.deepStrictEqual(says({ fileSystems: [{ ...roomy, readOnly: true }] }), ["FILE_SYSTEM_READ_ONLY"])
    assert.deepStrictEqual(says({ fileSystems: [{ ...roomy, readOnly: true, mount: "/" }] }), [])
  })

  it("goes by what is used of tables", () => {
    const use = (used: number) => ({ used, limit: 100 })
    assert.deepStrictEqual(says({ connections: use(75), files: use(75), tasks: use(75) }), [])
    assert.deepStrictEqual(says({ connections: use(76), files: use(76), tasks: use(76) }), [
      "CONNECTIONS_ALMOST_USED",
      "FILES_ALMOST_USED",
      "TASKS_ALMOST_USED"
    ])
    assert.deepStrictEqual(says({ connections: use(91), files: use(91), tasks: use(91) }), [
      "CONNECTIONS_USED",
      "FILES_USED",
      "TASKS_USED"
    ])
    assert.deepStrictEqual(says({ stalls: { memory: 41, io: 40 } }), ["NODE_STALLED"])
  })
})

describe("what a node tells of itself", () => {
  it("is on the last mount of the longest path", () => {
    const mounts = mountsIn(
      "/dev/a / ext4 rw 0 0\n/dev/b /var ext4 rw 0 0\n/dev/c /var/lib/my\\040disk xfs ro,noatime 0 0\n/dev/d /var xfs ro 0 0\n"
    )
    assert.strictEqual(mountOf(mounts, "/etc")?.source, "/dev/a")
    assert.strictEqual(mountOf(mounts, "/var/lib/kubelet")?.source, "/dev/d")
    assert.strictEqual(mountOf(mounts, "/variety")?.source, "/dev/a")
    assert.deepStrictEqual(mountOf(mounts, "/var/lib/my disk/x"), {
      source: "/dev/c",
      path: "/var/lib/my disk",
      type: "xfs",
      readOnly: true
    })
  })

  it("reads pressure", () => {
    const text = "some avg10=9.00 avg60=8.00 avg300=7.00 total=1\nfull avg10=1.00 avg60=2.00 avg300=3.25 total=1\n"
    assert.strictEqual(stalledPercent(text), 3.25)
    assert.strictEqual(stalledPercent("some avg10=9.00 avg60=8.00 avg300=7.00 total=1\n"), 0)
  })
})

/** A machine for tests may be short of what it shares with other tests; only what the tests make is judged. */
const lenient = { freeWarn: 2, freeError: 1, useWarn: 98, useError: 99, stalledWarn: 99 }

layer(NodeAgents.layer({ name: "resources", nodes: 2 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "infra.node.resources",
  (it) => {
    const second = Effect.map(TestCluster, ({ cluster }) => {
      const node = cluster.nodes[1]
      if (node === undefined) throw new Error("the cluster has two nodes")
      return node
    })

    const check = (config: typeof NodeResourcesConfig.Encoded = {}) =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        return yield* run(Probe.configure(nodeResources, { ...lenient, ...config }), {
          world: yield* NodeAgents.NodeWorld
        })
      })

    const until = (code: string | undefined, config?: typeof NodeResourcesConfig.Encoded) =>
      eventually(check(config), (report) => report.code === code)

    /** Broken on the second node by shell commands, until healed by others; the first node must not be blamed. */
    const broken = Effect.fnUntraced(function*(
      code: string,
      make: ReadonlyArray<string>,
      heal: ReadonlyArray<string>,
      config?: typeof NodeResourcesConfig.Encoded
    ) {
      const { exec, name } = yield* second
      const sh = (lines: ReadonlyArray<string>) => Effect.orDie(exec(["sh", "-c", lines.join(" && ")]))
      yield* Effect.acquireUseRelease(
        sh(make),
        () =>
          Effect.gen(function*() {
            const { findings } = yield* until(code, config)
            assert.deepStrictEqual(findings.map(({ code, subject }) => [code, subject?.name]), [[code, name]])
          }),
        () => sh(heal)
      )
      yield* until(undefined, config)
    })

    it.effect(healthy(nodeResources, "passes with its declared needs alone"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const report = yield* run(Probe.configure(nodeResources, lenient), {
          world: yield* NodeAgents.NodeWorld,
          as: yield* userWith(nodeResources.needs, { optional: false })
        })
        assert.strictEqual(report.status, "PASS", report.message)
        assert.include(report.message, "2 of 2 nodes")
      }))

    it.effect(fault(nodeResources, "DISK_FULL", "a file system of one node is filled"), () =>
      broken("DISK_FULL", [
        "mkdir -p /var/lib/small",
        "mount -t tmpfs -o size=1m small /var/lib/small",
        "dd if=/dev/zero of=/var/lib/small/full bs=1k count=1020 2>/dev/null"
      ], ["umount /var/lib/small"]))

    it.effect(
      fault(nodeResources, "DISK_ALMOST_FULL", "a file system of one node is nearly filled"),
      () =>
        broken(
          "DISK_ALMOST_FULL",
          [
            "mkdir -p /var/lib/small",
            "mount -t tmpfs -o size=10m small /var/lib/small",
            "dd if=/dev/zero of=/var/lib/small/full bs=1M count=9 2>/dev/null"
          ],
          ["umount /var/lib/small"],
          { freeWarn: 15 }
        )
    )

    it.effect(
      fault(nodeResources, "INODES_USED", "a file system of one node gets more files than it has inodes"),
      () =>
        broken("INODES_USED", [
          "mkdir -p /var/lib/small",
          "mount -t tmpfs -o size=1m,nr_inodes=20 small /var/lib/small",
          "for i in $(seq 30); do touch /var/lib/small/$i 2>/dev/null || break; done"
        ], ["umount /var/lib/small"])
    )

    it.effect(
      fault(nodeResources, "INODES_ALMOST_USED", "a file system of one node gets nearly as many files"),
      () =>
        broken(
          "INODES_ALMOST_USED",
          [
            "mkdir -p /var/lib/small",
            "mount -t tmpfs -o size=1m,nr_inodes=100 small /var/lib/small",
            "for i in $(seq 90); do touch /var/lib/small/$i; done"
          ],
          ["umount /var/lib/small"],
          { freeWarn: 15 }
        )
    )

    it.effect(
      fault(nodeResources, "FILE_SYSTEM_READ_ONLY", "the logs of one node are mounted read-only"),
      () =>
        broken("FILE_SYSTEM_READ_ONLY", [
          "mount -t tmpfs -o size=1m logs /var/log",
          "mount -o remount,ro /var/log"
        ], ["umount /var/log"])
    )

    it.effect(
      fault(nodeResources, "CONNECTIONS_USED", "one node may track no more connections than it has"),
      () =>
        Effect.gen(function*() {
          const { exec, name } = yield* second
          // The limit is one for all network namespaces of the machine, and the count is each one's own: the node is made the
          // busiest by far, with a connection (UDP) to each of many ports, before the limit is lowered to a little more.
          const send = "for port in $(seq 10000 15999); do echo x > /dev/udp/127.0.0.1/$port; done"
          const before = readFileSync(CONNTRACK_MAX, "utf8")
          // They are to stay until the probe has looked, however late that is.
          yield* exec(["sysctl", "-w", "net.netfilter.nf_conntrack_udp_timeout=600"])
          yield* exec(["bash", "-c", send])
          const count = Number(yield* exec(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]))
          assert.isAbove(count, 5000)
          const config = { useWarn: 70, useError: 80 }
          yield* Effect.acquireUseRelease(
            Effect.sync(() => writeFileSync(CONNTRACK_MAX, String(Math.ceil(count * 1.03)))),
            () =>
              Effect.gen(function*() {
                const { findings } = yield* until("CONNECTIONS_USED", config)
                assert.deepStrictEqual(findings.map(({ code, subject }) => [code, subject?.name]), [
                  ["CONNECTIONS_USED", name]
                ])
              }),
            () => Effect.sync(() => writeFileSync(CONNTRACK_MAX, before))
          )
          yield* until(undefined, config)
        })
    )

    it.effect(blind(nodeResources, "ACCESS_MISSING", "without one of its rights"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        for (const lacking of nodeResources.needs.filter((need) => !need.optional)) {
          const report = yield* run(nodeResources, {
            world: yield* NodeAgents.NodeWorld,
            as: yield* userWith(nodeResources.needs.filter((need) => need !== lacking))
          })
          assert.strictEqual(report.code, "ACCESS_MISSING")
          assert.include(report.message, Needs.describe(lacking))
        }
      }))

    it.effect(
      blind(nodeResources, "NODE_SILENT", "the agent of one node is stopped, or none has the key"),
      () =>
        Effect.gen(function*() {
          const { cluster, kubectl, run } = yield* TestCluster
          const { name } = yield* second
          const stranger = ProbeWorld.make({ nodes: { key: Effect.succeed(new Uint8Array(32)), joiningFor: 0 } })
          const refused = yield* run(nodeResources, { world: stranger })
          assert.deepStrictEqual(refused.findings.map(({ code }) => code), ["NODE_SILENT", "NODE_SILENT"])
          assert.include(refused.message, "it does not hold this agent's key")

          yield* kubectl("label", "node", name, "agents=no")
          const patch = (affinity: unknown) =>
            kubectl(
              "patch",
              "daemonset",
              "kubeprober-node",
              "-n",
              NODE_AGENT_NAMESPACE,
              "--type=merge",
              "-p",
              JSON.stringify({
                spec: { template: { spec: { affinity } } }
              })
            )
          yield* Effect.acquireUseRelease(
            patch({
              nodeAffinity: {
                requiredDuringSchedulingIgnoredDuringExecution: {
                  nodeSelectorTerms: [{ matchExpressions: [{ key: "agents", operator: "DoesNotExist" }] }]
                }
              }
            }),
            () =>
              Effect.gen(function*() {
                const { findings } = yield* eventually(
                  check(),
                  ({ findings }) =>
                    // The change of the DaemonSet replaces the other node's agent too, which is silent meanwhile.
                    findings.length === 1 && findings[0]?.evidence?.["why"] === "missing"
                )
                assert.deepStrictEqual(findings.map(({ subject }) => subject?.name), [name])
              }),
            () => patch(null)
          )
          yield* until(undefined)
          assert.strictEqual(cluster.nodes.length, 2)
        }),
      180_000
    )
  }
)
