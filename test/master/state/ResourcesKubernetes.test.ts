import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { Cluster, Probe } from "../../../src/infra/kube/resources/kubeprober.ts"
import { Resources } from "../../../src/master/Resources.ts"
import * as ResourcesKubernetes from "../../../src/master/resources/ResourcesKubernetes.ts"
import { installCrds } from "../../clusters/installCrds.ts"
import { TestCluster } from "../../clusters/TestCluster.ts"
import { suite } from "./resourcesSuite.ts"

const NAMESPACE = "default"

const prepared = Layer.effectDiscard(installCrds)

const environment = Layer.merge(prepared, ResourcesKubernetes.layer({ namespace: NAMESPACE })).pipe(
  Layer.provideMerge(TestCluster.layer({ name: "resources" }))
)

layer(environment, { excludeTestServices: true, timeout: "120 seconds" })("Resources in Kubernetes", (it) => {
  for (const [name, test] of suite) it.effect(name, () => test)

  it.effect("leave labels of others alone", () =>
    Effect.gen(function*() {
      const { kubectl } = yield* TestCluster
      const resources = yield* Resources
      yield* resources.apply(Cluster, { metadata: { name: "shared", labels: { ours: "1" } }, spec: {} })
      yield* kubectl("-n", NAMESPACE, "label", "cluster.kubeprober.erda.cloud", "shared", "theirs=1")
      const applied = yield* resources.apply(Cluster, { metadata: { name: "shared", labels: { more: "1" } }, spec: {} })
      assert.deepStrictEqual(applied.metadata.labels, { more: "1", theirs: "1" })
    }))

  it.effect("say that a kind is not there instead of an object", () =>
    Effect.gen(function*() {
      const resources = yield* Resources
      const refused = yield* Effect.flip(resources.get({ ...Probe, plural: "nonesuch" }, "a"))
      assert.strictEqual(refused.reason, "Unavailable")
      assert.isTrue(Option.isNone(yield* resources.get(Probe, "nonesuch")))
    }))
})
