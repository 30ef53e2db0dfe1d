/** k8s.namespace.lifecycle: tenants can come and go. */
import { Duration, Effect, Option, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, isTransient } from "../../infra/kube/KubeError.ts"
import { ConfigMap, Namespace, ServiceAccount } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as Retry from "../Retry.ts"
import { RUN_LABEL, Scratch } from "../Scratch.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import { conditionsOf } from "./finalizersStuck.ts"

/** Every namespace gets them from kube-controller-manager; pods cannot start without. */
const DEFAULT_ACCOUNT = "default"
const ROOT_CA = "kube-root-ca.crt"

const POLL = Schedule.spaced("250 millis")

const TIMEOUT = Duration.seconds(120)
/** For the requests beside the two waits. */
const REQUESTS = Duration.seconds(10)
const LONGEST_WAITS = Duration.subtract(TIMEOUT, REQUESTS)

export const NamespaceLifecycleConfig = Schema.Struct({
  defaultsWarnAfter: setting(DurationString, {
    default: "10s",
    description: "A new namespace waits longer than this for its ServiceAccount and root certificate: WARN."
  }),
  defaultsErrorAfter: setting(DurationString, { default: "20s", description: "Still without them: ERROR." }),
  deleteWarnAfter: setting(DurationString, { default: "30s", description: "The deletion takes longer: WARN." }),
  deleteErrorAfter: setting(DurationString, { default: "90s", description: "Still not gone: ERROR." }),
  labels: setting(Schema.Record(Schema.String, Schema.String), {
    default: {},
    description: "Labels the namespace is created with, where a policy demands some."
  })
}).check(
  Schema.makeFilter(({ defaultsErrorAfter, deleteErrorAfter }) =>
    Duration.isLessThanOrEqualTo(Duration.sum(defaultsErrorAfter, deleteErrorAfter), LONGEST_WAITS) ||
    `defaultsErrorAfter and deleteErrorAfter together are longer than the ${Elapsed.text(LONGEST_WAITS)} a run may wait`
  )
)
export type NamespaceLifecycleConfig = typeof NamespaceLifecycleConfig.Type

export const codes = Codes.make({
  NAMESPACE_CREATE_FAILED: Codes.error(
    "A namespace cannot be created: the API server or an admission webhook it must ask fails.",
    "Restore what the message names; k8s.admission.webhooks tells which webhooks cannot be called."
  ),
  NAMESPACE_REFUSED: Codes.unknown(
    "A policy refuses the namespace this probe creates, so nothing was learnt about namespaces.",
    "Exempt namespaces with the label kubeprober.io/run, or set `labels` as the policy demands."
  ),
  NAMESPACE_DEFAULTS_MISSING: Codes.error(
    "A new namespace did not get its default ServiceAccount and root certificate, so no pod can start in it.",
    "Look at kube-controller-manager: is it running and leading?"
  ),
  NAMESPACE_DEFAULTS_SLOW: Codes.warn(
    "A new namespace waited long for its default ServiceAccount and root certificate.",
    "Look at the load and the log of kube-controller-manager."
  ),
  NAMESPACE_DELETE_FAILED: Codes.error(
    "The API server could not accept the deletion of a namespace.",
    "Restore what the message names."
  ),
  NAMESPACE_DELETE_SLOW: Codes.warn(
    "An empty namespace took long to go away.",
    "Look at the load and the log of kube-controller-manager, and for aggregated APIs that answer slowly."
  ),
  NAMESPACE_STUCK: Codes.error(
    "A deleted namespace does not go away; every other deletion will likely hang as well.",
    "Restore the API service or controller that the conditions in the message name."
  )
})

/** What a failed write says: about the cluster when it or its webhooks fail, about our request when a policy refuses it. */
const blame =
  (code: Codes.Code, what: string) => (error: KubeError): Effect.Effect<never, KubeError | Codes.TargetFault> => {
    const occurrence = { message: `${what}: ${error.message}` }
    const { reason } = error
    if (reason._tag === "ServerFault") return code.fail(occurrence)
    if (reason._tag === "AdmissionDenied") {
      return reason.kind === "webhook-failed" ? code.fail(occurrence) : codes.NAMESPACE_REFUSED.fail(occurrence)
    }
    return Effect.fail(error)
  }

/** How long it took until `ask` said yes; none when it did not within `limit`. */
const until = <R>(ask: Effect.Effect<boolean, KubeError, R>, limit: Duration.Duration) =>
  ask.pipe(
    Effect.retry({ schedule: Retry.read, while: isTransient }),
    Effect.repeat({ schedule: POLL, until: (yes) => yes }),
    Stopwatch.timed,
    Effect.map(([took]) => took),
    Stopwatch.within(limit)
  )

const isThere = <A, R>(get: Effect.Effect<A, KubeError, R>) =>
  get.pipe(
    Effect.as(true),
    Effect.catchIf(
      (error) => error.reason._tag === "NotFound" && error.reason.what === "object",
      () => Effect.succeed(false)
    )
  )

const whyStuck = (namespace: Namespace): string =>
  conditionsOf(namespace) || "it has no condition, so kube-controller-manager did not act"

/** One that an earlier run made and that does not go away proves the same as another, and every run would leave one more. */
const noneStuck = Effect.fnUntraced(function*(limit: Duration.Duration) {
  const kube = yield* Kube
  const { items } = yield* kube.list(Namespace, { labelSelector: RUN_LABEL })
  if (items.every(({ metadata }) => metadata.deletionTimestamp === undefined)) return
  const now = yield* ServerTime.nowOrOurs
  for (const namespace of items) {
    const { deletionTimestamp, name = "" } = namespace.metadata
    if (deletionTimestamp === undefined) continue
    const age = Elapsed.between(deletionTimestamp, now)
    if (Duration.isLessThanOrEqualTo(age, limit)) continue
    return yield* codes.NAMESPACE_STUCK.fail({
      message: `namespace ${name} of an earlier run is still there ${Elapsed.text(age)} after its deletion (limit ${
        Elapsed.text(limit)
      }): ${whyStuck(namespace)}`,
      subject: { kind: "Namespace", name }
    })
  }
})

export const namespaceLifecycle = Probe.make("k8s.namespace.lifecycle", {
  layer: "kubernetes",
  proves: "A namespace can be created, gets what pods need in it, and goes away when deleted.",
  writes: "cluster",
  costs:
    "One namespace; 4 API requests, and while it waits 8 a second for what a new namespace gets and 4 a second for its end: " +
    "about 40 in a healthy cluster.",
  needs: [
    Needs.verbs(["create", "get", "list", "delete"], "namespaces"),
    Needs.get("serviceaccounts", { names: [DEFAULT_ACCOUNT] }),
    Needs.get("configmaps", { names: [ROOT_CA] }),
    ServerTime.needs
  ],
  codes,
  config: NamespaceLifecycleConfig,
  timeout: TIMEOUT,
  retry: Retry.none,
  // It waits long before it calls anything late, and another namespace would be stuck like the first.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: NamespaceLifecycleConfig) {
    const kube = yield* Kube
    const scratch = yield* Scratch
    yield* noneStuck(config.deleteErrorAfter)
    const name = yield* scratch.name("kubeprober-namespace")
    const subject = { kind: "Namespace", name }
    const { metadata: { uid } } = yield* scratch.create(Namespace, { metadata: { name, labels: config.labels } }).pipe(
      Effect.catchTag("KubeError", blame(codes.NAMESPACE_CREATE_FAILED, `namespace ${name} was not created`))
    )

    const account = isThere(kube.get(ServiceAccount, { name: DEFAULT_ACCOUNT, namespace: name }))
    const rootCa = isThere(kube.get(ConfigMap, { name: ROOT_CA, namespace: name }))
    const both = Effect.map(Effect.all([account, rootCa], { concurrency: 2 }), (there) => there.every((yes) => yes))
    const furnished = yield* until(both, config.defaultsErrorAfter)
    if (Option.isNone(furnished)) {
      const missing = [
        ...(yield* account) ? [] : [`ServiceAccount ${DEFAULT_ACCOUNT}`],
        ...(yield* rootCa) ? [] : [`ConfigMap ${ROOT_CA}`]
      ].join(" and ")
      return yield* codes.NAMESPACE_DEFAULTS_MISSING.fail({
        message: `namespace ${name} is without ${missing || "its defaults"} after ${
          Elapsed.text(config.defaultsErrorAfter)
        }: kube-controller-manager did not act`,
        subject,
        evidence: { missing }
      })
    }

    yield* kube.delete(Namespace, { name }, { propagationPolicy: "Background", ...(uid === undefined ? {} : { uid }) })
      .pipe(
        Effect.catchTag("KubeError", blame(codes.NAMESPACE_DELETE_FAILED, `namespace ${name} was not deleted`))
      )
    const there = isThere(kube.get(Namespace, { name }))
    const gone = yield* until(Effect.map(there, (yes) => !yes), config.deleteErrorAfter)
    if (Option.isNone(gone)) {
      const said = yield* kube.get(Namespace, { name }).pipe(
        Effect.map(whyStuck),
        Effect.orElseSucceed(() => "its conditions cannot be read")
      )
      return yield* codes.NAMESPACE_STUCK.fail({
        message: `namespace ${name} is still there ${
          Elapsed.text(config.deleteErrorAfter)
        } after its deletion: ${said}`,
        subject
      })
    }

    const evidence = {
      defaultsMillis: Math.round(Duration.toMillis(furnished.value)),
      deleteMillis: Math.round(Duration.toMillis(gone.value))
    }
    const slow = (code: Codes.Code, what: string, took: Duration.Duration, limit: Duration.Duration) =>
      Duration.isGreaterThan(took, limit)
        ? [code({ message: `${what} ${Elapsed.text(took)} (limit ${Elapsed.text(limit)})`, subject, evidence })]
        : []
    return Outcome.make(
      `a namespace was ready for pods in ${evidence.defaultsMillis} ms and gone in ${evidence.deleteMillis} ms`,
      [
        ...slow(
          codes.NAMESPACE_DEFAULTS_SLOW,
          `the default ServiceAccount and ${ROOT_CA} of namespace ${name} took`,
          furnished.value,
          config.defaultsWarnAfter
        ),
        ...slow(
          codes.NAMESPACE_DELETE_SLOW,
          `the deletion of namespace ${name} took`,
          gone.value,
          config.deleteWarnAfter
        )
      ]
    )
  })
})
