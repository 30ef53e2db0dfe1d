import { assert, layer } from "@effect/vitest"
import { type Duration, Effect, Queue, Stream } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube, type ReflectorEvent } from "../../src/infra/kube/Kube.ts"
import { KubeEvents } from "../../src/infra/kube/KubeEvents.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import { Event } from "../../src/infra/kube/resources/events.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import { eventually } from "./eventually.ts"
import * as TcpProxy from "./TcpProxy.ts"
import * as TestCluster from "./TestCluster.ts"

const told = (event: ReflectorEvent<ConfigMap>): string =>
  event._tag === "Synced"
    ? `Synced ${event.items.length}`
    : `${event._tag} ${event.object.metadata.name} ${event.object.data["v"] ?? ""}`.trim()

/** Only what the tests make: the controller manager has a ConfigMap in each namespace. */
const ours = (namespace: string) => ({ namespace, labelSelector: "ours=true" })

const configMap = (namespace: string, name: string, v: string) => ({
  metadata: { name, namespace, labels: { ours: "true" } },
  data: { v }
})

layer(TestCluster.layer("kube-watch"), { excludeTestServices: true, timeout: "2 minutes" })("a real server", (it) => {
  it.effect("is watched from a version on, until the time asked for", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const namespace = yield* freshName("watched")
      yield* kube.create(Namespace, { metadata: { name: namespace } })
      const { resourceVersion } = yield* kube.list(ConfigMap, ours(namespace))
      yield* kube.create(ConfigMap, configMap(namespace, "a", "1"))
      yield* kube.apply(ConfigMap, configMap(namespace, "a", "2"), { force: true })
      yield* kube.delete(ConfigMap, { name: "a", namespace })
      const watch = (timeout: Duration.Input) =>
        kube.watch(ConfigMap, { ...ours(namespace), resourceVersion, timeout }).pipe(Stream.map(told))
      const events = yield* Stream.runCollect(Stream.take(watch("1 minute"), 3))
      assert.deepStrictEqual(events, ["Added a 1", "Modified a 2", "Deleted a 2"])
      yield* Stream.runDrain(watch("1 second")).pipe(Effect.timeout("30 seconds"))
    }))

  it.effect("is reflected over cut and frozen connections and its own restart", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const kube = yield* Kube
      const proxy = yield* TcpProxy.make(cluster.server)
      const far = yield* KubeHttp.make(TestCluster.admin(cluster, proxy.server))
      const namespace = yield* freshName("reflected")
      yield* kube.create(Namespace, { metadata: { name: namespace } })
      yield* kube.create(ConfigMap, configMap(namespace, "a", "1"))
      const events = yield* Queue.unbounded<string>()
      yield* far.reflect(ConfigMap, ours(namespace)).pipe(
        Stream.runForEach((event) => Queue.offer(events, told(event))),
        Effect.forkScoped
      )
      const next = Queue.take(events).pipe(Effect.timeout("90 seconds"))
      assert.strictEqual(yield* next, "Synced 1")
      yield* kube.create(ConfigMap, configMap(namespace, "b", "1"))
      assert.strictEqual(yield* next, "Added b 1")

      proxy.cut()
      yield* kube.delete(ConfigMap, { name: "a", namespace })
      assert.strictEqual(yield* next, "Deleted a 1", "resumed, not listed again")

      yield* cluster.components.apiServer.kill
      yield* cluster.components.apiServer.start
      yield* eventually(
        "the server is back",
        Effect.map(Effect.exit(kube.raw("/readyz")), (exit) => exit._tag === "Success" && exit.value.status === 200),
        60
      )
      yield* kube.create(ConfigMap, configMap(namespace, "c", "1"))
      // Which it is depends on whether the restarted server still knows the version, and on when it was asked.
      let after = yield* next
      while (after === "Synced 1") after = yield* next
      assert.include(["Added c 1", "Synced 2"], after)

      // The restarted server's cache begins where it was started, so that the first version of all is too old for it.
      const error = yield* kube.watch(ConfigMap, { namespace, resourceVersion: "1", timeout: "5 seconds" }).pipe(
        Stream.runDrain,
        Effect.flip
      )
      assert.strictEqual(error.reason._tag, "Expired")
    }), 240_000)

  it.effect("keeps events, of which repetitions are one", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const regarded = yield* freshName("regarded")
      const object = yield* kube.create(ConfigMap, configMap("default", regarded, "1"))
      yield* Effect.gen(function*() {
        const events = yield* KubeEvents
        const happening = {
          regarding: { resource: ConfigMap, object },
          type: "Warning",
          reason: "ProbeFailed",
          action: "Probe",
          note: `ü${"x".repeat(2_000)}`
        } as const
        yield* events.record(happening)
        yield* events.record(happening)
        yield* events.record({ ...happening, type: "Normal", reason: "ProbePassed", note: "well" })
      }).pipe(Effect.provide(KubeEvents.layer({ controller: "kubeprober.io/test", instance: "test-1" })))
      const { items } = yield* kube.list(Event, { namespace: "default", fieldSelector: `regarding.name=${regarded}` })
      const failed = items.find((event) => event.reason === "ProbeFailed")
      assert.strictEqual(items.length, 2)
      assert.strictEqual(failed?.series?.count, 2)
      assert.strictEqual(failed?.regarding.uid, object.metadata.uid)
      assert.strictEqual(failed?.reportingController, "kubeprober.io/test")
      assert.isAtMost(Buffer.byteLength(failed?.note ?? ""), 1_024)
    }))
})
