/** Two hundred Probes that would ask without end, on a real API server: what arrives there is the budget, fairly shared. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Clock, Context, DateTime, Duration, Effect, FileSystem, Layer, References } from "effect"
import * as Agent from "../../src/agent/Agent.ts"
import { Budget } from "../../src/agent/Budget.ts"
import { ProbeStore } from "../../src/agent/ProbeStore.ts"
import { Standings } from "../../src/agent/Standings.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { check } from "./Checks.ts"
import { desiredOf, hashOf } from "./desired.ts"

const PROBES = 200
const A_MINUTE = 1500

const absurd = check("test.absurd", () =>
  Effect.gen(function*() {
    const kube = yield* Kube
    yield* Effect.replicateEffect(kube.list(ConfigMap, { namespace: "default" }), 20, { discard: true })
    return Outcome.make("asked twenty times")
  }), { needs: [Needs.list("configmaps", { namespace: "default" })], timeout: "20 seconds" })

const modest = check("test.modest", () =>
  Effect.gen(function*() {
    const kube = yield* Kube
    yield* kube.get(Namespace, { name: "default" })
    return Outcome.make("asked once")
  }), { needs: [Needs.get("namespaces", { names: ["default"] })], timeout: "60 seconds" })

const spec = (use: string, seconds: number): ProbeSpec => ({
  checks: [{ name: "it", use }],
  policy: { interval: Duration.seconds(seconds) }
})

/** Lists of ConfigMaps of one namespace that the API server has answered. */
const counted = Effect.gen(function*() {
  const { body } = yield* (yield* TestCluster).kube.raw("/metrics")
  return body.split("\n")
    .filter((line) =>
      line.startsWith("apiserver_request_total{") && line.includes("resource=\"configmaps\"") &&
      line.includes("verb=\"LIST\"") && line.includes("scope=\"namespace\"")
    )
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0)
})

layer(Layer.merge(TestCluster.layer({ name: "budget" }), NodeServices.layer), {
  excludeTestServices: true,
  timeout: "180 seconds"
})("a budget", (it) => {
  it.effect("two hundred absurd Probes do not exceed it, and do not starve a modest one", () =>
    Effect.gen(function*() {
      const { cluster } = yield* TestCluster
      const config = yield* KubeConfigFile.load({ path: cluster.kubeconfigPath })
      const stateFolder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
      const agent = yield* Layer.build(Agent.layerStandalone({
        connection: yield* config.connection(config.currentContext ?? ""),
        probeNamespace: "kubeprober",
        mode: "memory",
        stateFolder,
        available: [absurd.probe, modest.probe],
        version: "test",
        budget: { requests: A_MINUTE }
      })).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
      const store = Context.get(agent, ProbeStore)
      const standings = Context.get(agent, Standings)
      const budget = Context.get(agent, Budget)
      const kube = Context.get(agent, Kube)
      const modestProbe = { namespace: "kubeprober", name: "modest", spec: spec("test.modest", 5) }
      const lastRun = Effect.map(standings.of(modestProbe), ({ checkers }) => checkers.get("it")?.lastRun)
      const apply = (specs: Readonly<Record<string, ProbeSpec>>) => {
        const desired = desiredOf(specs)
        return store.apply(hashOf(desired), desired)
      }
      yield* apply({ modest: modestProbe.spec })
      yield* eventually(lastRun, (found) => found !== undefined)

      const before = yield* counted
      const sentBefore = yield* kube.requests
      const from = yield* Clock.currentTimeMillis
      const names = Array.from({ length: PROBES }, (_, index) => `absurd-${index}`)
      yield* apply({
        modest: modestProbe.spec,
        ...Object.fromEntries(names.map((name) => [name, spec("test.absurd", 1)]))
      })
      yield* eventually(budget.usage, ({ waiting }) => waiting, { within: "60 seconds" })
      for (let run = 0; run < 3; run++) {
        const now = yield* DateTime.now
        yield* eventually(
          lastRun,
          (found) => found !== undefined && DateTime.isGreaterThan(found, now),
          { within: "60 seconds" }
        )
      }
      const after = yield* counted
      const sent = (yield* kube.requests) - sentBefore
      const seconds = ((yield* Clock.currentTimeMillis) - from) / 1000
      const most = A_MINUTE / 2 + A_MINUTE / 60 * seconds
      assert.isAtMost(after - before, most)
      // The agent's own few requests besides: versions and nodes, once a minute.
      assert.isAtMost(sent, most + 20)
      // It was used up, or this would prove nothing.
      assert.isAtLeast(sent, A_MINUTE / 2)

      const { checkers } = yield* standings.of(modestProbe)
      assert.strictEqual(checkers.get("it")?.status, "PASS")
      const codes = yield* Effect.forEach(names, (name) =>
        Effect.map(
          standings.of({ namespace: "kubeprober", name, spec: spec("test.absurd", 1) }),
          ({ checkers }) => checkers.get("it")?.code
        ))
      const said = new Set(codes.filter((code) => code !== undefined))
      assert.deepStrictEqual([...said], said.size === 0 ? [] : ["BUDGET_EXHAUSTED"])
      const { accounts } = yield* budget.usage
      assert.isAtMost(accounts.find(([account]) => account === "kubeprober/modest")?.[1] ?? 0, 60)
    }).pipe(Effect.scoped))
})
