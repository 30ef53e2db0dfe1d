import { assert, describe, it } from "@effect/vitest"
import * as LocalTargets from "../../src/cli/LocalTargets.ts"

describe("a local fleet", () => {
  it("says how to look into each of its clusters", () => {
    assert.deepStrictEqual(
      LocalTargets.access([
        { name: "local-1", kubeconfigPath: "/run/one/kubeconfig" },
        { name: "local-2", kubeconfigPath: "/run/two/kubeconfig" }
      ]),
      [
        "Look into them from another terminal:",
        "  kubectl --kubeconfig /run/one/kubeconfig --context kubeprober-local-local-1 get namespaces",
        "  kubectl --kubeconfig /run/two/kubeconfig --context kubeprober-local-local-2 get namespaces"
      ]
    )
  })
})
