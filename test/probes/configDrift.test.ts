import { assert, describe, it, layer } from "@effect/vitest"
import { Context, DateTime, Duration, Effect, Layer, Option, References } from "effect"
import * as Facts from "../../src/domain/Facts.ts"
import type { Report } from "../../src/domain/Report.ts"
import type { RunRecord } from "../../src/domain/Run.ts"
import { ConfigMap, Node, Pod } from "../../src/infra/kube/resources/core.ts"
import { FleetState } from "../../src/master/FleetState.ts"
import { History } from "../../src/master/History.ts"
import { Registry } from "../../src/master/Registry.ts"
import { configDrift, flagsOf } from "../../src/probes/kubernetes/configDrift.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { type FleetServices, master, startAgent } from "../master/control/fleetFixture.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

/** The other of two clusters that are meant to be alike. */
class Other extends Context.Service<Other, TestCluster["Service"]>()("kubeprober/test/Other") {}

const clusters = Layer.merge(
  TestCluster.layer({ name: "drift-a" }),
  Layer.effect(Other, TestCluster).pipe(Layer.provide(Layer.fresh(TestCluster.layer({ name: "drift-b" }))))
)

const corefile = (upstream: string) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name: "coredns", namespace: "kube-system" },
  data: { Corefile: `.:53 {\n    forward . ${upstream}\n}\n` }
})

const proxy = (mode: string) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name: "kube-proxy", namespace: "kube-system" },
  data: { "config.conf": `mode: ${mode}\nclusterCIDR: 10.9.0.0/16\n` }
})

const definition = (...versions: ReadonlyArray<string>) => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "things.test.example" },
  spec: {
    group: "test.example",
    scope: "Cluster",
    names: { kind: "Thing", plural: "things" },
    versions: versions.map((name, index) => ({
      name,
      served: true,
      storage: index === 0,
      schema: { openAPIV3Schema: { type: "object" } }
    }))
  }
})

const binding = (name: string, ...users: ReadonlyArray<string>) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
  subjects: users.map((user) => ({ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: user }))
})

const storageClass = (provisioner: string) => ({
  apiVersion: "storage.k8s.io/v1",
  kind: "StorageClass",
  metadata: { name: "fast", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
  provisioner
})

const webhook = (url: string, failurePolicy: string) => ({
  apiVersion: "admissionregistration.k8s.io/v1",
  kind: "ValidatingWebhookConfiguration",
  metadata: { name: "guard" },
  webhooks: [{
    name: "guard.test.example",
    admissionReviewVersions: ["v1"],
    sideEffects: "None",
    failurePolicy,
    clientConfig: { url },
    rules: [{ apiGroups: ["test.example"], apiVersions: ["v1"], operations: ["CREATE"], resources: ["things"] }]
  }]
})

/** What people would pin: all that the probe told. */
const baselineOf = (report: Report): Record<string, string> =>
  Object.fromEntries(Facts.fromReport(report)?.values ?? [])

const saysOf = ({ findings }: Report) =>
  findings.map(({ code, evidence, status, subject }) =>
    `${status} ${code} ${subject?.kind} ${subject?.name}: ${evidence?.["expected"]} -> ${evidence?.["actual"]}`
  )

describe("flags of an API server", () => {
  it("are those that clusters share, however they are written", () => {
    assert.deepStrictEqual(
      Object.fromEntries(flagsOf([
        "kube-apiserver",
        "--authorization-mode=Node,RBAC",
        "--etcd-servers=https://10.0.0.1:2379",
        "--token-auth-file=/secret",
        "--allow-privileged",
        "--event-ttl",
        "2h",
        "--feature-gates=A=true,B=false"
      ])),
      {
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "event-ttl": "2h",
        "feature-gates": "A=true,B=false"
      }
    )
  })
})

describe("k8s.config.drift", () => {
  layer(clusters, { excludeTestServices: true, timeout: "120 seconds" })("on a real cluster", (it) => {
    const both = <A, E, R>(each: (cluster: TestCluster["Service"]) => Effect.Effect<A, E, R>) =>
      Effect.gen(function*() {
        const a = yield* each(yield* TestCluster)
        return [a, yield* each(yield* Other)] as const
      })
    const pinned = Effect.fnUntraced(function*(
      config: { readonly critical?: ReadonlyArray<string>; readonly ignore?: ReadonlyArray<string> } = {}
    ) {
      const { run } = yield* TestCluster
      const baseline = baselineOf(yield* run(configDrift))
      const other = yield* Other
      return {
        baseline,
        /** Of the other cluster, by the first one's facts. */
        report: other.run(Probe.configure(configDrift, { baseline, ...config }))
      }
    })

    it.effect(
      healthy(configDrift, "two new clusters are alike, whichever of them is the baseline"),
      () =>
        Effect.gen(function*() {
          yield* both(({ apply }) =>
            apply(
              corefile("/etc/resolv.conf"),
              proxy("ipvs"),
              definition("v1"),
              storageClass("test.example/disk"),
              webhook("https://127.0.0.1:9/guard", "Ignore"),
              binding("operators", "olga")
            )
          )
          const { cluster, run, userWith } = yield* TestCluster
          const told = yield* run(configDrift, { as: yield* userWith(configDrift.needs) })
          assert.strictEqual(told.status, "PASS", told.message)
          const facts = baselineOf(told)
          assert.include(facts["kubernetes/version"], cluster.kubernetesVersion)
          assert.match(facts["coredns/corefile"] ?? "", /^sha256:[0-9a-f]{64}$/)
          assert.match(facts["webhook/validating/guard"] ?? "", /^1 webhook \(Ignore\), sha256:[0-9a-f]{64}$/)
          assert.deepStrictEqual(
            [
              "kube-proxy/mode",
              "cidr/pods",
              "storageclass/default",
              "crd/things.test.example",
              "cluster-admin/operators",
              "cluster-admin/cluster-admin",
              "priorityclass/system-node-critical"
            ].map((key) => facts[key]),
            [
              "ipvs",
              "10.9.0.0/16",
              "fast (test.example/disk)",
              "v1 (stored)",
              "User olga",
              "Group system:masters",
              "2000001000"
            ]
          )
          assert.match(facts["cidr/services"] ?? "", /^\d+\.\d+\.\d+\.\d+\/\d+$/)
          // Without a node there is no telling what nodes are like.
          assert.deepStrictEqual([...Facts.fromReport(told)?.unseen ?? []], ["apiserver", "node"])
          const { report } = yield* pinned()
          const alike = yield* report
          assert.strictEqual(alike.status, "PASS", alike.message)
        })
    )

    it.effect(
      fault(
        configDrift,
        "DRIFTED",
        "a CRD version added, a webhook made to fail, CoreDNS forwarding elsewhere, kube-proxy in another mode, the default StorageClass gone"
      ),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* Other
          const { report } = yield* pinned()
          const drifts: ReadonlyArray<readonly [string, Effect.Effect<unknown>, Effect.Effect<unknown>]> = [
            ["crd/things.test.example", apply(definition("v1", "v2")), apply(definition("v1"))],
            [
              "webhook/validating/guard",
              apply(webhook("https://127.0.0.1:9/guard", "Fail")),
              apply(webhook("https://127.0.0.1:9/guard", "Ignore"))
            ],
            ["coredns/corefile", apply(corefile("192.0.2.1")), apply(corefile("/etc/resolv.conf"))],
            ["kube-proxy/mode", apply(proxy("iptables")), apply(proxy("ipvs"))],
            [
              "storageclass/default",
              kubectl("delete", "storageclass", "fast"),
              apply(storageClass("test.example/disk"))
            ]
          ]
          for (const [key, drift, heal] of drifts) {
            yield* drift
            const broken = yield* report
            assert.strictEqual(`${broken.status} ${broken.code}`, "WARN DRIFTED", key)
            assert.deepStrictEqual(broken.findings.map(({ subject }) => subject), [{ kind: "Fact", name: key }])
            yield* heal
            assert.strictEqual((yield* report).status, "PASS", key)
          }
          yield* apply(definition("v1", "v2"))
          assert.deepStrictEqual(saysOf(yield* report), [
            "WARN DRIFTED Fact crd/things.test.example: v1 (stored) -> v1 (stored), v2"
          ])
          // Another URL is another cluster's own business, and white space nobody's.
          yield* apply(definition("v1"), webhook("https://127.0.0.1:10/guard", "Ignore"), {
            ...corefile(""),
            data: { Corefile: ".:53 {  \n    forward . /etc/resolv.conf\n}\n\n" }
          })
          assert.strictEqual((yield* report).status, "PASS")
          yield* apply(webhook("https://127.0.0.1:9/guard", "Ignore"), corefile("/etc/resolv.conf"))
        })
    )

    it.effect(
      fault(configDrift, "DRIFTED_CRITICAL", "somebody bound to cluster-admin, where nobody else may be"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl, run } = yield* Other
          const { baseline, report } = yield* pinned({ critical: ["cluster-admin/*"] })
          yield* apply(binding("backdoor", "mallory"), binding("operators", "olga", "oscar"))
          assert.deepStrictEqual(saysOf(yield* report), [
            "ERROR DRIFTED_CRITICAL Fact cluster-admin/backdoor: absent -> User mallory",
            "ERROR DRIFTED_CRITICAL Fact cluster-admin/operators: User olga -> User olga, User oscar"
          ])
          const closed = yield* run(Probe.configure(configDrift, {
            baseline: { ...baseline, "cluster-admin/*": "absent" },
            ignore: ["cluster-admin/operators"]
          }))
          assert.deepStrictEqual(saysOf(closed), ["WARN DRIFTED Fact cluster-admin/backdoor: absent -> User mallory"])
          yield* kubectl("delete", "clusterrolebinding", "backdoor")
          yield* apply(binding("operators", "olga"))
          assert.strictEqual((yield* report).status, "PASS")
        })
    )

    it.effect(fault(configDrift, "FACT_NEW", "a CustomResourceDefinition nobody pinned"), () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* Other
        const { report } = yield* pinned()
        const extra = definition("v1")
        yield* apply({
          ...extra,
          metadata: { name: "extras.test.example" },
          spec: { ...extra.spec, names: { kind: "Extra", plural: "extras" } }
        })
        const found = yield* report
        assert.deepStrictEqual(saysOf(found), ["INFO FACT_NEW Fact crd/extras.test.example: absent -> v1 (stored)"])
        yield* kubectl("delete", "crd", "extras.test.example")
        assert.strictEqual((yield* report).status, "PASS")
      }))

    it.effect(
      fault(configDrift, "FACT_UNSEEN", "the last node gone, of which a fact is pinned"),
      () =>
        Effect.gen(function*() {
          const { kube, kubectl, run } = yield* TestCluster
          const about = (osImage: string) => ({
            metadata: { name: "n" },
            status: { nodeInfo: { osImage, kernelVersion: "6.1", kubeletVersion: "v1.35.4" } }
          })
          const report = run(
            Probe.configure(configDrift, { baseline: { "node/os": "Debian 13", "node/kernel": "6.1" } })
          )
          yield* kube.apply(Node, { metadata: { name: "n" } })
          yield* kube.applyStatus(Node, about("Debian 12"))
          assert.strictEqual(
            (yield* report).message,
            "node/os is Debian 12, where the baseline says Debian 13 (and 1 more)"
          )
          yield* kube.applyStatus(Node, about("Debian 13"))
          // The kubelet's version is of a family that is pinned, and is not named.
          assert.deepStrictEqual(saysOf(yield* report), ["INFO FACT_NEW Fact node/kubelet: absent -> v1.35.4"])
          yield* kubectl("delete", "node", "n")
          assert.deepStrictEqual((yield* report).findings.map(({ code }) => code), ["FACT_UNSEEN", "FACT_UNSEEN"])
        })
    )

    it.effect("reads the flags of API servers that run as pods, and tells when replicas differ", () =>
      Effect.gen(function*() {
        const { kube, kubectl, run } = yield* TestCluster
        const server = (name: string, mode: string) =>
          kube.create(Pod, {
            metadata: { name, namespace: "kube-system", labels: { component: "kube-apiserver" } },
            spec: {
              automountServiceAccountToken: false,
              containers: [{
                name: "kube-apiserver",
                image: "registry.k8s.io/kube-apiserver:v1.35.4",
                command: ["kube-apiserver", `--authorization-mode=${mode}`, "--etcd-servers=https://10.0.0.1:2379"]
              }]
            }
          })
        yield* server("one", "Node,RBAC")
        yield* server("two", "AlwaysAllow")
        const report = yield* run(Probe.configure(configDrift, {
          baseline: { "apiserver/authorization-mode": "Node,RBAC" },
          critical: ["apiserver/*"]
        }))
        assert.strictEqual(
          report.message,
          "apiserver/authorization-mode is AlwaysAllow, Node,RBAC, where the baseline says Node,RBAC"
        )
        assert.strictEqual(report.status, "ERROR")
        yield* kubectl("delete", "pod", "-n", "kube-system", "one", "two", "--grace-period=0", "--force")
      }))

    it.effect(blind(configDrift, "ACCESS_MISSING", "each right taken away"), () =>
      Effect.gen(function*() {
        const { kubectl, run, userWith } = yield* TestCluster
        // Both give /version to every authenticated user by default.
        yield* kubectl(
          "delete",
          "clusterrolebinding",
          "system:public-info-viewer",
          "system:discovery",
          "--ignore-not-found"
        )
        for (const lacking of configDrift.needs.filter(({ optional }) => !optional)) {
          const as = yield* userWith(configDrift.needs.filter((need) => need !== lacking))
          // The API server takes a moment to learn of what was deleted.
          const report = yield* eventually(run(configDrift, { as }), ({ code }) => code === "ACCESS_MISSING")
          assert.strictEqual(report.status, "UNKNOWN")
          assert.include(report.message, Needs.describe(lacking))
        }
        const told = yield* run(configDrift, { as: yield* userWith(configDrift.needs) })
        assert.strictEqual(told.status, "PASS", told.message)
      }))

    it.effect(blind(configDrift, "API_UNREACHABLE", "the API server paused"), () =>
      Effect.gen(function*() {
        const { cluster, kubeAs, run } = yield* TestCluster
        const kube = yield* kubeAs(
          { cert: cluster.adminCertPem, key: cluster.adminKeyPem },
          { timeout: "1 second" }
        )
        yield* cluster.components.apiServer.pause
        const report = yield* Effect.ensuring(
          run(configDrift, { as: kube }),
          cluster.components.apiServer.resume
        )
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN API_UNREACHABLE")
      }))

    /** A report as an agent delivers it. */
    const recordOf = (run: string, report: Report): RunRecord => ({
      run,
      probe: { namespace: "kubeprober", name: "alike" },
      layer: "kubernetes",
      trigger: "schedule",
      report: { ...report, checker: "drift" },
      standing: { status: report.status, since: report.startedAt, consecutiveFailures: 0 }
    })

    /** A master with an agent for each of these clusters; `deliver` hands it the report of a run of one of them. */
    const fleetOf = Effect.fnUntraced(function*(
      names: ReadonlyArray<string>,
      labels: Readonly<Record<string, string>> = {}
    ) {
      const registry = yield* Registry
      const fleet = yield* FleetState
      yield* registry.applyProbe("alike", {}, {
        checks: [{ name: "drift", use: configDrift.id }],
        policy: { interval: Duration.minutes(1) },
        clusterSelector: {}
      })
      const agents = new Map<string, Effect.Success<ReturnType<typeof startAgent>>>()
      /** Done when the cluster has its Probe: of others no results are shown. */
      const enrol = Effect.fnUntraced(function*(cluster: string) {
        const agent = yield* startAgent({ cluster, labels })
        yield* eventually(agent.desired, (set) => set?.probes.length === 1)
        agents.set(cluster, agent)
      })
      yield* Effect.forEach(names, enrol)
      let seq = 0
      return {
        enrol,
        deliver: Effect.fnUntraced(function*(cluster: string, run: string, report: Report) {
          const agent = agents.get(cluster)
          if (agent === undefined) return yield* Effect.die(`no agent of ${cluster}`)
          yield* agent.uplink.deliver({ epoch: agent.welcome.epoch, seq: ++seq, records: [recordOf(run, report)] })
        }),
        /** What is shown of the comparison. */
        shown: (cluster: string) =>
          Effect.map(fleet.row(cluster), (row) => {
            const cell = Option.getOrUndefined(row)?.cells.find(({ checker }) => checker === "drift/fleet")
            return cell && `${cell.status} ${cell.code ?? ""} ${cell.message}`
          })
      }
    })

    const onMaster = <A, E>(effect: Effect.Effect<A, E, FleetServices | TestCluster | Other>) =>
      effect.pipe(
        Effect.scoped,
        Effect.provide(Layer.fresh(master)),
        Effect.provideService(References.MinimumLogLevel, "None")
      )

    /** Of a cluster that is simulated: what a real one told, as told at another time. */
    const again = Effect.fnUntraced(function*(report: Report, change: Readonly<Record<string, string>> = {}) {
      const facts = Facts.fromReport(report)
      const values = new Map([...facts?.values ?? [], ...Object.entries(change)])
      return {
        ...report,
        startedAt: yield* DateTime.now,
        findings: Facts.toFindings({ values, critical: facts?.critical ?? new Set() }, new Map([["node", "none"]]))
      }
    })

    it.effect(
      fault(configDrift, "FLEET_TOO_SMALL", "two real clusters and two simulated ones, before a fifth joins"),
      () =>
        onMaster(Effect.gen(function*() {
          const [a, b] = yield* both(({ run }) => run(configDrift))
          assert.deepStrictEqual([a.status, b.status], ["PASS", "PASS"], `${a.message}; ${b.message}`)
          const { deliver, enrol, shown } = yield* fleetOf(["a", "b", "c", "d"])
          yield* deliver("a", "run-1", a)
          yield* deliver("b", "run-1", b)
          yield* deliver("c", "run-1", yield* again(a))
          yield* deliver("d", "run-1", yield* again(a))
          assert.strictEqual(
            yield* shown("d"),
            "INFO FLEET_TOO_SMALL 4 of the 5 clusters that a comparison takes have told their facts"
          )
          yield* enrol("e")
          yield* deliver("e", "run-1", yield* again(a))
          assert.match(
            (yield* shown("e")) ?? "",
            /^PASS {2}\d+ facts, none of which most of 5 clusters have otherwise$/
          )
        }))
    )

    it.effect(
      fault(
        configDrift,
        "FLEET_DRIFTED",
        "a CRD version added in one of two real clusters, beside three simulated ones"
      ),
      () =>
        onMaster(Effect.gen(function*() {
          const a = yield* TestCluster
          const b = yield* Other
          const { deliver, shown } = yield* fleetOf(["a", "b", "c", "d", "e"])
          const history = yield* History
          const first = yield* a.run(configDrift)
          for (const name of ["c", "d", "e"]) yield* deliver(name, "run-1", yield* again(first))
          yield* deliver("a", "run-1", first)
          yield* deliver("b", "run-1", yield* b.run(configDrift))
          assert.match((yield* shown("b")) ?? "", /^PASS/)

          yield* b.apply(definition("v1", "v2"))
          const drifted = yield* b.run(configDrift)
          assert.strictEqual(drifted.status, "PASS")
          yield* deliver("b", "run-2", drifted)
          yield* deliver("a", "run-2", yield* a.run(configDrift))
          assert.strictEqual(
            yield* shown("b"),
            "WARN FLEET_DRIFTED crd/things.test.example is v1 (stored), v2, where 4 of 5 clusters have v1 (stored)"
          )
          assert.match((yield* shown("a")) ?? "", /^PASS/)
          // Delivered again, as after a lost answer, both are kept once.
          yield* deliver("b", "run-2", drifted)
          assert.deepStrictEqual([...yield* history.runs("b")].toSorted(), [
            ["run-1 kubeprober/alike drift", 1],
            ["run-1 kubeprober/alike drift/fleet", 1],
            ["run-2 kubeprober/alike drift", 1],
            ["run-2 kubeprober/alike drift/fleet", 1]
          ])

          yield* b.apply(definition("v1"))
          yield* deliver("b", "run-3", yield* b.run(configDrift))
          assert.match((yield* shown("b")) ?? "", /^PASS/)
          const page = yield* history.entries(
            { cluster: "b", probe: { namespace: "kubeprober", name: "alike" }, checker: "drift/fleet" },
            { limit: 10 }
          )
          const warned = Option.getOrThrow(page).items.find(({ record }) => record.report.status === "WARN")
          assert.deepStrictEqual(warned?.record.report.findings[0]?.evidence, {
            key: "crd/things.test.example",
            expected: "v1 (stored)",
            actual: "v1 (stored), v2",
            agree: 4,
            of: 5
          })
        }))
    )

    it.effect(
      fault(
        configDrift,
        "FLEET_DRIFTED_CRITICAL",
        "somebody bound to cluster-admin in one of two real clusters, beside three simulated ones"
      ),
      () =>
        onMaster(Effect.gen(function*() {
          const critical = Probe.configure(configDrift, { critical: ["cluster-admin/*"] })
          const a = yield* TestCluster
          const b = yield* Other
          const { deliver, shown } = yield* fleetOf(["a", "b", "c", "d", "e"])
          const first = yield* a.run(critical)
          for (const name of ["c", "d", "e"]) yield* deliver(name, "run-1", yield* again(first))
          yield* deliver("a", "run-1", first)
          yield* b.apply(binding("backdoor", "mallory"))
          yield* deliver("b", "run-1", yield* b.run(critical))
          assert.strictEqual(
            yield* shown("b"),
            "ERROR FLEET_DRIFTED_CRITICAL cluster-admin/backdoor is User mallory, where 4 of 5 clusters have absent"
          )
          yield* b.kubectl("delete", "clusterrolebinding", "backdoor")
          yield* deliver("b", "run-2", yield* b.run(critical))
          assert.match((yield* shown("b")) ?? "", /^PASS/)
        }))
    )

    it.effect(
      fault(
        configDrift,
        "FLEET_FACT_NEW",
        "a ConfigMap of kubeadm in one of two real clusters, beside three simulated ones"
      ),
      () =>
        onMaster(Effect.gen(function*() {
          const a = yield* TestCluster
          const b = yield* Other
          const { deliver, shown } = yield* fleetOf(["a", "b", "c", "d", "e"], { [Facts.GROUP_LABEL]: "edge" })
          const registry = yield* Registry
          const first = yield* a.run(configDrift)
          for (const name of ["c", "d", "e"]) yield* deliver(name, "run-1", yield* again(first))
          yield* deliver("a", "run-1", first)
          yield* b.kube.apply(ConfigMap, {
            metadata: { name: "kubeadm-config", namespace: "kube-system" },
            data: { ClusterConfiguration: "networking:\n  dnsDomain: other.local\n" }
          })
          const odd = yield* b.run(configDrift)
          yield* deliver("b", "run-1", odd)
          assert.strictEqual(
            yield* shown("b"),
            "INFO FLEET_FACT_NEW dns/domain is other.local, where 4 of 5 clusters have absent"
          )
          // In a group of its own it is alone, and the four that are left are too few.
          yield* registry.label("b", { [Facts.GROUP_LABEL]: "core" })
          yield* deliver("b", "run-2", yield* again(odd))
          assert.match((yield* shown("b")) ?? "", /^INFO FLEET_TOO_SMALL 1 of the 5/)
          yield* deliver("a", "run-2", yield* again(first))
          assert.match((yield* shown("a")) ?? "", /^INFO FLEET_TOO_SMALL 4 of the 5/)
          yield* b.kubectl("delete", "configmap", "-n", "kube-system", "kubeadm-config")
          yield* registry.label("b", { [Facts.GROUP_LABEL]: "edge" })
          yield* deliver("b", "run-3", yield* b.run(configDrift))
          assert.match((yield* shown("b")) ?? "", /^PASS/)
          // A cluster that was removed is compared no more, and a check with a baseline has no comparison.
          yield* registry.remove("e")
          yield* deliver("b", "run-4", yield* b.run(configDrift))
          assert.match((yield* shown("b")) ?? "", /^INFO FLEET_TOO_SMALL 4 of the 5/)
          yield* registry.applyProbe("alike", {}, {
            checks: [{ name: "drift", use: configDrift.id, with: { baseline: { "dns/domain": "absent" } } }],
            clusterSelector: {}
          })
          yield* eventually(shown("b"), (cell) => cell === undefined)
        }))
    )
  })
})
