/**
 * k8s.ingress.http: requests from outside reach pods by way of an Ingress.
 *
 * An Ingress with a host of its own leads to two pods that say who they are. The controller's address is asked for that host
 * until one of them answers. With `url` nothing is made, and that alone is asked.
 */
import { Clock, Duration, Effect, Option, Result, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Service } from "../../infra/kube/resources/core.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import { Ingress, IngressClass } from "../../infra/kube/resources/networking.ts"
import { type HttpAnswer, HttpCall } from "../../infra/net/HttpCall.ts"
import type { NetError } from "../../infra/net/NetError.ts"
import { HttpUrl } from "../application/asking.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import { percentile } from "../Percentile.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { Scratch } from "../Scratch.ts"
import { setting } from "../Setting.ts"
import { Workers, needs as workerNeeds } from "../workers/Workers.ts"

/** Patience for one answer. */
const ANSWER_WITHIN = Duration.seconds(5)

const AGAIN_AFTER = "500 millis"

/** Once it has settled; the median tells whether the controller is slow, and each must be answered. */
const TIMES = 10

/** So many good answers in a row: one of two replicas that does not know an Ingress yet gives them once in a thousand. */
const SETTLED = 10
const SETTLING_EVERY = "200 millis"

/** Endpoints of ready pods appear within a second or two. */
const ENDPOINTS_WITHIN = Duration.seconds(20)

const MAXIMUM_BODY = 4096

/** Default classes of these make a load balancer that costs money for each Ingress; they are used when named. */
const COSTLY: ReadonlySet<string> = new Set(["ingress.k8s.aws/alb", "eks.amazonaws.com/alb"])

const DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"

export const IngressHttpConfig = Schema.Struct({
  url: setting(HttpUrl, { default: "", description: "Ask this alone, and make nothing. Empty: make an Ingress." }),
  class: setting(Schema.String, {
    default: "",
    description: "The IngressClass. Empty: the default one, or the only one."
  }),
  address: setting(Schema.String.check(Schema.isPattern(/^[^\s/@?#]*$/u)), {
    default: "",
    description: "Where the controller is asked, `host` or `host:port`. Empty: what it writes into the Ingress' status."
  }),
  domain: setting(Schema.String.check(Schema.isPattern(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/u)), {
    default: "ingress-probe.invalid",
    description: "The domain of the Ingress' random host. No name is looked up; with `tls`, one its certificate is for."
  }),
  tls: setting(Schema.Boolean, {
    default: false,
    description: "Ask over HTTPS; the controller's own certificate must be trusted for the host."
  }),
  slow: setting(DurationString, { default: "1s", description: "A median answer above this is a WARN." }),
  within: setting(DurationString, {
    default: "60s",
    description: "How long after the Ingress is made (or, with `url`, from the start) a pod may first answer."
  })
})
export type IngressHttpConfig = typeof IngressHttpConfig.Type

const LOOK_AT_CONTROLLER = "Look at the pods and the log of the Ingress controller, and at the load balancer before it."

export const codes = Codes.make({
  CLASS_MISSING: Codes.error(
    "The IngressClass that was asked for does not exist.",
    "Install the controller, or correct `class`."
  ),
  CLASS_UNDECIDED: Codes.unknown(
    "There are several IngressClasses and none is the default, or the default makes load balancers that cost money.",
    "Name one in `class`."
  ),
  WEBHOOK_FAILED: Codes.error(
    "The webhook that admits Ingresses cannot be called, so nobody can make one.",
    "Restore the controller's admission webhook, or delete its configuration if the controller is gone."
  ),
  ENDPOINTS_MISSING: Codes.error(
    "The pods behind the Service that the Ingress leads to are ready, and they are not among its endpoints.",
    "Look for what changed the Service or its selector; then at kube-controller-manager."
  ),
  ADDRESS_MISSING: Codes.error(
    "The controller has given other Ingresses an address and this new one none.",
    LOOK_AT_CONTROLLER
  ),
  ADDRESS_UNKNOWN: Codes.unknown(
    "No Ingress of this class has an address, so it is not known where to ask: not all controllers write one.",
    "Look whether the controller runs; if it does, write its address into `address`."
  ),
  CONTROLLER_UNREACHABLE: Codes.error(
    "At the controller's address nothing answers HTTP.",
    LOOK_AT_CONTROLLER
  ),
  CERTIFICATE_INVALID: Codes.error(
    "The controller shows a certificate that cannot be trusted for the host.",
    "Renew the certificate, or correct `domain` if it was never meant for it."
  ),
  ROUTE_MISSING: Codes.error(
    "The controller answers and does not know the new Ingress (404).",
    "Look whether the controller still follows Ingresses (rights, leader, a configuration that it cannot load)."
  ),
  BACKEND_UNREACHED: Codes.error(
    "The controller knows the Ingress and does not reach the ready pods behind it.",
    "Look at the network between the controller's pods and other pods, and at the controller's log."
  ),
  WRONG_STATUS: Codes.error("The controller answers with a status that is not the pods'.", LOOK_AT_CONTROLLER),
  WRONG_ANSWER: Codes.error(
    "Somebody else than the pods behind the Ingress answers for its host.",
    "Look for an Ingress with a catch-all host, or for another server at that address."
  ),
  ANSWER_GUARDED: Codes.unknown(
    "The controller redirects every request, or wants to know who asks, so the way to the pods was not seen.",
    "Set `tls` where it redirects to HTTPS; else give an `address` that lets the prober in."
  ),
  UNRELIABLE: Codes.warn("Some requests are answered by the pods, others are not.", LOOK_AT_CONTROLLER),
  SLOW: Codes.warn("Answers by way of the Ingress take longer than they may.", LOOK_AT_CONTROLLER),
  URL_FAILED: Codes.error("The URL does not answer 200.", LOOK_AT_CONTROLLER),
  ADDRESS_REFUSED: Codes.unknown(
    "The address has none that the prober asks: it does not resolve, no route leads there, or it is link-local.",
    "Correct `address` or `url`; look at DNS and routes where the prober runs."
  )
})

/** One request's end: an answer, or none. */
export type Asked = Result.Result<Pick<HttpAnswer, "status" | "body" | "headers">, Pick<NetError, "kind" | "message">>

const decodeBody = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ pod: Schema.String })))

const isBy = (pods: ReadonlyArray<string>, asked: Asked): boolean =>
  Result.isSuccess(asked) && asked.success.status === 200 &&
  Option.exists(decodeBody(asked.success.body), ({ pod }) => pods.includes(pod))

/** In a few words. */
const said = (asked: Asked): string => {
  if (Result.isFailure(asked)) return asked.failure.message
  const { headers, status } = asked.success
  const server = headers["server"] === undefined ? "" : ` by ${headers["server"].slice(0, 60)}`
  const to = headers["location"] === undefined ? "" : ` to ${headers["location"].slice(0, 200)}`
  return `status ${status}${server}${to}`
}

/** What an answer that is not the pods' says. */
export const codeOf = (asked: Asked): Codes.Code => {
  if (Result.isFailure(asked)) {
    switch (asked.failure.kind) {
      case "dns":
      case "forbidden":
      case "unreachable":
        return codes.ADDRESS_REFUSED
      case "unknown":
        return checkerCodes.CHECKER_FAILED
      case "tls":
        return codes.CERTIFICATE_INVALID
      default:
        return codes.CONTROLLER_UNREACHABLE
    }
  }
  const { status } = asked.success
  if (status === 200) return codes.WRONG_ANSWER
  if (status === 404) return codes.ROUTE_MISSING
  if (status >= 502 && status <= 504) return codes.BACKEND_UNREACHED
  return (status >= 300 && status < 400) || status === 401 || status === 403 || status === 407
    ? codes.ANSWER_GUARDED
    : codes.WRONG_STATUS
}

/** Which class a new Ingress is of, or why that cannot be said. */
export const classOf = (
  config: Pick<IngressHttpConfig, "class">,
  classes: ReadonlyArray<IngressClass>
): Result.Result<IngressClass, Finding> => {
  const names = classes.slice(0, 5).map(({ metadata }) => metadata.name).join(", ")
  if (config.class !== "") {
    const named = classes.find(({ metadata }) => metadata.name === config.class)
    return named !== undefined ? Result.succeed(named) : Result.fail(codes.CLASS_MISSING({
      message: `IngressClass ${config.class} does not exist${names === "" ? "" : ` (there is ${names})`}`,
      subject: { kind: "IngressClass", name: config.class }
    }))
  }
  if (classes.length === 0) {
    return Result.fail(
      checkerCodes.NOT_APPLICABLE({ message: "the cluster has no IngressClass, so nobody serves Ingresses" })
    )
  }
  const defaults = classes.filter(({ metadata }) => metadata.annotations?.[DEFAULT_CLASS] === "true")
  const [chosen, other] = defaults.length > 0 ? defaults : classes
  if (chosen === undefined || other !== undefined) {
    return Result.fail(codes.CLASS_UNDECIDED({
      message: `${
        defaults.length > 0 ? "several IngressClasses are the default" : "no IngressClass is the default"
      } (there is ${names})`
    }))
  }
  return COSTLY.has(chosen.spec.controller ?? "")
    ? Result.fail(codes.CLASS_UNDECIDED({
      message: `IngressClass ${chosen.metadata.name} makes a load balancer for each Ingress, which costs money`
    }))
    : Result.succeed(chosen)
}

const millis = (value: Duration.Duration) => Math.round(Duration.toMillis(value))

/** Asks again and again until it is as wanted or time is up: the last answer, and when that was. */
const askUntil = Effect.fnUntraced(function*<A>(
  ask: Effect.Effect<A, never, HttpCall>,
  wanted: (asked: A) => boolean,
  within: Duration.Duration
) {
  const started = yield* Clock.currentTimeMillis
  const late = () => Effect.map(Clock.currentTimeMillis, (now) => now - started > Duration.toMillis(within))
  const asked = yield* Effect.repeat(ask, {
    schedule: Schedule.spaced(AGAIN_AFTER),
    until: (asked) => wanted(asked) ? Effect.succeed(true) : late()
  })
  return { asked, took: Duration.millis((yield* Clock.currentTimeMillis) - started) }
})

/** Asks until all replicas of the controller seem to know the Ingress, which each learns at its own time, or time is up. */
export const settle = <A, R>(
  ask: Effect.Effect<A, never, R>,
  isGood: (asked: A) => boolean,
  within: Duration.Duration
) =>
  Effect.suspend(() => {
    let inARow = 0
    return ask.pipe(
      Effect.repeat({
        schedule: Schedule.spaced(SETTLING_EVERY),
        until: (asked) => (inARow = isGood(asked) ? inARow + 1 : 0) >= SETTLED
      }),
      Effect.timeoutOption(within),
      Effect.asVoid
    )
  })

const ask = (url: URL, host?: string) =>
  Effect.flatMap(HttpCall, (http) =>
    Effect.result(http.send({
      method: "GET",
      url,
      ...(host === undefined ? {} : { headers: { host }, tls: { serverName: host } }),
      redirects: host === undefined ? 5 : 0,
      timeout: ANSWER_WITHIN,
      maximumBody: MAXIMUM_BODY
    })))

/** Ten more requests, in which nothing changes any more: all must be answered, half of them fast. */
const steady = Effect.fnUntraced(function*(
  one: ReturnType<typeof ask>,
  isGood: (asked: Asked) => boolean,
  what: string,
  subject: Subject,
  slow: Duration.Duration
) {
  const limits = yield* Hysteresis.limits
  const asked = yield* Effect.forEach(Array.from({ length: TIMES }), () => one)
  const took = asked.flatMap((each) =>
    Result.isSuccess(each) && isGood(each) ? [Duration.toMillis(each.success.timings.total)] : []
  )
  const median = Math.round(percentile(took, 50))
  const findings: Array<Finding> = []
  const bad = asked.find((each) => !isGood(each))
  if (bad !== undefined) {
    findings.push(codes.UNRELIABLE({
      message: `${what} answered ${took.length} of ${TIMES} requests; another: ${said(bad)}`,
      subject,
      evidence: { good: took.length, of: TIMES, said: said(bad) }
    }))
  }
  if (limits.exceeds(median, Duration.toMillis(slow), { code: codes.SLOW, subject })) {
    findings.push(codes.SLOW({
      message: `${what} answers in ${median} ms (median of ${took.length}; ${
        Hysteresis.text(Duration.format(slow), median > Duration.toMillis(slow))
      })`,
      subject,
      evidence: { medianMillis: median, limitMillis: Duration.toMillis(slow) }
    }))
  }
  return { median, findings }
})

const askUrl = Effect.fnUntraced(function*({ slow, url, within }: IngressHttpConfig) {
  const one = ask(new URL(url))
  const isGood = (asked: Asked) => Result.isSuccess(asked) && asked.success.status === 200
  const subject = { kind: "URL", name: `${new URL(url).origin}${new URL(url).pathname}` }
  const { asked } = yield* askUntil(one, isGood, within)
  if (!isGood(asked)) {
    const code = codeOf(asked)
    const isOurs = code === codes.ADDRESS_REFUSED || code === checkerCodes.CHECKER_FAILED
    return yield* (isOurs ? code : codes.URL_FAILED).fail({
      message: `${subject.name} did not answer 200 within ${Duration.format(within)}; at last: ${said(asked)}`,
      subject,
      evidence: { said: said(asked) }
    })
  }
  const { findings, median } = yield* steady(one, isGood, subject.name, subject, slow)
  return Outcome.make(`${subject.name} answers 200 in ${median} ms (median of ${TIMES})`, findings)
})

const addressOf = ({ status: { loadBalancer: { ingress: [first] } } }: Ingress): string | undefined =>
  first?.ip ?? first?.hostname

const askPods = Effect.fnUntraced(function*(config: IngressHttpConfig) {
  const kube = yield* Kube
  const workers = yield* Workers
  const scratch = yield* Scratch
  const { probeNamespace: namespace } = yield* RunContext
  const chosen = classOf(config, (yield* kube.list(IngressClass)).items)
  if (Result.isFailure(chosen)) return Outcome.make("", [chosen.failure])
  const className = chosen.success.metadata.name ?? ""
  const blamed = { kind: "IngressClass", name: className }

  const name = yield* scratch.name("ingress")
  const labels = { "kubeprober.io/ingress": name }
  const responders = yield* Effect.forEach(
    ["ingress-echo", "ingress-echo"],
    (pod) => workers.respond({ name: pod, labels }),
    { concurrency: 2 }
  )
  const pods = responders.map(({ pod }) => pod)
  const [first] = responders
  if (first === undefined) return yield* checkerCodes.CHECKER_FAILED.fail({ message: "no pod answers" })
  yield* scratch.create(Service, {
    metadata: { name, namespace },
    spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: first.port, protocol: "TCP" }] }
  })
  const host = `${name}.${config.domain}`
  yield* scratch.create(Ingress, {
    metadata: { name, namespace },
    spec: {
      ingressClassName: className,
      rules: [{
        host,
        http: { paths: [{ path: "/", pathType: "Prefix", backend: { service: { name, port: { number: 80 } } } }] }
      }]
    }
  }).pipe(
    Effect.catchIf(
      ({ reason }) => reason._tag === "AdmissionDenied" && reason.kind === "webhook-failed",
      (error) => codes.WEBHOOK_FAILED.fail({ message: error.message, subject: blamed })
    )
  )
  const made = yield* Clock.currentTimeMillis
  const rest = Effect.map(
    Clock.currentTimeMillis,
    (now) => Duration.millis(Math.max(0, Duration.toMillis(config.within) - (now - made)))
  )

  const ready = Effect.map(
    kube.list(EndpointSlice, { namespace, labelSelector: `kubernetes.io/service-name=${name}` }),
    ({ items }) =>
      items.flatMap(({ endpoints }) => endpoints.filter(({ conditions }) => conditions.ready !== false)).length
  )
  const withoutEndpoints = (more: string) =>
    codes.ENDPOINTS_MISSING.fail({
      message: `none of ${pods.length} ready pods is an endpoint of their new Service ${name}${more}`,
      subject: { kind: "Service", name, namespace }
    })
  const endpoints = yield* ready.pipe(
    Effect.repeat({ until: (count) => count > 0, schedule: Schedule.spaced(AGAIN_AFTER) }),
    Effect.timeoutOrElse({ duration: ENDPOINTS_WITHIN, orElse: () => ready })
  )
  if (endpoints === 0) return yield* withoutEndpoints(` after ${Duration.format(ENDPOINTS_WITHIN)}`)

  const address = config.address !== "" ? config.address : yield* kube.get(Ingress, { name, namespace }).pipe(
    Effect.map(addressOf),
    Effect.repeat({ until: (found) => found !== undefined, schedule: Schedule.spaced("1 second") }),
    Effect.timeoutOrElse({ duration: yield* rest, orElse: () => Effect.undefined })
  )
  if (address === undefined) {
    const others = yield* kube.list(Ingress).pipe(
      Effect.map(({ items }) =>
        items.filter((each) => each.spec.ingressClassName === className && addressOf(each) !== undefined)
      ),
      Effect.catchIf(({ reason }) => reason._tag === "Forbidden", () => Effect.succeed([]))
    )
    return yield* (others.length > 0 ? codes.ADDRESS_MISSING : codes.ADDRESS_UNKNOWN).fail({
      message: `no address was written into a new Ingress of class ${className} within ${
        Duration.format(config.within)
      }; ${others.length} other Ingresses of the class have one`,
      subject: blamed,
      evidence: { others: others.length }
    })
  }
  const bracketed = /^[0-9a-f]*:[0-9a-f:]*:[0-9a-f.:]*$/iu.test(address) ? `[${address}]` : address
  const url = URL.parse(`${config.tls ? "https" : "http"}://${bracketed}/`)
  if (url === null) return yield* checkerCodes.INVALID_CONFIG.fail({ message: `${address} is no address` })
  const one = ask(url, host)
  const isGood = (asked: Asked) => isBy(pods, asked)
  const { asked } = yield* askUntil(one, isGood, yield* rest)
  const evidence = { address, said: said(asked) }
  if (!isGood(asked)) {
    if ((yield* ready) === 0) return yield* withoutEndpoints(` any more; the controller said ${said(asked)}`)
    return yield* codeOf(asked).fail({
      message:
        `the controller of class ${className} at ${address} did not lead a new Ingress to its ${pods.length} ready ` +
        `pods within ${Duration.format(config.within)}; at last it said: ${said(asked)}`,
      subject: blamed,
      evidence
    })
  }
  const took = Duration.millis((yield* Clock.currentTimeMillis) - made)
  yield* settle(one, isGood, yield* rest)
  const { findings, median } = yield* steady(one, isGood, `a new Ingress of class ${className}`, blamed, config.slow)
  return Outcome.make(
    `a new Ingress of class ${className} leads to its pods ${
      millis(took)
    } ms after it was made, in ${median} ms a request ` +
      `(median of ${TIMES})`,
    findings
  )
})

export const ingressHttp = Probe.make("k8s.ingress.http", {
  layer: "kubernetes",
  proves: "HTTP requests to the Ingress controller's address reach the pods behind a new Ingress, in good time.",
  writes: "namespace",
  placement: "workers",
  costs:
    "2 pods, a Service and an Ingress (for which some clouds' controllers make a load balancer that costs money); about 20 " +
    "API requests and 30 to the controller, or 300 to one that does not settle. With `url`, 11 requests to that.",
  needs: [
    Needs.list("ingressclasses", { group: "networking.k8s.io" }),
    Needs.verbs(["create", "get", "delete"], "ingresses", {
      group: "networking.k8s.io",
      namespace: Needs.probeNamespace
    }),
    Needs.list("ingresses", { group: "networking.k8s.io", optional: true }),
    Needs.verbs(["create", "delete"], "services", { namespace: Needs.probeNamespace }),
    Needs.list("endpointslices", { group: "discovery.k8s.io", namespace: Needs.probeNamespace }),
    workerNeeds
  ],
  codes,
  config: IngressHttpConfig,
  timeout: "4 minutes",
  interval: "10 minutes",
  // Asked for a minute until it is red.
  confirm: { unless: Object.keys(codes).filter((code) => code !== "UNRELIABLE" && code !== "SLOW") },
  dependsOn: ["k8s.api.health"],
  run: (config: IngressHttpConfig) => config.url === "" ? askPods(config) : askUrl(config)
})
