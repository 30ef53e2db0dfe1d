/**
 * `app.promql`: is a metric within its bounds?
 *
 * Asks the HTTP API of Prometheus, or of whatever speaks it (https://prometheus.io/docs/prometheus/latest/querying/api/),
 * for an expression's value now. Each series of the answer is held against the bounds.
 */
import { Effect, Option, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { HttpCall } from "../../infra/net/HttpCall.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"
import * as Asking from "./asking.ts"
import * as Secrets from "./secrets.ts"

/** Series that are told one by one; the others are counted. */
const MAXIMUM_TOLD = 20

const OPERATORS = ["<", "<=", ">", ">=", "==", "!="] as const

export const PromqlConfig = Schema.Struct({
  url: setting(Asking.HttpUrl, {
    default: "",
    description: "The server, as far as before /api/v1/query: http://prometheus.monitoring.svc:9090."
  }),
  query: setting(Schema.String.check(Schema.isMaxLength(8192)), {
    default: "",
    description: "PromQL whose value is a number or an instant vector: rate(http_requests_total{code=~\"5..\"}[5m])."
  }),
  op: setting(Schema.Literals(OPERATORS), {
    default: "<=",
    description: "How every value must stand to the bounds: `<= 0.05` means that more is a fault."
  }),
  threshold: Schema.optionalKey(
    Schema.Finite.annotate({ description: "The bound; a value that does not stand so to it is an error." })
  ),
  warnThreshold: Schema.optionalKey(
    Schema.Finite.annotate({ description: "A stricter bound; a value that does not stand so to it is a warning." })
  ),
  headers: setting(Asking.Headers, { default: {}, description: "Values, or secrets by reference, as in app.http." }),
  basic: setting(Schema.String, {
    default: "",
    description: "The credential whose keys `username` and `password` are sent by basic authentication."
  }),
  tls: setting(Asking.TlsSettings, { default: {}, description: "Whom to trust, and under which name." }),
  dashboard: setting(Schema.String.check(Schema.isMaxLength(512)), {
    default: "",
    description: "A link for whoever reads the result; told with each fault."
  }),
  timeout: setting(DurationString, { default: "10s", description: "How long the server has to answer." }),
  allowLinkLocal: setting(Schema.Boolean, {
    default: false,
    description: "Whether link-local addresses, and those where clouds serve credentials, are asked."
  })
})
export type PromqlConfig = typeof PromqlConfig.Type

export const codes = {
  ...Codes.make({
    METRIC_OUT_OF_BOUNDS: Codes.error(
      "A value of the query is beyond its bound.",
      "Follow the link in the evidence, if there is one; otherwise graph the query."
    ),
    METRIC_NEAR_BOUND: Codes.warn(
      "A value of the query is beyond its warning bound.",
      "Follow the link in the evidence, if there is one; otherwise graph the query."
    ),
    METRIC_NO_DATA: Codes.unknown(
      "The query has no value now: no such series, none scraped lately, or not a number. Nothing is proven by that.",
      "Check the query and the scrape targets; where nothing means zero, say so in the query: `... or vector(0)`."
    ),
    METRIC_INCOMPLETE: Codes.unknown(
      "The server answered with a warning, such as that a part of its data is missing, so what it shows may not be all.",
      "Read the warning in the message; look at the stores behind the server."
    ),
    QUERY_REFUSED: Codes.unknown(
      "The server does not accept the query, or its answer has no values that can be compared.",
      "Try the query in the server's own page; it must give a number or an instant vector."
    ),
    PROMETHEUS_UNREACHABLE: Codes.unknown(
      "The server that knows the metric did not answer, so nothing is known of the metric.",
      "Look at Prometheus itself, and at the path from the prober to it."
    )
  }),
  ...Asking.askingCodes,
  ...Asking.credentialCodes
}

const Sample = Schema.Tuple([Schema.Finite, Schema.String])
const Labels = Schema.Record(Schema.String, Schema.String)

/** What is read of an answer of the API. */
export const QueryAnswer = Schema.fromJsonString(Schema.Struct({
  status: Schema.Literals(["success", "error"]),
  error: Schema.optionalKey(Schema.String),
  warnings: Schema.optionalKey(Schema.Array(Schema.String)),
  /** Of VictoriaMetrics' cluster version, which goes on answering when some of its storage does not. */
  isPartial: Schema.optionalKey(Schema.Boolean),
  data: Schema.optionalKey(Schema.Union([
    Schema.Struct({
      resultType: Schema.Literal("vector"),
      result: Schema.Array(Schema.Struct({ metric: Labels, value: Schema.optionalKey(Sample) }))
    }),
    Schema.Struct({ resultType: Schema.Literal("scalar"), result: Sample }),
    Schema.Struct({ resultType: Schema.Literal("matrix") }),
    Schema.Struct({ resultType: Schema.Literal("string") })
  ]))
}))
export type QueryAnswer = typeof QueryAnswer.Type

/** Prometheus' own text of numbers: `NaN`, `+Inf` and `-Inf` besides what JSON has. */
const numberOf = (text: string): number =>
  text === "+Inf" || text === "Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text)

const holds = (value: number, op: typeof OPERATORS[number], bound: number): boolean => {
  switch (op) {
    case "<":
      return value < bound
    case "<=":
      return value <= bound
    case ">":
      return value > bound
    case ">=":
      return value >= bound
    case "==":
      return value === bound
    case "!=":
      return value !== bound
  }
}

const nameOf = (labels: Readonly<Record<string, string>>): string => {
  const { __name__: name = "", ...rest } = labels
  const pairs = Object.entries(rest).map(([label, value]) => `${label}=${JSON.stringify(value)}`)
  return `${name}{${pairs.join(", ")}}`.slice(0, 200)
}

type Bounds = Pick<PromqlConfig, "op" | "threshold" | "warnThreshold" | "dashboard" | "query" | "url">

/** The verdict on an answer. */
export const judge = (config: Bounds) => (answer: QueryAnswer): Outcome.Outcome => {
  const { dashboard, op, query, threshold, url, warnThreshold } = config
  const subject = { kind: "Query", name: query.slice(0, 200) }
  if (answer.status === "error" || answer.data === undefined) {
    return Outcome.make("", [
      codes.QUERY_REFUSED({ message: `${url} refuses the query: ${answer.error ?? "it gives no reason"}`, subject })
    ])
  }
  const { data } = answer
  if (data.resultType === "matrix" || data.resultType === "string") {
    return Outcome.make("", [
      codes.QUERY_REFUSED({
        message: `the query gives a ${data.resultType}, not a number or an instant vector`,
        subject
      })
    ])
  }
  const samples = data.resultType === "scalar"
    ? [{ name: "", value: numberOf(data.result[1]) }]
    // A native histogram has no single value.
    : data.result.flatMap(({ metric, value }) =>
      value === undefined ? [] : [{ name: nameOf(metric), value: numberOf(value[1]) }]
    )
  const numbers = samples.filter(({ value }) => !Number.isNaN(value))
  const partial = answer.isPartial === true ? ["the answer is partial (isPartial)"] : []
  const warnings = [...answer.warnings ?? [], ...partial].map((warning) =>
    codes.METRIC_INCOMPLETE({ message: `${url} warns: ${warning}`, subject })
  )
  if (numbers.length < samples.length || numbers.length === 0) {
    const gaps = samples.length - numbers.length
    warnings.push(codes.METRIC_NO_DATA({
      message: samples.length === 0
        ? "the query has no value now"
        : `${gaps} of ${samples.length} values of the query are not a number`,
      subject
    }))
  }
  const told = (limit: number | undefined, code: Codes.Code) => ({ name, value }: typeof numbers[number]): Finding =>
    code({
      message: `${name === "" ? "the query" : name} is ${value}, and must be ${op} ${limit}`,
      subject: name === "" ? subject : { kind: "Series", name },
      evidence: {
        ...(Number.isFinite(value) ? { value } : { value: String(value) }),
        query: query.slice(0, 300),
        ...(dashboard === "" ? {} : { dashboard })
      }
    })
  const beyond = (bound: number | undefined) =>
    bound === undefined ? [] : numbers.filter(({ value }) => !holds(value, op, bound))
  const errors = beyond(threshold)
  const warned = beyond(warnThreshold).filter((sample) => !errors.includes(sample))
  const rest = Math.max(0, errors.length + warned.length - MAXIMUM_TOLD)
  const findings = [
    ...errors.map(told(threshold, codes.METRIC_OUT_OF_BOUNDS)),
    ...warned.map(told(warnThreshold, codes.METRIC_NEAR_BOUND))
  ].slice(0, MAXIMUM_TOLD).map((finding, index) =>
    index === 0 && rest > 0
      ? { ...finding, message: `${finding.message} (${rest} more series are not listed)` }
      : finding
  )
  return Outcome.make(
    `all ${numbers.length} values are ${op} ${warnThreshold ?? threshold}`,
    [...findings, ...warnings.slice(0, MAXIMUM_TOLD)]
  )
}

const decodeAnswer = Schema.decodeUnknownOption(QueryAnswer)

const run = Effect.fnUntraced(function*(config: PromqlConfig) {
  const { query, threshold, url, warnThreshold } = config
  if (url === "") {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: "no `url` is configured, so there is nothing to ask" })
    ])
  }
  if (query === "" || (threshold === undefined && warnThreshold === undefined)) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: "give a `query`, and a `threshold` or a `warnThreshold` to hold its values against"
    })
  }
  const withCredential = config.basic !== "" || Asking.hasSecret(config.headers)
  if (withCredential && config.tls.insecure === true) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: "`tls.insecure` together with a credential: whoever answers would get it; name the authority in `tls.ca`"
    })
  }
  const secrets = yield* Secrets.make
  const http = yield* HttpCall
  const headers = yield* Asking.revealHeaders(config.headers, secrets)
  if (config.basic !== "") headers["authorization"] = yield* Asking.basicAuth(config.basic, secrets)
  headers["content-type"] = "application/x-www-form-urlencoded"
  const subject = { kind: "URL", name: url }
  // By POST, which reads here as well: a query may be longer than a URL.
  const request = Asking.requestOf({
    ...config,
    url: `${url.replace(/\/+$/u, "")}/api/v1/query`,
    method: "POST",
    headers,
    body: new URLSearchParams({ query }).toString(),
    redirects: 0
  })
  const outcome = yield* http.send(request).pipe(Effect.match({
    onFailure: (error) => {
      const about = { message: `Prometheus did not answer: ${error.message}`, subject }
      return Outcome.make("", [Asking.notAsked(error, about) ?? codes.PROMETHEUS_UNREACHABLE(about)])
    },
    onSuccess: (answer) => {
      if (withCredential && (answer.status === 401 || answer.status === 403)) {
        return Outcome.make("", [codes.CREDENTIAL_REJECTED({
          message: `${url} answered ${answer.status} to the configured credential`,
          subject
        })])
      }
      return Option.match(decodeAnswer(answer.body), {
        onSome: judge(config),
        onNone: () =>
          Outcome.make("", [
            codes.PROMETHEUS_UNREACHABLE({
              message: `${url} answered ${answer.status}, and not as the API of Prometheus does${
                answer.truncated ? "; the answer is too long, aggregate in the query" : ""
              }`,
              subject
            })
          ])
      })
    }
  }))
  return Secrets.redactOutcome(secrets, outcome)
})

export const promql = Probe.make("app.promql", {
  asks: "configured",
  layer: "application",
  proves: "Every value of a PromQL query is within its bounds now.",
  writes: "nothing",
  costs: "One query to Prometheus, and none to the API.",
  needs: [],
  codes,
  config: PromqlConfig,
  timeout: "30 seconds",
  run
})
