import { assert, describe, it } from "@effect/vitest"
import { parse } from "yaml"
import * as Kubeconfig from "../../src/local/Kubeconfig.ts"

const entry = (cluster: string): Kubeconfig.KubeconfigEntry => ({
  context: Kubeconfig.contextName(cluster),
  server: `https://${cluster}.test:6443`,
  ca: "ca",
  client: { cert: "cert", key: "key" }
})

describe("a kubeconfig", () => {
  it("has a context, a cluster and a user for each, the first as the current one", () => {
    const { clusters, contexts, users, ...rest } = parse(Kubeconfig.render([entry("a"), entry("b")]))
    assert.deepStrictEqual(contexts, [
      {
        name: "kubeprober-local-a",
        context: { cluster: "kubeprober-local-a", user: "kubeprober-local-a" }
      },
      {
        name: "kubeprober-local-b",
        context: { cluster: "kubeprober-local-b", user: "kubeprober-local-b" }
      }
    ])
    assert.deepStrictEqual(clusters[1], {
      name: "kubeprober-local-b",
      cluster: { server: "https://b.test:6443", "certificate-authority-data": "Y2E=" }
    })
    assert.deepStrictEqual(users[1], {
      name: "kubeprober-local-b",
      user: { "client-certificate-data": "Y2VydA==", "client-key-data": "a2V5" }
    })
    assert.deepStrictEqual(rest, { apiVersion: "v1", kind: "Config", "current-context": "kubeprober-local-a" })
  })
})
