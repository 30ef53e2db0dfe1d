import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Option, Queue, Stream } from "effect"
import { Cluster } from "../../../src/infra/kube/resources/kubeprober.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import { Resources } from "../../../src/master/Resources.ts"
import * as ResourcesSqlite from "../../../src/master/resources/ResourcesSqlite.ts"
import { suite } from "./resourcesSuite.ts"

const at = (file: string) =>
  Layer.fresh(ResourcesSqlite.layer({ namespace: "kubeprober" }).pipe(Layer.provide(Sqlite.layer({ file }))))

const inFile = <A, E>(use: (file: string) => Effect.Effect<A, E, FileSystem.FileSystem>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return yield* use(`${yield* fs.makeTempDirectoryScoped()}/state.db`)
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

describe("Resources in SQLite", () => {
  for (const [name, test] of suite) it.live(name, () => inFile((file) => Effect.provide(test, at(file))))

  it.live("are there after a restart, and versions go on", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const before = yield* Effect.gen(function*() {
          const resources = yield* Resources
          const kept = yield* resources.apply(Cluster, { metadata: { name: "kept", labels: { a: "1" } }, spec: {} })
          yield* resources.apply(Cluster, { metadata: { name: "gone" }, spec: {} })
          yield* resources.remove(Cluster, "gone")
          return kept
        }).pipe(Effect.provide(at(file)))
        yield* Effect.gen(function*() {
          const resources = yield* Resources
          assert.deepStrictEqual(Option.getOrThrow(yield* resources.get(Cluster, "kept")), before)
          const next = yield* resources.apply(Cluster, { metadata: { name: "next" }, spec: {} })
          assert.strictEqual(next.metadata.resourceVersion, "4")
        }).pipe(Effect.provide(at(file)))
      })
    ))

  it.live("are told anew to a reader who fell behind", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const resources = yield* Resources
        const events = yield* Queue.bounded<string>(1)
        yield* resources.reflect(Cluster).pipe(
          Stream.runForEach((event) =>
            Queue.offer(events, event._tag === "Synced" ? `Synced ${event.items.length}` : event._tag)
          ),
          Effect.forkScoped
        )
        assert.strictEqual(yield* Queue.take(events), "Synced 0")
        for (let n = 0; n < 1500; n++) {
          yield* resources.apply(Cluster, { metadata: { name: "busy" }, spec: { k8sVersion: `1.${n}` } })
        }
        const seen: Array<string> = []
        while (!seen.includes("Synced 1")) seen.push(yield* Queue.take(events))
        assert.isBelow(seen.length, 1500)
      }).pipe(Effect.scoped, Effect.provide(at(file)))
    ))

  it.live("hold no credential of an old manifest", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const spec = { clusterConfig: { token: "s3cret-token", keyData: "s3cret-key" } }
        yield* Resources.use((resources) => resources.apply(Cluster, { metadata: { name: "old" }, spec })).pipe(
          Effect.provide(at(file))
        )
        assert.notInclude(Buffer.from(yield* fs.readFile(file)).toString("latin1"), "s3cret")
      })
    ))
})
