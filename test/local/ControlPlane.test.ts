import { assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, FileSystem, Layer, Option, Schedule, Schema } from "effect"
import * as Kubeconfig from "../../src/local/Kubeconfig.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import type { Progress } from "../../src/local/Progress.ts"
import { freshName } from "../clusters/freshName.ts"
import { Sandbox } from "./Sandbox.ts"

const started: Array<Progress> = []

const onProgress = (event: Progress) => Effect.sync(() => started.push(event)).pipe(Effect.asVoid)

const cluster = LocalCluster.layer({ name: "control-plane", onProgress }).pipe(Layer.provideMerge(Sandbox.layer()))

const WhoAmI = Schema.fromJsonString(Schema.Struct({
  status: Schema.Struct({
    userInfo: Schema.Struct({ username: Schema.String, groups: Schema.Array(Schema.String) })
  })
}))

/** Polls for what takes a component a moment to do. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.retry(Schedule.spaced("200 millis")),
    Effect.timeout("30 seconds")
  )

layer(cluster, { excludeTestServices: true, timeout: "120 seconds" })("a control plane", (it) => {
  it.effect("is ready in time, and tells its stages", () =>
    Effect.gen(function*() {
      const stages = started.flatMap((event) => event._tag === "Reached" ? [event] : [])
      assert.deepStrictEqual(stages.map(({ stage }) => stage), ["binaries", "control plane"])
      // It takes 6 to 8 seconds on two idle cores; who shares them with others may wait as long as a start has.
      const last = stages.at(-1)
      assert.isBelow(last === undefined ? Infinity : Duration.toSeconds(last.elapsed), 90)
    }))

  it.effect("serves its administrator through kubeconfig and certificate", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const version = yield* cluster.kubectl(["get", "--raw", "/version"])
      assert.include(version, `v${cluster.kubernetesVersion}`)
      const name = yield* freshName("mine")
      yield* cluster.kubectl(["create", "namespace", name])
      assert.include(yield* cluster.kubectl(["get", "namespaces"]), name)
      assert.include(cluster.kubeconfig, "current-context: kubeprober-local-control-plane")
    }))

  it.effect("fails a kubectl that fails, with what it said", () =>
    Effect.gen(function*() {
      const { kubectl } = yield* LocalCluster
      const error = yield* Effect.flip(kubectl(["get", "pods", "nothing"]))
      assert.strictEqual(error._tag, "CommandFailed")
      assert.include(error.message, "\"nothing\" not found")
    }))

  it.effect("knows the users that it issues certificates to, and what they may do", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { caCertPem, issueClientCertificate, kubectl, server } = yield* LocalCluster
      const file = `${yield* fs.makeTempDirectoryScoped()}/kubeconfig`
      const client = yield* issueClientCertificate({
        user: "jane",
        groups: ["readers", "writers"],
        validFor: "1 hour"
      })
      yield* fs.writeFileString(file, Kubeconfig.render([{ context: "jane", server, ca: caCertPem, client }]))
      const as = `--kubeconfig=${file}`
      const { status } = yield* Schema.decodeEffect(WhoAmI)(yield* kubectl([as, "auth", "whoami", "--output=json"]))
      assert.strictEqual(status.userInfo.username, "jane")
      assert.includeMembers([...status.userInfo.groups], ["readers", "writers"])
      const refused = yield* Effect.flip(kubectl([as, "get", "secrets"]))
      assert.include(refused.message, "Forbidden")
    }))

  it.effect("runs controllers: leases, service accounts, tokens", () =>
    Effect.gen(function*() {
      const { kubectl } = yield* LocalCluster
      yield* eventually(
        Effect.filterOrFail(
          kubectl(["--namespace=kube-system", "get", "leases", "--output=name"]),
          (leases) =>
            ["kube-scheduler", "kube-controller-manager"].every((name) =>
              leases.includes(`lease.coordination.k8s.io/${name}\n`)
            )
        )
      )
      const token = yield* eventually(kubectl(["create", "token", "default"]))
      assert.strictEqual(token.trim().split(".").length, 3)
    }))

  it.effect("keeps its state to its owner", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { state } = yield* Sandbox
      const modeOf = (path: string) => Effect.map(fs.stat(`${state}/control-plane${path}`), ({ mode }) => mode & 0o777)
      assert.strictEqual(yield* modeOf(""), 0o700)
      for (const file of ["/kubeconfig", "/cluster.json", "/control-plane/ca.key", "/control-plane/scheduler.conf"]) {
        assert.strictEqual(yield* modeOf(file), 0o600, file)
      }
    }))

  it.effect("keeps its data when its API server is stopped, and refuses meanwhile", () =>
    Effect.gen(function*() {
      const { components: { apiServer }, kubectl } = yield* LocalCluster
      const kept = yield* freshName("kept")
      // A try that has failed may have left it stopped.
      yield* apiServer.start
      yield* eventually(kubectl(["get", "--raw", "/readyz"]))
      yield* kubectl(["create", "configmap", kept, "--from-literal=answer=42"])
      const before = yield* apiServer.pid
      yield* apiServer.stop
      assert.isFalse(yield* apiServer.isRunning)
      assert.isTrue(Option.isNone(yield* apiServer.pid))
      const refused = yield* Effect.flip(kubectl(["get", "configmaps"]))
      assert.include(refused.message, "refused")
      yield* apiServer.start
      assert.notDeepEqual(yield* apiServer.pid, before)
      assert.include(yield* eventually(kubectl(["get", "configmap", kept, "--output=yaml"])), "answer: \"42\"")
    }))

  it.effect("hangs while etcd is paused, and goes on when it is resumed", () =>
    Effect.gen(function*() {
      const { components: { etcd }, kubectl } = yield* LocalCluster
      yield* etcd.pause
      const write = kubectl(["create", "namespace", "late", "--request-timeout=2s"])
      assert.strictEqual((yield* Effect.flip(write))._tag, "CommandFailed")
      assert.isTrue(yield* etcd.isRunning)
      yield* etcd.resume
      yield* eventually(kubectl(["get", "namespaces"]))
    }))

  it.effect("tells of a component that ends by itself, and starts it again", () =>
    Effect.gen(function*() {
      const { components: { scheduler } } = yield* LocalCluster
      const pid = Option.getOrThrow(yield* scheduler.pid)
      yield* Effect.sync(() => process.kill(pid, "SIGKILL"))
      const error = yield* Effect.flip(scheduler.ended)
      assert.strictEqual(error.component, "kube-scheduler")
      assert.include(error.message, scheduler.logPath)
      const again = yield* Effect.repeat(scheduler.pid, {
        until: Option.isSome,
        schedule: Schedule.spaced("50 millis")
      })
      assert.notStrictEqual(Option.getOrThrow(again), pid)
    }))

  it.effect("leaves down what was killed, until it is started", () =>
    Effect.gen(function*() {
      const { components: { scheduler } } = yield* LocalCluster
      yield* scheduler.kill
      // Longer than the second after which one that ends by itself is started again.
      yield* Effect.sleep("2 seconds")
      assert.isFalse(yield* scheduler.isRunning)
      yield* scheduler.start
      assert.isTrue(yield* scheduler.isRunning)
    }))

  it.effect("has others beside it", () =>
    Effect.gen(function*() {
      const first = yield* LocalCluster
      const second = yield* LocalCluster.make({ name: "beside" })
      yield* second.kubectl(["create", "namespace", "second"])
      assert.notInclude(yield* first.kubectl(["get", "namespaces"]), "second")
      assert.notStrictEqual(first.server, second.server)
    }).pipe(Effect.scoped), 120_000)

  it.effect("has its name alone", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(LocalCluster.make({ name: "control-plane" }))
      assert.strictEqual(error._tag, "ClusterExists")
    }).pipe(Effect.scoped))

  describe("with options that make no sense", () => {
    for (
      const options of [{ name: "" }, { name: "../up" }, { name: "Big" }, { name: "kubeconfig" }, {
        name: "a",
        nodes: 0.5
      }]
    ) {
      it.effect(JSON.stringify(options), () =>
        Effect.gen(function*() {
          assert.strictEqual((yield* Effect.flip(LocalCluster.make(options)))._tag, "InvalidOptions")
        }).pipe(Effect.scoped))
    }
  })

  it.effect("does not come up with a flag that its program refuses, and says why", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        LocalCluster.make({ name: "wrong-flag", extraFlags: { "kube-apiserver": ["--no-such-flag"] } })
      )
      assert.strictEqual(error._tag, "ComponentExited")
      assert.include(error.message, "unknown flag: --no-such-flag")
    }).pipe(Effect.scoped))
})
