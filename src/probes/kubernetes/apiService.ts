/** k8s.apiservice: APIs that other servers add to the API server are there. */
import { type DateTime, Duration, Effect, Option, Result, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube, type RawResponse } from "../../infra/kube/Kube.ts"
import { type KubeError, Unreachable } from "../../infra/kube/KubeError.ts"
import { APIService } from "../../infra/kube/resources/extensions.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import * as Watch from "../Watch.ts"

export const ApiServiceConfig = Schema.Struct({
  startWithin: setting(DurationString, {
    default: "2m",
    description: "An API registered less than this ago may still be starting."
  }),
  unavailableAfter: setting(DurationString, {
    default: "30s",
    description: "An API may be unavailable this long before it is an ERROR: its only pod may be moving."
  }),
  slow: setting(DurationString, { default: "1s", description: "An answer that takes longer is slow." }),
  timeout: setting(DurationString, {
    default: "5s",
    // kube-aggregator's availability check gives up then as well (remote_available_controller.go).
    description: "How long one answer may take before the API counts as silent."
  })
})
export type ApiServiceConfig = typeof ApiServiceConfig.Type

export const codes = Codes.make({
  APISERVICE_UNAVAILABLE: Codes.error(
    "The API server cannot reach who serves an aggregated API: requests to it fail, and so do deletions of namespaces and " +
      "whatever else lists all kinds.",
    "Restore the Service and pods named, or delete the APIService when what served it is gone."
  ),
  APISERVICE_UNAVAILABLE_RECENTLY: Codes.warn(
    "An aggregated API became unavailable a moment ago.",
    "Wait for the limit in the message; then look at the Service and pods named."
  ),
  APISERVICE_STARTING: Codes.info(
    "An aggregated API was registered a moment ago and is not available yet.",
    "Nothing to do, unless it stays so."
  ),
  APISERVICE_NOT_SERVING: Codes.error(
    "An aggregated API counts as available, but requests to it through this API server fail.",
    "Look at the log of its pods, at the way from each API server to them, and at the requestheader CA when they answer 401."
  ),
  APISERVICE_SLOW: Codes.warn(
    "An aggregated API answers slowly, and holds up clients that discover all kinds, such as kubectl.",
    "Look at the load of its pods and at the way from the API server to them."
  )
})

/** How many APIs are asked in a run; the rest is judged by condition. Clusters have one to ten. */
const MAXIMUM_ASKED = 32
/** Half of them at a time: when none answers, both rounds are over within the probe's timeout. */
const CONCURRENCY = 16
/** How often a slow answer is asked again: the median of three decides. */
const CONFIRMATIONS = 3
/** Between the two tries of an API that failed, which a pod being replaced shows for a moment. */
const AGAIN_AFTER = "1 second"
/** A group version's list of resources is a few KiB; those of hundreds of kinds are below this. */
const MAXIMUM_BODY = 4 * 1024 * 1024

const nameOf = ({ metadata }: APIService): string => metadata.name ?? ""
const subject = (service: APIService) => ({ kind: "APIService", name: nameOf(service) })

const servedBy = ({ spec: { service } }: APIService): string =>
  service === undefined ? "the API server itself" : `Service ${service.namespace ?? ""}/${service.name ?? ""}`

/** Where a group version tells its resources. */
const pathOf = ({ spec: { group = "", version = "" } }: APIService): string => `/apis/${group}/${version}`

/** What the API server itself says of one API by its Available condition; none when it is available. */
export const judgeCondition = (config: ApiServiceConfig, now: DateTime.Utc) => (service: APIService) => {
  const available = service.status.conditions.find(({ type }) => type === "Available")
  const { creationTimestamp, deletionTimestamp } = service.metadata
  if (available?.status === "True" || deletionTimestamp !== undefined) return undefined
  const ageOf = (since: DateTime.Utc | undefined) =>
    since === undefined ? Duration.infinity : Elapsed.between(since, now)
  const age = ageOf(creationTimestamp)
  const since = ageOf(available?.lastTransitionTime ?? creationTimestamp)
  const why = available === undefined
    ? "the API server has not judged it"
    : [available.reason, available.message].filter((text) => text !== undefined && text !== "").join(": ")
  const about = {
    subject: subject(service),
    evidence: { reason: available?.reason ?? "", service: servedBy(service) }
  }
  const title = `the API ${nameOf(service)}, served by ${servedBy(service)},`
  if (Duration.isLessThan(age, config.startWithin)) {
    // The API server adds those of its own kinds at once, also those of a CustomResourceDefinition.
    if (service.spec.service === undefined) return undefined
    return codes.APISERVICE_STARTING({
      ...about,
      message: `${title} was registered ${Elapsed.text(age)} ago and is not available yet (limit ${
        Elapsed.text(config.startWithin)
      }): ${why}`
    })
  }
  const message = `${title} is unavailable for ${Elapsed.text(since)} (limit ${
    Elapsed.text(config.unavailableAfter)
  }): ${why}`
  return Duration.isLessThan(since, config.unavailableAfter)
    ? codes.APISERVICE_UNAVAILABLE_RECENTLY({ ...about, message })
    : codes.APISERVICE_UNAVAILABLE({ ...about, message })
}

/** Whether what an API answered speaks of its server; only then is it worth a second look. */
const serves = ({ status }: RawResponse): boolean => status >= 200 && status < 300

/** What is wrong with the answer of an API that counts as available. */
export const judgeAnswer = (service: APIService, answer: RawResponse | "silent", timeout: Duration.Duration) => {
  if (answer !== "silent" && serves(answer)) return undefined
  if (answer !== "silent" && answer.status === 403) {
    return checkerCodes.ACCESS_MISSING({
      message: `not allowed to get ${
        pathOf(service)
      }, which ClusterRole system:discovery grants to everybody; grant it`,
      subject: subject(service),
      evidence: { missing: `get ${pathOf(service)}` }
    })
  }
  if (answer !== "silent" && answer.status === 429) {
    return checkerCodes.API_FAULT({
      message: `the API server refuses ${pathOf(service)} as one request too many (429), so the API ${
        nameOf(service)
      } was not asked; see k8s.api.health`,
      subject: subject(service)
    })
  }
  const said = answer === "silent"
    ? `no answer within ${Elapsed.text(timeout)}`
    : `${answer.status} ${quote(answer.body, 200)}`
  return codes.APISERVICE_NOT_SERVING({
    message: `the API ${nameOf(service)} counts as available, but ${servedBy(service)} does not serve ${
      pathOf(service)
    }: ${said}`,
    subject: subject(service),
    evidence: { service: servedBy(service), ...(answer === "silent" ? {} : { status: answer.status }) }
  })
}

const ask = Effect.fnUntraced(
  function*(service: APIService, timeout: Duration.Duration): Effect.fn.Return<
    readonly [Duration.Duration, RawResponse | "silent"],
    KubeError,
    Kube
  > {
    const kube = yield* Kube
    const [took, result] = yield* kube.raw(pathOf(service), { maximumBytes: MAXIMUM_BODY }).pipe(
      Stopwatch.within(timeout),
      Effect.result,
      Stopwatch.timed
    )
    if (Result.isSuccess(result)) return [took, Option.getOrElse(result.success, () => "silent" as const)]
    const { reason } = result.failure
    return reason instanceof Unreachable && reason.kind === "timeout" ? [took, "silent"] : yield* result.failure
  }
)

/** Asks an API as a client would. A failure is confirmed once, slowness by the median of more answers. */
const tryOut = Effect.fnUntraced(function*(service: APIService, config: ApiServiceConfig) {
  const first = yield* ask(service, config.timeout)
  const [took, answer] = first[1] !== "silent" && serves(first[1])
    ? first
    : yield* Effect.delay(ask(service, config.timeout), AGAIN_AFTER)
  const fault = judgeAnswer(service, answer, config.timeout)
  if (fault !== undefined) return [fault]
  const limits = yield* Hysteresis.limits
  const said = { code: codes.APISERVICE_SLOW, subject: subject(service) }
  if (!limits.takesLonger(took, config.slow, said)) return []
  const again = yield* Effect.forEach(
    Array.from({ length: CONFIRMATIONS }),
    () => ask(service, config.timeout),
    { concurrency: CONFIRMATIONS }
  )
  const millis = again.map(([each]) => Math.round(Duration.toMillis(each))).sort((a, b) => a - b)
  const median = millis[Math.floor(millis.length / 2)] ?? 0
  return !limits.exceeds(median, Duration.toMillis(config.slow), said) ? [] : [codes.APISERVICE_SLOW({
    message: `the API ${nameOf(service)}, served by ${servedBy(service)}, takes ${median} ms (median of ` +
      `${millis.length}) to tell its resources (${
        Hysteresis.text(Duration.format(config.slow), median > Duration.toMillis(config.slow))
      })`,
    subject: subject(service),
    evidence: { medianMillis: median, limitMillis: Duration.toMillis(config.slow) }
  })]
})

export const apiService = Probe.make("k8s.apiservice", {
  layer: "kubernetes",
  proves:
    "Every API group version is available, and those that other servers add answer promptly through the API server.",
  writes: "nothing",
  costs: "One list of APIServices and one GET of each API that another server adds, five when it is slow.",
  needs: [
    Needs.list("apiservices", { group: "apiregistration.k8s.io" }),
    // ClusterRole system:discovery grants it to every authenticated user; which groups there are only the list tells.
    Needs.path("/apis/*"),
    ServerTime.needs
  ],
  codes,
  config: ApiServiceConfig,
  timeout: "45 seconds",
  timed: [],
  onChange: [Watch.of(APIService)],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ApiServiceConfig) {
    const kube = yield* Kube
    const { items } = yield* kube.list(APIService)
    const judge = judgeCondition(config, yield* ServerTime.nowOrOurs)
    const judged = items.map((service) => [service, judge(service)] as const)
    const available = judged.filter(([{ metadata, spec }, finding]) =>
      finding === undefined && metadata.deletionTimestamp === undefined && spec.service !== undefined &&
      // Nobody serves Kubernetes' core group elsewhere.
      spec.group !== undefined && spec.group !== ""
    ).map(([service]) => service)
    const asked = available.slice(0, MAXIMUM_ASKED)
    const tried = yield* Effect.forEach(asked, (service) => tryOut(service, config), { concurrency: CONCURRENCY })
    const findings: ReadonlyArray<Finding> = [
      ...judged.flatMap(([, finding]) => finding === undefined ? [] : [finding]),
      ...tried.flat()
    ]
    return Outcome.make(
      `${items.length} API group versions are available; ${asked.length}${
        available.length > asked.length ? ` of ${available.length}` : ""
      } that other servers add answer`,
      findings
    )
  })
})
