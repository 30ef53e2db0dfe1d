import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import { ConfigMap, Namespace, Node, Pod } from "../../src/infra/kube/resources/core.ts"
import {
  judgeMixed,
  judgeRuntimes,
  judgeSkew,
  parseVersion,
  tagOf,
  versionSkew
} from "../../src/probes/kubernetes/versionSkew.ts"
import * as Needs from "../../src/probes/Needs.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import { blind, faults, healthy } from "../proofs/proof.ts"

const server = { major: 1, minor: 35, patch: 4 }
const skew = (...versions: ReadonlyArray<string>) =>
  judgeSkew("kubelet", "v1.35.4", server, versions.map((version, index) => ({ version, node: `n${index}` })))
    .map(({ code, status }) => `${status} ${code}`)

describe("judging versions", () => {
  it("reads what distributors write", () => {
    const read = (text: string) => Option.map(parseVersion(text), ({ major, minor, patch }) => [major, minor, patch])
    for (const text of ["v1.29.1", "1.29.1", "v1.29.1-eks-508b6b3", "v1.29.1+k3s2", "v1.29.1-gke.1589018"]) {
      assert.deepStrictEqual(read(text), Option.some([1, 29, 1]), text)
    }
    for (const text of ["", "v1.29", "latest", "v1.29.x", "v1.29.1a"]) {
      assert.deepStrictEqual(read(text), Option.none(), text)
    }
  })

  it("reads the tag of an image, with a registry's port and a digest about it", () => {
    assert.strictEqual(tagOf("registry:5000/kube-proxy:v1.35.4@sha256:abc"), "v1.35.4")
    assert.strictEqual(tagOf("registry.k8s.io/kube-proxy:v1.35.4"), "v1.35.4")
    assert.strictEqual(tagOf("registry:5000/kube-proxy"), undefined)
  })

  it("follows the version skew policy", () => {
    assert.deepStrictEqual(skew("v1.35.4", "v1.35.9", "v1.34.0", "v1.33.7"), [])
    assert.deepStrictEqual(skew("v1.32.1"), ["INFO KUBELET_AT_LIMIT"])
    assert.deepStrictEqual(skew("v1.31.9"), ["ERROR KUBELET_TOO_OLD"])
    assert.deepStrictEqual(skew("v1.36.0"), ["ERROR KUBELET_NEWER"])
    assert.deepStrictEqual(skew("mine"), ["UNKNOWN VERSION_UNREADABLE"])
    const old = (kubelet: string, minor: number) =>
      judgeSkew("kubelet", "", { major: 1, minor, patch: 0 }, [{ node: "n", version: kubelet }]).map(({ code }) => code)
    assert.deepStrictEqual(old("v1.24.0", 27), ["KUBELET_TOO_OLD"])
    assert.deepStrictEqual(old("v1.24.0", 26), ["KUBELET_AT_LIMIT"])
  })

  it("says a version once, with how many nodes run it and the first of their names", () => {
    const findings = judgeSkew(
      "kube-proxy",
      "v1.35.4",
      server,
      Array.from({ length: 200 }, (_, index) => ({ node: `n${index}`, version: "v1.30.0" }))
    )
    assert.strictEqual(findings.length, 1)
    assert.strictEqual(
      findings[0]?.message,
      "kube-proxy v1.30.0 of 200 nodes (n0, n1, n2, n3, n4, ...) is 5 minor versions older than API server v1.35.4 (limit 3)"
    )
  })

  it("does not take a distributor's suffix for another version", () => {
    const mixed = (...versions: ReadonlyArray<string>) =>
      judgeMixed(versions.map((version) => ({ version, node: "n" }))).length
    assert.strictEqual(mixed("v1.35.4", "v1.35.4-eks-1", "v1.35.4+k3s1"), 0)
    assert.strictEqual(mixed("v1.35.4", "v1.35.3"), 1)
  })

  it("compares runtimes only among nodes of one kind", () => {
    const node = (osImage: string, containerRuntimeVersion: string) =>
      Schema.decodeSync(Node.object)({
        metadata: { name: "n" },
        status: { nodeInfo: { osImage, containerRuntimeVersion } }
      })
    assert.strictEqual(
      judgeRuntimes([node("Debian", "containerd://2.0.0"), node("Windows", "containerd://1.7.0")]).length,
      0
    )
    assert.strictEqual(
      judgeRuntimes([node("Debian", "containerd://2.0.0"), node("Debian", "containerd://1.7.0")]).length,
      1
    )
  })
})

describe("k8s.version.skew", () => {
  layer(TestCluster.layer({ name: "version-skew" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      const verdict = Effect.gen(function*() {
        const { run } = yield* TestCluster
        const report = yield* run(versionSkew)
        return { said: report.code === undefined ? report.status : `${report.status} ${report.code}`, report }
      })
      const nodeWith = Effect.fnUntraced(function*(name: string, kubeletVersion: string) {
        const { kube } = yield* TestCluster
        yield* kube.apply(Node, { metadata: { name } })
        yield* kube.applyStatus(Node, { metadata: { name }, status: { nodeInfo: { kubeletVersion } } })
      })
      const serverMinor = Effect.map(
        TestCluster,
        ({ cluster }) => Number(cluster.kubernetesVersion.split(".")[1])
      )

      it.effect("has nothing to compare without nodes, or while the first is joining", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          assert.strictEqual((yield* verdict).said, "INFO NOT_APPLICABLE")
          yield* kube.create(Node, { metadata: { name: "joining" } })
          assert.strictEqual((yield* verdict).said, "INFO NOT_APPLICABLE")
        }))

      it.effect(
        healthy(
          versionSkew,
          blind(
            versionSkew,
            "ACCESS_MISSING",
            "passes with its declared needs alone, creates nothing, and is UNKNOWN without one of them"
          )
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kube, kubectl, run, userWith } = yield* TestCluster
            yield* nodeWith("a", `v${cluster.kubernetesVersion}`)
            // Both give /version to every authenticated user by default.
            yield* kubectl("delete", "clusterrolebinding", "system:public-info-viewer", "system:discovery")
            const count = Effect.map(
              Effect.all([kube.list(ConfigMap), kube.list(Namespace), kube.list(Pod)]),
              (lists) => lists.map(({ items }) => items.length)
            )
            const user = yield* userWith(versionSkew.needs)
            const before = yield* count
            const passed = yield* run(versionSkew, { as: user })
            assert.strictEqual(passed.status, "PASS", passed.message)
            assert.deepStrictEqual(yield* count, before)
            const required = yield* run(versionSkew, { as: yield* userWith(versionSkew.needs, { optional: false }) })
            assert.strictEqual(required.status, "PASS", required.message)
            for (const lacking of versionSkew.needs.filter((need) => !need.optional)) {
              const refused = yield* run(versionSkew, {
                as: yield* userWith(versionSkew.needs.filter((need) => need !== lacking))
              })
              assert.strictEqual(`${refused.status} ${refused.code}`, "UNKNOWN ACCESS_MISSING")
              assert.include(refused.message, Needs.describe(lacking))
            }
          })
      )

      it.effect(
        faults(
          versionSkew,
          "is ERROR for a kubelet that is too old or too new, and passes when the node is upgraded",
          "KUBELET_TOO_OLD",
          "KUBELET_NEWER",
          "KUBELETS_MIXED"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kubectl } = yield* TestCluster
            const minor = yield* serverMinor
            yield* nodeWith("b", `v1.${minor - 4}.2`)
            const old = yield* verdict
            assert.strictEqual(old.said, "ERROR KUBELET_TOO_OLD")
            assert.deepStrictEqual(old.report.findings[0]?.subject, { kind: "Node", name: "b" })
            assert.include(old.report.message, "4 minor versions older")
            yield* nodeWith("b", `v1.${minor + 1}.0`)
            const newer = yield* verdict
            assert.strictEqual(newer.said, "ERROR KUBELET_NEWER")
            assert.deepStrictEqual(newer.report.findings[0]?.subject, { kind: "Node", name: "b" })
            yield* nodeWith("b", `v1.${minor - 1}.0`)
            const mixed = yield* verdict
            assert.strictEqual(mixed.said, "WARN KUBELETS_MIXED")
            assert.include(mixed.report.message, `v1.${minor - 1}.0 on node b`)
            yield* nodeWith("b", `v${cluster.kubernetesVersion}`)
            assert.strictEqual((yield* verdict).said, "PASS")
            yield* kubectl("delete", "node", "b")
          })
      )

      it.effect(
        blind(versionSkew, "VERSION_UNREADABLE", "is UNKNOWN about a kubelet whose version is none"),
        () =>
          Effect.gen(function*() {
            const { kubectl } = yield* TestCluster
            yield* nodeWith("odd", "built-by-hand")
            const odd = yield* verdict
            assert.deepInclude(odd.report.findings.map(({ code, status, subject }) => ({ code, status, subject })), {
              code: "VERSION_UNREADABLE",
              status: "UNKNOWN",
              subject: { kind: "Node", name: "odd" }
            })
            yield* kubectl("delete", "node", "odd")
            assert.strictEqual((yield* verdict).said, "PASS")
          })
      )

      it.effect(
        faults(
          versionSkew,
          "judges kube-proxy by the image its pods run, but not one that is ending",
          "KUBE_PROXY_TOO_OLD",
          "KUBE_PROXY_NEWER"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kube, kubectl } = yield* TestCluster
            const minor = yield* serverMinor
            const proxy = (version: string) =>
              kube.create(Pod, {
                metadata: { name: "kube-proxy-a", namespace: "kube-system", labels: { "k8s-app": "kube-proxy" } },
                spec: {
                  nodeName: "a",
                  automountServiceAccountToken: false,
                  containers: [{ name: "kube-proxy", image: `registry.k8s.io/kube-proxy:${version}` }]
                }
              })
            const gone = kubectl("delete", "pod", "-n", "kube-system", "kube-proxy-a", "--grace-period=0", "--force")
            yield* proxy(`v1.${minor - 4}.0`)
            const old = yield* verdict
            assert.strictEqual(old.said, "ERROR KUBE_PROXY_TOO_OLD")
            assert.deepStrictEqual(old.report.findings[0]?.subject, { kind: "Node", name: "a" })
            yield* gone
            yield* proxy(`v1.${minor + 1}.0`)
            const newer = yield* verdict
            assert.strictEqual(newer.said, "ERROR KUBE_PROXY_NEWER")
            assert.deepStrictEqual(newer.report.findings[0]?.subject, { kind: "Node", name: "a" })
            // Nobody is there to end it: it stays, with a deletionTimestamp.
            yield* kube.delete(Pod, { name: "kube-proxy-a", namespace: "kube-system" }, { gracePeriodSeconds: 600 })
            assert.strictEqual((yield* verdict).said, "PASS")
            yield* gone
            yield* proxy(`v${cluster.kubernetesVersion}`)
            const healed = yield* verdict
            assert.strictEqual(healed.said, "PASS")
            assert.include(healed.report.message, "1 kubelet and 1 kube-proxy")
          })
      )
    }
  )
})
