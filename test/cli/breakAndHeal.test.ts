/** Faults injected into a real cluster, and what a person sees of them in `kubeprober check`, before, during and after. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { CheckResult } from "../../src/domain/CheckResult.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { admissionWebhooks } from "../../src/probes/kubernetes/admissionWebhooks.ts"
import { apiHealth } from "../../src/probes/kubernetes/apiHealth.ts"
import { certExpiry } from "../../src/probes/kubernetes/certExpiry.ts"
import { finalizersStuck } from "../../src/probes/kubernetes/finalizersStuck.ts"
import { nodeReadiness } from "../../src/probes/kubernetes/nodeReadiness.ts"
import { workloadsHealth } from "../../src/probes/kubernetes/workloadsHealth.ts"
import * as Roles from "../../src/probes/Roles.ts"
import { mint } from "../clusters/Mint.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { tlsServer } from "../clusters/TlsServer.ts"
import { blind, fault } from "../proofs/proof.ts"
import { kubeprober, temporaryFolder } from "./Kubeprober.ts"

const folder = temporaryFolder()

/** A Probe manifest of the health check, which the others wait for, and one more. */
const manifestOf = (check: { readonly name: string; readonly use: string; readonly with: object }): string => {
  const file = join(folder, `${check.name}.yaml`)
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: "kubeprober.erda.cloud/v1",
      kind: "Probe",
      metadata: { name: check.name },
      spec: { checks: [{ name: "k8s.api.health", use: "k8s.api.health" }, check] }
    })
  )
  return file
}

const decode = Schema.decodeEffect(Schema.fromJsonString(CheckResult))

const NODES = 2

layer(TestCluster.layer({ name: "heal", nodes: NODES, nodeTimings: "fast" }), {
  excludeTestServices: true,
  timeout: "180 seconds"
})("break and heal", (it) => {
  /** `STATUS CODE` of each checker, as in the table. */
  const look = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
    const { kubeconfigPath } = yield* LocalCluster
    const kubeconfig = args.includes("--kubeconfig") ? [] : ["--kubeconfig", kubeconfigPath]
    const ended = yield* kubeprober(folder, ["check", ...kubeconfig, "-o", "json", ...args])
    const result = yield* decode(ended.stdout).pipe(
      Effect.catch(() => Effect.die(`no result; exit code ${ended.code}, standard error: ${ended.stderr}`))
    )
    const reports = result.clusters.flatMap((cluster) => cluster.reports)
    return {
      code: ended.code,
      cells: new Map(reports.map((report) => [report.checker, [report.status, report.code].join(" ").trim()])),
      findings: reports.flatMap((report) =>
        report.findings.map((finding) => ({ checker: report.checker, ...finding }))
      ),
      reports
    }
  })

  const until = (checker: string, cell: string | RegExp, ...args: ReadonlyArray<string>) =>
    eventually(
      look("--probe", `k8s.api.health,${checker}`, ...args),
      ({ cells }) => {
        const seen = cells.get(checker) ?? ""
        return typeof cell === "string" ? seen === cell : cell.test(seen)
      },
      { within: "90 seconds", every: "1 second" }
    )

  it.effect("a healthy cluster is green in every row, with exit code 0", () =>
    Effect.gen(function*() {
      // A cluster that has just begun is not healthy yet in all that is looked at.
      const { cells } = yield* eventually(
        Effect.map(look(), ({ cells, code }) => ({ code, cells: [...cells] })),
        ({ cells, code }) => code === 0 && cells.every(([, cell]) => /^(PASS|INFO)/u.test(cell)),
        { within: "90 seconds", every: "1 second" }
      )
      assert.isAtLeast(cells.length, 8)
    }), 180_000)

  it.effect("a cordoned node", () =>
    Effect.gen(function*() {
      const { nodes } = yield* LocalCluster
      const { kubectl } = yield* TestCluster
      const name = nodes[1]?.name ?? ""
      yield* kubectl("cordon", name)
      const { findings } = yield* until("k8s.node.readiness", /NODE_CORDONED|SCHEDULABLE/u)
      assert.isTrue(findings.some((finding) => finding.code === "NODE_CORDONED" && finding.subject?.name === name))
      yield* kubectl("uncordon", name)
      yield* until("k8s.node.readiness", "PASS")
    }), 180_000)

  it.effect("a NotReady node", () =>
    Effect.gen(function*() {
      const { nodes } = yield* LocalCluster
      const node = nodes[1]
      if (node === undefined) return assert.fail("there are two nodes")
      yield* node.kubelet.kill
      const broken = yield* until("k8s.node.readiness", /NODE_NOT_READY/u)
      assert.isTrue(broken.findings.some((finding) => finding.subject?.name === node.name))
      yield* node.kubelet.start
      yield* until("k8s.node.readiness", "PASS")
    }), 180_000)

  it.effect(
    fault(admissionWebhooks, "WEBHOOK_CALL_FAILED", "a webhook with no backend and failurePolicy Fail"),
    () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* TestCluster
        yield* apply({
          apiVersion: "admissionregistration.k8s.io/v1",
          kind: "ValidatingWebhookConfiguration",
          metadata: { name: "dead" },
          webhooks: [{
            name: "dead.example.com",
            admissionReviewVersions: ["v1"],
            sideEffects: "None",
            failurePolicy: "Fail",
            timeoutSeconds: 2,
            clientConfig: { service: { namespace: "default", name: "nobody" } },
            rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] }]
          }]
        })
        const broken = yield* until("k8s.admission.webhooks", /^ERROR/u)
        assert.strictEqual(broken.code, 1)
        assert.isTrue(
          broken.findings.some(({ code, message, subject }) =>
            code === "WEBHOOK_CALL_FAILED" && message.includes("dead.example.com") && subject?.name === "dead"
          )
        )
        yield* kubectl("delete", "validatingwebhookconfiguration", "dead")
        yield* until("k8s.admission.webhooks", /^(PASS|INFO)/u)
      }),
    120_000
  )

  it.effect(fault(workloadsHealth, "CRASH_LOOP_RECENT", "a crash-looping deployment"), () =>
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
      const broken = yield* until("k8s.workloads.health", /CRASH_LOOP_RECENT/u)
      assert.isTrue(broken.findings.some((finding) => finding.message.includes("crasher")))
      yield* kubectl("delete", "deployment", "crasher", "-n", "default")
      yield* until("k8s.workloads.health", /^(PASS|INFO)/u)
    }), 180_000)

  it.effect(fault(finalizersStuck, "DELETION_STUCK", "a namespace stuck on a finalizer"), () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* TestCluster
      const manifest = manifestOf({
        name: "stuck",
        use: "k8s.finalizers.stuck",
        with: { infoAfter: "1s", warnAfter: "2s", errorAfter: "4s" }
      })
      yield* apply({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "held", namespace: "stuck", finalizers: ["example.com/hold"] }
      }).pipe((create) =>
        Effect.andThen(apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "stuck" } }), create)
      )
      yield* kubectl("delete", "namespace", "stuck", "--wait=false")
      yield* eventually(
        look("-f", manifest),
        ({ findings }) =>
          findings.some(({ code, message, status, subject }) =>
            status === "ERROR" && code === "DELETION_STUCK" && subject?.name === "stuck" &&
            message.includes("example.com/hold")
          ),
        { within: "60 seconds", every: "1 second" }
      )
      yield* kubectl(
        "patch",
        "configmap",
        "held",
        "-n",
        "stuck",
        "--type=merge",
        "-p",
        "{\"metadata\":{\"finalizers\":null}}"
      )
      yield* until("stuck", "PASS", "-f", manifest)
    }), 120_000)

  it.effect(fault(certExpiry, "CERT_EXPIRING", "an expiring certificate"), () =>
    Effect.gen(function*() {
      const served = Effect.fnUntraced(function*(left: "5 days" | "90 days") {
        const { port } = yield* tlsServer(yield* mint({ commonName: "shop", age: "300 days", left }))
        return manifestOf({
          name: "shop",
          use: "k8s.cert.expiry",
          with: { apiServer: false, hosts: [{ host: `127.0.0.1:${port}` }] }
        })
      })
      const expiring = yield* look("-f", yield* served("5 days"))
      assert.match(expiring.cells.get("shop") ?? "", /^ERROR CERT_EXPIRING$/u)
      assert.strictEqual(expiring.code, 1)
      const renewed = yield* look("-f", yield* served("90 days"))
      assert.match(renewed.cells.get("shop") ?? "", /^(PASS|INFO)/u)
    }).pipe(Effect.scoped), 60_000)

  it.effect(blind(nodeReadiness, "ACCESS_MISSING", "a right taken away"), () =>
    Effect.gen(function*() {
      const { apply } = yield* TestCluster
      const { caCertPem, issueClientCertificate, server } = yield* LocalCluster
      const client = yield* issueClientCertificate({ user: "auditor" })
      const file = join(folder, "kubeconfig")
      const base64 = (text: string) => Buffer.from(text).toString("base64")
      writeFileSync(
        file,
        JSON.stringify({
          apiVersion: "v1",
          kind: "Config",
          clusters: [{ name: "c", cluster: { server, "certificate-authority-data": base64(caCertPem) } }],
          users: [{
            name: "u",
            user: { "client-certificate-data": base64(client.cert), "client-key-data": base64(client.key) }
          }],
          contexts: [{ name: "restricted", context: { cluster: "c", user: "u" } }]
        }),
        { mode: 0o600 }
      )
      const role = (resources: ReadonlyArray<string>): Roles.RoleManifest => ({
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: "auditor" },
        rules: [
          { apiGroups: [""], resources, verbs: ["list"] },
          { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["list"] }
        ]
      })
      yield* apply(role(["nodes"]), ...Roles.bindings([role([])], [{ kind: "User", name: "auditor" }]))
      const as = ["--kubeconfig", file]
      yield* until("k8s.node.readiness", "PASS", ...as)
      yield* apply(role(["pods"]))
      const blind = yield* until("k8s.node.readiness", "UNKNOWN ACCESS_MISSING", ...as)
      assert.include(blind.reports.find((report) => report.checker === "k8s.node.readiness")?.message, "list nodes")
      yield* apply(role(["nodes"]))
      yield* until("k8s.node.readiness", "PASS", ...as)
    }), 120_000)

  it.effect(
    fault(apiHealth, "API_DOWN", "an API server stopped: its children are UNKNOWN because of it"),
    () =>
      Effect.gen(function*() {
        const { components } = yield* LocalCluster
        yield* components.apiServer.stop
        const { cells, code, reports } = yield* look()
        assert.strictEqual(code, 1)
        assert.strictEqual(cells.get("k8s.api.health"), "ERROR API_DOWN")
        for (const report of reports.filter((report) => report.checker !== "k8s.api.health")) {
          assert.strictEqual(cells.get(report.checker), "UNKNOWN PARENT_FAILED", report.checker)
          assert.include(report.message, "k8s.api.health")
        }
        yield* components.apiServer.start
        yield* until("k8s.api.health", "PASS")
      }),
    120_000
  )
})
