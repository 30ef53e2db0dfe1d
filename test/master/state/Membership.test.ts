import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, FileSystem, Layer, Option, Queue } from "effect"
import { Cluster } from "../../../src/infra/kube/resources/kubeprober.ts"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import * as JoinTokensSqlite from "../../../src/master/membership/JoinTokensSqlite.ts"
import * as MembershipDurable from "../../../src/master/membership/MembershipDurable.ts"
import { MemberStore } from "../../../src/master/membership/MemberStore.ts"
import { Resources } from "../../../src/master/Resources.ts"
import * as ResourcesSqlite from "../../../src/master/resources/ResourcesSqlite.ts"
import { eventually } from "../../kube/eventually.ts"
import { expulsions, joinTokenSuite, membershipSuite, tagOf } from "./membershipSuite.ts"

/** One file for all, as a master without Kubernetes has it. */
const at = (file: string) =>
  Layer.fresh(
    Layer.merge(MembershipDurable.layer, JoinTokensSqlite.layer).pipe(
      Layer.provideMerge(Layer.merge(MemberStore.layerSqlite, ResourcesSqlite.layer({ namespace: "kubeprober" }))),
      Layer.provide(Sqlite.layer({ file, synchronous: "FULL" }))
    )
  )

const inFile = <A, E>(use: (file: string) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return yield* use(`${yield* fs.makeTempDirectoryScoped()}/state.db`)
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

describe("Membership in memory", () => {
  for (const [name, test] of membershipSuite) {
    it.live(name, () => Effect.provide(test, Layer.fresh(Membership.layerMemory())))
  }
})

describe("Membership in SQLite", () => {
  for (const [name, test] of membershipSuite) it.live(name, () => inFile((file) => Effect.provide(test, at(file))))

  it.live("outlives the master: numbers go on, the revoked stay out", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const [kept, revoked] = yield* Effect.gen(function*() {
          const membership = yield* Membership
          const kept = yield* membership.openEpoch(yield* membership.add("kept"))
          const revoked = yield* membership.add("revoked")
          yield* membership.revoke("revoked")
          return [kept, revoked] as const
        }).pipe(Effect.provide(at(file)))
        yield* Effect.gen(function*() {
          const membership = yield* Membership
          assert.strictEqual((yield* membership.openEpoch(kept)).epoch, 2)
          assert.strictEqual(yield* tagOf(membership.admit(revoked)), "Revoked")
        }).pipe(Effect.provide(at(file)))
      })
    ))

  it.live("ends with the Cluster, and waits for one that is not there yet", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const membership = yield* Membership
        const resources = yield* Resources
        const seen = yield* expulsions
        // Invited before its Cluster was made; another one after.
        const early = yield* membership.add("early")
        yield* resources.apply(Cluster, { metadata: { name: "early" }, spec: {} })
        yield* resources.apply(Cluster, { metadata: { name: "late" }, spec: {} })
        yield* membership.add("late")
        yield* membership.openEpoch(early)
        const store = yield* MemberStore
        yield* eventually(
          "the Cluster is seen",
          Effect.map(store.find("early"), Option.exists(({ member }) => member.resource !== undefined))
        )
        yield* resources.remove(Cluster, "late")
        yield* resources.remove(Cluster, "early")
        assert.deepStrictEqual([yield* Queue.take(seen), yield* Queue.take(seen)].sort(), [
          "early UnknownCluster",
          "late UnknownCluster"
        ])
        assert.strictEqual(yield* tagOf(membership.admit(early)), "UnknownCluster")
      }).pipe(Effect.scoped, Effect.provide(at(file)))
    ))

  it.live("is not inherited by another Cluster of the same name, made at once or while no master ran", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const first = yield* Effect.gen(function*() {
          const membership = yield* Membership
          const resources = yield* Resources
          yield* resources.apply(Cluster, { metadata: { name: "same" }, spec: {} })
          const first = yield* membership.add("same")
          yield* resources.remove(Cluster, "same")
          yield* resources.apply(Cluster, { metadata: { name: "same" }, spec: {} })
          const second = yield* membership.add("same")
          assert.notStrictEqual(second.uid, first.uid)
          assert.strictEqual(yield* tagOf(membership.admit(first)), "Revoked")
          assert.strictEqual(yield* tagOf(membership.admit(second)), "admitted")
          return second
        }).pipe(Effect.provide(at(file)))
        yield* Effect.gen(function*() {
          const resources = yield* Resources
          yield* resources.remove(Cluster, "same")
          yield* resources.apply(Cluster, { metadata: { name: "same" }, spec: {} })
        }).pipe(
          Effect.provide(
            Layer.fresh(ResourcesSqlite.layer({ namespace: "kubeprober" }).pipe(Layer.provide(Sqlite.layer({ file }))))
          )
        )
        yield* Effect.gen(function*() {
          const membership = yield* Membership
          yield* eventually(
            "the old member is gone",
            Effect.map(tagOf(membership.admit(first)), (tag) => tag === "UnknownCluster")
          )
        }).pipe(Effect.provide(at(file)))
      })
    ))
})

describe("JoinTokenStore in memory", () => {
  for (const [name, test] of joinTokenSuite) {
    it.live(name, () => Effect.provide(test, Layer.fresh(JoinTokenStore.layerMemory)))
  }
})

describe("JoinTokenStore in SQLite", () => {
  for (const [name, test] of joinTokenSuite) it.live(name, () => inFile((file) => Effect.provide(test, at(file))))

  it.live("outlives the master: what was spent stays spent", () =>
    inFile((file) =>
      Effect.gen(function*() {
        const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
        const token = { id: "spend-me-AAA", cluster: "staging", hash: "ab".repeat(32), expiresAt }
        const first = JoinTokenStore.use((store) => Effect.andThen(store.insert(token), store.spend(token.id, "first")))
        assert.deepStrictEqual(yield* Effect.provide(first, at(file)), Option.some("first"))
        const late = JoinTokenStore.use((store) => store.spend(token.id, "late"))
        assert.deepStrictEqual(yield* Effect.provide(late, at(file)), Option.some("first"))
      })
    ))
})
