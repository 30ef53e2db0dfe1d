/** A fleet of two real clusters as its users see it: joined, asked, broken and healed, all through the program's commands. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { join } from "node:path"
import * as Local from "../../src/local/Local.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { type MasterHost, cellOf, masterHost, said, shown, start, startAgent } from "./fleetProcesses.ts"

const folder = temporaryFolder()

/** What `kubeprober once -o json` prints, as far as it is looked at here. */
const OnceResult = Schema.fromJsonString(Schema.Struct({
  clusters: Schema.Array(Schema.Struct({
    cluster: Schema.String,
    status: Schema.String,
    outcome: Schema.String,
    records: Schema.Array(Schema.Struct({ trigger: Schema.String }))
  }))
}))

const deadWebhook = {
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
}

class Host extends Context.Service<Host, MasterHost>()("kubeprober/test/Host") {}

/** A second API server, the master, and an agent for either. */
const fleet = Layer.effect(
  Host,
  Effect.gen(function*() {
    const first = yield* LocalCluster
    const second = yield* LocalCluster.make({ name: `fleet-two-${process.pid}` }).pipe(
      Effect.provideContext(yield* Layer.build(Local.layer))
    )
    const master = yield* masterHost(folder)
    yield* master.start
    yield* master.apply("kubernetes", {
      clusterSelector: {},
      checks: [
        { name: "k8s.api.health", use: "k8s.api.health" },
        { name: "k8s.admission.webhooks", use: "k8s.admission.webhooks" },
        { name: "k8s.finalizers.stuck", use: "k8s.finalizers.stuck" }
      ],
      // What is older than two of them is shown as unknown, a change that no test here is to see.
      policy: { interval: "5s" }
    })
    for (const [name, cluster] of [["one", first], ["two", second]] as const) {
      // Dry runs are sent there.
      yield* cluster.kubectl(["create", "namespace", "kubeprober"])
      const kubeconfig = cluster.kubeconfigPath
      yield* startAgent(master, { state: join(folder, name), kubeconfig, tokenFile: yield* master.add(name) })
    }
    return master
  })
)

layer(Layer.provideMerge(fleet, TestCluster.layer({ name: "fleet" })), {
  excludeTestServices: true,
  timeout: "180 seconds"
})("a fleet", (it) => {
  const until = Effect.fnUntraced(function*(cluster: string, checker: string, wanted: RegExp) {
    const host = yield* Host
    const rows = yield* host.until((found) => {
      const cell = cellOf(found, cluster, checker)
      return cell !== undefined && cell.freshness === "fresh" && wanted.test(shown(cell))
    })
    return cellOf(rows, cluster, checker)
  })

  const allGreen = Effect.flatMap(
    Host,
    ({ until }) =>
      until((found) =>
        found.length === 2 && found.every((row) =>
          row.linked && row.cells.length === 3 &&
          row.cells.every((cell) => cell.freshness === "fresh" && cell.status === "PASS")
        )
      )
  )

  it.effect("agents enrol and link; every checker of every cluster is fresh and green", () =>
    Effect.gen(function*() {
      const master = yield* Host
      yield* allGreen
      const table = yield* master.must("status")
      assert.match(table, /PROBE +one +two/u)
      assert.match(table, /k8s\.admission\.webhooks +PASS +PASS/u)
      assert.match(table, /2 clusters, 2 linked; 6 checkers: 6 PASS/u)
      // Statuses of Clusters are written a moment after the cells.
      yield* eventually(master.must("cluster", "list"), (text) => /one +PASS +linked/u.test(text))
    }), 150_000)

  it.effect("once runs a Probe on every cluster and tells what each said", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const ended = yield* master.run("once", "kubernetes", "-o", "json")
      assert.strictEqual(ended.code, 0, ended.stderr)
      const { clusters } = yield* Schema.decodeEffect(OnceResult)(ended.stdout)
      assert.deepStrictEqual(
        clusters.map(({ cluster, outcome, records, status }) => ({
          cluster,
          outcome,
          status,
          records: records.length
        })),
        ["one", "two"].map((cluster) => ({ cluster, outcome: "finished", status: "PASS", records: 3 }))
      )
      assert.isTrue(clusters.every(({ records }) => records.every(({ trigger }) => trigger === "manual")))

      const absent = yield* master.run("once", "nothing")
      assert.strictEqual(absent.code, 2)
      assert.match(absent.stderr, /there is no Probe nothing/u)
      const mistyped = yield* master.run("once", "kubernetes", "--cluster", "one,tow")
      assert.strictEqual(mistyped.code, 2)
      assert.match(mistyped.stderr, /there is no cluster tow; did you mean two\?/u)
      assert.strictEqual(mistyped.stdout, "")
      const unknown = yield* master.run("once", "--use", "k8s.no.such")
      assert.strictEqual(unknown.code, 2)
      assert.match(unknown.stdout + unknown.stderr, /k8s\.no\.such/u)
    }), 150_000)

  it.effect(
    "a webhook with no backend is seen on its cluster alone, as it happens, until it is gone",
    () =>
      Effect.gen(function*() {
        const master = yield* Host
        const { apply, kubectl } = yield* TestCluster
        const watching = yield* start(master.home, ["status", "-w"])
        yield* said(watching, /2 clusters, 2 linked/u)

        yield* apply(deadWebhook)
        const broken = yield* until("one", "k8s.admission.webhooks", /^ERROR/u)
        assert.match(broken?.message ?? "", /dead\.example\.com/u)
        yield* until("two", "k8s.admission.webhooks", /^PASS$/u)
        const status = yield* master.run("status")
        assert.strictEqual(status.code, 0)
        assert.match(status.stdout, /dead\.example\.com.*\n {2}next: /u)
        assert.strictEqual((yield* master.run("status", "--fail-on", "error")).code, 1)
        const once = yield* master.run("once", "--use", "k8s.admission.webhooks")
        assert.strictEqual(once.code, 1)
        assert.match(once.stdout, /dead\.example\.com.*\n {2}next: /u)
        assert.strictEqual((yield* master.run("once", "--use", "k8s.admission.webhooks", "--cluster", "two")).code, 0)

        yield* kubectl("delete", "validatingwebhookconfiguration", "dead")
        yield* until("one", "k8s.admission.webhooks", /^PASS$/u)
        // Without a terminal each change is a line: when, where, what, and why.
        yield* said(
          watching,
          /^\d{4}-\d\d-\d\dT\S+ one k8s\.admission\.webhooks PASS -> ERROR \S+: .*dead\.example\.com/mu
        )
        yield* said(watching, /^\d{4}-\d\d-\d\dT\S+ one k8s\.admission\.webhooks ERROR -> PASS$/mu)
        assert.notInclude(watching.output(), "\u001b")
      }),
    300_000
  )

  it.effect(
    "while an API server is down, what needs it is unknown because of it, and green again after",
    () =>
      Effect.gen(function*() {
        const master = yield* Host
        const { components } = yield* LocalCluster
        yield* components.apiServer.kill
        yield* until("one", "k8s.api.health", /^ERROR/u)
        for (const child of ["k8s.admission.webhooks", "k8s.finalizers.stuck"]) {
          const cell = yield* until("one", child, /^UNKNOWN PARENT_FAILED$/u)
          assert.match(cell?.message ?? "", /because k8s\.api\.health is ERROR/u)
        }
        const once = yield* master.run("once", "kubernetes", "--cluster", "one", "--timeout", "60s")
        assert.strictEqual(once.code, 1, once.stdout + once.stderr)
        yield* components.apiServer.start
        yield* allGreen
      }),
    300_000
  )
})
