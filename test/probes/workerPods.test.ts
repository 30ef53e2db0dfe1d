/** Probes that a pod on each node answers by itself, and worker pods as such, on one cluster with two nodes. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted, Schedule } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { seal } from "../../src/agent/workers/seal.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import { COREDNS_IMAGE } from "../../src/local/image/Images.ts"
import { diskLatency } from "../../src/probes/infrastructure/diskLatency.ts"
import { apiFromPod, judge as judgeApi } from "../../src/probes/kubernetes/apiFromPod.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { diskCommits } from "../../src/probes/workers/tasks/diskCommits.ts"
import { Workers, needs as workerNeeds } from "../../src/probes/workers/Workers.ts"
import { atFirst } from "../clusters/AtRequest.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { fault } from "../proofs/proof.ts"
import { during, finds, found, ofWorkers, passes, second } from "./inPods.ts"
describe("judging the way from pods to the API", () => {
  const way = (good: number, failure?: { kind: string; detail: string; status?: number }, p50Millis = 10) => ({
    good,
    times: 3,
    p50Millis,
    ...(failure === undefined ? {} : { failure })
  })
  const timeout = { kind: "timeout", detail: "no answer" }
  const says = (...ways: ReadonlyArray<[ReturnType<typeof way>, ReturnType<typeof way>]>) =>
    judgeApi(
      { slow: Duration.seconds(1) },
      ways.map(([byAddress, byName], at) => ({ node: `n${at}`, got: { address: "10.0.0.1:443", byAddress, byName } }))
    ).map(({ code, subject }) => `${code} ${subject?.name}`)

  it("tells a node from the Service, and the way from what stands at its end", () => {
    const good = way(3)
    const bad = way(0, timeout)
    const unknown = way(0, { kind: "status", detail: "status 401", status: 401 })
    assert.deepStrictEqual(says([good, good], [good, good]), [])
    assert.deepStrictEqual(says([good, good], [bad, bad]), ["API_UNREACHABLE_FROM_NODE n1"])
    assert.deepStrictEqual(says([bad, bad], [bad, bad]), ["API_UNREACHABLE_FROM_PODS kubernetes"])
    assert.deepStrictEqual(says([unknown, unknown]), ["TOKEN_REJECTED n0"])
    assert.deepStrictEqual(says([way(2, timeout), good]), ["API_UNRELIABLE_FROM_NODE n0"])
    assert.deepStrictEqual(says([good, way(0, { kind: "dns", detail: "ENOTFOUND" })]), ["API_NAME_FAILS n0"])
    assert.deepStrictEqual(says([way(3, undefined, 1001), good]), ["API_SLOW_FROM_NODE n0"])
  })
})

layer(
  WorkerCluster.layer({ name: "worker-pods", nodes: 2, nodeTimings: "default" }),
  { excludeTestServices: true, timeout: "180 seconds" }
)("probes that every node's pod answers alone", (it) => {
  const { world } = WorkerCluster
  const worldOf = (image: string) => ProbeWorld.make({ workers: Effect.succeed({ image, imagePullPolicy: "Never" }) })
  const MISSING = worldOf("kubeprober.local/missing:1")
  const CRASHING = worldOf(COREDNS_IMAGE)

  const run = (check: Probe.Check, its = world) => Effect.flatMap(TestCluster, ({ run }) => run(check, { world: its }))
  /** No machine is so busy that an answer takes as long as this. */
  const api = (config: typeof apiFromPod extends Probe.Probe<infer _, infer E> ? E : never = {}) =>
    run(Probe.configure(apiFromPod, { slow: "10s", ...config }))

  /** For a fault that is looked for again, and what comes after it. */
  const TIMEOUT = 240_000

  ofWorkers(it, apiFromPod, { limits: { slow: "10s" }, perNode: true })
  ofWorkers(it, diskLatency, { limits: { slow: "5s", tooSlow: "10s" }, perNode: true })

  it.effect(
    fault(
      apiFromPod,
      "API_UNREACHABLE_FROM_NODE",
      fault(apiFromPod, "API_UNREACHABLE_FROM_PODS", "the Service's address is cut off on one node, then on all")
    ),
    () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const { exec, first, name } = yield* second
        const rule = ["PREROUTING", "-t", "raw", "-d", "10.96.0.1", "-j", "DROP"]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          Effect.gen(function*() {
            yield* finds(api({ timeout: "2s" }), [`API_UNREACHABLE_FROM_NODE ${name}`])
            yield* during(
              first.exec(["iptables", "-I", ...rule]),
              finds(api({ timeout: "1s" }), ["API_UNREACHABLE_FROM_PODS kubernetes"]),
              first.exec(["iptables", "-D", ...rule])
            )
          }),
          exec(["iptables", "-D", ...rule])
        )
        assert.lengthOf(cluster.nodes, 2)
        yield* passes(apiFromPod)
      }),
    TIMEOUT
  )

  it.effect(
    fault(
      apiFromPod,
      "API_UNRELIABLE_FROM_NODE",
      "each third connection from one node's pods is refused on its way"
    ),
    () =>
      Effect.gen(function*() {
        const { cluster } = yield* TestCluster
        const { exec, name, podCidr } = yield* second
        const ofPods = ["-s", podCidr, "-d", "10.96.0.1", "-p", "tcp"]
        const third = ["-m", "statistic", "--mode", "nth", "--every", "3", "--packet", "0"]
        // To a port that nobody listens at.
        const elsewhere = ["-j", "DNAT", "--to-destination", `${new URL(cluster.server).hostname}:1`]
        const rule = ["PREROUTING", "-t", "nat", ...ofPods, ...third, ...elsewhere]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          // Those that are refused may all be among those that go by the server's name.
          finds(api(), [`API_UNRELIABLE_FROM_NODE ${name}`]),
          exec(["iptables", "-D", ...rule])
        )
        yield* passes(apiFromPod)
      }),
    TIMEOUT
  )

  it.effect(
    fault(apiFromPod, "API_UNTRUSTED", "another server answers at the Service's address on one node"),
    () =>
      Effect.gen(function*() {
        const { exec, ip, name } = yield* second
        // The kubelet: its certificate is of the same authority and for another name.
        const rule = [
          "PREROUTING",
          "-t",
          "nat",
          "-d",
          "10.96.0.1",
          "-p",
          "tcp",
          "--dport",
          "443",
          "-j",
          "DNAT",
          "--to-destination",
          `${ip}:10250`
        ]
        yield* during(
          exec(["iptables", "-I", ...rule]),
          Effect.map(api(), (report) => assert.deepStrictEqual(found(report), [`API_UNTRUSTED ${name}`])),
          exec(["iptables", "-D", ...rule])
        )
        yield* passes(apiFromPod)
      })
  )

  it.effect(
    fault(
      apiFromPod,
      "API_NAME_FAILS",
      fault(apiFromPod, "API_SLOW_FROM_NODE", "CoreDNS is scaled to zero; a limit that no network keeps")
    ),
    () =>
      Effect.gen(function*() {
        const { cluster, kubectl } = yield* TestCluster
        const nodes = cluster.nodes.map(({ name }) => name)
        const scale = (replicas: number) =>
          Effect.andThen(
            kubectl("scale", "deployment/coredns", "-n", "kube-system", `--replicas=${replicas}`),
            kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
          )
        // kube-proxy follows a rollout a moment after it is over.
        yield* during(
          scale(0),
          finds(api({ timeout: "2s" }), nodes.map((name) => `API_NAME_FAILS ${name}`)),
          scale(1)
        )
        yield* finds(api({ slow: "1ms" }), nodes.map((name) => `API_SLOW_FROM_NODE ${name}`))
        yield* passes(apiFromPod)
      }),
    TIMEOUT
  )

  /** Every commit of the worker on this node takes so much longer, as on a slow disk. Takes `strace`. */
  const slowDisk = (milliseconds: number) =>
    Effect.flatMap(second, ({ exec }) =>
      exec([
        "sh",
        "-c",
        `for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'worker[ ]run'; then
           strace -f -qq -e trace=fdatasync -e inject=fdatasync:delay_enter=${
          milliseconds * 1000
        } -o /dev/null -p \${p#/proc/}
           exit 0
         fi; done; exit 1`
      ]).pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.forever))

  it.effect(
    fault(diskLatency, "DISK_SLOW", fault(diskLatency, "DISK_TOO_SLOW", "each commit on one node takes 300 ms more")),
    () =>
      Effect.gen(function*() {
        const { name } = yield* second
        const look = (slow: string, tooSlow: string) =>
          Effect.scoped(Effect.andThen(
            Effect.forkScoped(slowDisk(300)),
            run(Probe.configure(diskLatency, { slow, tooSlow, commits: 10 }))
          ))
        // The disk of the other node is this one's as well, and busy with more than the worker.
        yield* finds(look("200ms", "10s"), [`DISK_SLOW ${name}`])
        yield* finds(look("150ms", "200ms"), [`DISK_TOO_SLOW ${name}`])
        yield* eventually(
          run(Probe.configure(diskLatency, { slow: "200ms", tooSlow: "250ms", commits: 10 })),
          ({ status }) => status === "PASS"
        )
      }),
    300_000
  )

  describe("a worker pod", () => {
    /** Many commits, so that there is time to do something to the pod. */
    const busy = (times = 10_000, within: Duration.Input = "60 seconds") =>
      Probe.make("test.worker", {
        layer: "infrastructure",
        proves: "A worker pod works.",
        writes: "namespace",
        needs: [workerNeeds],
        codes: {},
        config: Probe.NoConfig,
        timeout: "90 seconds",
        confirm: "none",
        run: Effect.fnUntraced(function*() {
          const workers = yield* Workers
          const { output } = yield* workers.run(diskCommits, { folder: "/tmp", times, bytes: 1 }, { within })
          return Outcome.make(`${output.times} commits`)
        })
      })
    const workerPodsOf = (kube: Kube["Service"]) =>
      Effect.map(
        kube.list(Pod, { namespace: PROBE_NAMESPACE, labelSelector: "app.kubernetes.io/component=worker" }),
        ({ items }) => items
      )
    const workerPods = Effect.flatMap(Kube, workerPodsOf)
    /** Sends a signal to the worker, wherever it runs; whether there was one. */
    const signal = (name: "CONT" | "STOP" | "KILL") =>
      Effect.flatMap(TestCluster, ({ cluster }) =>
        Effect.map(
          Effect.forEach(cluster.nodes, ({ exec }) =>
            exec([
              "sh",
              "-c",
              `for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'worker[ ]run'; then kill -${name} \${p#/proc/} && echo hit; fi; done; true`
            ])),
          (said) => said.join("").includes("hit")
        ))

    it.effect("is restricted, has no token of the API, is labelled, and is gone after the run", () =>
      Effect.gen(function*() {
        const { cluster, kube, kubectl, run } = yield* TestCluster
        let drained = ""
        let json = ""
        // Kubelets that halt do not end it meanwhile, and an ended one may always be drained.
        const look = Effect.gen(function*() {
          const [placed] = yield* eventually(workerPodsOf(kube), ([pod]) => pod?.spec.nodeName !== undefined)
          // Without --force, for pods that something controls alone.
          drained = yield* kubectl(
            "drain",
            placed?.spec.nodeName ?? "",
            "--dry-run=client",
            "--delete-emptydir-data",
            "--pod-selector=kubeprober.io/run=looked-at"
          )
          json = yield* kubectl("get", "pods", "-n", PROBE_NAMESPACE, "-l", "kubeprober.io/run=looked-at", "-o", "json")
        })
        const kubelets = (which: "pause" | "resume") =>
          Effect.forEach(cluster.nodes, ({ kubelet }) => kubelet[which], { discard: true })
        const as = atFirst(
          kube,
          "create Pod",
          (send) => during(kubelets("pause"), Effect.tap(send, () => look), kubelets("resume"))
        )
        const report = yield* run(busy(100), { world, as, runId: "looked-at" })
        assert.strictEqual(report.message, "100 commits", JSON.stringify(report))
        const pod = JSON.parse(json).items[0]
        assert.include(drained, `evicting pod ${PROBE_NAMESPACE}/${pod.metadata.name}`)
        assert.strictEqual(pod.spec.automountServiceAccountToken, false)
        assert.strictEqual(pod.metadata.labels["app.kubernetes.io/managed-by"], "kubeprober")
        assert.match(pod.metadata.annotations["kubeprober.io/expires-at"], /^2/)
        assert.isAbove(pod.spec.activeDeadlineSeconds, 0)
        assert.deepStrictEqual(pod.spec.volumes.map((volume: object) => Object.keys(volume).sort().join()), [
          "emptyDir,name"
        ])
        yield* eventually(workerPods, (pods) => pods.length === 0)
      }))

    it.effect("whose result has another seal is not believed", () =>
      Effect.gen(function*() {
        const { kube, run } = yield* TestCluster
        const running = yield* Effect.forkChild(run(busy(), { world }))
        const [pod] = yield* eventually(
          workerPods,
          ([pod]) => pod?.status.containerStatuses[0]?.state.running !== undefined,
          { every: "20 millis" }
        )
        const name = pod?.metadata.name ?? ""
        const message = seal(Redacted.make("a guess"), name, {
          ok: true,
          output: { p50: 0, p99: 0, max: 0, times: 10_000 }
        })
        const terminated = {
          exitCode: 0,
          message,
          startedAt: "2026-01-01T00:00:00Z",
          finishedAt: "2026-01-01T00:00:01Z"
        }
        yield* kube.patch(Pod, { name, namespace: PROBE_NAMESPACE }, {
          status: {
            phase: "Succeeded",
            containerStatuses: [{
              name: "worker",
              image: "",
              imageID: "",
              ready: false,
              restartCount: 0,
              state: { terminated }
            }]
          }
        }, { subresource: "status" })
        const report = yield* Fiber.join(running)
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN WORKER_FAILED", JSON.stringify(report))
        assert.strictEqual(report.findings[0]?.evidence?.["stage"], "Forged")
      }))

    it.effect("that is killed, hangs, or has no image is told as that", () =>
      Effect.gen(function*() {
        const { run } = yield* TestCluster
        const stageOf = (report: { findings: ReadonlyArray<{ evidence?: Readonly<Record<string, unknown>> }> }) =>
          report.findings[0]?.evidence?.["stage"]
        // Kubelets end the workers of earlier runs after their pods are gone.
        const none = eventually(signal("CONT"), (hit) => !hit)
        /** One that has ended by itself before the signal, or begun too late for it, is followed by another. */
        const signalled = (name: "KILL" | "STOP", stage: string, check: ReturnType<typeof busy>) => {
          const sent = eventually(signal(name), (hit) => hit, { every: "20 millis" })
          const look = Effect.raceFirst(run(check, { world }), Effect.andThen(sent, Effect.never))
          return eventually(Effect.andThen(none, look), (report) => stageOf(report) === stage, {
            within: "90 seconds"
          })
        }
        yield* signalled("KILL", "Crash", busy())
        yield* signalled("STOP", "Silent", busy(10_000, "15 seconds"))
        assert.strictEqual(stageOf(yield* run(busy(), { world: MISSING })), "ImagePull")
        assert.strictEqual(stageOf(yield* run(busy(), { world: CRASHING })), "Crash")
        yield* eventually(workerPods, (pods) => pods.length === 0)
      }), TIMEOUT)
  })
})
