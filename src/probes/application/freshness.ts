/**
 * `app.freshness`: is what must be made again and again (a backup, a batch, an export) current?
 *
 * Goes by the last success of a CronJob or of labelled Jobs, or by the age an HTTP object says it has.
 */
import { DateTime, Duration, Effect, Option, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { CronJob, Job } from "../../infra/kube/resources/batch.ts"
import { type HttpAnswer, HttpCall } from "../../infra/net/HttpCall.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Asking from "./asking.ts"
import * as Secrets from "./secrets.ts"

/** Jobs that are looked at; finished ones are kept by the dozen at most (`successfulJobsHistoryLimit`, 3). */
const MAXIMUM_JOBS = 1000

/** An ERROR from this many periods on. */
const ERROR_PERIODS = 2

export const FreshnessConfig = Schema.Struct({
  period: setting(DurationString, {
    default: "24h",
    description:
      "How often it is made. Older than this is a warning, older than twice as much an error; allow for how long it takes."
  }),
  namespace: setting(Schema.String, { default: "", description: "Of the CronJob, or of the Jobs." }),
  cronJob: setting(Schema.String, { default: "", description: "The CronJob that makes it." }),
  jobs: setting(Schema.String, {
    default: "",
    description: "Instead of `cronJob`: a label selector of the Jobs that make it, such as app=backup."
  }),
  url: setting(Asking.HttpUrl, {
    default: "",
    description: "Instead of Jobs: an object whose Last-Modified header says its age."
  }),
  method: setting(Schema.Literals(["HEAD", "GET"]), { default: "HEAD", description: "How the object is asked for." }),
  headers: setting(Asking.Headers, { default: {}, description: "Values, or secrets by reference, as in app.http." }),
  basic: setting(Schema.String, {
    default: "",
    description: "The credential whose keys `username` and `password` are sent by basic authentication."
  }),
  tls: setting(Asking.TlsSettings, { default: {}, description: "Whom to trust, and under which name." }),
  timeout: setting(DurationString, { default: "10s", description: "How long the server has to answer." }),
  allowLinkLocal: setting(Schema.Boolean, {
    default: false,
    description: "Whether link-local addresses, and those where clouds serve credentials, are asked."
  })
})
export type FreshnessConfig = typeof FreshnessConfig.Type

export const codes = {
  ...Codes.make({
    STALE: Codes.error(
      "The last success, or the object, is older than two periods.",
      "Read the logs of the last Jobs, or of whoever writes the object; then make it by hand (`kubectl create job --from`)."
    ),
    GROWING_STALE: Codes.warn(
      "The last success, or the object, is older than one period: a turn was missed or failed.",
      "Read the logs of the last Jobs, or of whoever writes the object."
    ),
    NEVER_MADE: Codes.error(
      "No success is known, and there has been time for two.",
      "Read the logs of the Jobs; when they succeeded and were removed, keep one (`successfulJobsHistoryLimit`)."
    ),
    NOT_YET_MADE: Codes.info(
      "No success is known yet, and none was due for long enough.",
      "Nothing to do, unless it stays so."
    ),
    SOURCE_MISSING: Codes.error(
      "The CronJob is not there, no Job has the label, or the server says that there is no such object: nothing makes it any more.",
      "Restore it, or correct the configuration."
    ),
    SOURCE_FAILING: Codes.error(
      "The server of the object refuses, cuts, is late, or answers with an error, so the object cannot be fetched.",
      "Look at the server; app.http tells more of it."
    ),
    AGE_UNSAID: Codes.unknown(
      "The object is there and its answer has no Last-Modified header that can be read, so its age is not known.",
      "Ask for another object of the same make, or have the server send the header."
    ),
    JOBS_NOT_ALL_READ: Codes.unknown(
      `More Jobs are there than are read (${MAXIMUM_JOBS}, by name), and those that were do not show that it is current: a later success may be among the others.`,
      "Remove finished Jobs (`ttlSecondsAfterFinished`, `successfulJobsHistoryLimit`), or name fewer by the label in `jobs`."
    )
  }),
  ...Asking.askingCodes,
  ...Asking.credentialCodes
}

/** What is known of something made periodically. */
export interface Seen {
  readonly what: string
  readonly subject: Subject
  /** When it was made last; none when never. */
  readonly last: Option.Option<DateTime.Utc>
  /** Since when it should be made. */
  readonly since: DateTime.Utc
  readonly now: DateTime.Utc
  /** Said after the message, such as that a CronJob is suspended. */
  readonly besides: string
  /** Jobs that are there and were not read. */
  readonly unread: number
}

const judgeSeen = (period: Duration.Duration) => (seen: Seen): Outcome.Outcome => {
  const { besides, last, now, since, subject, what } = seen
  const limit = Duration.times(period, ERROR_PERIODS)
  if (Option.isNone(last)) {
    const age = Elapsed.between(since, now)
    const message = `${what}: no success is known since it is there, ${Elapsed.text(age)} ago${besides}`
    return Outcome.make("", [
      (Duration.isGreaterThan(age, limit) ? codes.NEVER_MADE : codes.NOT_YET_MADE)({ message, subject })
    ])
  }
  const age = Elapsed.between(last.value, now)
  const evidence = { last: DateTime.formatIso(last.value), ageSeconds: Math.round(Duration.toSeconds(age)) }
  const findings: ReadonlyArray<Finding> = Duration.isGreaterThan(age, limit)
    ? [codes.STALE({
      message: `${what} was made last ${Elapsed.text(age)} ago (limit ${Elapsed.text(limit)})${besides}`,
      subject,
      evidence
    })]
    : Duration.isGreaterThan(age, period)
    ? [codes.GROWING_STALE({
      message: `${what} was made last ${Elapsed.text(age)} ago (limit ${Elapsed.text(period)})${besides}`,
      subject,
      evidence
    })]
    : []
  return Outcome.make(`${what} was made ${Elapsed.text(age)} ago (every ${Elapsed.text(period)})`, findings)
}

/** The verdict on what was seen. What was not read could refute any but a good one. */
export const judge = (period: Duration.Duration) => (seen: Seen): Outcome.Outcome => {
  const outcome = judgeSeen(period)(seen)
  if (seen.unread === 0 || outcome.findings.length === 0) return outcome
  return Outcome.make("", [codes.JOBS_NOT_ALL_READ({
    message:
      `${seen.what}: among the ${MAXIMUM_JOBS} Jobs that were read none shows that it is current, and at least ${seen.unread} more were not read`,
    subject: seen.subject,
    evidence: {
      unread: seen.unread,
      ...(Option.isNone(seen.last) ? {} : { last: DateTime.formatIso(seen.last.value) })
    }
  })])
}

const isComplete = ({ status }: Job): boolean =>
  status.conditions.some(({ status, type }) => type === "Complete" && status === "True")

const isFailed = ({ status }: Job): boolean =>
  status.conditions.some(({ status, type }) => type === "Failed" && status === "True")

const latest = (times: ReadonlyArray<DateTime.Utc | undefined>): Option.Option<DateTime.Utc> =>
  times.reduce<Option.Option<DateTime.Utc>>(
    (found, time) =>
      time === undefined || (Option.isSome(found) && !DateTime.isGreaterThan(time, found.value))
        ? found
        : Option.some(time),
    Option.none()
  )

const oldest = (times: ReadonlyArray<DateTime.Utc | undefined>, now: DateTime.Utc): DateTime.Utc =>
  times.reduce<DateTime.Utc>(
    (found, time) => time === undefined || DateTime.isGreaterThan(time, found) ? found : time,
    now
  )

/** Failed since the last success: how many, as a clause. */
const failures = (jobs: ReadonlyArray<Job>, last: Option.Option<DateTime.Utc>): string => {
  const failed =
    jobs.filter((job) =>
      isFailed(job) && (Option.isNone(last) || job.metadata.creationTimestamp === undefined ||
        DateTime.isGreaterThan(job.metadata.creationTimestamp, last.value))
    ).length
  return failed === 0 ? "" : `; ${failed} Jobs have failed since`
}

const ofJobs = Effect.fnUntraced(function*(config: FreshnessConfig) {
  const kube = yield* Kube
  const { cronJob, namespace } = config
  const now = yield* ServerTime.nowOrOurs
  const { items, remaining } = yield* kube.list(Job, {
    namespace,
    maximum: MAXIMUM_JOBS,
    ...(config.jobs === "" ? {} : { labelSelector: config.jobs })
  })
  if (cronJob === "") {
    const subject = { kind: "Job", name: config.jobs, namespace }
    const [first] = items
    if (first === undefined) {
      return Outcome.make("", [codes.SOURCE_MISSING({
        message: `namespace ${namespace} has no Job with the label ${config.jobs}`,
        subject
      })])
    }
    const last = latest(items.filter(isComplete).map(({ status }) => status.completionTime))
    return judge(config.period)({
      what: `what Jobs ${config.jobs} of namespace ${namespace} make`,
      subject,
      last,
      since: oldest(items.map(({ metadata }) => metadata.creationTimestamp), now),
      now,
      besides: failures(items, last),
      unread: remaining
    })
  }
  const subject = { kind: "CronJob", name: cronJob, namespace }
  const found = yield* kube.get(CronJob, { name: cronJob, namespace }).pipe(
    Effect.map(Option.some),
    Effect.catchIf(
      ({ reason }) => reason._tag === "NotFound" && reason.what !== "resource",
      () => Effect.succeed(Option.none<CronJob>())
    )
  )
  if (Option.isNone(found)) {
    return Outcome.make("", [codes.SOURCE_MISSING({ message: `there is no CronJob ${namespace}/${cronJob}`, subject })])
  }
  const { metadata, spec, status } = found.value
  const own = items.filter((job) =>
    job.metadata.ownerReferences?.some(({ kind, name }) => kind === "CronJob" && name === cronJob) === true
  )
  // The CronJob remembers successes whose Jobs are removed; a Job made from it by hand counts as well.
  const last = latest([status.lastSuccessfulTime, ...own.filter(isComplete).map(({ status }) => status.completionTime)])
  return judge(config.period)({
    what: `what CronJob ${namespace}/${cronJob} makes`,
    subject,
    last,
    since: metadata.creationTimestamp ?? now,
    now,
    besides: `${failures(own, last)}${spec.suspend ? "; the CronJob is suspended" : ""}`,
    unread: remaining
  })
})

const httpDate = (text: string | undefined): Option.Option<DateTime.Utc> =>
  text === undefined ? Option.none() : DateTime.make(text).pipe(Option.map(DateTime.toUtc))

const judgeObject = (
  config: FreshnessConfig,
  answer: HttpAnswer,
  withCredential: boolean,
  redact: Asking.Redact,
  ours: DateTime.Utc
) => {
  const subject = { kind: "URL", name: config.url }
  const { headers, status } = answer
  const said = `${config.method} ${config.url} answered ${status}`
  if (withCredential && (status === 401 || status === 403)) {
    return Outcome.make("", [codes.CREDENTIAL_REJECTED({ message: `${said} to the configured credential`, subject })])
  }
  if (status === 404 || status === 410) return Outcome.make("", [codes.SOURCE_MISSING({ message: said, subject })])
  if (status < 200 || status > 299) {
    return Outcome.make("", [
      codes.SOURCE_FAILING({
        message: said,
        subject,
        evidence: { status, ...Asking.excerpt(answer, withCredential, redact) }
      })
    ])
  }
  const modified = httpDate(headers["last-modified"])
  if (Option.isNone(modified)) {
    return Outcome.make("", [
      codes.AGE_UNSAID({ message: `${said} without a Last-Modified header that can be read`, subject })
    ])
  }
  return judge(config.period)({
    what: config.url,
    subject,
    last: modified,
    since: modified.value,
    // By the server's own clock, where it says it: that is the one that stamped the object.
    now: Option.getOrElse(httpDate(headers["date"]), () => ours),
    besides: "",
    unread: 0
  })
}

const ofObject = Effect.fnUntraced(function*(config: FreshnessConfig) {
  const http = yield* HttpCall
  const secrets = yield* Secrets.make
  const withCredential = config.basic !== "" || Asking.hasSecret(config.headers)
  if (withCredential && config.tls.insecure === true) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: "`tls.insecure` together with a credential: whoever answers would get it; name the authority in `tls.ca`"
    })
  }
  const headers = yield* Asking.revealHeaders(config.headers, secrets)
  if (config.basic !== "") headers["authorization"] = yield* Asking.basicAuth(config.basic, secrets)
  const ours = yield* DateTime.now
  const outcome = yield* http.send(Asking.requestOf({ ...config, headers, redirects: 5 })).pipe(Effect.match({
    onFailure: (error) => {
      const about = {
        message: `${config.method} ${config.url}: ${error.message}`,
        subject: { kind: "URL", name: config.url }
      }
      return Outcome.make("", [Asking.notAsked(error, about) ?? codes.SOURCE_FAILING(about)])
    },
    onSuccess: (answer) => judgeObject(config, answer, withCredential, secrets.redact, ours)
  }))
  return Secrets.redactOutcome(secrets, outcome)
})

const run = Effect.fnUntraced(function*(config: FreshnessConfig) {
  const sources = [config.cronJob, config.jobs, config.url].filter((source) => source !== "")
  if (sources.length === 0) {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({
        message: "neither `cronJob`, `jobs` nor `url` is configured, so there is nothing to ask"
      })
    ])
  }
  if (sources.length > 1 || (config.url === "" && config.namespace === "")) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: sources.length > 1
        ? "give one of `cronJob`, `jobs` and `url`"
        : "give the `namespace` of the CronJob or of the Jobs"
    })
  }
  return config.url === "" ? yield* ofJobs(config) : yield* ofObject(config)
})

export const freshness = Probe.make("app.freshness", {
  asks: "configured",
  layer: "application",
  proves: "What is made periodically, such as a backup, was made within its period.",
  writes: "nothing",
  costs: "One list of the namespace's Jobs and one read of the CronJob, or one request to the server of the object.",
  needs: [
    // Optional in the declaration, because an object of a server needs neither; where Jobs are asked for, both must be there.
    Needs.list("jobs", { group: "batch", optional: true }),
    Needs.get("cronjobs", { group: "batch", optional: true }),
    ServerTime.needs
  ],
  codes,
  config: FreshnessConfig,
  timeout: "30 seconds",
  dependsOn: ["k8s.api.health"],
  run
})
