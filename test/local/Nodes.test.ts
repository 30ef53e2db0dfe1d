import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Schedule, Schema } from "effect"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { imageTar } from "../../src/local/image/ImageTar.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { type LocalNode, nameServersOf } from "../../src/local/node/LocalNode.ts"
import { NodeTools } from "../../src/local/node/NodeTools.ts"
import { freshName } from "../clusters/freshName.ts"
import { Sandbox } from "./Sandbox.ts"

const cluster = LocalCluster.layer({ name: "nodes", nodes: 2 }).pipe(Layer.provideMerge(Sandbox.layer()))

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.retry(Schedule.spaced("200 millis")),
    Effect.timeout("60 seconds")
  )

const pod = (name: string, options: { readonly node?: string; readonly image?: string; readonly script: string }) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, labels: { app: name } },
  spec: {
    restartPolicy: "Never",
    terminationGracePeriodSeconds: 0,
    ...(options.node === undefined ? {} : { nodeName: options.node }),
    containers: [{ name: "main", image: options.image ?? BUSYBOX_IMAGE, command: ["sh", "-c", options.script] }]
  }
})

const apply = Effect.fnUntraced(function*(manifest: object) {
  const { kubectl } = yield* LocalCluster
  yield* kubectl(["apply", "--filename=-"], { stdin: JSON.stringify(manifest) })
})

/** Runs a pod to its end, and answers what it wrote. */
const outputOf = Effect.fnUntraced(function*(prefix: string, options: Parameters<typeof pod>[1]) {
  const { kubectl } = yield* LocalCluster
  const name = yield* freshName(prefix)
  yield* apply(pod(name, options))
  yield* kubectl(["wait", `pod/${name}`, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"])
  return yield* kubectl(["logs", name])
})

const Nodes = Schema.fromJsonString(Schema.Struct({
  items: Schema.Array(Schema.Struct({
    metadata: Schema.Struct({ name: Schema.String }),
    spec: Schema.Struct({ podCIDR: Schema.String }),
    status: Schema.Struct({
      conditions: Schema.Array(Schema.Struct({ type: Schema.String, status: Schema.String }))
    })
  }))
}))

/** `True`, `False` or `Unknown`, by node. */
const readiness = Effect.gen(function*() {
  const { kubectl } = yield* LocalCluster
  const { items } = yield* Schema.decodeEffect(Nodes)(yield* kubectl(["get", "nodes", "--output=json"]))
  return Object.fromEntries(items.map(({ metadata, status }) => [
    metadata.name,
    status.conditions.find(({ type }) => type === "Ready")?.status
  ]))
})

const untilReadiness = (node: LocalNode, expected: string) =>
  eventually(Effect.filterOrFail(readiness, (nodes) => nodes[node.name] === expected))

const twoNodes = Effect.gen(function*() {
  const [first, second] = (yield* LocalCluster).nodes
  if (first === undefined || second === undefined) return yield* Effect.die("the cluster has no two nodes")
  return [first, second] as const
})

layer(cluster, { excludeTestServices: true, timeout: "180 seconds" })("a cluster with two nodes", (it) => {
  it.effect("has both Ready, with the addresses that they say", () =>
    Effect.gen(function*() {
      const { kubectl, nodes } = yield* LocalCluster
      // A node whose kubelet has had no turn for some seconds is not Ready for a moment.
      for (const node of yield* twoNodes) yield* untilReadiness(node, "True")
      assert.deepStrictEqual(Object.keys(yield* readiness), ["nodes-n1", "nodes-n2"])
      const { items } = yield* Schema.decodeEffect(Nodes)(yield* kubectl(["get", "nodes", "--output=json"]))
      assert.deepStrictEqual(items.map(({ spec }) => spec.podCIDR), nodes.map(({ podCidr }) => podCidr))
    }))

  it.effect("has the name servers of this machine on both", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const expected = nameServersOf(yield* Effect.orElseSucceed(fs.readFileString("/etc/resolv.conf"), () => ""))
      for (const { exec } of yield* twoNodes) assert.strictEqual(yield* exec(["cat", "/etc/resolv.conf"]), expected)
    }))

  it.effect("runs a pod and keeps its log", () =>
    Effect.gen(function*() {
      assert.match(yield* outputOf("hello", { script: "echo hello from $(hostname)" }), /^hello from hello-\d+\n$/u)
    }), 90_000)

  it.effect("carries names and Services from one node to the other", () =>
    Effect.gen(function*() {
      const { kubectl } = yield* LocalCluster
      const [first, second] = yield* twoNodes
      yield* apply(pod("web", {
        node: first.name,
        script: "mkdir /www && echo served > /www/index.html && exec httpd -f -p 8080 -h /www"
      }))
      yield* apply({
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: "web" },
        spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }] }
      })
      yield* kubectl(["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"])
      for (const node of [first, second]) {
        const output = yield* outputOf(`client-${node.name}`, {
          node: node.name,
          script: "until wget -q -O - http://web.default.svc.cluster.local 2>/dev/null; do sleep 0.2; done"
        })
        assert.strictEqual(output, "served\n")
      }
    }), 120_000)

  it.effect("lets this machine reach pods", () =>
    Effect.gen(function*() {
      const { kubectl } = yield* LocalCluster
      const address = yield* kubectl(["get", "pod", "web", "--output=jsonpath={.status.podIP}"])
      const body = yield* Effect.promise(() => fetch(`http://${address}:8080/`).then((response) => response.text()))
      assert.strictEqual(body, "served\n")
    }))

  it.effect("gives volumes to claims, on every node the same", () =>
    Effect.gen(function*() {
      const [first, second] = yield* twoNodes
      yield* apply({
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        metadata: { name: "disk" },
        spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } }
      })
      const withDisk = (name: string, node: LocalNode, script: string) => {
        const { spec, ...rest } = pod(name, { node: node.name, script })
        const [container] = spec.containers
        return {
          ...rest,
          spec: {
            ...spec,
            volumes: [{ name: "disk", persistentVolumeClaim: { claimName: "disk" } }],
            containers: [{ ...container, volumeMounts: [{ name: "disk", mountPath: "/disk" }] }]
          }
        }
      }
      const { kubectl } = yield* LocalCluster
      const finish = Effect.fnUntraced(function*(prefix: string, node: LocalNode, script: string) {
        const name = yield* freshName(prefix)
        yield* apply(withDisk(name, node, script))
        yield* kubectl(["wait", `pod/${name}`, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"])
        return yield* kubectl(["logs", name])
      })
      yield* finish("writer", first, "echo kept > /disk/file")
      assert.strictEqual(yield* finish("reader", second, "cat /disk/file"), "kept\n")
    }), 150_000)

  it.effect("runs images that are imported into it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const [first] = yield* twoNodes
      const folder = yield* fs.makeTempDirectoryScoped()
      const { busybox } = yield* (yield* NodeTools).resolve
      yield* imageTar({
        name: "kubeprober.local/own:1",
        files: [
          { path: "/bin/sh", link: "/tools/busybox" },
          { path: "/tools/busybox", source: busybox, mode: 0o755 },
          { path: "/deep/down/note", content: "from the image\n" }
        ],
        env: { GREETING: "well" },
        workingDir: "/deep/down"
      }, `${folder}/own.tar`)
      yield* first.importImage(`${folder}/own.tar`)
      const output = yield* outputOf("own", {
        node: first.name,
        image: "kubeprober.local/own:1",
        script: "echo $GREETING; /tools/busybox cat note"
      })
      assert.strictEqual(output, "well\nfrom the image\n")
    }).pipe(Effect.scoped), 90_000)

  it.effect("notices a kubelet that is gone within seconds, and that it is back", () =>
    Effect.gen(function*() {
      const [, second] = yield* twoNodes
      yield* second.kubelet.kill
      assert.isTrue(yield* second.containerd.isRunning)
      yield* untilReadiness(second, "Unknown")
      yield* second.kubelet.start
      yield* untilReadiness(second, "True")
    }), 120_000)

  it.effect("loses a node whose power is off, and gets it back with its disk", () =>
    Effect.gen(function*() {
      const [, second] = yield* twoNodes
      // A try that has failed may have left it off.
      yield* second.powerOn
      yield* second.exec(["sh", "-c", "echo mine > /var/lib/mine"])
      yield* second.powerOff
      assert.isFalse(yield* second.kubelet.isRunning)
      const off = yield* Effect.flip(second.exec(["true"]))
      assert.include(off.message, "powered off")
      yield* untilReadiness(second, "Unknown")
      yield* second.powerOn
      yield* untilReadiness(second, "True")
      assert.strictEqual(yield* second.exec(["cat", "/var/lib/mine"]), "mine\n")
      assert.strictEqual(
        yield* outputOf("after-power", {
          node: second.name,
          script: "until nslookup -type=a kubernetes.default.svc.cluster.local >/dev/null 2>&1; do sleep 0.2; done; " +
            "echo resolved"
        }),
        "resolved\n"
      )
    }), 150_000)
})
