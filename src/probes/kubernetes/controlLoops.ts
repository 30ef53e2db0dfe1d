/** k8s.control.loops: what is asked for is acted upon. */
import { DateTime, Duration, Effect, Option, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, isTransient } from "../../infra/kube/KubeError.ts"
import { Deployment, ReplicaSet } from "../../infra/kube/resources/apps.ts"
import { Lease } from "../../infra/kube/resources/coordination.ts"
import { PodScheduling } from "../../infra/kube/resources/pods.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as Retry from "../Retry.ts"
import { RunContext } from "../RunContext.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL, Scratch } from "../Scratch.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"

const CONTROLLER_MANAGER = "kube-controller-manager"
const SCHEDULER = "kube-scheduler"
type Component = typeof CONTROLLER_MANAGER | typeof SCHEDULER

const LEASE_NAMESPACE = "kube-system"

/** On what a run makes, and the key of a node label that no node has. */
const LABEL = "kubeprober.io/control-loops"

/** Loops that work act within a tenth of a second; then there is no hurry. */
const POLL = Schedule.min([Schedule.exponential("100 millis", 1.5), Schedule.spaced("1 second")])

const TIMEOUT = Duration.seconds(90)
/** For the requests beside the two waits. */
const REQUESTS = Duration.seconds(15)
const LONGEST_WAITS = Duration.subtract(TIMEOUT, REQUESTS)

/**
 * A process that cannot renew its lease ends within the renew deadline (10 s by default), so one that acts for an hour and
 * does not renew leads by another lease, or by none.
 */
const UNUSED_AFTER = Duration.hours(1)

export const ControlLoopsConfig = Schema.Struct({
  podWarnAfter: setting(DurationString, {
    default: "5s",
    description: "The pod of a new Deployment is made later than this: WARN."
  }),
  podErrorAfter: setting(DurationString, {
    default: "30s",
    description: "Still without its pod: ERROR. A new leader takes over within 20 s."
  }),
  scheduledWarnAfter: setting(DurationString, {
    default: "5s",
    description: "The scheduler's word on a new pod comes later than this: WARN."
  }),
  scheduledErrorAfter: setting(DurationString, {
    default: "30s",
    description: "Still no word of it: ERROR. A new leader takes over within 20 s."
  }),
  leaseWarnAfter: setting(DurationString, {
    default: "30s",
    description: "A leader may leave its lease unrenewed this long. It renews it every 2 s by default."
  }),
  leaseErrorAfter: setting(DurationString, {
    default: "60s",
    description: "A component that could not be seen to act, with a lease older than this, is an ERROR."
  }),
  image: setting(Schema.String.check(Schema.isNonEmpty()), {
    default: "registry.k8s.io/pause:3.10",
    description: "What the pod would run, where a policy demands a certain registry. It is never started or pulled."
  }),
  schedulerName: setting(Schema.String.check(Schema.isNonEmpty()), {
    default: "default-scheduler",
    description: "Which scheduler the pod is for."
  })
}).check(
  Schema.makeFilter(({ podErrorAfter, scheduledErrorAfter }) =>
    Duration.isLessThanOrEqualTo(Duration.sum(podErrorAfter, scheduledErrorAfter), LONGEST_WAITS) ||
    `podErrorAfter and scheduledErrorAfter together are longer than the ${Elapsed.text(LONGEST_WAITS)} a run may wait`
  )
)
export type ControlLoopsConfig = typeof ControlLoopsConfig.Type

const LOOK_AT_CONTROLLERS =
  "Look at kube-controller-manager: is it running, does it hold its lease, and what does its log say?"
const LOOK_AT_SCHEDULER = "Look at kube-scheduler: is it running, does it hold its lease, and what does its log say?"

export const codes = Codes.make({
  REPLICA_SET_MISSING: Codes.error(
    "kube-controller-manager made no ReplicaSet for a new Deployment, so no rollout happens.",
    LOOK_AT_CONTROLLERS
  ),
  POD_MISSING: Codes.error(
    "kube-controller-manager made no pod for a new ReplicaSet, so lost pods are not replaced.",
    LOOK_AT_CONTROLLERS
  ),
  POD_SLOW: Codes.warn("The pod of a new Deployment was made late.", LOOK_AT_CONTROLLERS),
  NOT_SCHEDULED: Codes.error(
    "The scheduler does not say a word of a new pod, neither a node nor why there is none, so no pod starts.",
    LOOK_AT_SCHEDULER
  ),
  SCHEDULING_SLOW: Codes.warn("The scheduler looked at a new pod late.", LOOK_AT_SCHEDULER),
  LEASE_LOST: Codes.error(
    "The leader's lease of a component is not renewed, and the component could not be seen to act in another way.",
    "Look whether any process of the component runs, and at its log."
  ),
  LEASE_STALE: Codes.warn(
    "The leader's lease of a component is not renewed in time, although it acted a moment ago.",
    "Look at the component's log, and at the API server's latency for leases."
  ),
  LEASE_UNUSED: Codes.info(
    "A component acts and does not renew the lease of its name: its leader election is off, or uses another lease.",
    "Nothing to do; delete the lease if it is a leftover."
  ),
  NOT_ADMITTED: Codes.unknown(
    "Admission refused what this probe makes: a quota, a policy or a webhook does not want it.",
    "Let the probe namespace hold a Deployment and a pod of the prober that never runs; see also `image`."
  ),
  NAMESPACE_MISSING: Codes.unknown("The probe namespace does not exist.", "Create it, or name another one for probes.")
})

/** What was seen of one component's loop. */
export interface Loop {
  readonly component: Component
  /** Whether it did what was asked of it; absent when nothing was asked. */
  readonly acted: boolean | undefined
  /** How long ago its lease was renewed; absent when that cannot be read. */
  readonly leaseAge: Duration.Duration | undefined
}

const subject = (component: Component) => ({ kind: "Component", name: component })

/** What a lease says beside what its holder was seen to do. One that did not act is told by that. */
export const judgeLease = (config: ControlLoopsConfig) => (loop: Loop): ReadonlyArray<Finding> => {
  const { acted, component, leaseAge } = loop
  if (leaseAge === undefined || acted === false || !Duration.isGreaterThan(leaseAge, config.leaseWarnAfter)) return []
  const about = {
    message: `the lease of ${component} was last renewed ${Elapsed.text(leaseAge)} ago (limit ${
      Elapsed.text(config.leaseWarnAfter)
    })`,
    subject: subject(component),
    evidence: { leaseAgeSeconds: Math.round(Duration.toSeconds(leaseAge)) }
  }
  if (acted === undefined && Duration.isGreaterThan(leaseAge, config.leaseErrorAfter)) return [codes.LEASE_LOST(about)]
  return [
    (acted === true && Duration.isGreaterThan(leaseAge, UNUSED_AFTER) ? codes.LEASE_UNUSED : codes.LEASE_STALE)(about)
  ]
}

/** A pod that no node can take: the scheduler must say so, and nothing runs. */
const manifest = (
  name: string,
  { expiresAt, probeNamespace: namespace, runId }: RunContext["Service"],
  config: ControlLoopsConfig
) => ({
  metadata: { name, namespace, labels: { [LABEL]: name } },
  spec: {
    replicas: 1,
    revisionHistoryLimit: 0,
    selector: { matchLabels: { [LABEL]: name } },
    template: {
      metadata: {
        // The sweeper knows the pod too, should the garbage collector not come to it.
        labels: { [LABEL]: name, [RUN_LABEL]: runId, "app.kubernetes.io/managed-by": "kubeprober" },
        annotations: { [EXPIRES_ANNOTATION]: DateTime.formatIso(expiresAt) }
      },
      spec: {
        schedulerName: config.schedulerName,
        // Autoscalers add no node for it: no node group has this label.
        nodeSelector: { [LABEL]: name },
        terminationGracePeriodSeconds: 0,
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        securityContext: { runAsNonRoot: true, runAsUser: 65534, seccompProfile: { type: "RuntimeDefault" } },
        containers: [{
          name: "never-run",
          image: config.image,
          imagePullPolicy: "IfNotPresent",
          resources: { requests: { cpu: "1m", memory: "8Mi" }, limits: { cpu: "1m", memory: "8Mi" } },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } }
        }]
      }
    }
  }
})

/** Faults of our request stay errors, which the runner knows to name. */
const blame = (error: KubeError): Effect.Effect<never, KubeError | Codes.TargetFault> => {
  const { message, reason } = error
  if (reason._tag === "AdmissionDenied") return codes.NOT_ADMITTED.fail({ message })
  return reason._tag === "NotFound" && reason.what === "object"
    ? codes.NAMESPACE_MISSING.fail({ message })
    : Effect.fail(error)
}

/** What `ask` found and how long it took; none when it found nothing within `limit`. */
const until = <A, R>(ask: Effect.Effect<A | undefined, KubeError, R>, limit: Duration.Duration) =>
  ask.pipe(
    Effect.retry({ schedule: Retry.read, while: isTransient }),
    Effect.repeat({ schedule: POLL, until: (found) => found !== undefined }),
    Stopwatch.timed,
    Stopwatch.within(limit),
    Effect.map(Option.flatMap(([took, found]) => found === undefined ? Option.none() : Option.some({ took, found })))
  )

/** When a component's lease was renewed, where that may be read. Managed control planes hide it. */
const renewedAt = Effect.fnUntraced(function*(component: Component) {
  const kube = yield* Kube
  return yield* kube.get(Lease, { name: component, namespace: LEASE_NAMESPACE }).pipe(
    Effect.map(({ spec }) => spec.renewTime),
    Effect.catchIf(
      ({ reason }) => reason._tag === "Forbidden" || reason._tag === "NotFound",
      () => Effect.succeed(undefined)
    )
  )
})

const millis = (duration: Duration.Duration): number => Math.round(Duration.toMillis(duration))

const late = (
  code: Codes.Code,
  component: Component,
  what: string,
  took: Duration.Duration,
  limit: Duration.Duration,
  limits: Hysteresis.Limits
): ReadonlyArray<Finding> =>
  limits.takesLonger(took, limit, { code, subject: subject(component) })
    ? [code({
      message: `${component} took ${Elapsed.text(took)} (${
        Hysteresis.text(Elapsed.text(limit), Duration.isGreaterThan(took, limit))
      }) to ${what}`,
      subject: subject(component),
      evidence: { tookMillis: millis(took), limitMillis: Duration.toMillis(limit) }
    })]
    : []

/** What came of the loops: findings, how far each acted, and the summary when all did. */
interface Watched {
  readonly findings: ReadonlyArray<Finding>
  readonly controllersActed: boolean
  readonly schedulerActed: boolean | undefined
  readonly summary: string
}

const watchLoops = Effect.fnUntraced(function*(name: string, namespace: string, config: ControlLoopsConfig) {
  const kube = yield* Kube
  const limits = yield* Hysteresis.limits
  const selection = { namespace, labelSelector: `${LABEL}=${name}` }
  const replicaSet = Effect.map(kube.list(ReplicaSet, selection), ({ items }) => items[0])
  const pod = Effect.map(kube.list(PodScheduling, selection), ({ items }) => items[0])

  const silent = (code: Codes.Code, component: Component, message: string): Watched => ({
    findings: [code({ message, subject: subject(component) })],
    controllersActed: component === SCHEDULER,
    schedulerActed: component === SCHEDULER ? false : undefined,
    summary: ""
  })

  const first = yield* until(replicaSet, config.podErrorAfter)
  const limit = Elapsed.text(config.podErrorAfter)
  if (Option.isNone(first)) {
    return silent(
      codes.REPLICA_SET_MISSING,
      CONTROLLER_MANAGER,
      `Deployment ${name} in ${namespace} has no ReplicaSet after ${limit}: ${CONTROLLER_MANAGER} did not act`
    )
  }
  const made = yield* until(
    pod,
    Duration.max(Duration.seconds(1), Duration.subtract(config.podErrorAfter, first.value.took))
  )
  if (Option.isNone(made)) {
    const failure = (yield* replicaSet)?.status.conditions.find(({ status, type }) =>
      type === "ReplicaFailure" && status === "True"
    )
    if (failure !== undefined) {
      return yield* codes.NOT_ADMITTED.fail({
        message: `the pod of Deployment ${name} in ${namespace} is refused: ${failure.message ?? failure.reason ?? ""}`
      })
    }
    return silent(
      codes.POD_MISSING,
      CONTROLLER_MANAGER,
      `ReplicaSet ${first.value.found.metadata.name ?? ""} in ${namespace} has no pod after ${limit}: ` +
        `${CONTROLLER_MANAGER} did not act`
    )
  }
  const podTook = Duration.sum(first.value.took, made.value.took)
  const slow = late(
    codes.POD_SLOW,
    CONTROLLER_MANAGER,
    "make the pod of a new Deployment",
    podTook,
    config.podWarnAfter,
    limits
  )

  // A node, or why there is none: either is the scheduler's word.
  const looked = yield* until(
    Effect.map(
      pod,
      (found) =>
        found?.spec.nodeName !== undefined ||
          found?.status.conditions.some(({ type }) => type === "PodScheduled") === true
          ? found
          : undefined
    ),
    config.scheduledErrorAfter
  )
  if (Option.isNone(looked)) {
    const unscheduled = silent(
      codes.NOT_SCHEDULED,
      SCHEDULER,
      `pod ${made.value.found.metadata.name ?? ""} in ${namespace} has no PodScheduled condition after ${
        Elapsed.text(config.scheduledErrorAfter)
      }: ${config.schedulerName === "default-scheduler" ? SCHEDULER : config.schedulerName} did not act`
    )
    return { ...unscheduled, findings: [...unscheduled.findings, ...slow] }
  }
  return {
    findings: [
      ...slow,
      ...late(
        codes.SCHEDULING_SLOW,
        SCHEDULER,
        "look at a new pod",
        looked.value.took,
        config.scheduledWarnAfter,
        limits
      )
    ],
    controllersActed: true,
    schedulerActed: true,
    summary: `a Deployment had its pod after ${millis(podTook)} ms, and the scheduler's word on it ${
      millis(looked.value.took)
    } ms later`
  } satisfies Watched
})

export const controlLoops = Probe.make("k8s.control.loops", {
  layer: "kubernetes",
  proves: "The controller manager and the scheduler act on what is new, and renew their leases.",
  writes: "namespace",
  costs:
    "A Deployment with one pod that no node can take, so nothing runs and no image is pulled; 8 requests, and one a " +
    "second while a loop is slow.",
  needs: [
    Needs.verbs(["create", "get", "delete"], "deployments", { group: "apps", namespace: Needs.probeNamespace }),
    Needs.list("replicasets", { group: "apps", namespace: Needs.probeNamespace }),
    Needs.list("pods", { namespace: Needs.probeNamespace }),
    Needs.get("leases", {
      group: "coordination.k8s.io",
      namespace: LEASE_NAMESPACE,
      names: [CONTROLLER_MANAGER, SCHEDULER],
      optional: true
    })
  ],
  codes,
  config: ControlLoopsConfig,
  timeout: TIMEOUT,
  retry: Retry.none,
  // These it has looked for again and again.
  confirm: { unless: ["REPLICA_SET_MISSING", "POD_MISSING", "NOT_SCHEDULED", "LEASE_LOST", "LEASE_STALE"] },
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ControlLoopsConfig) {
    const scratch = yield* Scratch
    const context = yield* RunContext
    const name = yield* scratch.name("control-loops")
    const created = yield* scratch.create(Deployment, manifest(name, context, config)).pipe(
      Effect.catchTag("KubeError", blame)
    )
    const [passed, watched] = yield* Effect.timed(watchLoops(name, context.probeNamespace, config))
    const renewals = yield* Effect.all([renewedAt(CONTROLLER_MANAGER), renewedAt(SCHEDULER)], { concurrency: 2 })
    // What the server stamped on our object tells its clock, so that ours need not be right.
    const { creationTimestamp } = created.metadata
    const [controllers, scheduler] = renewals.map((renewed) =>
      creationTimestamp === undefined || renewed === undefined
        ? undefined
        : Elapsed.between(renewed, DateTime.addDuration(creationTimestamp, passed))
    )
    const loops: ReadonlyArray<Loop> = [
      { component: CONTROLLER_MANAGER, acted: watched.controllersActed, leaseAge: controllers },
      { component: SCHEDULER, acted: watched.schedulerActed, leaseAge: scheduler }
    ]
    return Outcome.make(watched.summary, [
      // Whether a component that did not act leads is the next question.
      ...watched.findings.map((finding) => {
        const age = loops.find(({ component }) => component === finding.subject?.name)?.leaseAge
        return age === undefined
          ? finding
          : { ...finding, message: `${finding.message}; its lease was renewed ${Elapsed.text(age)} ago` }
      }),
      ...loops.flatMap(judgeLease(config))
    ])
  })
})
