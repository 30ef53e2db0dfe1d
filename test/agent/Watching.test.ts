/** What is watched on a real API server, and what is told of it. */
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Effect, Layer, Logger, Stream } from "effect"
import { Budget } from "../../src/agent/Budget.ts"
import { Watching } from "../../src/agent/Watching.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Deployment } from "../../src/infra/kube/resources/apps.ts"
import { ConfigMap, Namespace, Node } from "../../src/infra/kube/resources/core.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Watch from "../../src/probes/Watch.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"

const at = DateTime.makeUnsafe("2026-01-01T12:00:00Z")

const node = (
  options: { readonly version?: string; readonly beat?: number; readonly cordoned?: boolean } = {}
): Node => ({
  metadata: { name: "a", uid: "u", resourceVersion: options.version ?? "1" },
  spec: { unschedulable: options.cordoned ?? false, podCIDRs: [], taints: [] },
  status: {
    conditions: [{
      type: "Ready",
      status: "True",
      lastHeartbeatTime: DateTime.add(at, { seconds: options.beat ?? 0 })
    }],
    addresses: [],
    daemonEndpoints: { kubeletEndpoint: { Port: 10_250 } },
    capacity: {},
    allocatable: {},
    nodeInfo: {}
  }
})

describe("a watch", () => {
  it("takes no heartbeat, version or note of a manager for a change", () => {
    const { when } = Watch.of(Node)
    assert.isFalse(when(node(), node({ version: "2", beat: 10 })))
    assert.isTrue(when(node(), node({ version: "2", cordoned: true })))
    assert.isTrue(when(undefined, node()))
    assert.isTrue(when(node(), undefined))
  })

  it("takes nothing for a change that runs of probes create, change or delete", () => {
    const ofRun = (version: string) => {
      const object = node({ version, cordoned: version === "2" })
      return { ...object, metadata: { ...object.metadata, labels: { "kubeprober.io/run": "r" } } }
    }
    for (
      const { when } of [
        Watch.of(Node),
        Watch.of(Node, { when: Watch.differsIn(({ spec }) => spec.unschedulable) })
      ]
    ) {
      assert.isFalse(when(undefined, ofRun("1")))
      assert.isFalse(when(ofRun("1"), ofRun("2")))
      assert.isFalse(when(ofRun("2"), undefined))
      assert.isTrue(when(node(), node({ cordoned: true })))
    }
  })

  it("is of what a probe says matters; a successor under the same name is another object", () => {
    const { when } = Watch.of(Node, { when: Watch.differsIn(({ spec }) => spec.taints) })
    assert.isFalse(when(node(), node({ cordoned: true })))
    const successor = { ...node(), metadata: { name: "a", uid: "v" } }
    assert.isTrue(when(node(), successor))
  })

  it("is among its probe's needs, as optional, in the catalogue too", () => {
    assert.deepStrictEqual(
      Watch.needs(Watch.of(Deployment), Watch.of(ConfigMap, { namespace: "a" })).map((need) => [
        Needs.describe(need),
        need.optional
      ]),
      [
        ["list deployments.apps", true],
        ["watch deployments.apps", true],
        ["list configmaps in a", true],
        ["watch configmaps in a", true]
      ]
    )
    const watching = catalogue.filter(({ onChange }) => onChange.length > 0)
    assert.isAbove(watching.length, 4)
    for (const { id, needs, onChange } of watching) {
      const rules = new Set(needs.map((need) => Needs.describe(need)))
      for (const need of Watch.needs(...onChange)) assert.isTrue(rules.has(Needs.describe(need)), `${id}: ${need.verb}`)
    }
  })
})

const map = (name: string, data: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>> = {}) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: PROBE_NAMESPACE, labels },
  data
})

describe("watching", () => {
  layer(TestCluster.layer({ name: "watching" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      const start = (kube: Kube["Service"]) =>
        Effect.gen(function*() {
          const logged: Array<string> = []
          const watching = yield* Layer.build(Watching.layer).pipe(
            Effect.provide(Budget.layer()),
            Effect.provideService(Kube, kube),
            Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))]))
          )
          const { faults, follow } = yield* Effect.provide(Watching, watching)
          const count = (watch: Watch.Watch) =>
            Effect.gen(function*() {
              let changes = 0
              const known = yield* follow(watch, Effect.sync(() => void changes++))
              return { known, changes: Effect.sync(() => changes) }
            })
          return { count, faults, logged }
        })

      it.effect("tells what changes and not what is there; one list and watch serves all that name a kind", () =>
        Effect.gen(function*() {
          const { apply, kubectl, kubeAs, cluster } = yield* TestCluster
          yield* apply(map("first", { a: "1" }), map("other", { a: "1" }, { mine: "yes" }))
          const kube = yield* kubeAs({ cert: cluster.adminCertPem, key: cluster.adminKeyPem })
          const { count } = yield* start(kube)
          const scope = { namespace: PROBE_NAMESPACE }
          const all = yield* Effect.forEach(Array.from({ length: 20 }), () => count(Watch.of(ConfigMap, scope)))
          const selected = yield* count(Watch.of(ConfigMap, { ...scope, selector: "mine=yes" }))
          const ofData = yield* count(Watch.of(ConfigMap, { ...scope, when: Watch.differsIn(({ data }) => data["b"]) }))
          yield* Effect.all([...all, selected, ofData].map(({ known }) => known))
          // The server publishes its CA in every namespace when it gets round to it, hence exact counts only from here on.
          yield* eventually(
            kubectl("get", "configmap", "-n", PROBE_NAMESPACE, "-o", "name"),
            (text) => text.includes("root-ca")
          )
          const before = yield* Effect.forEach(all, ({ changes }) => changes)
          assert.isTrue(before.every((changes) => changes <= 1))
          assert.strictEqual(yield* kube.requests, 4)

          yield* apply(map("first", { a: "2" }))
          const told = (more: number) =>
            Effect.forEach(
              all,
              ({ changes }, index) => Effect.map(changes, (now) => now === (before[index] ?? 0) + more)
            )
          yield* eventually(told(1), (each) => each.every((is) => is), { within: "10 seconds" })
          assert.strictEqual(yield* selected.changes, 0)
          assert.strictEqual(yield* ofData.changes, before[0] ?? 0)
          yield* apply(map("first", { a: "2", b: "1" }), map("other", { a: "2" }, { mine: "yes" }))
          yield* eventually(told(3), (each) => each.every((is) => is), { within: "10 seconds" })
          yield* eventually(selected.changes, (changes) => changes === 1, { within: "10 seconds" })
          assert.strictEqual(yield* ofData.changes, (before[0] ?? 0) + 1)
          yield* kubectl("delete", "configmap", "first", "-n", PROBE_NAMESPACE)
          yield* eventually(told(4), (each) => each.every((is) => is), { within: "10 seconds" })
          assert.strictEqual(yield* kube.requests, 4)
        }).pipe(Effect.scoped))

      it.effect("what may not be watched is told once, and followed as soon as it may", () =>
        Effect.gen(function*() {
          const { apply, userWith } = yield* TestCluster
          const kube = yield* userWith([])
          const { count, faults, logged } = yield* start(kube)
          const counts = yield* Effect.forEach([1, 2, 3], () => count(Watch.of(Namespace)))
          const told = yield* eventually(faults, (found) => found.size > 0, { within: "10 seconds" })
          assert.match(told.get("namespaces") ?? "", /grant the rule: list namespaces/u)
          assert.strictEqual(logged.filter((line) => line.includes("changes of namespaces are not watched")).length, 1)
          const user = /for (prober-\d+)/u.exec(told.get("namespaces") ?? "")?.[1] ?? ""
          const role = { apiVersion: "rbac.authorization.k8s.io/v1", metadata: { name: user } }
          yield* apply(
            {
              ...role,
              kind: "ClusterRole",
              rules: [{ apiGroups: [""], resources: ["namespaces"], verbs: ["list", "watch"] }]
            },
            {
              ...role,
              kind: "ClusterRoleBinding",
              roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: user },
              subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: user }]
            }
          )
          yield* Effect.all(counts.map(({ known }) => known)).pipe(Effect.timeout("40 seconds"))
          assert.strictEqual((yield* faults).size, 0)
          assert.strictEqual(logged.filter((line) => line.includes("changes of namespaces are not watched")).length, 1)
          yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "granted" } })
          yield* Effect.forEach(
            counts,
            ({ changes }) => eventually(changes, (now) => now > 0, { within: "10 seconds" })
          )
        }).pipe(Effect.scoped))

      it.effect("ends with the last who follows", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          let open = 0
          const counted: Kube["Service"] = {
            ...kube,
            reflect: (...call) =>
              Stream.unwrap(
                Effect.acquireRelease(Effect.sync(() => open++), () => Effect.sync(() => open--)).pipe(
                  Effect.as(kube.reflect(...call))
                )
              )
          }
          const { count } = yield* start(counted)
          yield* Effect.scoped(Effect.gen(function*() {
            yield* Effect.scoped(Effect.flatMap(count(Watch.of(Namespace)), ({ known }) => known))
            yield* Effect.flatMap(count(Watch.of(Namespace)), ({ known }) => known)
            assert.strictEqual(open, 1)
          }))
          yield* eventually(Effect.sync(() => open), (now) => now === 0, { within: "30 seconds" })
        }).pipe(Effect.scoped))
    }
  )
})
