import { assert, layer } from "@effect/vitest"
import { DateTime, type Duration, Effect, Layer, Option, Queue } from "effect"
import { Lease } from "../../../src/infra/kube/resources/coordination.ts"
import { SecretMetadata } from "../../../src/infra/kube/resources/core.ts"
import { Cluster } from "../../../src/infra/kube/resources/kubeprober.ts"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"
import * as JoinTokensSecrets from "../../../src/master/membership/JoinTokensSecrets.ts"
import * as MembershipDurable from "../../../src/master/membership/MembershipDurable.ts"
import { MemberStore } from "../../../src/master/membership/MemberStore.ts"
import { Resources } from "../../../src/master/Resources.ts"
import * as ResourcesKubernetes from "../../../src/master/resources/ResourcesKubernetes.ts"
import { freshName } from "../../clusters/freshName.ts"
import { installCrds } from "../../clusters/installCrds.ts"
import { TestCluster } from "../../clusters/TestCluster.ts"
import { eventually } from "../../kube/eventually.ts"
import { expulsions, joinTokenSuite, membershipSuite, tagOf } from "./membershipSuite.ts"

const namespace = "default"

const prepared = Layer.effectDiscard(installCrds)

/** Another one is another master. */
const master = MembershipDurable.layer.pipe(
  Layer.provide(MemberStore.layerLeases({ namespace })),
  Layer.provideMerge(ResourcesKubernetes.layer({ namespace }))
)

const environment = Layer.merge(master, JoinTokensSecrets.layer({ namespace })).pipe(
  Layer.provideMerge(prepared.pipe(Layer.provideMerge(TestCluster.layer({ name: "membership" }))))
)

const another = Layer.fresh(master)

layer(environment, { excludeTestServices: true, timeout: "120 seconds" })("in Kubernetes", (it) => {
  for (const [name, test] of membershipSuite) it.effect(`Membership ${name}`, () => test)
  for (const [name, test] of joinTokenSuite) it.effect(`JoinTokenStore ${name}`, () => test)

  it.effect("Membership is shared by masters: one numbers, the other expels", () =>
    Effect.gen(function*() {
      const here = yield* Membership
      const name = yield* freshName("shared")
      const member = yield* here.openEpoch(yield* here.add(name))
      const seen = yield* expulsions
      yield* Effect.gen(function*() {
        const there = yield* Membership
        const opened = yield* Effect.all(
          Array.from({ length: 6 }, (_, n) => (n % 2 === 0 ? here : there).openEpoch(member)),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(opened.map(({ epoch }) => epoch).sort(), [2, 3, 4, 5, 6, 7])
        yield* there.revoke(name)
      }).pipe(Effect.provide(another))
      assert.strictEqual(yield* Queue.take(seen), `${name} Revoked`)
      assert.strictEqual(yield* tagOf(here.openEpoch(member)), "Revoked")
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* tagOf((yield* Membership).admit(member)), "Revoked")
      }).pipe(Effect.provide(another))
    }).pipe(Effect.scoped))

  it.effect("Membership ends when kubectl deletes the Cluster, and not when the Registry writes its status", () =>
    Effect.gen(function*() {
      const { kube, kubectl } = yield* TestCluster
      const membership = yield* Membership
      const resources = yield* Resources
      const seen = yield* expulsions
      const name = yield* freshName("deleted")
      yield* resources.apply(Cluster, { metadata: { name }, spec: {} })
      const member = yield* membership.openEpoch(yield* membership.add(name))
      yield* resources.applyStatus(Cluster, name, { epoch: member.epoch, nodeCount: 1 })
      yield* resources.applyStatus(Cluster, name, { nodeCount: 2 })
      assert.strictEqual((yield* membership.openEpoch(member)).epoch, 2)
      yield* kubectl("-n", namespace, "delete", "cluster.kubeprober.erda.cloud", name)
      assert.strictEqual(yield* Queue.take(seen), `${name} UnknownCluster`)
      assert.strictEqual(yield* tagOf(membership.openEpoch(member)), "UnknownCluster")
      const leases = yield* kube.list(Lease, { namespace, labelSelector: `kubeprober.io/member=${name}` })
      assert.lengthOf(leases.items, 0)
    }).pipe(Effect.scoped))

  it.effect("Membership ends for a Cluster that was deleted while no master ran", () =>
    Effect.gen(function*() {
      const { kube, kubectl } = yield* TestCluster
      const name = yield* freshName("away")
      yield* Effect.gen(function*() {
        const resources = yield* Resources
        const made = yield* resources.apply(Cluster, { metadata: { name }, spec: {} })
        // As this file's own master would do it, who must not see it.
        yield* kube.create(Lease, {
          metadata: {
            name: `kubeprober-member-${name}`,
            namespace: "kube-public",
            labels: { "kubeprober.io/member": name },
            annotations: {
              "kubeprober.io/uid": "u",
              "kubeprober.io/revoked": "false",
              "kubeprober.io/cluster-uid": made.metadata.uid ?? ""
            }
          },
          spec: { leaseTransitions: 4 }
        })
      })
      yield* kubectl("-n", namespace, "delete", "cluster.kubeprober.erda.cloud", name)
      const elsewhere = Layer.fresh(MembershipDurable.layer.pipe(
        Layer.provide(MemberStore.layerLeases({ namespace: "kube-public" })),
        Layer.provide(ResourcesKubernetes.layer({ namespace }))
      ))
      yield* Effect.gen(function*() {
        const membership = yield* Membership
        yield* eventually(
          "the member is gone",
          Effect.map(tagOf(membership.find(name)), (tag) => tag === "UnknownCluster")
        )
      }).pipe(Effect.provide(elsewhere))
    }))

  it.effect("JoinTokenStore keeps Secrets that name neither cluster nor secret, and no expired ones", () =>
    Effect.gen(function*() {
      const { kube } = yield* TestCluster
      const store = yield* JoinTokenStore
      const expired = yield* freshName("expired")
      const insert = Effect.fnUntraced(function*(id: string, ago: Duration.Input) {
        const expiresAt = DateTime.subtractDuration(yield* DateTime.now, ago)
        yield* store.insert({ id, cluster: "staging", hash: "ab".repeat(32), expiresAt })
      })
      yield* insert(expired, "61 minutes")
      yield* insert(yield* freshName("next"), "0 minutes")
      const { items } = yield* kube.list(SecretMetadata, { namespace, labelSelector: "kubeprober.io/join-token" })
      assert.isAbove(items.length, 0)
      for (const { metadata } of items) assert.match(metadata.name ?? "", /^kubeprober-join-[0-9a-f]+$/)
      assert.isTrue(Option.isNone(yield* store.find(expired)))
    }))
})
