/** What every layer of Resources does. Each try works on names of its own, so that they may share a store. */
import { assert } from "@effect/vitest"
import { Effect, Option, Queue, Redacted, Stream } from "effect"
import type { ReflectorEvent } from "../../../src/infra/kube/Kube.ts"
import { Cluster, Probe, ProbeRun } from "../../../src/infra/kube/resources/kubeprober.ts"
import { Resources } from "../../../src/master/Resources.ts"
import { freshName } from "../../clusters/freshName.ts"
import { eventually } from "../../kube/eventually.ts"

const checks = [{ name: "api", use: "k8s.api.health" }]

/** Names with their event, of what begins with `prefix`. */
const followed = Effect.fnUntraced(function*(prefix: string) {
  const seen = yield* Queue.unbounded<string>()
  const tell = (event: ReflectorEvent<Cluster>) => {
    const objects = event._tag === "Synced" ? event.items : [event.object]
    const names = objects.flatMap(({ metadata: { name = "" } }) => name.startsWith(prefix) ? [name] : [])
    return Effect.forEach(names, (name) => Queue.offer(seen, `${event._tag} ${name}`))
  }
  yield* Effect.forkScoped(Stream.runForEach((yield* Resources).reflect(Cluster), tell))
  return Queue.take(seen)
})

export const suite: ReadonlyArray<
  readonly [name: string, Effect.Effect<void, unknown, Resources>]
> = [
  [
    "keeps what is applied and numbers changes of the spec",
    Effect.gen(function*() {
      const resources = yield* Resources
      const numbered = yield* freshName("numbered")
      assert.isTrue(Option.isNone(yield* resources.get(Probe, numbered)))
      const made = yield* resources.apply(Probe, {
        metadata: { name: numbered, labels: { a: "1" } },
        spec: { checks }
      })
      assert.deepStrictEqual([made.metadata.name, made.metadata.namespace, made.metadata.generation], [
        numbered,
        resources.namespace,
        1
      ])
      assert.isDefined(made.metadata.uid)
      assert.isDefined(made.metadata.creationTimestamp)
      assert.strictEqual(made.spec.checks?.[0]?.use, "k8s.api.health")
      const same = yield* resources.apply(Probe, {
        metadata: { name: numbered, labels: { a: "1" } },
        spec: { checks }
      })
      assert.strictEqual(same.metadata.resourceVersion, made.metadata.resourceVersion)
      const labelled = yield* resources.apply(Probe, {
        metadata: { name: numbered, labels: { b: "2" } },
        spec: { checks }
      })
      assert.deepStrictEqual([labelled.metadata.generation, labelled.metadata.labels], [1, { b: "2" }])
      const spec = { checks, policy: { interval: "90s" } }
      const changed = yield* resources.apply(Probe, { metadata: { name: numbered, labels: { b: "2" } }, spec })
      assert.deepStrictEqual([changed.metadata.generation, changed.metadata.uid], [2, made.metadata.uid])
      assert.isAbove(Number(changed.metadata.resourceVersion), Number(made.metadata.resourceVersion))
      const listed = (yield* resources.list(Probe)).find(({ metadata }) => metadata.name === numbered)
      assert.deepStrictEqual(listed, Option.getOrThrow(yield* resources.get(Probe, numbered)))
    })
  ],
  [
    "keeps a status beside the spec, replaces it whole, and has none for what is gone",
    Effect.gen(function*() {
      const resources = yield* Resources
      const name = yield* freshName("with-status")
      yield* resources.apply(Cluster, { metadata: { name }, spec: {} })
      yield* resources.applyStatus(Cluster, name, { nodeCount: 3, epoch: 1 })
      const second = Option.getOrThrow(yield* resources.applyStatus(Cluster, name, { epoch: 2 }))
      assert.deepStrictEqual([second.status, second.metadata.generation], [{ epoch: 2 }, 1])
      const applied = yield* resources.apply(Cluster, {
        metadata: { name },
        spec: { k8sVersion: "1.35" }
      })
      assert.deepStrictEqual([applied.status, applied.metadata.generation], [{ epoch: 2 }, 2])
      assert.isTrue(Option.isNone(yield* resources.applyStatus(Cluster, "no-such-cluster", { epoch: 2 })))
    })
  ],
  [
    "drops what the schema does not know, and refuses what it forbids, saying what",
    Effect.gen(function*() {
      const resources = yield* Resources
      yield* resources.apply(Probe, { metadata: { name: "known" }, spec: { checks } })
      const refused = (spec: unknown, name = "refused", labels = {}) =>
        Effect.flip(resources.apply(Probe, { metadata: { name, labels }, spec }))
      const neither = yield* refused({ policy: { interval: "90s" } })
      assert.strictEqual(neither.reason, "Invalid")
      assert.match(neither.message, /apply Probe refused: .*exactly one of the two/s)
      assert.match((yield* refused({ checks, policy: { interval: "soon" } })).message, /interval/)
      assert.strictEqual((yield* refused({ checks }, "Upper")).reason, "Invalid")
      assert.strictEqual((yield* refused({ checks }, "x".repeat(64))).reason, "Invalid")
      assert.strictEqual((yield* refused({ checks }, "refused", { "not a key": "" })).reason, "Invalid")
      assert.strictEqual((yield* refused({ checks }, "refused", { key: "not a value" })).reason, "Invalid")
      assert.isTrue(Option.isNone(yield* resources.get(Probe, "refused")))
      const status = yield* Effect.flip(resources.applyStatus(Probe, "known", { observedGeneration: "one" }))
      assert.strictEqual(status.reason, "Invalid")
    })
  ],
  [
    "does not let a ProbeRun be changed",
    Effect.gen(function*() {
      const resources = yield* Resources
      const name = yield* freshName("once")
      yield* resources.apply(ProbeRun, { metadata: { name }, spec: { probe: "a" } })
      const refused = yield* Effect.flip(
        resources.apply(ProbeRun, { metadata: { name }, spec: { probe: "b" } })
      )
      assert.match(refused.message, /a ProbeRun cannot be changed; create another one/)
    })
  ],
  [
    "tells all there is, then every change in order, to everyone who follows",
    Effect.scoped(Effect.gen(function*() {
      const resources = yield* Resources
      const prefix = yield* freshName("seen")
      const [a, b] = [`${prefix}-a`, `${prefix}-b`]
      yield* resources.apply(Cluster, { metadata: { name: a }, spec: {} })
      const next = yield* followed(prefix)
      const other = yield* followed(prefix)
      assert.strictEqual(yield* next, `Synced ${a}`)
      assert.strictEqual(yield* other, `Synced ${a}`)
      yield* resources.apply(Cluster, { metadata: { name: b }, spec: {} })
      yield* resources.applyStatus(Cluster, b, { epoch: 1 })
      yield* resources.applyStatus(Cluster, b, { epoch: 1 })
      assert.isTrue(yield* resources.remove(Cluster, b))
      assert.isFalse(yield* resources.remove(Cluster, b))
      yield* resources.remove(Cluster, a)
      for (const one of [next, other]) {
        assert.deepStrictEqual([yield* one, yield* one, yield* one, yield* one], [
          `Added ${b}`,
          `Modified ${b}`,
          `Deleted ${b}`,
          `Deleted ${a}`
        ])
      }
    }))
  ],
  [
    "loses no change between what there is and what follows",
    Effect.scoped(Effect.gen(function*() {
      const resources = yield* Resources
      const prefix = yield* freshName("race")
      const names = Array.from({ length: 40 }, (_, n) => `${prefix}-${n}`)
      const write = Effect.forEach(names, (name) => resources.apply(Cluster, { metadata: { name }, spec: {} }))
      yield* Effect.forkScoped(write)
      const readers = yield* Effect.forEach(Array.from({ length: 5 }), () => {
        const known = new Set<string>()
        return resources.reflect(Cluster).pipe(
          Stream.runForEach((event) =>
            Effect.sync(() => {
              for (const { metadata: { name = "" } } of event._tag === "Synced" ? event.items : [event.object]) {
                if (event._tag === "Deleted") known.delete(name)
                else known.add(name)
              }
            })
          ),
          Effect.forkScoped,
          Effect.as(known)
        )
      })
      for (const known of readers) {
        yield* eventually("every name is known", Effect.sync(() => names.every((name) => known.has(name))))
      }
    }))
  ],
  [
    "never prints the credentials old manifests carry",
    Effect.gen(function*() {
      const resources = yield* Resources
      const spec = { clusterConfig: { token: "s3cret", probeNamespaces: "probes" } }
      const made = yield* resources.apply(Cluster, { metadata: { name: "old" }, spec })
      assert.notInclude(JSON.stringify(made), "s3cret")
      assert.strictEqual(made.spec?.clusterConfig?.probeNamespaces, "probes")
      assert.isTrue(made.spec?.clusterConfig?.token === undefined || Redacted.isRedacted(made.spec.clusterConfig.token))
    })
  ]
]
