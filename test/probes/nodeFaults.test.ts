/** What node agents see besides resources: how nodes are set up, whether their daemons live, what their kernels note. */
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { mkdirSync, rmdirSync } from "node:fs"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { Host, HostError } from "../../src/infra/host/Host.ts"
import { Node, Pod } from "../../src/infra/kube/resources/core.ts"
import { Event } from "../../src/infra/kube/resources/events.ts"
import { HttpCall } from "../../src/infra/net/HttpCall.ts"
import { NetError } from "../../src/infra/net/NetError.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import * as Baseline from "../../src/probes/infrastructure/nodeBaseline.ts"
import * as Kernel from "../../src/probes/infrastructure/nodeKernel.ts"
import * as Runtime from "../../src/probes/infrastructure/nodeRuntime.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { devicesIn } from "../../src/probes/workers/tasks/mounts.ts"
import { type NodeBaseline, nameServersIn, swapIn, sysctlPath } from "../../src/probes/workers/tasks/nodeBaseline.ts"
import { type NodeRuntime, nodeRuntime as runtimeTask } from "../../src/probes/workers/tasks/nodeRuntime.ts"
import { type Process, statOf } from "../../src/probes/workers/tasks/processes.ts"
import * as NodeAgents from "../clusters/NodeAgents.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"

const { nodeBaseline } = Baseline
const { nodeKernel } = Kernel
const { nodeRuntime } = Runtime

describe("judging how a node is set up", () => {
  const usual: NodeBaseline = {
    sysctls: {
      "net.ipv4.ip_forward": { value: "1" },
      "net.ipv6.conf.all.forwarding": { value: "1" },
      "net.bridge.bridge-nf-call-iptables": { value: "1" },
      "vm.overcommit_memory": { value: "1" },
      "vm.panic_on_oom": { value: "0" },
      "fs.inotify.max_user_instances": { value: "128" },
      "fs.inotify.max_user_watches": { value: "65536" }
    },
    modulesMissing: [],
    unitsRunning: [],
    systemd: true,
    bridged: true,
    swap: [],
    nameServers: { of: "node", addresses: ["127.0.0.53"] },
    kubelet: { file: "/etc/kubernetes/kubelet.yaml", failSwapOn: true, clusterDNS: ["10.96.0.10"] }
  }
  const says = (
    seen: Partial<NodeBaseline>,
    config: typeof Baseline.NodeBaselineConfig.Encoded = {},
    about: Partial<Baseline.About> = {}
  ) =>
    Baseline.judge(
      Schema.decodeSync(Baseline.NodeBaselineConfig)(config),
      { name: "a", ipv4: true, ipv6: true, ...about },
      { ...usual, ...seen },
      []
    ).map(({ code }) => code)
  const sysctl = (key: string, value: string) => ({ sysctls: { ...usual.sysctls, [key]: { value } } })

  it("asks of a node only what its pods need", () => {
    assert.deepStrictEqual(says({}), [])
    assert.deepStrictEqual(says(sysctl("net.ipv4.ip_forward", "0")), ["CRITICAL_SYSCTL_DIFFERS"])
    assert.deepStrictEqual(says(sysctl("net.ipv4.ip_forward", "0"), {}, { ipv4: false }), [])
    assert.deepStrictEqual(says(sysctl("net.ipv6.conf.all.forwarding", "0")), ["SYSCTL_DIFFERS"])
    assert.deepStrictEqual(says(sysctl("net.ipv6.conf.all.forwarding", "0"), {}, { ipv6: false }), [])
    assert.deepStrictEqual(says(sysctl("net.bridge.bridge-nf-call-iptables", "0")), ["SYSCTL_DIFFERS"])
    assert.deepStrictEqual(says({ ...sysctl("net.bridge.bridge-nf-call-iptables", "0"), bridged: false }), [])
    assert.deepStrictEqual(says(sysctl("vm.overcommit_memory", "2")), ["SYSCTL_DIFFERS"])
  })

  it("compares as it is told, and tells apart what is missing and what nobody may read", () => {
    assert.deepStrictEqual(
      [">=128", "<=127", "!=128", "128"].map((expectation) => Baseline.meets("128", expectation)),
      [true, false, false, true]
    )
    assert.isTrue(Baseline.meets("4096 87380", "4096\t87380"))
    const config = { expected: { "vm.max_map_count": ">=262144" } }
    assert.deepStrictEqual(says(sysctl("vm.max_map_count", "65530"), config), ["SYSCTL_DIFFERS"])
    assert.deepStrictEqual(says({ sysctls: { "vm.max_map_count": { lacking: "missing" } } }, config), [
      "SYSCTL_DIFFERS"
    ])
    assert.deepStrictEqual(says({ sysctls: { "vm.max_map_count": { lacking: "denied" } } }, config), [
      "SYSCTL_UNREADABLE"
    ])
    assert.throws(() => says({}, { expected: { "net/../../../etc/shadow": "1" } }), /without/)
  })

  it("goes by the kubelet for swap, unless it is told otherwise", () => {
    const swap = swapIn("Filename\tType\tSize\tUsed\tPriority\n/swapfile  file\t1024\t0\t-2\n")
    assert.deepStrictEqual(swap, ["/swapfile"])
    assert.deepStrictEqual(says({ swap }), ["SWAP_ON"])
    const kubelet = { file: "", clusterDNS: [], failSwapOn: false }
    assert.deepStrictEqual(says({ swap, kubelet }), [])
    assert.deepStrictEqual(says({ swap, kubelet }, { swap: "forbidden" }), ["SWAP_ON"])
    assert.deepStrictEqual(says({ swap }, { swap: "allowed" }), [])
  })

  it("finds loops and too few or too many name servers", () => {
    const addresses = nameServersIn("search a\nnameserver 10.0.0.1\n#nameserver 1.1.1.1\n nameserver\tfd00::1\n")
    assert.deepStrictEqual(addresses, ["10.0.0.1", "fd00::1"])
    const servers = (of: "node" | "pods", ...addresses: ReadonlyArray<string>) =>
      says({ nameServers: { of, addresses } })
    assert.deepStrictEqual(servers("node"), ["NO_NAME_SERVER"])
    assert.deepStrictEqual(servers("node", "1", "2", "3", "4"), ["TOO_MANY_NAME_SERVERS"])
    assert.deepStrictEqual(servers("node", "10.96.0.10"), ["NAME_SERVER_LOOP"])
    assert.deepStrictEqual(servers("pods", "127.0.0.53"), ["NAME_SERVER_LOOP"])
  })

  it("tells of modules, units and eviction", () => {
    assert.deepStrictEqual(says({ modulesMissing: ["ip_vs"] }), ["MODULE_MISSING"])
    const config = { units: ["chronyd.service"], forbiddenUnits: ["firewalld.service"] }
    assert.deepStrictEqual(says({ unitsRunning: ["firewalld.service"] }, config), ["UNIT_NOT_RUNNING", "UNIT_RUNNING"])
    assert.deepStrictEqual(says({ systemd: false }, config), ["UNITS_UNSEEN"])
    const kubelet = { file: "", failSwapOn: true, clusterDNS: [] }
    assert.deepStrictEqual(says({ kubelet: { ...kubelet, evictionHard: { "memory.available": "0%" } } }), [
      "EVICTION_OFF"
    ])
    const some = { "memory.available": "100Mi", "nodefs.available": "10%" }
    assert.deepStrictEqual(says({ kubelet: { ...kubelet, evictionHard: some } }), [])
    assert.strictEqual(sysctlPath("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward")
    assert.strictEqual(sysctlPath("net/ipv4/conf/eth0.1/forwarding"), "/proc/sys/net/ipv4/conf/eth0.1/forwarding")
  })
})

describe("judging a node's daemons", () => {
  const process = (name: string, more: Partial<Process> = {}): Process => ({
    pid: 7,
    name,
    state: "S",
    age: 1000,
    inPod: false,
    ...more
  })
  const all = [process("kubelet"), process("kube-proxy", { inPod: true }), process("containerd")]
  const well = { how: "well" } as const
  const refused = { how: "refused", detail: "ECONNREFUSED" } as const
  const silent = { how: "silent", detail: "timeout" } as const
  const says = (seen: Partial<NodeRuntime>, others = true, runtime = "containerd://1.7.2", meant = false) =>
    Runtime.judge("a", runtime, { kubelet: [well], kubeProxy: [well], processes: [all], ...seen }, {
      others,
      meant
    })
      .map(({ code }) => code)
  const without = (name: string) => all.filter((process) => process.name !== name)

  it("takes three misses in a row for a fault, and fewer for a hint", () => {
    assert.deepStrictEqual(says({}), [])
    assert.deepStrictEqual(says({ kubelet: [silent, well] }), ["KUBELET_MISSED"])
    assert.deepStrictEqual(says({ kubelet: [refused, silent, silent] }), ["KUBELET_UNWELL"])
    assert.deepStrictEqual(says({ kubeProxy: [silent, silent, silent] }), ["KUBE_PROXY_UNWELL"])
    assert.deepStrictEqual(says({ processes: [without("containerd"), all] }), ["CONTAINER_RUNTIME_MISSED"])
  })

  it("tells a daemon that is gone from one that does not serve its health, or not yet", () => {
    const kubelet = [refused, refused, refused]
    assert.deepStrictEqual(says({ kubelet, processes: [without("kubelet")] }), ["KUBELET_DOWN"])
    assert.deepStrictEqual(says({ kubelet }), ["HEALTH_NOT_SERVED"])
    const young = [...without("kubelet"), process("kubelet", { age: 3 })]
    assert.deepStrictEqual(says({ kubelet, processes: [young] }), ["KUBELET_MISSED"])
    // A kubelet in a pod is another cluster's.
    const nested = [...without("kubelet"), process("kubelet", { inPod: true })]
    assert.deepStrictEqual(says({ kubelet, processes: [nested] }), ["KUBELET_DOWN"])
    const hidden = Runtime.judge("a", "containerd://1", { kubelet, kubeProxy: [well] }, { others: true })
    assert.deepStrictEqual(hidden.map(({ code, status }) => [code, status]), [["PROCESSES_HIDDEN", "UNKNOWN"]])
  })

  it("does not ask for kube-proxy where there is none", () => {
    const none = { kubeProxy: [refused, refused, refused], processes: [without("kube-proxy")] }
    assert.deepStrictEqual(says(none), ["KUBE_PROXY_DOWN"])
    assert.deepStrictEqual(says(none, false), [])
    assert.deepStrictEqual(says({ ...none, processes: [[...without("kube-proxy"), process("cilium-agent")]] }), [])
  })

  it("misses kube-proxy where none runs on any node and its pods are there to", () => {
    const kubeProxy = [refused, refused, refused]
    const dead = (processes: ReadonlyArray<Process>) => says({ kubeProxy, processes: [processes] }, false, "", true)
    assert.deepStrictEqual(dead(without("kube-proxy")), ["KUBE_PROXY_DOWN"])
    assert.deepStrictEqual(dead([...without("kube-proxy"), process("cilium-agent")]), [])
    const hidden = Runtime.judge("a", "", { kubelet: [well], kubeProxy }, { others: false, meant: true })
    assert.deepStrictEqual(hidden, [])

    const pod = (name: string, metadata: object = {}) =>
      Schema.decodeUnknownSync(Pod.object)({
        metadata: {
          name,
          ownerReferences: [{
            apiVersion: "apps/v1",
            kind: "DaemonSet",
            name: "kube-proxy",
            uid: "1",
            controller: true
          }],
          ...metadata
        },
        spec: { nodeName: name.slice(-1) }
      })
    const meant = Runtime.meantOn([
      pod("kube-proxy-a"),
      pod("coredns-b"),
      pod("kube-proxy-c", { deletionTimestamp: "2026-11-27T10:00:00Z" }),
      pod("kube-proxy-d", { ownerReferences: [] })
    ])
    assert.deepStrictEqual([...meant], ["a"])
  })

  /** The task on a machine where kube-proxy refuses, and how many seconds it took. */
  const looking = Effect.fnUntraced(function*(programs: ReadonlyArray<string>, expectsKubeProxy?: boolean) {
    const files = new Map([["/proc/1/comm", "init"], ["/proc/uptime", "5000.00 1.00"]])
    for (const [index, name] of programs.entries()) {
      files.set(`/proc/${index + 10}/comm`, name)
      files.set(`/proc/${index + 10}/stat`, `7 (a) S ${Array.from({ length: 30 }, () => "0").join(" ")}`)
    }
    const lacking = (path: string) => new HostError({ path, kind: "missing", detail: "ENOENT" })
    const host = Host.of({
      text: (path) =>
        Effect.suspend(() => Effect.fromNullishOr(files.get(path))).pipe(Effect.mapError(() => lacking(path))),
      names: () => Effect.succeed(programs.map((_, index) => String(index + 10))),
      use: (path) => Effect.fail(lacking(path))
    })
    const took = Duration.zero
    const timings = { name: took, connect: took, handshake: took, firstByte: took, total: took }
    const http = HttpCall.of({
      send: ({ url }) =>
        url.port === "10248"
          ? Effect.succeed({
            url,
            address: "127.0.0.1",
            status: 200,
            headers: {},
            body: "ok",
            truncated: false,
            redirects: 0,
            timings,
            certificates: []
          })
          : Effect.fail(new NetError({ target: url.host, kind: "refused", stage: "connect", detail: "ECONNREFUSED" }))
    })
    const fiber = yield* Effect.forkChild(
      runtimeTask.run(expectsKubeProxy === undefined ? {} : { expectsKubeProxy }).pipe(
        Effect.provideService(Host, host),
        Effect.provideService(HttpCall, http),
        Effect.provideContext(LocalWorld.context)
      )
    )
    let seconds = -1
    while (fiber.pollUnsafe() === undefined) {
      yield* TestClock.adjust(seconds < 0 ? 0 : "1 second")
      seconds++
    }
    return { seen: yield* Fiber.join(fiber), seconds }
  })

  it.effect("does not wait for a kube-proxy of which nothing is to be seen, unless it should be there", () =>
    Effect.gen(function*() {
      const cilium = yield* looking(["kubelet", "containerd", "cilium-agent"], false)
      assert.deepStrictEqual([cilium.seen.kubeProxy.length, cilium.seconds], [1, 0])
      assert.isFalse(Runtime.isMissedOnce(cilium.seen))
      const none = yield* looking(["kubelet", "containerd"], false)
      assert.isTrue(Runtime.isMissedOnce(none.seen))
      const deaf = yield* looking(["kubelet", "containerd", "kube-proxy"], false)
      assert.deepStrictEqual([deaf.seen.kubeProxy.length, deaf.seconds], [3, 10])
      for (const expects of [true, undefined]) {
        const expected = yield* looking(["kubelet", "containerd"], expects)
        assert.deepStrictEqual([expected.seen.kubeProxy.length, expected.seconds], [3, 10])
        assert.isFalse(Runtime.isMissedOnce(expected.seen))
      }
    }))

  it("gives kube-proxy time on nodes that join, and while its pods are replaced", () => {
    const now = DateTime.makeUnsafe("2026-11-27T10:00:00Z")
    const created = (seconds: number) => DateTime.formatIso(DateTime.subtract(now, { seconds }))
    const node = (name: string, seconds: number) =>
      Schema.decodeUnknownSync(Node.object)({
        apiVersion: "v1",
        kind: "Node",
        metadata: { name, creationTimestamp: created(seconds) }
      })
    const pod = (name: string, nodeName: string, seconds: number) =>
      Schema.decodeUnknownSync(Pod.object)({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, creationTimestamp: created(seconds) },
        spec: { nodeName }
      })
    const young = Runtime.joinedAgo(
      Duration.minutes(5),
      now,
      [node("new", 20), node("old", 9000), node("kept", 9000)],
      [
        pod("kube-proxy-x", "old", 30),
        pod("kube-proxy-y", "kept", 9000),
        pod("coredns-z", "kept", 30)
      ]
    )
    assert.deepStrictEqual([...young], [["new", 20], ["old", 30]])
    const none = { kubelet: [well], kubeProxy: [refused, refused, refused], processes: [without("kube-proxy")] }
    const told = Runtime.judge("old", "containerd://1", none, { others: true, joinedAgo: young.get("old") })
    assert.deepStrictEqual(told.map(({ code }) => code), ["KUBE_PROXY_MISSED"])
  })

  it("looks for the runtime that the node says it has", () => {
    assert.deepStrictEqual(says({ processes: [without("containerd")] }), ["CONTAINER_RUNTIME_DOWN"])
    assert.deepStrictEqual(says({}, true, "cri-o://1.30"), ["CONTAINER_RUNTIME_DOWN"])
    assert.deepStrictEqual(says({ processes: [without("containerd")] }, true, "other://1"), [])
    const stopped = [...without("containerd"), process("containerd", { state: "T" })]
    assert.deepStrictEqual(says({ processes: [stopped] }), ["CONTAINER_RUNTIME_STOPPED"])
  })

  it("reads what the kernel tells of a process, whatever its name", () => {
    const rest = Array.from({ length: 18 }, () => "0").join(" ")
    assert.deepStrictEqual(statOf(`7 (a) b (c)) T ${rest} 4200 0 0`), { state: "T", startTicks: 4200 })
  })
})

describe("judging a node's kernel", () => {
  const config = Schema.decodeSync(Kernel.NodeKernelConfig)({})
  const says = (seen: Partial<Parameters<typeof Kernel.judgeKernel>[2]>) =>
    Kernel.judgeKernel(config, "a", { tainted: 0, fileSystems: [], memory: [], ...seen }).map(({ code }) => code)

  it("goes by what the kernel notes", () => {
    assert.deepStrictEqual(says({}), [])
    // A module from outside of the kernel, unsigned, and a warning: no damage.
    assert.deepStrictEqual(says({ tainted: 4096 + 8192 + 512 }), [])
    assert.deepStrictEqual(says({ tainted: 128 + 16 }), ["KERNEL_DAMAGED"])
    assert.deepStrictEqual(says({ tainted: 16384 }), ["KERNEL_LOCKED_UP"])
    assert.deepStrictEqual(says({ memory: [{ controller: "mc0", uncorrected: 1 }] }), ["MEMORY_ERRORS"])
    const disk = { device: "sda1", mount: "/var", errors: 3 }
    assert.deepStrictEqual(says({ fileSystems: [{ ...disk, age: 60 }] }), ["FILE_SYSTEM_ERRORS"])
    assert.deepStrictEqual(says({ fileSystems: [{ ...disk, age: 100_000 }] }), ["FILE_SYSTEM_UNCHECKED"])
    assert.deepStrictEqual(says({ fileSystems: [disk] }), ["FILE_SYSTEM_UNCHECKED"])
    const devices = devicesIn("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /x /my\\040x rw - ext4 /dev/sda1 rw\n")
    assert.deepStrictEqual([...devices], [["8:1", "/"]])
  })

  it("leaves alone old Events, containers at their own limit, and what is not of a node", () => {
    const now = DateTime.makeUnsafe("2026-11-27T10:00:00Z")
    const event = (reason: string, minutes: number, kind = "Node", note = "") =>
      Schema.decodeUnknownSync(Event.object)({
        apiVersion: "events.k8s.io/v1",
        kind: "Event",
        metadata: { name: "e" },
        type: "Warning",
        reason,
        note,
        regarding: { kind, name: "a" },
        deprecatedLastTimestamp: DateTime.formatIso(DateTime.subtract(now, { minutes }))
      })
    const codes = (...events: ReadonlyArray<Event>) => Kernel.judgeEvents(config, now, events).map(({ code }) => code)
    assert.deepStrictEqual(codes(event("TaskHung", 1), event("TaskHung", 5), event("SystemOOM", 1)), [
      "KERNEL_EVENT_BAD",
      "KERNEL_EVENT"
    ])
    assert.deepStrictEqual(codes(event("TaskHung", 31), event("OOMKilling", 1), event("TaskHung", 1, "Pod")), [])
    const cut = event("TaskHung", 1, "Node", `${"x".repeat(275)} postgres://shop:S3cr3t-Pa55@db/shop`)
    assert.notInclude(Kernel.judgeEvents(config, now, [cut])[0]?.message, "S3cr3t")
  })
})

/** Nodes have the name servers of the machine that runs the test, which may have none. */
const withNameServers = Layer.effectDiscard(Effect.gen(function*() {
  const { cluster } = yield* TestCluster
  for (const { exec } of cluster.nodes) {
    yield* Effect.orDie(exec(["sh", "-c", `echo "${NAME_SERVER}" > /etc/resolv.conf`]))
  }
}))
const NAME_SERVER = "nameserver 192.0.2.53"

const nodes = withNameServers.pipe(Layer.provideMerge(NodeAgents.layer({ name: "nodefaults", nodes: 2 })))

layer(nodes, { excludeTestServices: true, timeout: "180 seconds" })("node agents", (it) => {
  const second = Effect.map(TestCluster, ({ cluster }) => {
    const node = cluster.nodes[1]
    if (node === undefined) throw new Error("the cluster has two nodes")
    return node
  })

  const check = (what: Probe.AnyProbe | Probe.Check) =>
    Effect.gen(function*() {
      const { run } = yield* TestCluster
      return yield* run(what, { world: yield* NodeAgents.NodeWorld })
    })

  /** Broken until healed: exactly these codes are told, each of the second node alone, and nothing afterwards. */
  const broken = <E1, E2>(
    what: Probe.AnyProbe | Probe.Check,
    expected: ReadonlyArray<string>,
    make: Effect.Effect<unknown, E1, TestCluster>,
    heal: Effect.Effect<unknown, E2, TestCluster>
  ) =>
    Effect.gen(function*() {
      const { name } = yield* second
      yield* Effect.acquireUseRelease(
        Effect.orDie(make),
        () =>
          Effect.gen(function*() {
            const wanted = expected.map((code) => `${code} ${name} target`).sort().join()
            yield* eventually(
              check(what),
              ({ findings }) =>
                findings.map(({ blame, code, subject }) => `${code} ${subject?.name} ${blame}`).sort().join() ===
                  wanted,
              { within: "90 seconds" }
            )
          }),
        () => Effect.orDie(heal)
      )
      yield* eventually(check(what), ({ findings }) => findings.length === 0, { within: "90 seconds" })
    })

  /** Of the second node. */
  const sh = (...lines: ReadonlyArray<string>) =>
    Effect.flatMap(second, ({ exec }) => exec(["sh", "-c", lines.join(" && ")]))

  for (const probe of [nodeBaseline, nodeRuntime, nodeKernel]) {
    it.effect(healthy(probe, "passes with its declared needs alone"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const report = yield* eventually(
          run(probe, {
            world: yield* NodeAgents.NodeWorld,
            as: yield* userWith(probe.needs, { optional: false })
          }),
          // Daemons that were started a moment ago on a busy machine may miss once.
          ({ code }) => code === undefined || !code.endsWith("_MISSED")
        )
        assert.strictEqual(report.status, "PASS", report.message)
        assert.include(report.message, "2 of 2 nodes")
      }))
  }

  it.effect("have no privileges, and little memory", () =>
    Effect.gen(function*() {
      const status = yield* sh(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'kubeprober[.]* node --address ' && cat $p/status; done; true"
      )
      const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, "mu").exec(status)?.[1]
      assert.strictEqual(field("Uid"), "65532\t65532\t65532\t65532", status)
      assert.strictEqual(field("Gid"), "65532\t65532\t65532\t65532")
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        assert.strictEqual(Number(`0x${field(set)}`), 0, set)
      }
      assert.strictEqual(field("NoNewPrivs"), "1")
      assert.strictEqual(field("Seccomp"), "2")
      // What the DaemonSet requests; with the code of every task loaded it was 79 MiB.
      assert.isBelow(Number.parseInt(field("VmRSS") ?? "", 10), 96 * 1024)
    }))

  it.effect(
    fault(nodeBaseline, "CRITICAL_SYSCTL_DIFFERS", "one node forwards nothing (net.ipv4.ip_forward is 0)"),
    () =>
      broken(
        nodeBaseline,
        ["CRITICAL_SYSCTL_DIFFERS"],
        sh("echo 0 > /proc/sys/net/ipv4/ip_forward"),
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
      )
  )

  it.effect(fault(nodeBaseline, "SYSCTL_DIFFERS", "a sysctl of one node is not as its owner expects"), () =>
    broken(
      Probe.configure(nodeBaseline, { expected: { "net.ipv4.conf.all.log_martians": "0" } }),
      ["SYSCTL_DIFFERS"],
      sh("echo 1 > /proc/sys/net/ipv4/conf/all/log_martians"),
      sh("echo 0 > /proc/sys/net/ipv4/conf/all/log_martians")
    ))

  const heal = sh(`echo "${NAME_SERVER}" > /etc/resolv.conf`)

  it.effect(
    fault(nodeBaseline, "NO_NAME_SERVER", "resolv.conf of one node is emptied"),
    () => broken(nodeBaseline, ["NO_NAME_SERVER"], sh(": > /etc/resolv.conf"), heal)
  )

  it.effect(
    faults(
      nodeBaseline,
      "one node has four name servers, the cluster's own DNS among them",
      "NAME_SERVER_LOOP",
      "TOO_MANY_NAME_SERVERS"
    ),
    () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const dns = yield* kubectl(
          "get",
          "service",
          "kube-dns",
          "-n",
          "kube-system",
          "-o",
          "jsonpath={.spec.clusterIP}"
        )
        yield* broken(
          nodeBaseline,
          ["NAME_SERVER_LOOP", "TOO_MANY_NAME_SERVERS"],
          sh(`for a in 192.0.2.1 192.0.2.2 ${dns}; do echo "nameserver $a" >> /etc/resolv.conf; done`),
          heal
        )
      })
  )

  it.effect("infra.node.baseline reads a kubelet's configuration where everyone may, and says that it never evicts", () =>
    broken(
      nodeBaseline,
      ["EVICTION_OFF"],
      sh(
        "mkdir -p -m 755 /etc/kubernetes/kubelet",
        "echo '{\"kind\":\"KubeletConfiguration\",\"evictionHard\":{\"nodefs.available\":\"0%\"}}' > /etc/kubernetes/kubelet/config.json"
      ),
      sh("rm -r /etc/kubernetes/kubelet")
    ))

  it.effect(
    faults(nodeBaseline, "a unit's cgroup is there, and is gone", "UNIT_NOT_RUNNING", "UNIT_RUNNING"),
    () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const exists = yield* sh("test -d /sys/fs/cgroup/systemd && echo /systemd; true")
        // Both nodes have the cgroups of this machine.
        const slice = `/sys/fs/cgroup${exists.trim()}/system.slice`
        const unit = `kubeprober-${process.pid}.service`
        const what = Probe.configure(nodeBaseline, { units: [unit] })
        yield* Effect.acquireUseRelease(
          Effect.sync(() => mkdirSync(`${slice}/${unit}`, { recursive: true })),
          () =>
            Effect.gen(function*() {
              assert.strictEqual((yield* check(what)).status, "PASS")
              const { findings } = yield* check(Probe.configure(nodeBaseline, { forbiddenUnits: [unit] }))
              assert.deepStrictEqual(
                findings.map(({ code, subject }) => [code, subject?.name]),
                cluster.nodes.map(({ name }) => ["UNIT_RUNNING", name])
              )
            }),
          () => Effect.sync(() => rmdirSync(`${slice}/${unit}`))
        )
        // The slice is there only where systemd is, so it is kept until the unit is missed.
        const { findings } = yield* check(what)
        yield* Effect.ignore(Effect.try({ try: () => rmdirSync(slice), catch: () => undefined }))
        assert.deepStrictEqual(
          findings.map(({ code, subject }) => [code, subject?.name]),
          cluster.nodes.map(({ name }) => ["UNIT_NOT_RUNNING", name])
        )
      })
  )

  /** Nodes of tests are young all their life. */
  const SETTLED = Probe.configure(nodeRuntime, { settledAfter: "0s" })
  const daemons = [
    ["KUBELET_DOWN", "KUBE_PROXY_DOWN", "CONTAINER_RUNTIME_DOWN"],
    ["KUBELET_UNWELL", "KUBE_PROXY_UNWELL", "CONTAINER_RUNTIME_STOPPED"]
  ] as const
  const each = (what: "kill" | "start" | "pause" | "resume") =>
    Effect.flatMap(
      second,
      ({ containerd, kubeProxy, kubelet }) => Effect.forEach([kubelet, kubeProxy, containerd], (daemon) => daemon[what])
    )
  const titles = ([kubelet, proxy, runtime]: typeof daemons[number], what: string) =>
    faults(nodeRuntime, what, kubelet, proxy, runtime)

  it.effect(
    titles(daemons[0], "kubelet, kube-proxy and containerd of one node are killed"),
    () => broken(SETTLED, daemons[0], each("kill"), each("start")),
    180_000
  )

  it.effect(
    titles(daemons[1], "kubelet, kube-proxy and containerd of one node are suspended"),
    () => broken(SETTLED, daemons[1], each("pause"), each("resume")),
    180_000
  )

  it.effect(
    faults(
      nodeRuntime,
      "the daemons of one node are started anew while they are looked at",
      "KUBELET_MISSED",
      "KUBE_PROXY_MISSED",
      "CONTAINER_RUNTIME_MISSED"
    ),
    () =>
      Effect.gen(function*() {
        const { name } = yield* second
        // They are away at the first look and back at one of the two that follow it by 5 and 10 s.
        const restarted = Effect.gen(function*() {
          yield* Effect.orDie(each("kill"))
          const [report] = yield* Effect.all([
            check(SETTLED),
            Effect.delay(Effect.orDie(each("start")), "3 seconds")
          ], { concurrency: 2 })
          return report
        })
        const wanted = ["CONTAINER_RUNTIME_MISSED", "KUBELET_MISSED", "KUBE_PROXY_MISSED"]
          .map((code) => `WARN ${code} ${name}`).join()
        yield* eventually(
          restarted,
          ({ findings }) =>
            findings.map(({ code, status, subject }) => `${status} ${code} ${subject?.name}`).sort().join() === wanted,
          { within: "150 seconds" }
        )
        yield* eventually(check(SETTLED), ({ findings }) => findings.length === 0, { within: "90 seconds" })
      }),
    300_000
  )

  it.effect(
    fault(nodeRuntime, "KUBE_PROXY_DOWN", "no node runs a kube-proxy, and the image of its DaemonSet is nowhere"),
    () =>
      Effect.gen(function*() {
        const { apply, cluster, kubectl } = yield* TestCluster
        const proxies = (what: "kill" | "start") => Effect.forEach(cluster.nodes, ({ kubeProxy }) => kubeProxy[what])
        const labels = { "k8s-app": "kube-proxy" }
        yield* Effect.acquireUseRelease(
          Effect.orDie(Effect.andThen(
            proxies("kill"),
            apply({
              apiVersion: "apps/v1",
              kind: "DaemonSet",
              metadata: { name: "kube-proxy", namespace: "kube-system" },
              spec: {
                selector: { matchLabels: labels },
                template: {
                  metadata: { labels },
                  spec: {
                    terminationGracePeriodSeconds: 0,
                    containers: [{
                      name: "kube-proxy",
                      image: "kubeprober.local/missing:1",
                      imagePullPolicy: "Never"
                    }]
                  }
                }
              }
            })
          )),
          () =>
            eventually(
              check(SETTLED),
              ({ findings }) =>
                findings.map(({ code, subject }) => `${code} ${subject?.name}`).sort().join() ===
                  cluster.nodes.map(({ name }) => `KUBE_PROXY_DOWN ${name}`).sort().join(),
              { within: "90 seconds" }
            ),
          () =>
            Effect.orDie(Effect.andThen(
              kubectl("delete", "daemonset", "kube-proxy", "--namespace=kube-system", "--wait=true"),
              proxies("start")
            ))
        )
        yield* eventually(check(SETTLED), ({ status }) => status === "PASS", { within: "90 seconds" })
      }),
    180_000
  )

  const condition = (patch: object) =>
    Effect.gen(function*() {
      const { kubectl } = yield* TestCluster
      const { name } = yield* second
      yield* kubectl(
        "patch",
        "node",
        name,
        "--subresource=status",
        "--type=strategic",
        "-p",
        JSON.stringify({ status: { conditions: [patch] } })
      )
    })

  for (
    const [code, type] of [["NODE_CONDITION_BAD", "KernelDeadlock"], ["NODE_CONDITION_SUSPECT", "NTPProblem"]] as const
  ) {
    it.effect(
      fault(nodeKernel, code, `${type} is written to a node, by the administrator as node-problem-detector does`),
      () =>
        broken(
          nodeKernel,
          [code],
          condition({
            type,
            status: "True",
            reason: "Hung",
            message: "task docker:7 blocked for more than 300 seconds."
          }),
          condition({ $patch: "delete", type })
        )
    )
  }

  for (const [code, reason] of [["KERNEL_EVENT", "SystemOOM"], ["KERNEL_EVENT_BAD", "TaskHung"]] as const) {
    it.effect(
      fault(nodeKernel, code, `a ${reason} Event of a node is written, by the administrator as it would be`),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          const { name } = yield* second
          const at = DateTime.formatIso(yield* DateTime.now).replace(/\.\d+Z$/u, "Z")
          yield* broken(
            nodeKernel,
            [code],
            apply({
              apiVersion: "v1",
              kind: "Event",
              metadata: { name: `${name}.kernel`, namespace: "default" },
              involvedObject: { kind: "Node", name, uid: name },
              type: "Warning",
              reason,
              message: "System OOM encountered, victim process: stress, pid: 7",
              source: { component: "kubelet", host: name },
              firstTimestamp: at,
              lastTimestamp: at,
              count: 1
            }),
            kubectl("delete", "event", `${name}.kernel`, "-n", "default")
          )
        })
    )
  }

  it.effect(
    faults(
      nodeKernel,
      "the kernel meets an error in an ext4 file system of one node",
      "FILE_SYSTEM_ERRORS",
      "FILE_SYSTEM_UNCHECKED"
    ),
    () =>
      Effect.gen(function*() {
        const make = sh(
          "mkdir -p /var/lib/damaged",
          "truncate -s 8M /var/lib/damaged.img",
          "mkfs.ext4 -q -O ^has_journal /var/lib/damaged.img",
          "mount -o loop,errors=continue /var/lib/damaged.img /var/lib/damaged",
          // The kernel's own way to make one.
          "device=$(findmnt -no SOURCE /var/lib/damaged)",
          "echo test > /sys/fs/ext4/${device##*/}/trigger_fs_error"
        )
        const heal = sh("umount /var/lib/damaged", "rm /var/lib/damaged.img")
        yield* broken(nodeKernel, ["FILE_SYSTEM_ERRORS"], make, heal)
        yield* broken(Probe.configure(nodeKernel, { window: "1s" }), ["FILE_SYSTEM_UNCHECKED"], make, heal)
      })
  )

  it.effect("infra.node.kernel takes a container that is killed at its own memory limit for no fault of the node", () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      const { name } = yield* second
      yield* apply({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "greedy", namespace: "default" },
        spec: {
          nodeName: name,
          restartPolicy: "Never",
          containers: [{
            name: "greedy",
            image: BUSYBOX_IMAGE,
            imagePullPolicy: "Never",
            command: ["sh", "-c", "exec tail /dev/zero"],
            resources: { limits: { memory: "16Mi" } }
          }]
        }
      })
      yield* eventually(
        kubectl(
          "get",
          "pod",
          "greedy",
          "-n",
          "default",
          "-o",
          "jsonpath={.status.containerStatuses[0].state.terminated.reason}"
        ),
        (reason) => reason === "OOMKilled"
      )
      assert.strictEqual((yield* check(nodeKernel)).status, "PASS")
      yield* kubectl("delete", "pod", "greedy", "-n", "default", "--wait=false")
    }))

  it.effect(
    blind(nodeBaseline, "SYSCTL_UNREADABLE", "a sysctl that is root's alone is expected"),
    () =>
      Effect.gen(function*() {
        const { findings, status } = yield* check(
          Probe.configure(nodeBaseline, { critical: { "net.ipv4.tcp_fastopen_key": "!=0" } })
        )
        assert.strictEqual(status, "UNKNOWN")
        assert.deepStrictEqual(findings.map(({ code }) => code), ["SYSCTL_UNREADABLE", "SYSCTL_UNREADABLE"])
      })
  )

  for (const probe of [nodeBaseline, nodeRuntime, nodeKernel]) {
    it.effect(blind(probe, "ACCESS_MISSING", "without one of its rights"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        for (const lacking of probe.needs.filter((need) => !need.optional)) {
          const report = yield* run(probe, {
            world: yield* NodeAgents.NodeWorld,
            as: yield* userWith(probe.needs.filter((need) => need !== lacking))
          })
          assert.strictEqual(report.code, "ACCESS_MISSING")
          assert.include(report.message, Needs.describe(lacking))
        }
      }))

    blindToAll(it, probe)

    it.effect(blind(probe, "NODE_SILENT", "the agents of nodes do not know the key"), () =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        const stranger = ProbeWorld.make({ nodes: { key: Effect.succeed(new Uint8Array(32)), joiningFor: 0 } })
        const { findings } = yield* run(probe, { world: stranger })
        assert.deepStrictEqual(findings.map(({ code, status }) => [code, status]), [
          ["NODE_SILENT", "UNKNOWN"],
          ["NODE_SILENT", "UNKNOWN"]
        ])
      }))
  }
})
