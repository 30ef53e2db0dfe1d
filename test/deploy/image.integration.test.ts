/** The image, made here and run on a real node as the manifests run it. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { createHash } from "node:crypto"
import manifest from "../../package.json" with { type: "json" }
import { image, imageFiles, librariesOf } from "../../scripts/imageFiles.ts"
import { imageTar } from "../../src/local/image/ImageTar.ts"
import { freshName } from "../clusters/freshName.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"

const NAME = `kubeprober:${manifest.version}`

/** Hardened as the pods of deploy are, in a namespace that refuses anything less. */
const pod = (
  name: string,
  container: { readonly args: ReadonlyArray<string>; readonly command?: ReadonlyArray<string> }
) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "strict" },
  spec: {
    restartPolicy: "Never",
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    containers: [{
      name: "kubeprober",
      image: NAME,
      imagePullPolicy: "Never",
      ...container,
      securityContext: {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] }
      }
    }]
  }
})

describe("librariesOf", () => {
  it("reads what ldd prints: linked libraries and the loader, not the kernel's", () =>
    assert.deepStrictEqual(
      librariesOf(
        "\tlinux-vdso.so.1 (0x00007f0738)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f07)\n" +
          "\tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f07)\n"
      ),
      ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]
    ))
})

layer(TestCluster.layer({ name: "image", nodes: 1 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "the image on a node",
  (it) => {
    /** Runs a pod to its end; how it ended and what it said. */
    const run = Effect.fnUntraced(function*(prefix: string, container: Parameters<typeof pod>[1]) {
      const { apply, kubectl } = yield* TestCluster
      const name = yield* freshName(prefix)
      yield* apply(pod(name, container))
      const phase = yield* eventually(
        kubectl("get", "pod", name, "-n", "strict", "-o", "jsonpath={.status.phase}"),
        (phase) => phase === "Succeeded" || phase === "Failed"
      )
      return { phase, said: yield* kubectl("logs", name, "-n", "strict") }
    })

    it.effect("is small, reproducible, and taken in by containerd", () =>
      Effect.gen(function*() {
        const { apply, cluster } = yield* TestCluster
        const fs = yield* FileSystem.FileSystem
        const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-image-" })
        const digests = yield* Effect.forEach(["first", "second"], (name) =>
          Effect.gen(function*() {
            const files = yield* imageFiles(`${folder}/${name}`)
            yield* imageTar(image(NAME, files), `${folder}/${name}.tar`)
            const bytes = yield* fs.readFile(`${folder}/${name}.tar`)
            return [bytes.length, createHash("sha256").update(bytes).digest("hex")] as const
          }))
        assert.deepStrictEqual(digests[0], digests[1])
        assert.isBelow(digests[0]?.[0] ?? Infinity, 150e6)
        for (const node of cluster.nodes) yield* node.importImage(`${folder}/first.tar`)
        yield* apply({
          apiVersion: "v1",
          kind: "Namespace",
          metadata: { name: "strict", labels: { "pod-security.kubernetes.io/enforce": "restricted" } }
        })
      }).pipe(Effect.provide(NodeServices.layer)), 120_000)

    it.effect("says its version, without root, with nothing to write to", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* run("version", { args: ["--version"] }), {
          phase: "Succeeded",
          said: `kubeprober v${manifest.version}\n`
        })
      }), 90_000)

    it.effect("has the catalogue of probes", () =>
      Effect.gen(function*() {
        const { phase, said } = yield* run("list", { args: ["probe", "list"] })
        assert.strictEqual(phase, "Succeeded")
        assert.include(said, "k8s.api.health")
      }), 90_000)

    it.effect(
      "resolves names as a machine does: its own from /etc/hosts, those of Services from the cluster's DNS",
      () =>
        Effect.gen(function*() {
          const script =
            "require('node:dns/promises').lookup(process.argv[1]).then(({ address }) => console.log(address))"
          const lookup = (pod: string, name: string) =>
            run(pod, { command: ["/usr/local/bin/node", "-e", script], args: [name] })
          assert.deepStrictEqual(yield* lookup("hosts", "localhost"), { phase: "Succeeded", said: "127.0.0.1\n" })
          const { phase, said } = yield* lookup("service", "kubernetes.default.svc.cluster.local")
          assert.strictEqual(phase, "Succeeded", said)
          const address = yield* TestCluster.use(({ kubectl }) =>
            kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
          )
          assert.strictEqual(said.trim(), address)
        }),
      90_000
    )

    it.effect("fails for an argument it does not know, and says so", () =>
      Effect.gen(function*() {
        const { phase, said } = yield* run("unknown", { args: ["--no-such-flag"] })
        assert.strictEqual(phase, "Failed")
        assert.include(said, "no-such-flag")
      }), 90_000)
  }
)
