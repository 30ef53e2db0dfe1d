/**
 * `app.http`: does an endpoint serve its users?
 *
 * Asks as a user does: name, connection, trusted TLS, request, answer; and says how long each took.
 */
import { DateTime, Duration, Effect, Option, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { type HttpAnswer, HttpCall, type HttpRequest, type HttpTimings } from "../../infra/net/HttpCall.ts"
import type { NetError } from "../../infra/net/NetError.ts"
import type { ShownCertificate } from "../../infra/tls/TlsPeer.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import { ofChain, standing } from "../kubernetes/certExpiry.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import * as Asking from "./asking.ts"
import * as Secrets from "./secrets.ts"

/** How often at most, in all, and how long between. */
const MAXIMUM_RETRIES = 5
const FIRST_PAUSE = Duration.millis(500)

export const HttpConfig = Schema.Struct({
  url: setting(Asking.HttpUrl, { default: "", description: "What to ask, such as https://shop.example.com/health." }),
  method: setting(Schema.Literals(["GET", "HEAD", "OPTIONS"]), {
    default: "GET",
    description: "A method that only reads; a request that acts is a step of app.scenario."
  }),
  headers: setting(Asking.Headers, {
    default: {},
    description:
      "Values, or secrets by reference: {authorization: {credential: shop, key: token, prefix: \"Bearer \"}}."
  }),
  basic: setting(Schema.String, {
    default: "",
    description: "The credential whose keys `username` and `password` are sent by basic authentication."
  }),
  expect: setting(Asking.Expectation, {
    default: {},
    description: "What the answer must be: status, body, json, headers. Any 2xx when empty."
  }),
  tls: setting(Asking.TlsSettings, { default: {}, description: "Whom to trust, and under which name." }),
  redirects: setting(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10 })), {
    default: 5,
    description: "Redirects to follow at most; secrets do not follow to another origin."
  }),
  slow: setting(DurationString, { default: "1s", description: "An answer that takes longer is a warning." }),
  certWarn: setting(DurationString, {
    default: "720h",
    description:
      "Less of a certificate left than this (30 days) is a warning; of one that lives short, a fifth of its life."
  }),
  certError: setting(DurationString, {
    default: "168h",
    description: "Less of a certificate left than this (7 days) is an error; of one that lives short, a twentieth."
  }),
  retries: setting(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: MAXIMUM_RETRIES })), {
    default: 2,
    description: "Further tries before a fault is told, the first after 0.5 s."
  }),
  timeout: setting(DurationString, { default: "5s", description: "How long one try may take, redirects included." }),
  allowLinkLocal: setting(Schema.Boolean, {
    default: false,
    description: "Whether link-local addresses, and those where clouds serve credentials, are asked."
  })
})
export type HttpConfig = typeof HttpConfig.Type

export const codes = {
  ...Codes.make({
    HTTP_REFUSED: Codes.error(
      "The address of the endpoint refuses connections: nothing listens there.",
      "Look at the server, and at the Service, Ingress or load balancer before it."
    ),
    HTTP_CUT: Codes.error(
      "The endpoint, or something on the way, cut the connection before the answer was complete.",
      "Read the log of the server at the time of the run, then of the proxies before it."
    ),
    HTTP_TIMED_OUT: Codes.error(
      "The endpoint did not answer in time, or nobody is at its address; the message says how far it came. A firewall that drops " +
        "looks the same.",
      "Look at the load of the server; when it did not even connect, at firewalls between the prober and it."
    ),
    HTTP_GARBLED: Codes.error(
      "What answers does not speak HTTP.",
      "Check the port, and whether the URL should say https."
    ),
    TLS_FAILED: Codes.error(
      "No TLS session came about, or what the server shows is not trusted: users' programs refuse it.",
      "Serve the certificate with its whole chain; when its authority is your own, name it in `tls.ca`."
    ),
    CERT_EXPIRED: Codes.error(
      "The endpoint's certificate, or that of its issuer, has expired or is not valid yet: users' programs refuse it.",
      "Renew it and reload the server."
    ),
    CERT_WRONG_NAME: Codes.error(
      "The endpoint's certificate is for other names than the one it is reached by.",
      "Issue it for this name too, or look which of several certificates the server picks."
    ),
    CERT_EXPIRING: Codes.error(
      "The endpoint's certificate expires within the ERROR limit.",
      "Renew it now; if it should renew itself, look at what does so, such as cert-manager."
    ),
    CERT_EXPIRING_SOON: Codes.warn(
      "The endpoint's certificate expires within the WARN limit.",
      "Plan its renewal; if it should renew itself, look at what does so, such as cert-manager."
    ),
    STATUS_UNEXPECTED: Codes.error(
      "The endpoint answered with another status than expected. 401 and 403 count here only when no credential is configured.",
      "Read the log of the server at the time of the run."
    ),
    ANSWER_UNEXPECTED: Codes.error(
      "The endpoint answered with an expected status and another body or other headers than expected.",
      "Compare the answer with what is expected; when the application has changed, correct the expectation."
    ),
    HTTP_SLOW: Codes.warn(
      "The answer was right and took longer than allowed, the prober's own delays not counted.",
      "See in the evidence which stage took the time: name, connect, TLS handshake or first byte."
    ),
    HTTP_RETRIED: Codes.info(
      "The answer was right only after further tries.",
      "See in the message what the first try met; nothing to do if it stays rare."
    )
  }),
  ...Asking.askingCodes,
  ...Asking.credentialCodes
}

const millis = (duration: Duration.Duration): number => Math.round(Duration.toMillis(duration))

/** The split, in whole milliseconds. */
export const timingEvidence = (timings: HttpTimings) => ({
  nameMillis: millis(timings.name),
  connectMillis: millis(timings.connect),
  tlsMillis: millis(timings.handshake),
  firstByteMillis: millis(timings.firstByte),
  totalMillis: millis(timings.total)
})

const timingText = ({ connect, firstByte, handshake, name }: HttpTimings): string =>
  `name ${millis(name)}, connect ${millis(connect)}, TLS ${millis(handshake)}, first byte ${millis(firstByte)} ms`

/** What one try came to. `took` is the total without the prober's own delays. */
export type Try =
  | { readonly _tag: "Answer"; readonly answer: HttpAnswer; readonly took: Duration.Duration }
  | { readonly _tag: "Failure"; readonly error: NetError }

const FAULTS = {
  refused: codes.HTTP_REFUSED,
  reset: codes.HTTP_CUT,
  timeout: codes.HTTP_TIMED_OUT,
  protocol: codes.HTTP_GARBLED,
  tls: codes.TLS_FAILED
} as const

const faultOf = ({ code, kind }: NetError) => {
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID") return codes.CERT_EXPIRED
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return codes.CERT_WRONG_NAME
  return kind === "dns" || kind === "unreachable" || kind === "forbidden" || kind === "unknown"
    ? checkerCodes.CHECKER_FAILED
    : FAULTS[kind]
}

const certificateEvidence = (certificate: ShownCertificate | undefined) =>
  certificate === undefined ? {} : {
    certificate: certificate.subject,
    issuer: certificate.issuer,
    notAfter: DateTime.formatIso(certificate.notAfter)
  }

const judgeCertificate = (config: HttpConfig, { certificates }: HttpAnswer, now: DateTime.Utc) =>
  Option.match(ofChain(certificates), {
    onNone: () => [],
    onSome: (validity) => {
      const stands = standing(validity, { warn: config.certWarn, error: config.certError }, now)
      if (stands._tag !== "Expiring" && stands._tag !== "ExpiringSoon") return []
      const code = stands._tag === "Expiring" ? codes.CERT_EXPIRING : codes.CERT_EXPIRING_SOON
      const left = Elapsed.text(Elapsed.between(now, validity.notAfter))
      return [code({
        message: `the certificate of ${new URL(config.url).host} expires in ${left}, at ${
          DateTime.formatIso(validity.notAfter)
        } (limit ${Elapsed.text(stands.limit)})`,
        evidence: certificateEvidence(certificates[0])
      })]
    }
  })

const subjectOf = ({ url }: HttpConfig) => ({ kind: "URL", name: url })

/** The verdict on one try. */
export const judge = (
  config: HttpConfig,
  expected: Asking.Expected,
  withCredential: boolean,
  redact: Asking.Redact,
  limits: Hysteresis.Limits = Hysteresis.strict
) =>
(tried: Try, now: DateTime.Utc): Outcome.Outcome => {
  const asked = `${config.method} ${config.url}`
  const subject = subjectOf(config)
  if (tried._tag === "Failure") {
    const { error } = tried
    const message = `${asked}: ${error.message}`
    return Outcome.make("", [
      Asking.notAsked(error, { message, subject }) ??
        faultOf(error)({
          message,
          subject,
          evidence: { stage: error.stage, ...certificateEvidence(error.certificate) }
        })
    ])
  }
  const { answer, took } = tried
  const { timings } = answer
  const evidence = { ...timingEvidence(timings), status: answer.status, address: answer.address }
  if (Asking.isRejected(answer, expected, withCredential)) {
    return Outcome.make("", [
      codes.CREDENTIAL_REJECTED({
        message: `${asked} answered ${answer.status} to the configured credential`,
        subject,
        evidence
      })
    ])
  }
  const wrong = Asking.mismatches(answer, expected, redact)
  const [first] = wrong
  if (first !== undefined) {
    const code = first.of === "status" ? codes.STATUS_UNEXPECTED : codes.ANSWER_UNEXPECTED
    return Outcome.make("", [code({
      message: `${asked}: ${wrong.map(({ text }) => text).join("; ")}`,
      subject,
      evidence: { ...evidence, ...Asking.excerpt(answer, withCredential, redact) }
    })])
  }
  const slow = limits.takesLonger(took, config.slow, { code: codes.HTTP_SLOW, subject })
    ? [codes.HTTP_SLOW({
      message: `${asked} answered in ${millis(took)} ms (${
        Hysteresis.text(`${millis(config.slow)} ms`, Duration.isGreaterThan(took, config.slow))
      }): ${timingText(timings)}`,
      subject,
      evidence
    })]
    : []
  return Outcome.make(
    `${asked} answered ${answer.status} in ${millis(took)} ms: ${timingText(timings)}`,
    [...slow, ...judgeCertificate(config, answer, now).map((finding) => ({ ...finding, subject }))]
  )
}

/** Faults that a second try may not meet. Certificates do not renew themselves in a second. */
const isWorthAnotherTry = ({ findings }: Outcome.Outcome): boolean =>
  findings.some(({ code, status }) =>
    (status === "ERROR" && !code.startsWith("CERT_")) || code === codes.NAME_UNRESOLVED.code ||
    code === codes.NO_ROUTE.code
  )

/** Ask once, and time it. */
export const tryOnce = Effect.fnUntraced(function*(request: HttpRequest) {
  const http = yield* HttpCall
  return yield* Effect.match(Stopwatch.timed(http.send(request)), {
    onSuccess: ([took, answer]): Try => ({ _tag: "Answer", answer, took }),
    onFailure: (error): Try => ({ _tag: "Failure", error })
  })
})

const run = Effect.fnUntraced(function*(config: HttpConfig) {
  if (config.url === "") {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: "no `url` is configured, so there is nothing to ask" })
    ])
  }
  const withCredential = config.basic !== "" || Asking.hasSecret(config.headers)
  if (withCredential && config.tls.insecure === true) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: "`tls.insecure` together with a credential: whoever answers would get it; name the authority in `tls.ca`"
    })
  }
  const limits = yield* Hysteresis.limits
  const secrets = yield* Secrets.make
  const expected = yield* Asking.compile(config.expect)
  const headers = yield* Asking.revealHeaders(
    config.headers,
    secrets
  )
  if (config.basic !== "") headers["authorization"] = yield* Asking.basicAuth(config.basic, secrets)
  const request = Asking.requestOf({ ...config, headers })
  const once = Effect.gen(function*() {
    const tried = yield* tryOnce(request)
    return judge(config, expected, withCredential, secrets.redact, limits)(tried, yield* DateTime.now)
  })
  let outcome = yield* once
  const first = outcome
  for (let again = 0; again < config.retries && isWorthAnotherTry(outcome); again++) {
    yield* Effect.sleep(Duration.times(FIRST_PAUSE, 2 ** again))
    outcome = yield* once
  }
  const [met] = first.findings
  const retried = first !== outcome && met !== undefined && !isWorthAnotherTry(outcome)
    ? [codes.HTTP_RETRIED({
      message: `right only after another try; the first met ${met.code}: ${met.message}`,
      subject: subjectOf(config)
    })]
    : []
  return Secrets.redactOutcome(secrets, Outcome.make(outcome.summary, [...outcome.findings, ...retried]))
})

export const http = Probe.make("app.http", {
  asks: "configured",
  layer: "application",
  proves: "An HTTP endpoint answers as expected and in time, with a certificate that users' programs trust.",
  writes: "nothing",
  costs: "One request to the endpoint (three when it fails), and none to the API.",
  needs: [],
  codes,
  config: HttpConfig,
  timeout: "30 seconds",
  run
})
