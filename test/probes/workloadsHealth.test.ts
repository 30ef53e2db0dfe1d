import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { DaemonSet, Deployment } from "../../src/infra/kube/resources/apps.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import {
  WorkloadsHealthConfig,
  crashLoopAge,
  judge,
  loneDns,
  ofDaemonSet,
  ofDeployment,
  ownerOf,
  restartsOften,
  seenOf,
  workloadsHealth
} from "../../src/probes/kubernetes/workloadsHealth.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

interface PodOptions {
  readonly name?: string
  readonly namespace?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly owner?: readonly [kind: string, name: string]
  readonly deleted?: boolean
  readonly phase?: string
  readonly age?: Duration.Input
  readonly node?: string
  readonly conditions?: ReadonlyArray<
    readonly [type: string, status: string, since: Duration.Input, reason?: string, message?: string]
  >
  readonly restarts?: number
  readonly waiting?: readonly [reason: string, message?: string]
  /** When its last run began and ended. */
  readonly ended?: readonly [startedAt: Duration.Input, finishedAt: Duration.Input, reason?: string]
  /** When the run that has just ended began and ended, and with which exit code. */
  readonly ending?: readonly [startedAt: Duration.Input, finishedAt: Duration.Input, exitCode: number]
  /** The last words of the run before. */
  readonly words?: string
}

const pod = (options: PodOptions = {}) => {
  const { age = "1 day", ended, ending, labels = {}, owner, waiting } = options
  return Schema.decodeSync(Pod.object)({
    metadata: {
      name: options.name ?? "web-1",
      namespace: options.namespace ?? "shop",
      labels,
      creationTimestamp: ago(age),
      ...(options.deleted === true ? { deletionTimestamp: ago("1 minute") } : {}),
      ...(owner === undefined
        ? {}
        : { ownerReferences: [{ apiVersion: "v1", kind: owner[0], name: owner[1], uid: "u", controller: true }] })
    },
    spec: options.node === undefined ? {} : { nodeName: options.node },
    status: {
      phase: options.phase ?? "Running",
      startTime: ago(age),
      conditions: (options.conditions ?? [["Ready", "True", "1 hour"] as const]).map((
        [type, status, since, reason = "Reason", message = "message"]
      ) => ({ type, status, lastTransitionTime: ago(since), reason, message })),
      containerStatuses: [{
        name: "main",
        ready: false,
        restartCount: options.restarts ?? 0,
        state: {
          ...(waiting === undefined ? {} : { waiting: { reason: waiting[0], message: waiting[1] ?? "" } }),
          ...(ending === undefined ? {} : {
            terminated: {
              exitCode: ending[2],
              reason: "Error",
              startedAt: ago(ending[0]),
              finishedAt: ago(ending[1])
            }
          })
        },
        lastState: ended === undefined ? {} : {
          terminated: {
            exitCode: 137,
            signal: 9,
            reason: ended[2] ?? "Error",
            ...(options.words === undefined ? {} : { message: options.words }),
            startedAt: ago(ended[0]),
            finishedAt: ago(ended[1])
          }
        }
      }]
    }
  })
}

const deployment = (options: {
  readonly replicas?: number
  readonly available?: number
  readonly unavailableFor?: Duration.Input
  readonly generation?: number
  readonly refused?: Duration.Input
  readonly observed?: number
  readonly age?: Duration.Input
  readonly writtenFor?: Duration.Input
  readonly deleted?: boolean
  readonly name?: string
  readonly namespace?: string
} = {}) =>
  ofDeployment(
    Schema.decodeSync(Deployment.object)({
      metadata: {
        name: options.name ?? "web",
        namespace: options.namespace ?? "shop",
        generation: options.generation ?? 1,
        creationTimestamp: ago(options.age ?? "1 day"),
        ...(options.deleted === true ? { deletionTimestamp: ago("1 hour") } : {}),
        managedFields: [
          { subresource: "status", time: ago("1 second") },
          ...(options.writtenFor === undefined ? [] : [{ time: ago(options.writtenFor) }])
        ]
      },
      spec: { replicas: options.replicas ?? 2 },
      status: {
        observedGeneration: options.observed ?? 1,
        availableReplicas: options.available ?? 2,
        conditions: [
          ...(options.unavailableFor === undefined
            ? []
            : [{ type: "Available", status: "False", lastTransitionTime: ago(options.unavailableFor) }]),
          ...(options.refused === undefined ? [] : [{
            type: "ReplicaFailure",
            status: "True",
            message: "exceeded quota",
            lastTransitionTime: ago(options.refused)
          }])
        ]
      }
    })
  )

const WEB = { labels: { "pod-template-hash": "abc" }, owner: ["ReplicaSet", "web-abc"] } as const

const outcome = (
  seen: {
    readonly workloads?: Parameters<ReturnType<typeof judge>>[0]["workloads"]
    readonly pods?: ReadonlyArray<Pod>
  },
  config: typeof WorkloadsHealthConfig.Encoded = {}
) =>
  judge(Schema.decodeSync(WorkloadsHealthConfig)(config))({
    workloads: seen.workloads ?? [],
    pods: seen.pods ?? [],
    now: NOW
  })

const says = (...input: Parameters<typeof outcome>) =>
  outcome(...input).findings.map(({ code, status, subject }) => `${status} ${code} ${subject?.kind}/${subject?.name}`)

describe("judging workloads", () => {
  it("finds nothing to say of what runs, has ended, or is on its way out", () =>
    assert.deepStrictEqual(
      says({
        workloads: [deployment(), deployment({ replicas: 0, available: 0 })],
        pods: [
          pod(WEB),
          pod({ phase: "Succeeded", conditions: [["Ready", "False", "2 days", "PodCompleted"]] }),
          pod({ phase: "Failed", conditions: [["Ready", "False", "2 days"]] }),
          pod({ deleted: true, conditions: [["Ready", "False", "2 days"]] }),
          pod({ phase: "Pending", conditions: [["PodScheduled", "False", "2 days", "SchedulingGated"]] })
        ]
      }),
      []
    ))

  it("judges none available by how long that is so", () => {
    assert.deepStrictEqual(says({ workloads: [deployment({ available: 0, unavailableFor: "3 minutes" })] }), [
      "ERROR NO_REPLICA_AVAILABLE Deployment/web"
    ])
    assert.deepStrictEqual(says({ workloads: [deployment({ available: 0, unavailableFor: "1 minute" })] }), [
      "INFO WORKLOAD_STARTING Deployment/web"
    ])
    // Without a condition its youngest pod tells.
    const young = pod({ ...WEB, age: "20 seconds", conditions: [["Ready", "False", "20 seconds"]] })
    assert.deepStrictEqual(says({ workloads: [deployment({ available: 0 })], pods: [young] }), [
      "INFO WORKLOAD_STARTING Deployment/web"
    ])
    assert.deepStrictEqual(says({ workloads: [deployment({ available: 0 })] }), [
      "ERROR NO_REPLICA_AVAILABLE Deployment/web"
    ])
  })

  it("sees what no controller looks at, by how long that is so, and never counts it", () => {
    const unseen = (options: Parameters<typeof deployment>[0]) => says({ workloads: [deployment(options)] })
    const starting = ["INFO WORKLOAD_STARTING Deployment/web"]
    const dead = ["ERROR WORKLOAD_NOT_OBSERVED Deployment/web"]
    assert.deepStrictEqual(unseen({ available: 0, observed: 0, age: "3 hours" }), dead)
    assert.deepStrictEqual(unseen({ available: 0, observed: 0, age: "1 minute" }), starting)
    assert.deepStrictEqual(unseen({ generation: 2, writtenFor: "1 minute" }), starting)
    assert.deepStrictEqual(unseen({ generation: 2, writtenFor: "3 minutes" }), dead)
    assert.deepStrictEqual(unseen({ generation: 2, replicas: 0, writtenFor: "3 minutes" }), dead)
    const { summary } = outcome({ workloads: [deployment(), deployment({ generation: 2, writtenFor: "1 second" })] })
    assert.include(summary, "1 workloads have")
  })

  it("sees a DaemonSet that no controller looks at, which wants no pod yet", () =>
    assert.deepStrictEqual(
      says({
        workloads: [ofDaemonSet(
          Schema.decodeSync(DaemonSet.object)({
            metadata: { name: "agent", namespace: "shop", generation: 1, creationTimestamp: ago("3 hours") }
          })
        )]
      }),
      ["ERROR WORKLOAD_NOT_OBSERVED DaemonSet/agent"]
    ))

  it("says nothing of what is being deleted, whose controller need not look at it again", () =>
    assert.deepStrictEqual(says({ workloads: [deployment({ deleted: true, available: 0, generation: 2 })] }), []))

  it("says why pods are not created, and why they wait", () => {
    const { findings } = outcome({ workloads: [deployment({ available: 1, refused: "20 minutes" })] })
    assert.include(findings[0]?.message, "exceeded quota")
    assert.strictEqual(findings[0]?.code, "REPLICAS_NOT_CREATED")
    const waits = pod({
      ...WEB,
      phase: "Pending",
      conditions: [["PodScheduled", "False", "5 minutes", "Unschedulable", "0/3 nodes are available"]]
    })
    const none = outcome({ workloads: [deployment({ available: 0, unavailableFor: "5 minutes" })], pods: [waits] })
    assert.include(none.findings[0]?.message, "0/3 nodes are available")
  })

  it("tells a trouble once for all pods of a workload", () => {
    const looping = (name: string) =>
      pod({ ...WEB, name, restarts: 3, waiting: ["CrashLoopBackOff", "back-off 40s restarting failed container"] })
    const { findings } = outcome({ workloads: [deployment()], pods: [looping("web-abc-1"), looping("web-abc-2")] })
    assert.deepStrictEqual(findings.map(({ code }) => code), ["CRASH_LOOP_RECENT"])
    assert.include(findings[0]?.message, "Deployment shop/web: 2 of 2 pods, such as web-abc-1")
  })

  it("sees a crash loop also while the kubelet shows its container as terminated", () => {
    const loop = { restarts: 3, ended: ["36 seconds", "36 seconds"] } as const
    assert.deepStrictEqual(says({ pods: [pod({ ...loop, ending: ["16 seconds", "16 seconds", 3] })] }), [
      "WARN CRASH_LOOP_RECENT Pod/web-1"
    ])
    // Not one that ended well, or ran for long, or ended once.
    assert.deepStrictEqual(says({ pods: [pod({ ...loop, ending: ["16 seconds", "16 seconds", 0] })] }), [])
    assert.deepStrictEqual(says({ pods: [pod({ ...loop, ending: ["11 minutes", "16 seconds", 3] })] }), [])
    assert.deepStrictEqual(says({ pods: [pod({ ending: ["16 seconds", "16 seconds", 3] })] }), [])
  })

  it("tells nothing of a container's last words unless asked, and then no secret that a cut would hide", () => {
    const looping = pod({
      ...WEB,
      restarts: 3,
      waiting: ["CrashLoopBackOff", "back-off 40s restarting failed container"],
      ended: ["40 seconds", "36 seconds"],
      words: `${"x".repeat(165)} postgres://shop_rw:S3cr3t-Pa55@db:5432/shop`
    })
    const said = (config?: typeof WorkloadsHealthConfig.Encoded) => JSON.stringify(outcome({ pods: [looping] }, config))
    assert.include(said(), "exit code 137, signal 9, 36s ago")
    assert.notInclude(said(), "xxx")
    assert.include(said({ quoteTermination: true }), "xxx")
    assert.notInclude(said({ quoteTermination: true }), "S3cr3t")
  })

  it("does not look at what runs of probes made, nor at pods of that", () => {
    const labels = { "kubeprober.io/run": "r" }
    const stuck = (of: Readonly<Record<string, string>>, name: string) =>
      Schema.decodeSync(Deployment.object)({
        metadata: { name, namespace: "kubeprober", creationTimestamp: ago("1 hour"), generation: 1, labels: of },
        spec: { replicas: 1 },
        status: { observedGeneration: 1 }
      })
    const waits = { phase: "Pending", conditions: [["PodScheduled", "False", "1 hour", "Unschedulable"]] } as const
    const found = {
      deployments: [stuck(labels, "web"), stuck({}, "theirs")],
      statefulSets: [],
      daemonSets: [],
      pods: [
        pod({ ...waits, name: "alone", labels }),
        pod({ ...waits, namespace: "kubeprober", name: "web-abc-1", ...WEB })
      ],
      now: NOW
    }
    assert.deepStrictEqual(says(seenOf(found)), ["ERROR NO_REPLICA_AVAILABLE Deployment/theirs"])
  })

  it("judges pods by what they wait for, and for how long", () => {
    const pending = (since: Duration.Input) =>
      pod({ phase: "Pending", conditions: [["PodScheduled", "False", since, "Unschedulable"]] })
    const unready = (since: Duration.Input) => pod({ conditions: [["Ready", "False", since]] })
    assert.deepStrictEqual(says({ pods: [pending("14 minutes"), unready("14 minutes")] }), [])
    assert.deepStrictEqual(says({ pods: [pending("16 minutes")] }), ["WARN POD_UNSCHEDULABLE Pod/web-1"])
    assert.deepStrictEqual(says({ pods: [unready("16 minutes")] }), ["WARN POD_NOT_READY Pod/web-1"])
    for (const reason of ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"]) {
      assert.deepStrictEqual(says({ pods: [pod({ waiting: [reason] })] }), ["WARN IMAGE_PULL_FAILED Pod/web-1"])
    }
    assert.deepStrictEqual(says({ pods: [pod({ waiting: ["CreateContainerConfigError"] })] }), [
      "WARN CONTAINER_NOT_CREATED Pod/web-1"
    ])
    assert.deepStrictEqual(says({ pods: [pod({ waiting: ["ContainerCreating"] })] }), [])
  })

  it("looks only where it is told to", () => {
    const pods = [pod({ namespace: "shop", waiting: ["ErrImagePull"] })]
    assert.lengthOf(says({ pods }, { include: ["sh*"] }), 1)
    assert.deepStrictEqual(says({ pods }, { include: ["kube-*"] }), [])
    assert.deepStrictEqual(says({ pods }, { include: ["shopp"] }), ["INFO NAMESPACE_EMPTY Namespace/shopp"])
    assert.lengthOf(says({ pods }, { exclude: ["shop"] }), 0)
  })

  it("misses what is required, wherever it looks", () => {
    const required = [{ kind: "Deployment", namespace: "shop", name: "web" } as const]
    const options = { required, include: ["kube-*"] }
    assert.deepStrictEqual(says({}, options), ["ERROR REQUIRED_MISSING Deployment/web"])
    assert.deepStrictEqual(says({ workloads: [deployment({ replicas: 0, available: 0 })] }, options), [
      "ERROR REQUIRED_MISSING Deployment/web"
    ])
    assert.deepStrictEqual(says({ workloads: [deployment()] }, options), [])
    assert.deepStrictEqual(says({ workloads: [deployment({ deleted: true })] }, options), [
      "ERROR REQUIRED_MISSING Deployment/web"
    ])
    assert.deepStrictEqual(says({ workloads: [deployment({ observed: 0 })] }, options), [
      "ERROR WORKLOAD_NOT_OBSERVED Deployment/web"
    ])
    assert.deepStrictEqual(says({ workloads: [deployment({ available: 0 })] }, options), [
      "ERROR NO_REPLICA_AVAILABLE Deployment/web"
    ])
  })
})

describe("how long a container crashes", () => {
  const minutes = (options: PodOptions) => {
    const looping = pod(options)
    const [container] = looping.status.containerStatuses
    assert.isDefined(container)
    return Math.round(Duration.toMinutes(crashLoopAge(looping, container, NOW)))
  }
  const waiting = (delay: string) => ["CrashLoopBackOff", `back-off ${delay} restarting failed container`] as const

  it("is read from a growing back-off, whatever happened weeks ago", () =>
    assert.strictEqual(
      minutes({ restarts: 40, age: "30 days", waiting: waiting("1m20s"), ended: ["30 seconds", "20 seconds"] }),
      2
    ))
  it("is read from the restarts once the back-off is at its longest", () => {
    assert.strictEqual(minutes({ restarts: 6, waiting: waiting("5m0s"), ended: ["1 minute", "1 minute"] }), 6)
    assert.strictEqual(minutes({ restarts: 16, waiting: waiting("5m0s"), ended: ["1 minute", "1 minute"] }), 56)
  })
  it("is never longer than the pod's life", () =>
    assert.strictEqual(minutes({ restarts: 16, age: "3 minutes", waiting: waiting("5m0s") }), 3))
})

describe("how often a container restarts", () => {
  const often = (options: PodOptions, perHour = 5) => {
    const restarting = pod(options)
    const [container] = restarting.status.containerStatuses
    assert.isDefined(container)
    return restartsOften(restarting, container, perHour, NOW)
  }
  it("is its count in a pod younger than an hour", () => {
    assert.isTrue(often({ restarts: 5, age: "50 minutes", ended: ["40 minutes", "30 minutes"] }))
    assert.isFalse(often({ restarts: 4, age: "50 minutes", ended: ["40 minutes", "30 minutes"] }))
  })
  it("is the pace of its last run in an older one", () => {
    assert.isTrue(often({ restarts: 50, ended: ["10 minutes", "2 minutes"] }))
    assert.isFalse(often({ restarts: 50, ended: ["2 hours", "2 minutes"] }))
    assert.isFalse(often({ restarts: 50, ended: ["50 minutes", "49 minutes"] }))
    assert.isFalse(often({ restarts: 50, ended: ["10 minutes", "2 minutes"] }, 0))
  })
  it("is no matter once an init container has succeeded", () => {
    const failing = pod({ restarts: 6, age: "20 minutes", ended: ["19 minutes", "18 minutes"] })
    const [container] = failing.status.containerStatuses
    assert.isDefined(container)
    const done = { ...container, state: { terminated: { exitCode: 0 } } }
    const started = { ...failing, status: { ...failing.status, containerStatuses: [], initContainerStatuses: [done] } }
    assert.isTrue(restartsOften(failing, container, 5, NOW))
    assert.isFalse(restartsOften(started, done, 5, NOW))
  })
})

describe("whose a pod is", () => {
  it("is the Deployment's, the controller's, or its own", () => {
    const owner = (options: PodOptions) => {
      const { kind, name } = ownerOf(pod(options))
      return `${kind}/${name}`
    }
    assert.strictEqual(owner(WEB), "Deployment/web")
    assert.strictEqual(owner({ owner: ["ReplicaSet", "alone"] }), "ReplicaSet/alone")
    assert.strictEqual(owner({ owner: ["DaemonSet", "agent"] }), "DaemonSet/agent")
    assert.strictEqual(owner({}), "Pod/web-1")
  })
})

describe("DNS on one node", () => {
  const dns = (node: string, ready = "True", kind = "ReplicaSet", age: Duration.Input = "1 day") =>
    pod({
      age,
      name: `coredns-${node}`,
      namespace: "kube-system",
      labels: { "k8s-app": "kube-dns", "pod-template-hash": "abc" },
      owner: [kind, kind === "ReplicaSet" ? "coredns-abc" : "coredns"],
      node,
      conditions: [["Ready", ready, "1 hour"]]
    })
  const config = { startWithin: Duration.minutes(2) }
  const lone = (pods: ReadonlyArray<Pod>, options: Parameters<typeof deployment>[0] = {}) =>
    loneDns({
      pods,
      workloads: [deployment({ name: "coredns", namespace: "kube-system", replicas: 2, ...options })],
      now: NOW
    }, config)

  it("is seen by where its ready pods are", () => {
    assert.isUndefined(lone([dns("a"), dns("b")]))
    assert.deepStrictEqual(lone([dns("a"), dns("b", "False")]), {
      subject: { kind: "Deployment", namespace: "kube-system", name: "coredns" },
      nodes: 1
    })
    assert.strictEqual(lone([dns("a"), dns("a")])?.nodes, 1)
    // One on each node, or nothing that calls itself DNS: nothing to say.
    assert.isUndefined(lone([dns("a", "True", "DaemonSet")]))
    assert.isUndefined(lone([pod()]))
  })

  it("is waited for while another of its pods is on its way, and no longer", () => {
    const starting = (age: Duration.Input) => lone([dns("a"), dns("b", "False", "ReplicaSet", age)])
    assert.isUndefined(starting("30 seconds"))
    assert.strictEqual(starting("3 minutes")?.nodes, 1)
    // Scaled up a moment ago: seen by its controller or not, the second pod is not there yet.
    assert.isUndefined(lone([dns("a")], { writtenFor: "10 seconds" }))
    assert.isUndefined(lone([dns("a")], { writtenFor: "10 seconds", generation: 2, observed: 1, replicas: 1 }))
    assert.strictEqual(lone([dns("a")], { writtenFor: "3 minutes" })?.nodes, 1)
    // Scaled down a moment ago: nothing is on its way.
    assert.strictEqual(lone([dns("a")], { writtenFor: "10 seconds", replicas: 1 })?.nodes, 1)
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

type Findings = ReadonlyArray<{ readonly status: string; readonly code: string; readonly message: string }>

/** Runs until the findings are these, in any order. */
const until = (config: typeof WorkloadsHealthConfig.Encoded, ...wanted: ReadonlyArray<string>) =>
  Effect.flatMap(TestCluster, ({ run }) =>
    eventually(
      run(Probe.configure(workloadsHealth, config)),
      ({ findings }: { readonly findings: Findings }) =>
        findings.map(verdict).sort().join() === [...wanted].sort().join(),
      { every: "300 millis", within: "60 seconds" }
    ))

const template = (container: Readonly<Record<string, unknown>>) => ({
  metadata: { labels: { app: "broken" } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: "main", image: BUSYBOX_IMAGE, imagePullPolicy: "Never", ...container }]
  }
})

const manifest = (
  kind: "Deployment" | "StatefulSet" | "DaemonSet",
  container: Readonly<Record<string, unknown>>,
  spec: Readonly<Record<string, unknown>> = {}
) => ({
  apiVersion: "apps/v1",
  kind,
  metadata: { name: "broken", namespace: "default" },
  spec: {
    selector: { matchLabels: { app: "broken" } },
    template: template(container),
    ...(kind === "Deployment" ? { strategy: { type: "Recreate" } } : {}),
    ...spec
  }
})

const SLEEP = { command: ["sleep", "3600"] }
const broken = (kind: string) => ({ kind, namespace: "default", name: "broken" })
/** Looks at this namespace alone: what the cluster runs for itself is another matter. */
const HERE = { include: ["default*"], startWithin: "1h" }

const during = <A, E, R>(object: object, effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestCluster, ({ apply, kubectl }) =>
    Effect.acquireUseRelease(
      apply(object),
      () => effect,
      () => kubectl("delete", "deployment,statefulset,daemonset", "broken", "--ignore-not-found", "--namespace=default")
    ))

describe("k8s.workloads.health", () => {
  layer(TestCluster.layer({ name: "workloads", nodes: 2 }), { excludeTestServices: true, timeout: "180 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(
          workloadsHealth,
          fault(
            workloadsHealth,
            "DNS_NOT_REDUNDANT",
            "sees DNS on one node of two, and passes with no rights but to read, so it creates nothing"
          )
        ),
        () =>
          Effect.gen(function*() {
            const { kubectl, run, userWith } = yield* TestCluster
            const scale = (replicas: number) =>
              kubectl("scale", "deployment", "coredns", "--namespace=kube-system", `--replicas=${replicas}`)
            yield* scale(1)
            const lone = yield* until({}, "WARN DNS_NOT_REDUNDANT")
            assert.include(lone.message, "Deployment kube-system/coredns has ready pods on 1 of 2 schedulable nodes")
            yield* scale(2)
            assert.isTrue(
              workloadsHealth.needs.every((need) =>
                need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb)
              )
            )
            const as = yield* userWith(workloadsHealth.needs)
            const report = yield* eventually(run(workloadsHealth, { as }), ({ status }) => status === "PASS")
            assert.match(report.message, /\d+ workloads have the replicas they want, \d+ pods run/)
          })
      )

      it.effect(
        blind(workloadsHealth, "ACCESS_MISSING", "is UNKNOWN without one of its rights, and names it"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of workloadsHealth.needs.filter((need) => !need.optional)) {
              const as = yield* userWith(workloadsHealth.needs.filter((need) => need !== lacking))
              const report = yield* run(workloadsHealth, { as })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      it.effect(
        faults(
          workloadsHealth,
          "sees a container that crashes, how it ended, and that it is mended",
          "CRASH_LOOP_RECENT",
          "CRASH_LOOP",
          "NO_REPLICA_AVAILABLE"
        ),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const crash = manifest("Deployment", { command: ["sh", "-c", "exit 3"] })
            yield* during(
              crash,
              Effect.gen(function*() {
                const recent = yield* until(HERE, "WARN CRASH_LOOP_RECENT", "INFO WORKLOAD_STARTING")
                assert.include(recent.message, "Deployment default/broken: 1 of 1 pods, such as broken-")
                assert.include(recent.message, "exit code 3")
                assert.strictEqual(recent.findings[0]?.evidence?.["lastExitCode"], 3)
                assert.deepStrictEqual(recent.findings[0]?.subject, {
                  kind: "Deployment",
                  namespace: "default",
                  name: "broken"
                })
                yield* until(
                  { ...HERE, startWithin: "1s", crashLoopAfter: "1s" },
                  "ERROR CRASH_LOOP",
                  "ERROR NO_REPLICA_AVAILABLE"
                )
                yield* apply(manifest("Deployment", SLEEP))
                yield* until({ ...HERE, crashLoopAfter: "1s", startWithin: "1s" })
              })
            )
          })
      )

      it.effect(fault(workloadsHealth, "RESTARTS", "sees a container that restarts often"), () =>
        during(
          manifest("Deployment", { command: ["sh", "-c", "sleep 1; exit 1"] }),
          Effect.gen(function*() {
            const { run } = yield* TestCluster
            const report = yield* eventually(
              run(Probe.configure(workloadsHealth, { ...HERE, restartsPerHour: 1 })),
              ({ findings }) => findings.some(({ code }) => code === "RESTARTS")
            )
            assert.match(report.message, /container main restarted \d+ times/)
            assert.deepStrictEqual(
              report.findings.find(({ code }) => code === "RESTARTS")?.subject,
              broken("Deployment")
            )
          })
        ).pipe(Effect.andThen(until(HERE))))

      it.effect(
        faults(
          workloadsHealth,
          "sees an image that is not there, and a container that cannot be made",
          "IMAGE_PULL_FAILED",
          "CONTAINER_NOT_CREATED"
        ),
        () =>
          Effect.gen(function*() {
            const image = yield* during(
              manifest("Deployment", { image: "kubeprober.test/nothing:none" }),
              until(HERE, "WARN IMAGE_PULL_FAILED", "INFO WORKLOAD_STARTING")
            )
            assert.include(image.message, "ErrImageNeverPull")
            assert.deepStrictEqual(image.findings[0]?.subject, broken("Deployment"))
            const secret = { env: [{ name: "A", valueFrom: { secretKeyRef: { name: "nobody", key: "a" } } }] }
            const container = yield* during(
              manifest("Deployment", { ...SLEEP, ...secret }),
              until(HERE, "WARN CONTAINER_NOT_CREATED", "INFO WORKLOAD_STARTING")
            )
            assert.include(container.message, "nobody")
            assert.deepStrictEqual(container.findings[0]?.subject, broken("Deployment"))
            yield* until(HERE)
          })
      )

      it.effect(
        faults(
          workloadsHealth,
          "sees each kind without any available replica, and says why",
          "NO_REPLICA_AVAILABLE",
          "POD_UNSCHEDULABLE",
          "POD_NOT_READY"
        ),
        () =>
          Effect.gen(function*() {
            const never = { ...SLEEP, readinessProbe: { exec: { command: ["false"] }, periodSeconds: 1 } }
            const soon = { ...HERE, startWithin: "2s" }
            for (const kind of ["Deployment", "StatefulSet", "DaemonSet"] as const) {
              const spec = kind === "StatefulSet" ? { serviceName: "broken" } : {}
              const report = yield* during(manifest(kind, never, spec), until(soon, "ERROR NO_REPLICA_AVAILABLE"))
              assert.include(
                report.message,
                `${kind} default/broken: none of ${kind === "DaemonSet" ? 2 : 1} replicas is available`
              )
              assert.include(report.message, "unready status")
              assert.deepStrictEqual(report.findings[0]?.subject, broken(kind))
            }
            const unready = yield* during(
              manifest("Deployment", never),
              until({ ...HERE, unavailableAfter: "1s" }, "WARN POD_NOT_READY", "INFO WORKLOAD_STARTING")
            )
            assert.deepStrictEqual(unready.findings[0]?.subject, broken("Deployment"))
            const nowhere = { template: template(SLEEP) }
            const unschedulable = {
              template: {
                ...nowhere.template,
                spec: { ...nowhere.template.spec, nodeSelector: { "kubeprober.test/nowhere": "" } }
              }
            }
            const report = yield* during(
              manifest("Deployment", SLEEP, unschedulable),
              until({ ...HERE, unavailableAfter: "1s" }, "WARN POD_UNSCHEDULABLE", "INFO WORKLOAD_STARTING")
            )
            assert.include(report.message, "didn't match Pod's node affinity/selector")
            assert.deepStrictEqual(report.findings[0]?.subject, broken("Deployment"))
            yield* until(HERE)
          })
      )

      it.effect(
        fault(workloadsHealth, "REPLICAS_NOT_CREATED", "sees that pods are not created, because a quota refuses them"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            yield* apply({
              apiVersion: "v1",
              kind: "ResourceQuota",
              metadata: { name: "none", namespace: "default" },
              spec: { hard: { pods: "0" } }
            })
            const report = yield* during(
              manifest("Deployment", SLEEP),
              until({ ...HERE, unavailableAfter: "1s" }, "WARN REPLICAS_NOT_CREATED", "INFO WORKLOAD_STARTING")
            )
            assert.include(report.message, "exceeded quota")
            assert.deepStrictEqual(report.findings[0]?.subject, broken("Deployment"))
            yield* kubectl("delete", "resourcequota", "none", "--namespace=default")
            yield* until(HERE)
          })
      )

      it.effect(
        fault(
          workloadsHealth,
          "WORKLOAD_NOT_OBSERVED",
          "sees that no controller looks at a new workload, until one does"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster: { components: { controllerManager } } } = yield* TestCluster
            yield* Effect.acquireUseRelease(
              controllerManager.pause,
              () =>
                during(
                  manifest("Deployment", SLEEP),
                  Effect.gen(function*() {
                    const unseen = yield* until({ ...HERE, startWithin: "1s" }, "ERROR WORKLOAD_NOT_OBSERVED")
                    assert.deepStrictEqual(unseen.findings[0]?.subject, broken("Deployment"))
                    yield* controllerManager.resume
                    yield* until(HERE)
                  })
                ),
              () => controllerManager.resume
            )
          })
      )

      it.effect(
        fault(workloadsHealth, "REQUIRED_MISSING", "misses what is required until it is there"),
        () =>
          Effect.gen(function*() {
            const required = [{ kind: "Deployment" as const, namespace: "default", name: "broken" }]
            const missing = yield* until({ ...HERE, required }, "ERROR REQUIRED_MISSING")
            assert.include(missing.message, "Deployment default/broken is required, but does not exist")
            yield* during(manifest("Deployment", SLEEP), until({ ...HERE, required }))
          })
      )
    }
  )
})
