/**
 * `k8s.api.crud`: does what is written persist, and do watchers hear of it?
 *
 * One ConfigMap in the probe namespace goes through create, get, patch, watch and delete, as every controller's objects
 * do. Not dry-run on purpose: only a stored object proves the store.
 */
import { Cause, Clock, Duration, Effect, Option, Queue, Schema, Stream } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube, type WatchEvent } from "../../infra/kube/Kube.ts"
import { KubeError } from "../../infra/kube/KubeError.ts"
import { ConfigMap } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as Retry from "../Retry.ts"
import { RunContext } from "../RunContext.ts"
import { Scratch } from "../Scratch.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import { AGAIN_AFTER, blameOf } from "./apiHealth.ts"

const LOOK_AT_ETCD = "Look at etcd's health, disk latency and space, then at the API server's log."

export const codes = Codes.make({
  CREATE_FAILED: Codes.error("A new object could not be stored.", LOOK_AT_ETCD),
  READ_FAILED: Codes.error("A stored object could not be read.", LOOK_AT_ETCD),
  UPDATE_FAILED: Codes.error("A change of a stored object could not be stored.", LOOK_AT_ETCD),
  DELETE_FAILED: Codes.error(
    "An object could not be deleted, or was still there long after its deletion was accepted.",
    "Look for a finalizer on the object and who should remove it; then at etcd and the API server's log."
  ),
  WRITE_LOST: Codes.error(
    "A write that the API server confirmed is not what is read back.",
    "Look for a mutating webhook or policy that changes ConfigMaps; without one, suspect etcd's data."
  ),
  WATCH_FAILED: Codes.error(
    "A watch of the object was refused or cut.",
    "Look at the API server's log and at proxies before it that cut long answers."
  ),
  WATCH_SILENT: Codes.error(
    "A watcher was not told of a change in time, so controllers act on old state.",
    "Look at the API server's watch cache and at etcd's watch streams; look for proxies that buffer answers."
  ),
  WEBHOOK_FAILED: Codes.error(
    "An admission webhook could not be called, and its failure policy refuses the write.",
    "Restore the webhook's backend, or narrow its rules or selectors; k8s.admission.webhooks says more."
  ),
  ETCD_NO_SPACE: Codes.error(
    "etcd has reached its quota and accepts no writes.",
    "Compact and defragment etcd, disarm the NOSPACE alarm, then raise --quota-backend-bytes or delete what fills it."
  ),
  THROTTLED: Codes.warn(
    "The API server sheds load and refused a request of this probe.",
    "Look at apiserver_flowcontrol_rejected_requests_total for the flow that takes the seats; tune API priority and fairness."
  ),
  SLOW: Codes.warn("A single request took longer than the limit.", LOOK_AT_ETCD),
  WATCH_LAG: Codes.warn(
    "A watcher was told of a change later than the limit.",
    "Look at the API server's CPU and at etcd's watch streams."
  ),
  NOT_ADMITTED: Codes.unknown(
    "Admission refused the probe's object: a quota, a policy or a webhook does not want it.",
    "Let the probe namespace hold ConfigMaps of the prober, or exempt it."
  ),
  NAMESPACE_MISSING: Codes.unknown(
    "The probe namespace does not exist.",
    "Create it, or name another one for probes."
  )
})

const Config = Schema.Struct({
  slow: setting(DurationString, { default: "1s", description: "A request that takes longer is slow." }),
  watchLag: setting(DurationString, {
    default: "2s",
    description: "How long after a change is confirmed a watcher may hear of it."
  }),
  stepTimeout: setting(DurationString, {
    default: "10s",
    description: "How long each request, and the wait for each watch event, may take before it counts as failed."
  })
})
type Config = typeof Config.Type

/** Longer than any run, so that the end of the watch is the server's fault. */
const WATCH_FOR = "2 minutes"

/**
 * What the failure of a request says. Faults on our side of the request (rights, credentials, name resolution) stay
 * errors, which the runner knows to name.
 */
export const judgeFailure = (step: Codes.Code, error: KubeError, subject: Subject): Finding | undefined => {
  const { message, reason } = error
  const evidence = {
    step: error.call.verb,
    reason: reason._tag,
    ...(reason._tag === "Unreachable" ? { cause: reason.kind } : {})
  }
  const occurrence = { message, subject, evidence }
  switch (reason._tag) {
    case "Unreachable":
      return blameOf(reason) === "checker" ? undefined : step(occurrence)
    case "ServerFault":
      // etcd's own words (etcd api/v3rpc/rpctypes ErrGRPCNoSpace), passed on by the API server in a 500.
      return (/database space exceeded/.test(reason.detail) ? codes.ETCD_NO_SPACE : step)(occurrence)
    case "TooManyRequests":
      return codes.THROTTLED(occurrence)
    case "AdmissionDenied":
      return (reason.kind === "webhook-failed" ? codes.WEBHOOK_FAILED : codes.NOT_ADMITTED)(occurrence)
    case "NotFound":
      if (reason.what === "resource") return undefined
      return (error.call.verb === "create" ? codes.NAMESPACE_MISSING : codes.WRITE_LOST)(occurrence)
    default:
      return undefined
  }
}

/** How long one step took. */
export interface Timing {
  readonly step: string
  readonly took: Duration.Duration
}

/** Which steps were too slow. */
export const judgeTimings = (
  code: Codes.Code,
  timings: ReadonlyArray<Timing>,
  limit: Duration.Duration,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> =>
  timings.filter(({ took }) => limits.takesLonger(took, limit, { code })).map(({ step, took }) =>
    code({
      message: `${step} took ${Duration.format(wholeMillis(took))} (${
        Hysteresis.text(Duration.format(limit), Duration.isGreaterThan(took, limit))
      })`,
      evidence: { step, tookMillis: Duration.toMillis(wholeMillis(took)), limitMillis: Duration.toMillis(limit) }
    })
  )

const wholeMillis = (duration: Duration.Duration) => Duration.millis(Math.round(Duration.toMillis(duration)))

/** What a watcher heard, and when (monotonic, in nanoseconds). */
interface Heard {
  readonly event: WatchEvent<ConfigMap>
  readonly at: bigint
}

/** Waits for the event; those before it are the watch catching up. */
const hear = (heard: Queue.Dequeue<Heard, KubeError | Cause.Done>, wanted: (event: WatchEvent<ConfigMap>) => boolean) =>
  Queue.take(heard).pipe(Effect.repeat({ until: ({ event }) => wanted(event) }))

/**
 * A connection was refused or cut under this fault, as by a restart of one replica behind a load balancer, or the server
 * failed, as it does for a moment when etcd changes its leader.
 */
const mayPass = ({ finding: { evidence } }: Codes.TargetFault): boolean =>
  evidence?.["cause"] === "refused" || evidence?.["cause"] === "reset" || evidence?.["reason"] === "ServerFault"

const attempt = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const scratch = yield* Scratch
  const { probeNamespace: namespace } = yield* RunContext
  const limits = yield* Hysteresis.limits
  const name = yield* scratch.name("crud")
  const ref = { name, namespace }
  const subject = { kind: "ConfigMap", ...ref }
  const timings: Array<Timing> = []
  const lags: Array<Timing> = []

  const orFault = <A, E, R>(
    what: string,
    code: Codes.Code,
    effect: Effect.Effect<A, E | KubeError, R>,
    silent: Codes.Code = code
  ) =>
    effect.pipe(
      Stopwatch.withinOrElse({
        limit: config.stepTimeout,
        orElse: () =>
          silent.fail({
            message: `${what} ConfigMap ${name} in ${namespace}: nothing within ${Duration.format(config.stepTimeout)}`,
            subject,
            evidence: { step: what, timeoutMillis: Duration.toMillis(config.stepTimeout) }
          })
      }),
      Effect.mapError((error) => {
        if (!(error instanceof KubeError)) return error
        const finding = judgeFailure(code, error, subject)
        return finding === undefined ? error : new Codes.TargetFault({ finding })
      })
    )

  const step = Effect.fnUntraced(function*<A>(what: string, code: Codes.Code, request: Effect.Effect<A, KubeError>) {
    const [took, answer] = yield* Stopwatch.timed(orFault(what, code, request))
    timings.push({ step: what, took })
    return answer
  })

  const hearOf = Effect.fnUntraced(function*(
    what: string,
    heard: Queue.Dequeue<Heard, KubeError | Cause.Done>,
    wanted: (event: WatchEvent<ConfigMap>) => boolean
  ) {
    const confirmed = yield* Clock.monotonicTimeNanos
    const { at } = yield* orFault(`watch the ${what} of`, codes.WATCH_FAILED, hear(heard, wanted), codes.WATCH_SILENT)
      .pipe(
        Effect.catchIf(
          Cause.isDone,
          () =>
            codes.WATCH_FAILED.fail({
              message: `the watch ended before it told of the ${what} of ConfigMap ${name}`,
              subject
            })
        )
      )
    lags.push({ step: `hearing of the ${what}`, took: Duration.nanos(at > confirmed ? at - confirmed : 0n) })
  })

  const readBack = Effect.fnUntraced(function*(token: string, after: string) {
    const { data } = yield* step(`get after ${after}`, codes.READ_FAILED, kube.get(ConfigMap, ref))
    if (data["token"] === token) return
    return yield* codes.WRITE_LOST.fail({
      message:
        `ConfigMap ${name} in ${namespace} does not hold what the API server confirmed to have stored (${after})`,
      subject
    })
  })

  const [first, second] = [`${name}-1`, `${name}-2`]
  const created = yield* step(
    "create",
    codes.CREATE_FAILED,
    scratch.create(ConfigMap, { metadata: { name, namespace }, data: { token: first } })
  )
  const heard = yield* kube.watch(ConfigMap, {
    namespace,
    fieldSelector: `metadata.name=${name}`,
    resourceVersion: created.metadata.resourceVersion ?? "",
    timeout: WATCH_FOR
  }).pipe(
    Stream.mapEffect((event) => Effect.map(Clock.monotonicTimeNanos, (at): Heard => ({ event, at }))),
    Stream.toQueue({ capacity: 16 })
  )
  yield* readBack(first, "create")
  yield* step("patch", codes.UPDATE_FAILED, kube.patch(ConfigMap, ref, { data: { token: second } }))
  yield* hearOf("change", heard, ({ object }) => object.data["token"] === second)
  yield* readBack(second, "patch")
  yield* step("delete", codes.DELETE_FAILED, kube.delete(ConfigMap, ref))
  yield* hearOf("deletion", heard, ({ _tag }) => _tag === "Deleted").pipe(
    Effect.catchTag("TargetFault", (fault) => Effect.flatMap(stillThere(ref), (there) => there ?? fault))
  )

  const slowest = timings.reduce((a, b) => Duration.isGreaterThan(b.took, a.took) ? b : a)
  return Outcome.make(
    `created, read, changed, watched and deleted a ConfigMap; slowest was ${slowest.step} with ` +
      `${Math.round(Duration.toMillis(slowest.took))} ms`,
    [
      ...judgeTimings(codes.SLOW, timings, config.slow, limits),
      ...judgeTimings(codes.WATCH_LAG, lags, config.watchLag, limits)
    ]
  )
}, Effect.scoped)

/** What may pass is no verdict when it was seen once: then everything is done once more, with another object. */
const run = (config: Config) =>
  attempt(config).pipe(
    Effect.catchIf(
      (error) => error instanceof Codes.TargetFault && mayPass(error),
      () => Effect.delay(attempt(config), AGAIN_AFTER)
    )
  )

/** A deletion nobody heard of: was it the watch, or is the object still there? */
const stillThere = Effect.fnUntraced(function*(ref: { readonly name: string; readonly namespace: string }) {
  const kube = yield* Kube
  const found = yield* Effect.option(kube.get(ConfigMap, ref))
  if (Option.isNone(found)) return undefined
  const finalizers = (found.value.metadata.finalizers ?? []).join(", ")
  return new Codes.TargetFault({
    finding: codes.DELETE_FAILED({
      message: `ConfigMap ${ref.name} in ${ref.namespace} is still there after its deletion was accepted` +
        (finalizers === "" ? "" : `; it waits for finalizers ${finalizers}`),
      subject: { kind: "ConfigMap", ...ref },
      evidence: { finalizers }
    })
  })
})

export const apiCrud = Probe.make("k8s.api.crud", {
  layer: "kubernetes",
  proves: "Objects can be created, read, changed, watched and deleted, in good time.",
  writes: "namespace",
  costs:
    "7 API requests, one of them a watch: a ConfigMap is created, watched, changed, read twice and deleted, and its " +
    "deletion is made sure of.",
  needs: [
    Needs.verbs(["create", "get", "patch", "watch", "delete"], "configmaps", { namespace: Needs.probeNamespace })
  ],
  codes,
  config: Config,
  timeout: "60 seconds",
  retry: Retry.none,
  // What may pass was tried again, and what hung was waited for.
  confirm: {
    unless: [
      "CREATE_FAILED",
      "READ_FAILED",
      "UPDATE_FAILED",
      "DELETE_FAILED",
      "WATCH_FAILED",
      "WATCH_SILENT",
      "ETCD_NO_SPACE"
    ]
  },
  dependsOn: ["k8s.api.health"],
  run
})
