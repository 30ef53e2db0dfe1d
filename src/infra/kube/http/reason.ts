/**
 * From what the wire said to why a request failed: `Status` answers and network errors to {@link KubeErrorReason}.
 *
 * The API server tells authorization from admission only by its message, so the messages are matched here, once. They are
 * quoted with their source; each is proven against a real server in `test/kube`.
 */
import { Option, Schema } from "effect"
import { quote } from "../../../domain/Redaction.ts"
import { IN_SHORT, type SocketFault, codeOf, foremostOf, socketFaultOf } from "../../net/socketFault.ts"
import {
  AdmissionDenied,
  Conflict,
  Expired,
  Forbidden,
  Invalid,
  type KubeErrorReason,
  NotFound,
  ServerFault,
  TooManyRequests,
  Unauthorized,
  Unreachable
} from "../KubeError.ts"
import { count, listOf, maybe, part } from "../KubeResource.ts"

/** What the server says when it does not do what was asked (`meta/v1` Status). */
export const Status = Schema.Struct({
  kind: Schema.Literal("Status"),
  code: maybe(Schema.Int),
  reason: maybe(Schema.String),
  message: maybe(Schema.String),
  details: part({
    name: maybe(Schema.String),
    kind: maybe(Schema.String),
    retryAfterSeconds: count,
    causes: listOf(Schema.Struct({
      reason: maybe(Schema.String),
      message: maybe(Schema.String),
      field: maybe(Schema.String)
    }))
  })
})
export type Status = typeof Status.Type

const decodeStatus = Schema.decodeUnknownOption(Schema.fromJsonString(Status))

/** Long enough for any message a person reads, short enough for a log line and a report. */
const MAXIMUM_DETAIL = 2_000

/** UTF-16 code units of a message in which the server's own words are looked for; they stand at its beginning. */
const MAXIMUM_MATCHED = 8 * 1024

/** UTF-16 code units of a page that is no `Status`, of which 200 are quoted once its tags are gone. */
const MAXIMUM_PAGE = 64 * 1024

/** What is wrong with an object's fields; the server names each field once. */
const MAXIMUM_CAUSES = 64

const bounded = (text: string): string => text.length > MAXIMUM_DETAIL ? quote(text, MAXIMUM_DETAIL) : text

/**
 * Who refused, if admission did.
 *
 * - `admission webhook "w" denied the request: ...` (apiserver admission/plugin/webhook/errors/statuserror.go; any status)
 * - `failed calling webhook "w": ...` (webhook/errors/failed_calling_webhook; 500 InternalError)
 * - `ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ...` (plugin/policy/validating/dispatcher.go)
 * - `exceeded quota: q, ...`, `failed quota: q: ...` (plugin/resourcequota/controller.go)
 * - `violates PodSecurity "level:version": ...` (pod-security-admission/admission)
 * - `because it is being terminated` (plugin/namespace/lifecycle)
 */
const admission = (message: string): AdmissionDenied | undefined => {
  const detail = bounded(message)
  const text = message.slice(0, MAXIMUM_MATCHED)
  const denied = /admission webhook "([^"]+)" denied the request/.exec(text)
  if (denied !== null) return new AdmissionDenied({ kind: "webhook-denied", by: denied[1], detail })
  const failed = /failed calling webhook "([^"]+)"/.exec(text)
  if (failed !== null) return new AdmissionDenied({ kind: "webhook-failed", by: failed[1], detail })
  const policy = /AdmissionPolicy '([^']+)' with binding '[^']*' denied request/.exec(text)
  if (policy !== null) return new AdmissionDenied({ kind: "policy", by: policy[1], detail })
  const quota = /is forbidden: (?:exceeded|failed) quota: ([^,:\s]+)/.exec(text)
  if (quota !== null) return new AdmissionDenied({ kind: "quota", by: quota[1], detail })
  const security = /is forbidden: violates PodSecurity "([^"]+)"/.exec(text)
  if (security !== null) return new AdmissionDenied({ kind: "pod-security", by: security[1], detail })
  return /is forbidden: unable to create new content in namespace \S+ because it is being terminated/.test(text)
    ? new AdmissionDenied({ kind: "namespace-terminating", detail })
    : undefined
}

/** `User "u" cannot list resource ...` (apiserver endpoints/handlers/responsewriters/errors.go), and RBAC's escalation check. */
const AUTHORIZATION = /\b[Uu]ser "([^"]*)"(?: \(groups=[^)]*\))? (?:cannot|is attempting to grant)/

const forbidden = (status: Status, message: string, retryAfter: number | undefined): KubeErrorReason => {
  const detail = bounded(message)
  const user = AUTHORIZATION.exec(message.slice(0, MAXIMUM_MATCHED))?.[1]
  if (user !== undefined) return new Forbidden({ detail, user })
  // The server's own plugins are still starting (apiserver admission/initializer): waiting helps.
  if (message.includes("not yet ready to handle request")) {
    return new ServerFault({ status: 403, detail, retryAfter })
  }
  // All other admission plugins (LimitRanger, ServiceAccount, Priority, ...): "pods \"x\" is forbidden: why".
  return status.details.name !== undefined || message.includes(" is forbidden: ")
    ? new AdmissionDenied({ kind: "policy", detail })
    : new Forbidden({ detail })
}

/** RFC 9110 section 10.2.3, in seconds; the API server never sends the date form. Milliseconds. */
const parseRetryAfter = (header: string | undefined): number | undefined =>
  header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) * 1000 : undefined

/**
 * Why an answer outside 2xx came. Total: every status and body has a reason.
 *
 * Use for HTTP answers; `retryAfter` is the header of that name.
 */
export const reasonOfAnswer = (answer: {
  readonly status: number
  readonly body: string
  readonly retryAfter?: string | undefined
}): KubeErrorReason =>
  Option.match(decodeStatus(answer.body), {
    onNone: () => reasonOfForeign(answer.status, answer.body, parseRetryAfter(answer.retryAfter)),
    onSome: (status) => reasonOfStatus(answer.status, status, parseRetryAfter(answer.retryAfter))
  })

/** Why, when a `Status` says so: in an HTTP answer or in a watch's ERROR frame. */
export const reasonOfStatus = (code: number, status: Status, retryAfterHeader?: number): KubeErrorReason => {
  const message = status.message ?? status.reason ?? `status ${code}`
  const detail = bounded(message)
  const retryAfter = retryAfterHeader ??
    (status.details.retryAfterSeconds > 0 ? status.details.retryAfterSeconds * 1000 : undefined)
  const refused = code >= 400 ? admission(message) : undefined
  if (refused !== undefined) return refused
  const causes = status.details.causes.slice(0, MAXIMUM_CAUSES).map((cause) => {
    const said = cause.message ?? cause.reason ?? "invalid"
    return bounded(cause.field === undefined ? said : `${cause.field}: ${said}`)
  })
  switch (code) {
    case 401:
      return new Unauthorized({ detail })
    case 403:
      return forbidden(status, message, retryAfter)
    case 404:
      return new NotFound({ what: status.details.name === undefined ? "resource" : "object", detail })
    case 405:
      return new NotFound({ what: "resource", detail })
    case 409:
      return new Conflict({ kind: status.reason === "AlreadyExists" ? "already-exists" : "conflict", detail })
    case 410:
      return new Expired({ detail })
    case 429:
      return new TooManyRequests({ detail, retryAfter })
  }
  return code >= 400 && code < 500
    ? new Invalid({ detail, causes })
    : new ServerFault({ status: code, detail, retryAfter })
}

/** An answer without a `Status`: an old path (`404 page not found`), a proxy, a login page, or not Kubernetes at all. */
const reasonOfForeign = (status: number, body: string, retryAfter: number | undefined): KubeErrorReason => {
  const text = body.slice(0, MAXIMUM_PAGE).replaceAll(/<[^<>]*>/g, " ").replaceAll(/\s+/g, " ").trim()
  const detail = text === "" ? "no explanation" : quote(text, 200)
  switch (status) {
    case 401:
      return new Unauthorized({ detail })
    case 404:
      return text === "404 page not found"
        ? new NotFound({ what: "resource", detail })
        : new ServerFault({ status, detail })
    case 410:
      return new Expired({ detail })
    case 429:
      return new TooManyRequests({ detail, retryAfter })
    default:
      return new ServerFault({ status, detail, retryAfter })
  }
}

const KINDS: Readonly<Record<SocketFault, Unreachable["kind"]>> = {
  ...IN_SHORT,
  unroutable: "unknown",
  unanswered: "unanswered",
  expired: "expired",
  protocol: "unknown"
}

/** How a connection fails that does not come about; to a proxy, where there is one. */
const UNCONNECTED: ReadonlySet<SocketFault> = new Set(["dns", "unroutable", "unanswered", "refused"])

/**
 * Why there was no answer. `cause` is what the socket or the HTTP parser threw; `proxy` is asked in the place of the server,
 * which is not to blame when it cannot be.
 */
export const reasonOfNetwork = (cause: unknown, proxy?: string): Unreachable => {
  const foremost = foremostOf(cause)
  const code = codeOf(foremost)
  const fault = socketFaultOf(code)
  // undici's, of a server that has taken the request.
  const kind = /^UND_ERR_(HEADERS|BODY)_TIMEOUT$/u.test(code) ? "timeout" : KINDS[fault]
  if (proxy !== undefined && UNCONNECTED.has(fault)) {
    return new Unreachable({ kind: "unknown", detail: `the proxy ${proxy} cannot be reached (${fault})` })
  }
  const message = foremost instanceof Error ? foremost.message : ""
  const detail = [code, message].filter((text) => text !== "").join(", ")
  return new Unreachable({ kind, detail: bounded(detail === "" ? "no reason given" : detail) })
}
