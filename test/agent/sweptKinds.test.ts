import { assert, describe, it } from "@effect/vitest"
import { OWNED, SWEPT_CLUSTER, SWEPT_NAMESPACED, created, resourcesFor } from "../../src/agent/Sweeper.ts"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Workers from "../../src/probes/workers/Workers.ts"

const names = (resources: typeof SWEPT_NAMESPACED) => resources.map(({ group, plural }) => `${group}/${plural}`)

describe("the sweeper", () => {
  it("knows every kind that a probe of the catalogue creates, or what owns it", () => {
    const swept = new Set(names([...SWEPT_NAMESPACED, ...SWEPT_CLUSTER]))
    const kinds = [...created(catalogue)]
    assert.includeMembers(kinds, ["/configmaps", "/namespaces"])
    assert.deepStrictEqual(kinds.filter((kind) => !swept.has(kind) && !OWNED.has(kind.slice(1))), [])
    for (const owner of OWNED.values()) assert.includeMembers([...swept], names([owner]))
  })

  it("looks for what those that run here create, and for Jobs", () => {
    const probe = (needs: ReadonlyArray<ReadonlyArray<Needs.Need>>, writes: "dry-run" | "namespace" = "namespace") => ({
      needs: needs.flat(),
      writes
    })
    const here: Needs.NeedOptions = { namespace: Needs.probeNamespace }
    assert.deepStrictEqual(names(resourcesFor([probe([Needs.create("services", here)])])), ["batch/jobs", "/services"])
    assert.deepStrictEqual(names(resourcesFor([probe([Needs.create("services", here)], "dry-run")])), ["batch/jobs"])
    assert.deepStrictEqual(names(resourcesFor([probe([Needs.create("pods", { namespace: "elsewhere" })])])), [
      "batch/jobs"
    ])
    assert.includeMembers(names(resourcesFor([probe([Workers.needs])])), ["/pods", ...names([ConfigMap])])
  })
})
