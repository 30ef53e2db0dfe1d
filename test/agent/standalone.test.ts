/** An agent without a master on a real API server: Probe in, ProbeStatus out. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Redacted, References, type Scope, Stream } from "effect"
import * as Agent from "../../src/agent/Agent.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Probe, ProbeStatus } from "../../src/infra/kube/resources/kubeprober.ts"
import type { LocalCluster } from "../../src/local/LocalCluster.ts"
import { installCrds } from "../clusters/installCrds.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { brittle, shaky, steady } from "./agentProbes.ts"

const NAMESPACE = "kubeprober"

const connectionOf = (cluster: LocalCluster["Service"]) =>
  KubeConnection.make({
    cluster: cluster.name,
    server: cluster.server,
    identity: {
      tls: { ca: cluster.caCertPem, cert: cluster.adminCertPem, key: Redacted.make(cluster.adminKeyPem) }
    }
  })

const install = Effect.gen(function*() {
  const { apply } = yield* TestCluster
  yield* installCrds
  yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } })
})

/** Takes away what a try that has failed may have left. */
const forget = Effect.fnUntraced(function*(...names: ReadonlyArray<string>) {
  const { kubectl } = yield* TestCluster
  yield* kubectl("delete", "kp,kps", "-n", NAMESPACE, "--ignore-not-found", ...names)
})

/** An agent for as long as the scope, with a state of its own. */
const startAgent: Effect.Effect<void, unknown, TestCluster | Scope.Scope | FileSystem.FileSystem> = Effect.gen(
  function*() {
    const { cluster } = yield* TestCluster
    const stateFolder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
    yield* Layer.build(Layer.fresh(Agent.layerStandalone({
      connection: connectionOf(cluster),
      probeNamespace: NAMESPACE,
      mode: "resources",
      stateFolder,
      available: [steady, brittle, shaky],
      version: "test"
    })))
  }
).pipe(Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug"))

const probeOf = (name: string, spec: object) => ({
  apiVersion: "kubeprober.erda.cloud/v1",
  kind: "Probe",
  metadata: { name, namespace: NAMESPACE },
  spec
})

const statusOf = Effect.fnUntraced(function*(name: string) {
  const kube = yield* Kube
  return yield* kube.get(ProbeStatus, { name, namespace: NAMESPACE }).pipe(Effect.orElseSucceed(() => undefined))
})

describe("standalone", () => {
  layer(Layer.merge(TestCluster.layer({ name: "standalone" }), NodeServices.layer), {
    excludeTestServices: true,
    timeout: "120 seconds"
  })("on a real cluster", (it) => {
    it.effect("a Probe's checkers are in the ProbeStatus of its name, which goes with it", () =>
      Effect.gen(function*() {
        yield* install
        const { apply, kubectl } = yield* TestCluster
        const kube = yield* Kube
        yield* startAgent
        yield* apply(probeOf("mixed", {
          checks: [
            { name: "steady", use: "test.steady" },
            { name: "brittle", use: "test.brittle", with: { status: "ERROR" } },
            { name: "odd", use: "test.nowhere" },
            { name: "wrong", use: "test.brittle", with: { status: "BANANA" } }
          ],
          policy: { interval: "1h" }
        }))
        const status = yield* eventually(
          statusOf("mixed"),
          (found) =>
            found?.spec?.checkers?.every(({ lastRun }) => lastRun !== undefined) === true &&
            found.status?.status === "ERROR",
          { within: "30 seconds" }
        ).pipe(Effect.timeout("40 seconds"))
        const shown = Object.fromEntries(
          (status?.spec?.checkers ?? []).map(({ code, name, status: s }) => [name, [s, code]])
        )
        assert.deepStrictEqual(shown, {
          brittle: ["ERROR", "BROKEN"],
          odd: ["UNKNOWN", "INVALID_CONFIG"],
          steady: ["PASS", undefined],
          wrong: ["UNKNOWN", "INVALID_CONFIG"]
        })
        assert.strictEqual(status?.status?.failing, "1/4")
        assert.isDefined(status?.status?.staleAt)
        const probe = yield* kube.get(Probe, { name: "mixed", namespace: NAMESPACE })
        assert.strictEqual(status?.metadata.ownerReferences?.[0]?.uid, probe.metadata.uid)
        const table = yield* kubectl("get", "kps", "-n", NAMESPACE)
        assert.match(table, /mixed\s+ERROR\s+1\/4/)

        // A checker that is no longer asked for is no longer shown.
        yield* apply(probeOf("mixed", {
          checks: [{ name: "steady", use: "test.steady" }],
          policy: { interval: "1h" }
        }))
        yield* eventually(statusOf("mixed"), (found) => found?.status?.status === "PASS", { within: "30 seconds" })
        const after = yield* statusOf("mixed")
        assert.deepStrictEqual(after?.spec?.checkers?.map(({ name }) => name), ["steady"])
        yield* kubectl("delete", "kp", "mixed", "-n", NAMESPACE)
      }).pipe(Effect.scoped))

    it.effect("what is broken and healed again and again is WARN FLAPPING, over a restart too", () =>
      Effect.gen(function*() {
        yield* install
        yield* forget("shaky")
        const { apply, kubectl, kube } = yield* TestCluster
        // Broken and healed for real: the Deployment is without a pod by its replicas, and the probe reads it anew each time.
        yield* apply({
          apiVersion: "apps/v1",
          kind: "Deployment",
          metadata: { name: "shaky", namespace: NAMESPACE },
          spec: {
            replicas: 0,
            selector: { matchLabels: { app: "shaky" } },
            template: {
              metadata: { labels: { app: "shaky" } },
              spec: { containers: [{ name: "main", image: "example.com/none" }] }
            }
          }
        })
        yield* apply(probeOf("shaky", { checks: [{ name: "shaky", use: "test.shaky" }], policy: { interval: "1s" } }))
        const shown = Effect.map(statusOf("shaky"), (found) => found?.spec?.checkers?.[0])
        const scale = (replicas: number) =>
          kubectl("scale", "deployment", "shaky", "-n", NAMESPACE, `--replicas=${replicas}`)
        const turns = (count: number) => eventually(shown, (checker) => (checker?.memory?.turns ?? []).length >= count)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* startAgent
          yield* eventually(shown, (checker) => checker?.status === "PASS")
          yield* scale(1)
          const broken = yield* eventually(shown, (checker) => checker?.status === "ERROR")
          assert.strictEqual(broken?.code, "BROKEN")
          assert.deepStrictEqual(broken?.memory?.standing, ["BROKEN"])
          yield* scale(0)
          yield* turns(2)
          yield* scale(1)
          yield* turns(3)
          yield* scale(0)
          yield* turns(4)
          assert.isUndefined((yield* shown)?.code)
          yield* scale(1)
          const flapping = yield* eventually(shown, (checker) => checker?.code === "FLAPPING")
          assert.deepStrictEqual([flapping?.status, flapping?.blame], ["WARN", "target"])
          assert.match(
            flapping?.message ?? "",
            /5 times since .*, at worst ERROR BROKEN; ends after 10m without another change; the last run said ERROR BROKEN/
          )
          assert.match(yield* kubectl("get", "kps", "shaky", "-n", NAMESPACE), /shaky\s+WARN\s+1\/1/)
        }))
        yield* startAgent
        yield* scale(0)
        const on = yield* eventually(shown, (checker) => (checker?.memory?.episode?.turns ?? 0) >= 6)
        assert.strictEqual(on?.code, "FLAPPING")
        yield* kube.delete(Probe, { name: "shaky", namespace: NAMESPACE })
      }).pipe(Effect.scoped))

    it.effect("a restart keeps standings, and does not run again what ran once", () =>
      Effect.gen(function*() {
        yield* install
        yield* forget("often", "once")
        const { apply, kube } = yield* TestCluster
        const failures = (found: ProbeStatus | undefined) => found?.spec?.checkers?.[0]?.consecutiveFailures ?? 0
        // All that is ever stored of it, for a failure may be followed by the next before anybody has looked.
        const told: Array<readonly [failures: number, status: string | undefined]> = []
        yield* kube.reflect(ProbeStatus, { namespace: NAMESPACE }).pipe(
          Stream.flatMap((event) => Stream.fromIterable(event._tag === "Synced" ? event.items : [event.object])),
          Stream.filter((found) => found.metadata.name === "often" && failures(found) > 0),
          Stream.runForEach((found) =>
            Effect.sync(() => told.push([failures(found), found.spec?.checkers?.[0]?.status]))
          ),
          Effect.forkScoped
        )
        yield* apply(
          probeOf("often", {
            checks: [{ name: "brittle", use: "test.brittle", with: { status: "ERROR" } }],
            policy: { interval: "2s", failureThreshold: 3 }
          }),
          probeOf("once", { checks: [{ name: "steady", use: "test.steady" }], policy: { runInterval: 0 } })
        )
        const first = yield* Effect.scoped(Effect.gen(function*() {
          yield* startAgent
          const once = yield* eventually(
            statusOf("once"),
            (found) => found?.metadata.annotations?.["kubeprober.io/ran"] !== undefined,
            { within: "30 seconds" }
          )
          yield* eventually(statusOf("often"), (found) => failures(found) >= 2, { within: "30 seconds" })
          return { once }
        }))
        const before = failures(yield* statusOf("often"))
        yield* startAgent
        yield* eventually(Effect.sync(() => told.at(-1)?.[0] ?? 0), (last) => last >= before + 3)
        const counts = told.map(([count]) => count)
        assert.deepStrictEqual(counts, counts.toSorted((one, other) => one - other))
        assert.isTrue(told.some(([, status]) => status === "INFO"))
        for (const [count, status] of told) assert.strictEqual(status, count < 3 ? "INFO" : "ERROR", `after ${count}`)
        const once = yield* statusOf("once")
        assert.strictEqual(
          once?.spec?.checkers?.[0]?.lastRun?.toString(),
          first.once?.spec?.checkers?.[0]?.lastRun?.toString()
        )
      }).pipe(Effect.scoped))

    it.effect("what an agent that is gone has said is not shown as PASS by the next; what is suspended grows stale", () =>
      Effect.gen(function*() {
        yield* install
        const { apply } = yield* TestCluster
        const spec = { checks: [{ name: "steady", use: "test.steady" }], policy: { interval: "1s" } }
        yield* apply(probeOf("lively", spec))
        yield* startAgent
        yield* eventually(statusOf("lively"), (found) => found?.status?.status === "PASS", { within: "30 seconds" })
        yield* apply(probeOf("lively", { ...spec, policy: { interval: "1s", suspend: true } }))
        const stale = yield* eventually(statusOf("lively"), (found) => found?.status?.status === "UNKNOWN", {
          within: "30 seconds"
        })
        assert.match(stale?.spec?.checkers?.[0]?.message ?? "", /^no run since /)
      }).pipe(Effect.scoped))
  })
})
