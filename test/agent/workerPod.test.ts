/** What a worker pod asks of a cluster, as others who look after its nodes see it. */
import { assert, describe, it } from "@effect/vitest"
import { type WorkerPod, workerPod } from "../../src/agent/workers/manifest.ts"

/** As it is sent. */
const made = (more: Partial<WorkerPod> = {}) =>
  JSON.parse(JSON.stringify(
    workerPod({
      name: "worker",
      namespace: "probes",
      place: {},
      owner: { name: "run", uid: "1" },
      deadlineSeconds: 60,
      ...more
    }, { image: "example.test/kubeprober:1" })
  ))

describe("a worker pod", () => {
  it("goes to a node of Linux, or to the one that is named", () => {
    assert.deepStrictEqual(made().spec.nodeSelector, { "kubernetes.io/os": "linux" })
    const { affinity, nodeSelector } = made({ place: { node: "a" } }).spec
    assert.isUndefined(nodeSelector)
    assert.deepStrictEqual(affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms, [
      { matchFields: [{ key: "metadata.name", operator: "In", values: ["a"] }] }
    ])
  })

  it("holds up neither cluster-autoscaler nor kubectl drain, whether it works or answers", () => {
    for (const { metadata } of [made(), made({ task: "{}", secret: "run" })]) {
      assert.strictEqual(metadata.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "true")
      assert.deepStrictEqual(metadata.ownerReferences, [
        { apiVersion: "v1", kind: "ConfigMap", name: "run", uid: "1", controller: true }
      ])
    }
  })
})
