/**
 * `k8s.api.health`: does the API answer, and does it call itself ready, on every replica we can reach?
 *
 * Every other probe depends on this one, so it must be quick and must not confuse a dead server with a blocked view.
 */
import { Duration, Effect, Option, Result, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube, type RawResponse } from "../../infra/kube/Kube.ts"
import { KubeError, Unreachable } from "../../infra/kube/KubeError.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as Retry from "../Retry.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"

const codes = Codes.make({
  API_DOWN: Codes.error(
    "The API server does not answer: it refuses connections, resets them or stays silent.",
    "Look at the API server's process and log, the load balancer before it, and etcd behind it."
  ),
  API_CERT_EXPIRED: Codes.error(
    "The certificate the API server shows has expired, so no client that verifies it can connect.",
    "Renew the serving certificate (`kubeadm certs renew apiserver`) and restart the server; check the prober's clock too."
  ),
  API_NOT_LIVE: Codes.error(
    "The API server answers, but its /livez says it should be restarted.",
    "Read the named check in the API server's log; `etcd` means it cannot reach its store."
  ),
  API_NOT_READY: Codes.error(
    "The API server answers, but its /readyz says it should get no traffic, or has no good answer; or /version has none.",
    "Read the named check in the API server's log; `etcd` means it cannot reach its store."
  ),
  API_THROTTLED: Codes.warn(
    "The API server, or what stands before it, twice refused one of the simplest requests as one too many (429).",
    "Look at `apiserver_flowcontrol_rejected_requests_total` for who asks too much, and at the load balancer's limits."
  ),
  API_SHUTTING_DOWN: Codes.warn(
    "The API server that answered is ending and asks to get no more traffic.",
    "Nothing, when a rollout is under way; else see why it was told to stop, and why the load balancer still sends it requests."
  ),
  API_SLOW: Codes.warn(
    "Most answers to the simplest requests took longer than the limit.",
    "Look at the API server's CPU and memory, at etcd's disk latency, and at the network path from the prober."
  ),
  API_REPLICA_DOWN: Codes.warn(
    "One of the API servers behind Service default/kubernetes does not answer.",
    "Look at that machine and its API server; clients in pods fail for their share of connections until it is back."
  ),
  API_REPLICA_NOT_READY: Codes.warn(
    "One of the API servers behind Service default/kubernetes is not ready.",
    "Read the named check in that API server's log."
  ),
  API_REPLICAS_NOT_ASKED: Codes.info(
    "The replicas could not be asked in a way that proves who answers, so nothing was learnt about them.",
    "Give the cluster's CA instead of skipping TLS verification, or set `endpoints` to `auto` or `never`."
  ),
  API_NO_ENDPOINTS: Codes.warn(
    "Service default/kubernetes has no endpoint, so no pod reaches the API by its usual address.",
    "Check the API server's --endpoint-reconciler-type and --advertise-address."
  )
})

const Config = Schema.Struct({
  timeout: setting(DurationString, {
    default: "4s",
    // Longer than the 2 s that the server's own etcd check may take (--etcd-readycheck-timeout).
    description: "How long one answer may take before the server counts as silent."
  }),
  slow: setting(DurationString, { default: "1s", description: "An answer that takes longer is slow." }),
  endpoints: setting(Schema.Literals(["auto", "always", "never"]), {
    default: "auto",
    description:
      "Whether each replica of Service default/kubernetes is asked too: `always` suits a prober inside the " +
      "cluster; `auto` judges a silent replica only when another one answers from here, because from outside they are " +
      "often out of reach."
  }),
  endpointTimeout: setting(DurationString, {
    default: "1s",
    description: "How long one replica's answer may take before it counts as silent."
  })
})
type Config = typeof Config.Type

const LIVE = "/livez"
const READY = "/readyz"
const VERSION = "/version"

/** Between two tries after a cut connection or a bad answer, which a restart behind a load balancer shows for a moment. */
export const AGAIN_AFTER = "200 millis"
/** Requests that confirm a slow answer. */
const CONFIRMATIONS = 3
/** A verbose health answer is 3 KiB. */
const MAXIMUM_BODY = 1024 * 1024
/** Control planes have three or five; more are asked no further. */
const MAXIMUM_REPLICAS = 16

/** One answer, or none, and how long it took. */
export interface Answer {
  readonly path: string
  /** Over a connection of its own. */
  readonly alone?: boolean
  readonly took: Duration.Duration
  readonly result: Result.Result<RawResponse, KubeError>
}

/** The checks a verbose health answer marks as failed (`[-]etcd failed: reason withheld`). */
export const failedChecks = (body: string): ReadonlyArray<string> =>
  [...body.matchAll(/^\[-\](\S+)/gm)].map(([, name]) => name ?? "")

/** What a failure to get any answer says about whom: the server, or our own way to it. */
export const blameOf = (reason: Unreachable): "down" | "expired" | "checker" => {
  if (reason.kind === "expired") return "expired"
  return ["refused", "reset", "timeout", "unanswered"].includes(reason.kind) ? "down" : "checker"
}

const silence = (error: KubeError): Unreachable | undefined =>
  error.reason._tag === "Unreachable" ? error.reason : undefined

const said = (response: RawResponse): string => quote(response.body.trim().split("\n")[0] ?? "", 200)

const expired = (server: string, { detail, kind }: Unreachable): Finding =>
  codes.API_CERT_EXPIRED({
    message: `the certificate of ${server} has expired (${detail}); connections made before it did go on`,
    evidence: { cause: kind }
  })

/** What one path of the server we were told to use says; `answers`: whether another path was answered well. */
export const judgeAnswer = (
  server: string,
  { alone, path, result }: Answer,
  answers: boolean
): ReadonlyArray<Finding> => {
  const rule = `get ${path.split("?")[0]}`
  const unhealthy = path === LIVE ? codes.API_NOT_LIVE : codes.API_NOT_READY
  if (Result.isFailure(result)) {
    const reason = silence(result.failure)
    if (reason !== undefined && blameOf(reason) === "expired") return [expired(server, reason)]
    if (reason !== undefined && blameOf(reason) === "down") {
      return [unhealthy({
        message: `${server} answers, but not ${
          alone === true ? "over a new connection" : `at ${path}`
        }: ${reason.kind}, ${reason.detail}`,
        evidence: { path, cause: reason.kind }
      })]
    }
    const { _tag } = result.failure.reason
    const code = _tag === "Unauthorized" || _tag === "CredentialsUnavailable"
      ? checkerCodes.UNAUTHENTICATED
      : _tag === "Undecodable"
      ? checkerCodes.UNEXPECTED_ANSWER
      : checkerCodes.API_UNREACHABLE
    return [code({ message: result.failure.message })]
  }
  const response = result.success
  const { status } = response
  const evidence = { path, status }
  if (status === 200) return []
  if (status === 401) {
    return [checkerCodes.UNAUTHENTICATED({
      message: `${server} does not accept the credentials (401 at ${path}); renew or correct them`,
      evidence
    })]
  }
  if (status === 403) {
    return [checkerCodes.ACCESS_MISSING({
      message: `not allowed to ${rule}; grant this rule to the prober`,
      evidence: { ...evidence, missing: rule }
    })]
  }
  if (status === 429) {
    return [codes.API_THROTTLED({
      message: `${server} refuses ${path} as one request too many (429): ${said(response)}`,
      evidence
    })]
  }
  if (status < 500) {
    return [checkerCodes.UNEXPECTED_ANSWER({
      message: `${server} answered ${status} at ${path}, which no Kubernetes API server does: ${said(response)}`,
      evidence
    })]
  }
  const failed = failedChecks(response.body)
  if (failed.length === 0) {
    const code = answers ? unhealthy : codes.API_DOWN
    return [code({ message: `${server} answered ${status} at ${path}: ${said(response)}`, evidence })]
  }
  const checks = failed.join(", ")
  return [(failed.every((check) => check === "shutdown") ? codes.API_SHUTTING_DOWN : unhealthy)({
    message: `${server} is not healthy: ${path} says that ${checks} failed`,
    evidence: { ...evidence, failedChecks: checks }
  })]
}

const isGood = ({ result }: Answer): boolean => Result.isSuccess(result) && result.success.status === 200

/** What all paths of the server say together. When none was answered there is one thing to say, not three. */
export const judgeServer = (server: string, answers: ReadonlyArray<Answer>): ReadonlyArray<Finding> => {
  const silences = answers.flatMap(({ result, took }) => {
    const reason = Result.isFailure(result) ? silence(result.failure) : undefined
    return reason === undefined ? [] : [{ reason, took }]
  })
  const first = silences[0]
  if (first === undefined || silences.length < answers.length) {
    const anyGood = answers.some(isGood)
    return answers.flatMap((answer) => judgeAnswer(server, answer, anyGood))
  }
  const worst = silences.find(({ reason }) => blameOf(reason) === "expired") ??
    silences.find(({ reason }) => blameOf(reason) === "down") ?? first
  const { detail, kind } = worst.reason
  const evidence = { cause: kind, tookMillis: Math.round(Duration.toMillis(worst.took)) }
  switch (blameOf(worst.reason)) {
    case "expired":
      return [codes.API_CERT_EXPIRED({ message: `the certificate of ${server} has expired (${detail})`, evidence })]
    case "down":
      return [codes.API_DOWN({ message: `${server} does not answer (${kind}: ${detail})`, evidence })]
    case "checker":
      return [checkerCodes.API_UNREACHABLE({
        message:
          `cannot ask ${server} (${kind}: ${detail}); check its address, the way to it and the CA in the kubeconfig`,
        evidence
      })]
  }
}

/** Whether the path to the server is slow, from answers to requests sent to confirm it. */
export const judgeLatency = (
  server: string,
  confirmations: ReadonlyArray<Duration.Duration>,
  slow: Duration.Duration,
  limits: Hysteresis.Limits
): ReadonlyArray<Finding> => {
  const millis = confirmations.map(Duration.toMillis).sort((a, b) => a - b)
  const median = millis[Math.floor(millis.length / 2)] ?? 0
  const limit = Duration.toMillis(slow)
  return !limits.exceeds(median, limit, { code: codes.API_SLOW }) ? [] : [codes.API_SLOW({
    message:
      `${server} takes ${Duration.format(Duration.millis(Math.round(median)))} (median of ${millis.length}) to ` +
      `answer ${VERSION} (${Hysteresis.text(Duration.format(slow), median > limit)})`,
    evidence: { medianMillis: Math.round(median), limitMillis: limit }
  })]
}

/** One replica's answer to /readyz. */
export interface ReplicaAnswer extends Answer {
  /** `10.0.0.2:6443` */
  readonly address: string
}

/** A Kubernetes API server certainly gave this answer, whatever it says about itself. */
const isHealthAnswer = ({ result }: Answer): boolean =>
  Result.isSuccess(result) && (result.success.status === 200 || failedChecks(result.success.body).length > 0)

/**
 * What each replica says. When `reachable` is not certain, a replica is judged by its silence only if another answers
 * from here; whatever else answers at such an address (from outside the cluster it may be any machine) is no replica.
 */
export const judgeReplicas = (
  answers: ReadonlyArray<ReplicaAnswer>,
  options: { readonly reachable: boolean }
): ReadonlyArray<Finding> => {
  const reachable = options.reachable || answers.some(isHealthAnswer)
  return answers.flatMap((answer) => {
    const subject = { kind: "Endpoint", name: answer.address }
    if (Result.isSuccess(answer.result)) {
      const failed = failedChecks(answer.result.success.body)
      return answer.result.success.status === 200 || failed.length === 0 ? [] : [codes.API_REPLICA_NOT_READY({
        message: `API server ${answer.address} is not ready: ${failed.join(", ")} failed`,
        subject,
        evidence: { failedChecks: failed.join(", ") }
      })]
    }
    const reason = silence(answer.result.failure)
    if (reason?.kind === "tls" && blameOf(reason) === "checker" && options.reachable) {
      return [codes.API_REPLICAS_NOT_ASKED({
        message: `API server ${answer.address} was not asked: ${reason.detail}`,
        subject,
        evidence: { cause: reason.kind }
      })]
    }
    if (reason === undefined || !reachable || blameOf(reason) === "checker") return []
    return [codes.API_REPLICA_DOWN({
      message: `API server ${answer.address} does not answer (${reason.kind}: ${reason.detail})`,
      subject,
      evidence: { cause: reason.kind }
    })]
  })
}

/** `address:port` of each endpoint that should take traffic. */
export const addressesOf = (slice: EndpointSlice): ReadonlyArray<string> => {
  const port = (slice.ports.find(({ name }) => name === "https") ?? slice.ports[0])?.port ?? 443
  return slice.endpoints.flatMap(({ addresses }) => addresses)
    .map((address) => slice.addressType === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`)
}

const decodeVersion = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ gitVersion: Schema.String })))

/**
 * GET `path` within `timeout`, beside all other requests of ours. A connection refused or cut, and an answer that may be
 * another in a moment, is tried once more. Every way it can end is an answer.
 */
const ask = Effect.fnUntraced(
  function*(
    path: string,
    timeout: Duration.Duration,
    { alone = false, server }: { readonly server?: string; readonly alone?: boolean } = {}
  ): Effect.fn.Return<Answer, never, Kube> {
    const kube = yield* Kube
    const late = Effect.fail(
      new KubeError({
        cluster: kube.cluster,
        call: { verb: "get", resource: path },
        reason: new Unreachable({ kind: "timeout", detail: `no answer within ${Duration.format(timeout)}` })
      })
    )
    const [took, result] = yield* kube.raw(path, { server, maximumBytes: MAXIMUM_BODY, atOnce: true, alone }).pipe(
      Stopwatch.within(timeout),
      Effect.flatMap(Option.match({ onNone: () => late, onSome: Effect.succeed })),
      Effect.result,
      Stopwatch.timed
    )
    return { path, took, result, ...(alone ? { alone } : {}) }
  },
  (answer) => Effect.filterOrElse(answer, (first) => !mayPass(first), () => Effect.delay(answer, AGAIN_AFTER))
)

/** Credentials and rights are as they are; what a server says of its own checks takes it long, and another run confirms it. */
const mayPass = ({ result }: Answer): boolean => {
  if (Result.isSuccess(result)) {
    const { body, status } = result.success
    return ![200, 401, 403].includes(status) && failedChecks(body).length === 0
  }
  const reason = silence(result.failure)
  return reason?.kind === "refused" || reason?.kind === "reset"
}

const askServer = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const limits = yield* Hysteresis.limits
  const answers = yield* Effect.forEach(
    [LIVE, `${READY}?verbose`, VERSION],
    // One as a new client asks: a connection that stands does not tell that no other comes about.
    (path) => ask(path, config.timeout, { alone: path === VERSION }),
    { concurrency: "unbounded" }
  )
  const findings = judgeServer(kube.server, answers)
  // One slow answer proves little, and a failed one is said already.
  const isSlow = ({ took }: Answer) => limits.takesLonger(took, config.slow, { code: codes.API_SLOW })
  if (findings.length > 0 || !answers.some(isSlow)) return { answers, findings }
  const again = yield* Effect.forEach(
    Array.from({ length: CONFIRMATIONS }),
    () => ask(VERSION, config.timeout),
    { concurrency: "unbounded" }
  )
  return { answers, findings: judgeLatency(kube.server, again.map(({ took }) => took), config.slow, limits) }
})

/** Replicas are extra: when they cannot be listed, that is only worth a word if they were asked for. */
const askReplicas = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const none = (findings: ReadonlyArray<Finding> = []) => ({ asked: 0, findings })
  if (config.endpoints === "never") return none()
  const reachable = config.endpoints === "always"
  const slice = yield* kube.get(EndpointSlice, { name: "kubernetes", namespace: "default" }).pipe(
    Effect.timeoutOption(config.timeout),
    Effect.result
  )
  if (Result.isFailure(slice)) {
    const { message, reason } = slice.failure
    if (!reachable) return none()
    if (reason._tag === "NotFound") {
      return none([codes.API_NO_ENDPOINTS({ message: "EndpointSlice default/kubernetes does not exist" })])
    }
    return none(reason._tag === "Forbidden" ? [checkerCodes.ACCESS_MISSING({ message })] : [])
  }
  if (Option.isNone(slice.success)) return none()
  const addresses = addressesOf(slice.success.value)
  if (addresses.length === 0 && reachable) {
    return none([codes.API_NO_ENDPOINTS({ message: "EndpointSlice default/kubernetes has no address" })])
  }
  const answers = yield* Effect.forEach(
    addresses.slice(0, MAXIMUM_REPLICAS),
    (address) =>
      Effect.map(
        ask(`${READY}?verbose`, config.endpointTimeout, { server: `https://${address}` }),
        (answer): ReplicaAnswer => ({ ...answer, address })
      ),
    { concurrency: "unbounded" }
  )
  return { asked: answers.filter(isHealthAnswer).length, findings: judgeReplicas(answers, { reachable }) }
})

const versionOf = (answers: ReadonlyArray<Answer>): string => {
  const answer = answers.find(({ path }) => path === VERSION)
  return answer === undefined || Result.isFailure(answer.result)
    ? "API server"
    : Option.match(decodeVersion(answer.result.success.body), {
      onNone: () => "API server",
      onSome: ({ gitVersion }) => `API server ${gitVersion}`
    })
}

const run = Effect.fnUntraced(function*(config: Config) {
  const [server, replicas] = yield* Effect.all([askServer(config), askReplicas(config)], { concurrency: "unbounded" })
  const slowest = Math.max(...server.answers.map(({ took }) => Math.round(Duration.toMillis(took))))
  const others = replicas.asked === 0
    ? ""
    : `; ${counted(replicas.asked, "replica")} ready`
  return Outcome.make(
    `${
      versionOf(server.answers)
    } is live and ready, slowest of ${server.answers.length} answers ${slowest} ms${others}`,
    [...server.findings, ...replicas.findings]
  )
})

export const apiHealth = Probe.make("k8s.api.health", {
  layer: "kubernetes",
  proves: "The API server answers promptly and calls itself live and ready, on every replica within reach.",
  writes: "nothing",
  costs: "4 API requests, and one to each API server behind Service default/kubernetes (16 at most); each that was " +
    "refused without a reason is made once more, and 3 more are made when one was slow.",
  // All optional: no pre-flight may stand between us and the question whether the server is there.
  needs: [
    Needs.path(LIVE, { optional: true }),
    Needs.path(READY, { optional: true }),
    Needs.path(VERSION, { optional: true }),
    Needs.get("endpointslices", {
      group: "discovery.k8s.io",
      namespace: "default",
      names: ["kubernetes"],
      optional: true
    })
  ],
  codes,
  config: Config,
  timeout: "10 seconds",
  timed: [],
  retry: Retry.none,
  // None of three requests was answered well, of which all but silent ones were repeated; a slow answer was confirmed by others; and
  // a certificate does not expire for a moment. All checks wait for this one.
  confirm: { unless: ["API_DOWN", "API_CERT_EXPIRED", "API_SLOW"] },
  run
})
