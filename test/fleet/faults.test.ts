/** The faults of a cluster with nodes, broken and healed for real, as the master shows them. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { certExpiry } from "../../src/probes/kubernetes/certExpiry.ts"
import { finalizersStuck } from "../../src/probes/kubernetes/finalizersStuck.ts"
import { nodeReadiness } from "../../src/probes/kubernetes/nodeReadiness.ts"
import { workloadsHealth } from "../../src/probes/kubernetes/workloadsHealth.ts"
import * as Roles from "../../src/probes/Roles.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { mint } from "../clusters/Mint.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
import { tlsServer } from "../clusters/TlsServer.ts"
import { blind, fault } from "../proofs/proof.ts"
import { type MasterHost, cellOf, masterHost, shown, startAgent } from "./fleetProcesses.ts"

const folder = temporaryFolder()

class Host extends Context.Service<Host, MasterHost>()("kubeprober/test/Host") {}

const everywhere = { clusterSelector: {}, policy: { interval: "5s" } }

/** A master, and two agents of one cluster: the administrator's, and one of a user with few rights. */
const fleet = Layer.effect(
  Host,
  Effect.gen(function*() {
    const { caCertPem, issueClientCertificate, kubeconfigPath, server } = yield* LocalCluster
    const client = yield* issueClientCertificate({ user: "auditor" })
    const base64 = (text: string) => Buffer.from(text).toString("base64")
    const restricted = join(folder, "kubeconfig")
    writeFileSync(
      restricted,
      JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        "current-context": "restricted",
        clusters: [{ name: "c", cluster: { server, "certificate-authority-data": base64(caCertPem) } }],
        users: [{
          name: "u",
          user: { "client-certificate-data": base64(client.cert), "client-key-data": base64(client.key) }
        }],
        contexts: [{ name: "restricted", context: { cluster: "c", user: "u" } }]
      }),
      { mode: 0o600 }
    )
    const master = yield* masterHost(folder)
    yield* master.start
    yield* master.apply("basics", {
      ...everywhere,
      checks: [
        { name: "nodes", use: "k8s.node.readiness", with: { notReadyAfter: "1s" } },
        { name: "workloads", use: "k8s.workloads.health", with: { startWithin: "1h" } },
        {
          name: "finalizers",
          use: "k8s.finalizers.stuck",
          with: { infoAfter: "1s", warnAfter: "2s", errorAfter: "4s" }
        }
      ]
    })
    for (const [name, kubeconfig] of [["full", kubeconfigPath], ["few", restricted]] as const) {
      yield* startAgent(master, { state: join(folder, name), kubeconfig, tokenFile: yield* master.add(name) })
    }
    return master
  })
)

layer(Layer.provideMerge(fleet, TestCluster.layer({ name: "faults", nodes: 2, nodeTimings: "fast" })), {
  excludeTestServices: true,
  timeout: "180 seconds"
})("faults, seen from the master", (it) => {
  const until = Effect.fnUntraced(function*(cluster: string, checker: string, wanted: RegExp) {
    const host = yield* Host
    const found = yield* host.until((found) => {
      const cell = cellOf(found, cluster, checker)
      return cell !== undefined && cell.freshness === "fresh" && wanted.test(shown(cell))
    }, { every: "1 second" })
    return cellOf(found, cluster, checker)?.message ?? ""
  })

  it.effect(
    fault(nodeReadiness, "NODE_NOT_READY", "a cordoned node, and one whose kubelet is gone"),
    () =>
      Effect.gen(function*() {
        const { nodes } = yield* LocalCluster
        const { kubectl } = yield* TestCluster
        const node = nodes[1]
        if (node === undefined) return assert.fail("there are two nodes")
        // A try that has failed may have left it broken.
        yield* kubectl("uncordon", node.name)
        yield* node.kubelet.start
        yield* until("full", "nodes", /^PASS/u)
        yield* kubectl("cordon", node.name)
        assert.include(yield* until("full", "nodes", /NODE_CORDONED/u), node.name)
        yield* kubectl("uncordon", node.name)
        yield* until("full", "nodes", /^PASS/u)
        yield* node.kubelet.kill
        assert.include(yield* until("full", "nodes", /NODE_NOT_READY$/u), node.name)
        yield* node.kubelet.start
        yield* until("full", "nodes", /^PASS/u)
      }),
    240_000
  )

  it.effect(fault(workloadsHealth, "CRASH_LOOP_RECENT", "a deployment that crashes"), () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      yield* apply({
        apiVersion: "apps/v1",
        kind: "Deployment",
        metadata: { name: "crasher", namespace: "default" },
        spec: {
          selector: { matchLabels: { app: "crasher" } },
          template: {
            metadata: { labels: { app: "crasher" } },
            spec: {
              containers: [{
                name: "main",
                image: BUSYBOX_IMAGE,
                imagePullPolicy: "Never",
                command: ["sh", "-c", "exit 3"]
              }]
            }
          }
        }
      })
      assert.include(yield* until("full", "workloads", /CRASH_LOOP_RECENT/u), "crasher")
      yield* kubectl("delete", "deployment", "crasher", "-n", "default")
      yield* until("full", "workloads", /^(PASS|INFO)/u)
    }), 240_000)

  it.effect(fault(finalizersStuck, "DELETION_STUCK", "a namespace stuck on a finalizer"), () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "stuck" } })
      yield* apply({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "held", namespace: "stuck", finalizers: ["example.com/hold"] }
      })
      yield* kubectl("delete", "namespace", "stuck", "--wait=false")
      assert.include(yield* until("full", "finalizers", /^ERROR DELETION_STUCK/u), "stuck")
      yield* kubectl(
        "patch",
        "configmap",
        "held",
        "-n",
        "stuck",
        "--type=merge",
        "-p",
        `{"metadata":{"finalizers":null}}`
      )
      yield* until("full", "finalizers", /^(PASS|INFO)/u)
    }), 240_000)

  it.effect(fault(certExpiry, "CERT_EXPIRING", "a certificate that expires"), () =>
    Effect.gen(function*() {
      const host = yield* Host
      const serving = Effect.fnUntraced(function*(left: "5 days" | "90 days") {
        const { port } = yield* tlsServer(yield* mint({ commonName: "shop", age: "300 days", left }))
        const hosts = [{ host: `127.0.0.1:${port}` }]
        yield* host.apply("shop", {
          ...everywhere,
          checks: [{ name: "shop", use: "k8s.cert.expiry", with: { apiServer: false, hosts } }]
        })
      })
      yield* serving("5 days")
      yield* until("full", "shop", /^ERROR CERT_EXPIRING$/u)
      yield* serving("90 days")
      yield* until("full", "shop", /^(PASS|INFO)/u)
      yield* host.must("probe", "delete", "shop")
    }).pipe(Effect.scoped), 240_000)

  it.effect(
    blind(nodeReadiness, "ACCESS_MISSING", "a right taken away: UNKNOWN, with the rule"),
    () =>
      Effect.gen(function*() {
        const { apply } = yield* TestCluster
        const role = (resources: ReadonlyArray<string>): Roles.RoleManifest => ({
          apiVersion: "rbac.authorization.k8s.io/v1",
          kind: "ClusterRole",
          metadata: { name: "auditor" },
          rules: [
            { apiGroups: [""], resources, verbs: ["list"] },
            { apiGroups: [""], resources: ["namespaces"], resourceNames: ["kube-system"], verbs: ["get"] },
            { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["list"] }
          ]
        })
        yield* apply(role(["nodes"]), ...Roles.bindings([role([])], [{ kind: "User", name: "auditor" }]))
        yield* until("few", "nodes", /^PASS/u)
        yield* apply(role(["pods"]))
        assert.include(yield* until("few", "nodes", /^UNKNOWN ACCESS_MISSING/u), "list nodes")
        yield* apply(role(["nodes"]))
        yield* until("few", "nodes", /^PASS/u)
      }),
    240_000
  )
})
