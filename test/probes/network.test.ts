/** k8s.service.clusterip and k8s.dns.cluster, on one cluster with two nodes: what breaks the one is seen by the other too. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import * as Confirmation from "../../src/agent/Confirmation.ts"
import { type Finding, keyOf } from "../../src/domain/Report.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import * as Hysteresis from "../../src/probes/Hysteresis.ts"
import {
  type DnsClusterConfig,
  dnsCluster,
  familyOf,
  freshSlice,
  judge as judgeDns,
  lookupsOf,
  stillReady
} from "../../src/probes/kubernetes/dnsCluster.ts"
import { judge as judgeService, lives, serviceClusterIp } from "../../src/probes/kubernetes/serviceClusterIp.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { domainOf } from "../../src/probes/workers/tasks/dnsLookups.ts"
import { atFirst, halts } from "../clusters/AtRequest.ts"
import { withKubeletConfig } from "../clusters/KubeletConfig.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { fault, healthy } from "../proofs/proof.ts"
import { blindAndKilled, finds, found, second } from "./inPods.ts"

describe("judging what a node got from a Service", () => {
  const got = (good: number, pods: Readonly<Record<string, number>>) =>
    judgeService(["a", "b"], { node: "n", got: { good, times: 20, pods, p95Millis: 1 } }).map(({ code }) => code)

  it("wants every connection answered, and every pod heard", () => {
    assert.deepStrictEqual(got(20, { a: 9, b: 11 }), [])
    assert.deepStrictEqual(got(20, { a: 20 }), ["SERVICE_ONE_SIDED"])
    assert.deepStrictEqual(got(11, { a: 11 }), ["SERVICE_UNRELIABLE_FROM_NODE"])
    assert.deepStrictEqual(got(0, {}), ["SERVICE_UNREACHABLE_FROM_NODE"])
  })

  it("blames nothing on a Service whose pods were ended meanwhile", () => {
    const after = (good: number, pods: Readonly<Record<string, number>>, ...gone: ReadonlyArray<string>) =>
      judgeService(["a", "b"], { node: "n", got: { good, times: 20, pods, p95Millis: 1 } }, new Set(gone)).map((
        { code }
      ) => code)
    assert.deepStrictEqual(after(20, { a: 20 }, "b"), [])
    assert.deepStrictEqual(after(11, { a: 11 }, "b"), [])
    assert.deepStrictEqual(after(0, {}, "a", "b"), [])
    // What a pod that lives should have got is missed all the same.
    assert.deepStrictEqual(after(20, { a: 20 }, "a"), ["SERVICE_ONE_SIDED"])
    assert.deepStrictEqual(after(0, {}, "b"), ["SERVICE_UNREACHABLE_FROM_NODE"])
  })

  it("knows a pod that lives from one that was ended, drained or replaced", () => {
    const pod = (status: object, metadata: object = {}) =>
      Schema.decodeUnknownSync(Pod.object)({ metadata: { name: "a", ...metadata }, spec: {}, status })
    const ready = { podIP: "10.0.0.1", conditions: [{ type: "Ready", status: "True" }] }
    const alive = (one: Pod | undefined) => lives({ ip: "10.0.0.1" }, one)
    assert.isTrue(alive(pod(ready)))
    assert.isFalse(alive(undefined))
    assert.isFalse(alive(pod(ready, { deletionTimestamp: "2026-01-01T00:00:00Z" })))
    assert.isFalse(alive(pod({ ...ready, conditions: [{ type: "Ready", status: "False" }] })))
    assert.isFalse(alive(pod({ ...ready, podIP: "10.0.0.2" })))
  })
})

describe("judging what pods got from DNS", () => {
  const good = (id: string) => ({ id, good: 3, tries: 3, p95Millis: 1 })
  const bad = (id: string, why = "timeout: no answer") => ({ id, good: 0, tries: 3, p95Millis: 0, why })
  const all = ["pod", "udp", "tcp", "absent", "fresh", "endpoint/1", "endpoint/2"]
  const endpoints = [{ address: "1", pod: "one" }, { address: "2", pod: "two" }]
  const config = { external: [], slow: Duration.millis(100) }
  const says = (...broken: ReadonlyArray<ReadonlyArray<ReturnType<typeof bad>>>) =>
    judgeDns(
      config,
      endpoints,
      broken.map((failed, index) => ({
        node: `n${index}`,
        looked: all.map((id) => failed.find((one) => one.id === id) ?? good(id))
      }))
    ).map(({ code, subject }) => `${code} ${subject?.name}`)

  it("has nothing to say when all is answered", () => assert.deepStrictEqual(says([], []), []))

  it("tells a Service that is broken from a node that is cut off", () => {
    assert.deepStrictEqual(says([bad("udp")], [bad("udp")]), ["DNS_SERVICE_FAILED kube-dns"])
    assert.deepStrictEqual(says([bad("udp"), bad("fresh"), bad("pod")], []), ["DNS_FAILS_ON_NODE n0"])
  })

  it("blames the one pod that does not answer anybody", () => {
    assert.deepStrictEqual(says([bad("endpoint/2")], [bad("endpoint/2")]), ["DNS_ENDPOINT_FAILED two"])
    assert.deepStrictEqual(says([bad("endpoint/2")], []), [])
  })

  it("tells what is lost besides", () => {
    assert.deepStrictEqual(says([bad("tcp")], []), ["DNS_TCP_FAILED kube-dns"])
    assert.deepStrictEqual(says([bad("fresh")], [bad("fresh")]), ["DNS_STALE kube-dns"])
    assert.deepStrictEqual(says([bad("fresh")], []), [])
    assert.deepStrictEqual(says([bad("absent", "answered 1.2.3.4")], []), ["DNS_ANSWERS_EVERYTHING kube-dns"])
    assert.deepStrictEqual(says([bad("absent")], []), [])
    assert.deepStrictEqual(says([bad("pod")], []), ["DNS_POD_PATH_FAILED n0"])
  })

  /** From each node: the 95th percentile and, where it matters, the middle of its answers. */
  const paced = (nodes: ReadonlyArray<readonly [p95Millis: number, p50Millis?: number]>, stands = false) =>
    judgeDns(
      config,
      endpoints,
      nodes.map(([p95Millis, p50Millis = 1], index) => ({
        node: `n${index}`,
        looked: [...all.map(good), { ...good("timed"), good: 20, tries: 20, p50Millis, p95Millis }]
      })),
      Hysteresis.make(
        stands
          ? new Set([
            keyOf({ code: "DNS_SLOW", subject: { kind: "Service", name: "kube-dns", namespace: "kube-system" } })
          ])
          : undefined
      )
    ).map(({ code, evidence }) => `${code} ${evidence?.["node"] ?? ""}`.trim())

  it("does not call it slow for the late answers of one busy node", () => {
    assert.deepStrictEqual(paced([[149], [3], [4]]), [])
    assert.deepStrictEqual(paced([[149], [3]]), [])
    assert.deepStrictEqual(paced([[99, 99], [99, 99]]), [])
  })

  it("calls it slow when most nodes get late answers, or one node late ones as a rule", () => {
    assert.deepStrictEqual(paced([[149]]), ["DNS_SLOW"])
    assert.deepStrictEqual(paced([[149], [120]]), ["DNS_SLOW"])
    assert.deepStrictEqual(paced([[3], [149], [149]]), ["DNS_SLOW"])
    assert.deepStrictEqual(paced([[3], [310, 305], [4]]), ["DNS_SLOW n1"])
  })

  it("calls it quick again when it is clear of the limit", () => {
    assert.deepStrictEqual(paced([[95], [96]], true), ["DNS_SLOW"])
    assert.deepStrictEqual(paced([[95], [89]], true), [])
  })

  it("looks twice before it says that DNS is slow, and at nothing else twice", () => {
    const faults = (...codes: ReadonlyArray<keyof typeof dnsCluster.codes>) => ({
      findings: codes.map((code): Finding => ({ code, status: "WARN", blame: "target", message: "" }))
    })
    const again = Confirmation.unconfirmed(faults("DNS_SLOW", "DNS_UNRELIABLE"), new Set(), dnsCluster.confirm)
    assert.deepStrictEqual(again.map(({ code }) => code), ["DNS_SLOW"])
  })

  it("blames no pod that is not ready any more", () => {
    const slice = (...endpoints: ReadonlyArray<object>) =>
      Schema.decodeUnknownSync(EndpointSlice.object)({ metadata: { name: "dns" }, addressType: "IPv4", endpoints })
    const ready = (address: string, pod: string, conditions: object = { ready: true }) => ({
      addresses: [address],
      conditions,
      targetRef: { kind: "Pod", name: pod }
    })
    const after = (...those: ReadonlyArray<object>) => stillReady(endpoints, [slice(...those)]).map(({ pod }) => pod)
    assert.deepStrictEqual(after(ready("1", "one"), ready("2", "two", {})), ["one", "two"])
    assert.deepStrictEqual(after(ready("1", "one"), ready("2", "two", { ready: false, terminating: true })), ["one"])
    assert.deepStrictEqual(after(ready("1", "one")), ["one"])
    // The same address may be another pod's by now.
    assert.deepStrictEqual(after(ready("1", "three")), [])
  })

  it("asks for addresses of the cluster's family, and gives a new name one of it", () => {
    const types = (service: string | undefined, ...addresses: ReadonlyArray<string>) => {
      const target = { service, endpoints: addresses.map((address) => ({ address, pod: address })) }
      const lookups = lookupsOf({ external: ["example.com"], freshWithin: Duration.seconds(15) }, target, {
        fresh: "fresh",
        absent: "absent"
      })
      return [...new Set(lookups.map(({ type }) => type))].join()
    }
    assert.strictEqual(types("10.96.0.10", "10.0.0.1"), "A")
    assert.strictEqual(types("fd00:10:96::a", "fd00::1"), "AAAA")
    // Of a Service without an address, or none, its pods tell.
    assert.strictEqual(types(undefined, "fd00::1"), "AAAA")
    assert.strictEqual(types(undefined), "A")
    assert.strictEqual(familyOf("None", [{ address: "fd00::1", pod: "one" }]), "IPv6")
    const fresh = (family: "IPv4" | "IPv6") => {
      const { addressType, endpoints } = freshSlice({ name: "a", namespace: "b", host: 200 }, family)
      return [addressType, ...endpoints.flatMap(({ addresses }) => addresses)]
    }
    assert.deepStrictEqual(fresh("IPv4"), ["IPv4", "203.0.113.200"])
    assert.deepStrictEqual(fresh("IPv6"), ["IPv6", "2001:db8::c8"])
  })

  it("finds the cluster's domain in the search list of a pod", () => {
    assert.strictEqual(domainOf(["team.svc.example.test", "svc.example.test", "example.test"]), "example.test")
    assert.strictEqual(domainOf([]), "cluster.local")
  })
})

layer(WorkerCluster.layer({ name: "network", nodes: 2, nodeTimings: "default" }), {
  excludeTestServices: true,
  timeout: "180 seconds"
})(
  "Services and names",
  (it) => {
    const { world } = WorkerCluster

    const service = (config: Partial<typeof serviceClusterIp.config.Encoded> = {}) =>
      Effect.flatMap(
        TestCluster,
        ({ run }) => run(Probe.configure(serviceClusterIp, { deletion: false, ...config }), { world })
      )
    const dns = (config: typeof DnsClusterConfig.Encoded = {}) =>
      Effect.flatMap(TestCluster, ({ run }) => run(Probe.configure(dnsCluster, { slow: "2s", ...config }), { world }))

    it.effect(healthy(serviceClusterIp, "passes with its declared needs alone"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const as = yield* userWith(serviceClusterIp.needs)
        const report = yield* run(serviceClusterIp, { world, as })
        assert.strictEqual(report.status, "PASS", JSON.stringify(report))
        assert.include(report.message, "2 of 2 nodes")
        assert.include(report.message, "none after it is deleted")
      }))

    it.effect(healthy(dnsCluster, "passes with its declared needs alone"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const as = yield* userWith(dnsCluster.needs)
        const report = yield* run(Probe.configure(dnsCluster, { slow: "2s" }), { world, as })
        assert.strictEqual(report.status, "PASS", JSON.stringify(report))
        assert.include(report.message, "2 of 2 nodes")
      }))

    for (const probe of [serviceClusterIp, dnsCluster]) blindAndKilled(it, probe, { perNode: true })

    it.effect(
      fault(serviceClusterIp, "SERVICE_UNREACHABLE_FROM_NODE", "kube-proxy is stopped on one node"),
      () =>
        Effect.gen(function*() {
          const { kubeProxy, name } = yield* second
          yield* Effect.acquireUseRelease(
            kubeProxy.kill,
            () =>
              Effect.gen(function*() {
                assert.deepStrictEqual(found(yield* service()), [`SERVICE_UNREACHABLE_FROM_NODE ${name}`])
              }),
            () => Effect.orDie(kubeProxy.start)
          )
          yield* eventually(service(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(
        serviceClusterIp,
        "SERVICE_UNRELIABLE_FROM_NODE",
        "packets from the pods of one node to another's are lost"
      ),
      () =>
        Effect.gen(function*() {
          const { exec, first, name, podCidr } = yield* second
          const rule = ["FORWARD", "-s", podCidr, "-d", first.podCidr, "-j", "DROP"]
          yield* Effect.acquireUseRelease(
            exec(["iptables", "-I", ...rule]),
            () =>
              // To a node whose kube-proxy is late, the one pod that it knows yet answers each time.
              eventually(service(), (report) => {
                const names = found(report)
                // Answers to the other node take the same way.
                return names.includes(`SERVICE_UNRELIABLE_FROM_NODE ${name}`) &&
                  names.every((one) => one.startsWith("SERVICE_UNRELIABLE_FROM_NODE"))
              }),
            () => Effect.orDie(exec(["iptables", "-D", ...rule]))
          )
          yield* eventually(service(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(serviceClusterIp, "ENDPOINTS_SLOW", "the controller manager halts until a new Service is two seconds old"),
      () =>
        Effect.gen(function*() {
          const { cluster: { components: { controllerManager } }, kube, run } = yield* TestCluster
          const as = atFirst(kube, "create Service", halts(controllerManager, "2 seconds"))
          const report = yield* run(
            Probe.configure(serviceClusterIp, { deletion: false, programmedWarn: "1s" }),
            { world, as }
          )
          assert.strictEqual(`${report.status} ${report.code}`, "WARN ENDPOINTS_SLOW", JSON.stringify(report))
          yield* eventually(service(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(serviceClusterIp, "SERVICE_STILL_ANSWERS", "kube-proxy of one node halts before a Service is deleted"),
      () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          const { kubeProxy, name } = yield* second
          // All nodes have answered by then.
          const as = atFirst(kube, "delete Service", (send) => Effect.andThen(kubeProxy.pause, send))
          const report = yield* run(Probe.configure(serviceClusterIp, { deletion: true }), { world, as }).pipe(
            Effect.ensuring(kubeProxy.resume)
          )
          assert.deepStrictEqual(found(report), [`SERVICE_STILL_ANSWERS ${name}`], JSON.stringify(report))
          yield* eventually(service({ deletion: true }), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(serviceClusterIp, "ENDPOINTS_MISSING", "the controller manager is stopped"),
      () =>
        Effect.gen(function*() {
          const { cluster: { components: { controllerManager } } } = yield* TestCluster
          yield* Effect.acquireUseRelease(
            controllerManager.pause,
            () =>
              Effect.gen(function*() {
                const report = yield* service({ programmedWarn: "1s", programmedError: "5s" })
                assert.strictEqual(report.code, "ENDPOINTS_MISSING", JSON.stringify(report))
              }),
            () => controllerManager.resume
          )
          yield* eventually(service(), ({ status }) => status === "PASS")
        })
    )

    it.effect("a pod of a Service that is ended while it is asked, as by a drain, is no fault of the Service", () =>
      Effect.gen(function*() {
        const { kube, run } = yield* TestCluster
        let pod = ""
        const as = atFirst(kube, "create Service", (send, { name }) =>
          Effect.tap(send, () =>
            Effect.gen(function*() {
              const labelSelector = `kubeprober.io/service=${name}`
              const { items: [behind] } = yield* kube.list(Pod, { namespace: PROBE_NAMESPACE, labelSelector })
              pod = behind?.metadata.name ?? ""
              yield* kube.delete(Pod, { name: pod, namespace: PROBE_NAMESPACE })
            })))
        const report = yield* run(
          Probe.configure(serviceClusterIp, { deletion: false, programmedError: "5s" }),
          { world, as }
        )
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN WORKER_FAILED", JSON.stringify(report))
        assert.isTrue(report.findings.every(({ message }) => message.includes(pod)), JSON.stringify(report))
        yield* eventually(service(), ({ status }) => status === "PASS")
      }))

    const scale = (replicas: number) =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        yield* kubectl("scale", "deployment/coredns", "-n", "kube-system", `--replicas=${replicas}`)
        yield* kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
        yield* eventually(
          kubectl(
            "get",
            "endpointslices",
            "-n",
            "kube-system",
            "-l",
            "kubernetes.io/service-name=kube-dns",
            "-o",
            "json"
          ),
          (json) => (json.match(/"ready": true/gu) ?? []).length === replicas
        )
      })

    const corefile = (edit: (text: string) => string) =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const before = yield* kubectl(
          "get",
          "configmap",
          "coredns",
          "-n",
          "kube-system",
          "-o",
          "jsonpath={.data.Corefile}"
        )
        const set = (text: string) =>
          Effect.gen(function*() {
            yield* kubectl(
              "patch",
              "configmap",
              "coredns",
              "-n",
              "kube-system",
              "--type=merge",
              "-p",
              JSON.stringify({
                data: { Corefile: text }
              })
            )
            yield* kubectl("rollout", "restart", "deployment/coredns", "-n", "kube-system")
            yield* kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
          })
        return yield* Effect.acquireRelease(set(edit(before)), () => set(before))
      })

    it.effect(fault(dnsCluster, "DNS_NO_ENDPOINTS", "CoreDNS is scaled to zero"), () =>
      Effect.gen(function*() {
        yield* Effect.acquireUseRelease(
          scale(0),
          () => Effect.map(dns(), (report) => assert.deepStrictEqual(found(report), ["DNS_NO_ENDPOINTS kube-dns"])),
          () => Effect.orDie(scale(1))
        )
        yield* eventually(dns(), ({ status }) => status === "PASS")
      }))

    it.effect(
      fault(dnsCluster, "DNS_SERVICE_FAILED", "CoreDNS answers NXDOMAIN for every name"),
      () =>
        Effect.gen(function*() {
          yield* Effect.scoped(Effect.gen(function*() {
            yield* corefile((text) =>
              text.replace(/^(\s*)kubernetes .*$/mu, "$1template ANY ANY {\n rcode NXDOMAIN\n }\n$&")
            )
            assert.include(found(yield* dns({ freshWithin: "2s" })), "DNS_SERVICE_FAILED kube-dns")
          }))
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_ENDPOINT_FAILED", "one of two pods of CoreDNS is cut off"),
      () =>
        Effect.gen(function*() {
          const { cluster, kubectl } = yield* TestCluster
          yield* scale(2)
          const [pod = "", ip = ""] = (yield* kubectl(
            "get",
            "pods",
            "-n",
            "kube-system",
            "-l",
            "k8s-app=kube-dns",
            "-o",
            "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}"
          )).split(" ")
          // Its readiness probe goes over TCP to another port, so it stays ready.
          const rule = ["FORWARD", "-d", ip, "-p", "udp", "--dport", "53", "-j", "DROP"]
          const bridged = ["OUTPUT", "-d", ip, "-p", "udp", "--dport", "53", "-j", "DROP"]
          const everywhere = (flag: string) =>
            Effect.forEach(
              cluster.nodes,
              ({ exec }) => Effect.andThen(exec(["iptables", flag, ...rule]), exec(["iptables", flag, ...bridged])),
              { discard: true }
            )
          yield* Effect.acquireUseRelease(
            Effect.orDie(everywhere("-I")),
            () =>
              Effect.gen(function*() {
                const report = yield* dns({ timeout: "500ms" })
                assert.include(found(report), `DNS_ENDPOINT_FAILED ${pod}`, JSON.stringify(report))
              }),
            () => Effect.orDie(everywhere("-D"))
          )
          yield* scale(1)
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_EXTERNAL_FAILED", "a name outside, in a cluster whose DNS leads nowhere else"),
      () =>
        Effect.gen(function*() {
          const report = yield* dns({ external: ["example.com"] })
          assert.deepStrictEqual(
            report.findings.map(({ code }) => code),
            ["DNS_EXTERNAL_FAILED"],
            JSON.stringify(report)
          )
          assert.include(report.message, "example.com")
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_UNRELIABLE", "each second question over UDP is lost on one node"),
      () =>
        Effect.gen(function*() {
          const { exec } = yield* second
          const half = ["-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0"]
          const rule = ["PREROUTING", "-t", "raw", "-d", "10.96.0.10", "-p", "udp", ...half, "-j", "DROP"]
          yield* Effect.acquireUseRelease(
            exec(["iptables", "-I", ...rule]),
            () => eventually(dns({ timeout: "500ms" }), (report) => found(report).includes("DNS_UNRELIABLE kube-dns")),
            () => Effect.orDie(exec(["iptables", "-D", ...rule]))
          )
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_STALE", "CoreDNS is cut off from the API server, and answers with what it knows"),
      () =>
        Effect.gen(function*() {
          const { cluster, kubectl } = yield* TestCluster
          yield* scale(1)
          const ip = yield* kubectl(
            "get",
            "pods",
            "-n",
            "kube-system",
            "-l",
            "k8s-app=kube-dns",
            "-o",
            "jsonpath={.items[0].status.podIP}"
          )
          // Both ways, for what the server sends is read though its receipt is lost.
          const { port } = new URL(cluster.server)
          const rules = [
            ["FORWARD", "-s", ip, "-p", "tcp", "--dport", port, "-j", "DROP"],
            ["FORWARD", "-d", ip, "-p", "tcp", "--sport", port, "-j", "DROP"]
          ]
          const everywhere = (flag: string) =>
            Effect.forEach(
              cluster.nodes,
              ({ exec }) => Effect.forEach(rules, (rule) => exec(["iptables", flag, ...rule]), { discard: true }),
              { discard: true }
            )
          yield* Effect.acquireUseRelease(
            Effect.orDie(everywhere("-I")),
            () =>
              Effect.gen(function*() {
                const report = yield* dns({ freshWithin: "2s" })
                assert.deepStrictEqual(found(report), ["DNS_STALE kube-dns"], JSON.stringify(report))
                assert.strictEqual(report.status, "ERROR")
              }),
            () => Effect.orDie(everywhere("-D"))
          )
          // A connection that hung is given up after a while; a pod that is new has a new one.
          yield* kubectl("delete", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--wait=false")
          yield* kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_FAILS_ON_NODE", "the DNS Service is cut off on one node"),
      () =>
        Effect.gen(function*() {
          const { exec, name } = yield* second
          const rule = ["PREROUTING", "-t", "raw", "-d", "10.96.0.10", "-j", "DROP"]
          yield* Effect.acquireUseRelease(
            exec(["iptables", "-I", ...rule]),
            () =>
              Effect.gen(function*() {
                assert.include(found(yield* dns({ timeout: "500ms", freshWithin: "2s" })), `DNS_FAILS_ON_NODE ${name}`)
              }),
            () => Effect.orDie(exec(["iptables", "-D", ...rule]))
          )
          yield* eventually(dns(), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(dnsCluster, "DNS_POD_PATH_FAILED", "the kubelet of one node gives pods another clusterDNS"),
      () =>
        Effect.gen(function*() {
          const node = yield* second
          yield* Effect.gen(function*() {
            // A kubelet that has just started may not have its node Ready yet, which is not asked then.
            const report = yield* finds(dns({ timeout: "1s" }), [`DNS_POD_PATH_FAILED ${node.name}`])
            assert.strictEqual(report.status, "ERROR")
          }).pipe(withKubeletConfig(node, { clusterDNS: ["10.96.0.99"] }))
          yield* eventually(dns(), ({ status }) => status === "PASS")
        }),
      240_000
    )

    it.effect(fault(dnsCluster, "DNS_TCP_FAILED", "the DNS Service drops TCP"), () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const rule = ["PREROUTING", "-t", "raw", "-d", "10.96.0.10", "-p", "tcp", "-j", "DROP"]
        const everywhere = (flag: string) =>
          Effect.forEach(cluster.nodes, ({ exec }) => exec(["iptables", flag, ...rule]), { discard: true })
        yield* Effect.acquireUseRelease(
          Effect.orDie(everywhere("-I")),
          () => finds(dns({ timeout: "1s" }), ["DNS_TCP_FAILED kube-dns"]),
          () => Effect.orDie(everywhere("-D"))
        )
        yield* eventually(dns(), ({ status }) => status === "PASS")
      }), 240_000)

    it.effect(fault(dnsCluster, "DNS_SLOW", "CoreDNS takes 300 ms for each answer"), () =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.gen(function*() {
          // Its plugin for tests answers every name, each time late.
          yield* corefile((text) =>
            `svc.cluster.local:53 {\n erratic {\n drop 0\n truncate 0\n delay 1 300ms\n }\n}\n${text}`
          )
          const report = yield* dns({ slow: "250ms" })
          assert.include(found(report), "DNS_SLOW kube-dns", JSON.stringify(report))
        }))
        yield* eventually(dns(), ({ status }) => status === "PASS")
      }))

    it.effect(fault(dnsCluster, "DNS_ANSWERS_EVERYTHING", "CoreDNS has a wildcard"), () =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* corefile((text) =>
            text.replace(
              /^(\s*)kubernetes .*$/mu,
              "$1template IN A {\n match .*-absent[.].*\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n fallthrough\n }\n$&"
            )
          )
          assert.deepStrictEqual(found(yield* dns()), ["DNS_ANSWERS_EVERYTHING kube-dns"])
        }))
        yield* eventually(dns(), ({ status }) => status === "PASS")
      }))
  }
)
