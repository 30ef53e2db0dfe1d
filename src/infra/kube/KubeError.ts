/**
 * What can go wrong with a request to a Kubernetes API server.
 *
 * One error type with a tagged `reason`, so that callers branch on the reason and people read `message`, which names
 * the call, the cluster, the cause and the next step. Reasons follow the `reason` of a Kubernetes `Status`
 * (https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.35/#status-v1-meta).
 */
import { Data, Schema } from "effect"

/**
 * No HTTP answer. `unanswered`: nobody is at the address, or none that takes a connection in time. `timeout`: silent for too
 * long, be it before or after it took the request. `tls`: not trusted, or no session came about; `expired`: because a
 * certificate of the server's is out of date.
 */
export class Unreachable extends Data.TaggedClass("Unreachable")<{
  readonly kind: "refused" | "dns" | "unanswered" | "tls" | "expired" | "reset" | "timeout" | "unknown"
  readonly detail: string
}> {}

/** 401: the credentials are missing, expired or unknown to the server. */
export class Unauthorized extends Data.TaggedClass("Unauthorized")<{ readonly detail: string }> {}

/** Nothing was sent: the credentials could not be had here, such as from a plugin or a file. `detail` tells it whole. */
export class CredentialsUnavailable extends Data.TaggedClass("CredentialsUnavailable")<{ readonly detail: string }> {}

/** 403 by authorization: RBAC or another authorizer says no. `user` is as the server names it, when it does. */
export class Forbidden extends Data.TaggedClass("Forbidden")<{
  readonly detail: string
  readonly user?: string | undefined
}> {}

/**
 * 4xx or 500 by admission: a webhook, a quota, pod security, a terminating namespace or any other admission plugin or
 * policy (`policy`) said no.
 */
export class AdmissionDenied extends Data.TaggedClass("AdmissionDenied")<{
  readonly kind: "webhook-denied" | "webhook-failed" | "quota" | "pod-security" | "namespace-terminating" | "policy"
  /** The webhook or policy that decided, when the server names it. */
  readonly by?: string | undefined
  readonly detail: string
}> {}

/** 404. `what` tells a missing object from a kind the server does not serve. */
export class NotFound extends Data.TaggedClass("NotFound")<{
  readonly what: "object" | "resource"
  readonly detail: string
}> {}

/** 409: it exists already, or it changed since it was read. */
export class Conflict extends Data.TaggedClass("Conflict")<{
  readonly kind: "already-exists" | "conflict"
  readonly detail: string
}> {}

/** 422 or 400: the object is not valid. `causes` are `field: message`. */
export class Invalid extends Data.TaggedClass("Invalid")<{
  readonly detail: string
  readonly causes: ReadonlyArray<string>
}> {}

/** 410: the resource version is too old to continue from. */
export class Expired extends Data.TaggedClass("Expired")<{ readonly detail: string }> {}

/** 429: the server sheds load. `retryAfter` in milliseconds, when given. */
export class TooManyRequests extends Data.TaggedClass("TooManyRequests")<{
  readonly retryAfter?: number | undefined
  readonly detail: string
}> {}

/** Any other 5xx or an answer that is not Kubernetes'. `retryAfter` in milliseconds, when given. */
export class ServerFault extends Data.TaggedClass("ServerFault")<{
  readonly status: number
  readonly retryAfter?: number | undefined
  readonly detail: string
}> {}

/** The answer did not have the fields we read. `issue` names the path. */
export class Undecodable extends Data.TaggedClass("Undecodable")<{ readonly issue: string }> {}

/** The probe did not declare this call in its `needs`; nothing was sent. */
export class Undeclared extends Data.TaggedClass("Undeclared")<{ readonly rule: string }> {}

/** Nothing was sent: the budget of the prober's own requests or pods had no room in time. `detail` tells it whole. */
export class BudgetExhausted extends Data.TaggedClass("BudgetExhausted")<{ readonly detail: string }> {}

export type KubeErrorReason =
  | Unreachable
  | Unauthorized
  | CredentialsUnavailable
  | Forbidden
  | AdmissionDenied
  | NotFound
  | Conflict
  | Invalid
  | Expired
  | TooManyRequests
  | ServerFault
  | Undecodable
  | Undeclared
  | BudgetExhausted

/** What was asked, in RBAC's words, so that a message can print the rule that is missing. */
export const KubeCall = Schema.Struct({
  verb: Schema.String,
  group: Schema.optionalKey(Schema.String),
  /** Plural, with `/subresource`; or the path of a non-resource URL. */
  resource: Schema.String,
  namespace: Schema.optionalKey(Schema.String),
  name: Schema.optionalKey(Schema.String)
})
export type KubeCall = typeof KubeCall.Type

/** `list nodes`, `create pods in team-a`, `get deployments.apps/web in shop`. */
export const describeCall = (call: KubeCall): string => {
  const resource = call.group === undefined || call.group === "" ? call.resource : `${call.resource}.${call.group}`
  const name = call.name === undefined ? "" : `/${call.name}`
  return `${call.verb} ${resource}${name}${call.namespace === undefined ? "" : ` in ${call.namespace}`}`
}

const explain = (reason: KubeErrorReason, call: KubeCall): string => {
  switch (reason._tag) {
    case "Unreachable":
      return `the API server did not answer (${reason.kind}: ${reason.detail}); check its address, network path and certificate`
    case "Unauthorized":
      return `the API server does not accept the credentials (${reason.detail}); renew or correct them`
    case "CredentialsUnavailable":
      return reason.detail
    case "Forbidden":
      return `not allowed${reason.user === undefined ? "" : ` for ${reason.user}`}; grant the rule: ${
        describeCall(call)
      }`
    case "AdmissionDenied":
      return `admission refused it (${reason.kind}${
        reason.by === undefined ? "" : ` by ${reason.by}`
      }): ${reason.detail}`
    case "NotFound":
      return reason.what === "object"
        ? `not found: ${reason.detail}`
        : `the server does not serve this kind: ${reason.detail}`
    case "Conflict":
      return `${reason.kind === "already-exists" ? "it exists already" : "it changed meanwhile"}: ${reason.detail}`
    case "Invalid":
      return `the object is not valid: ${reason.causes.length > 0 ? reason.causes.join("; ") : reason.detail}`
    case "Expired":
      return `the resource version is too old: ${reason.detail}`
    case "TooManyRequests":
      return `the API server sheds load: ${reason.detail}`
    case "ServerFault":
      return `the API server answered ${reason.status}: ${reason.detail}`
    case "Undecodable":
      return `the answer could not be read: ${reason.issue}`
    case "BudgetExhausted":
      return reason.detail
    case "Undeclared":
      return `the probe does not declare this call; add to its needs: ${reason.rule}`
  }
}

/** A request that failed. Branch on `reason._tag`; print `message`. */
export class KubeError extends Data.TaggedError("KubeError")<{
  readonly cluster: string
  readonly call: KubeCall
  readonly reason: KubeErrorReason
}> {
  override get message(): string {
    return `${describeCall(this.call)} on ${this.cluster}: ${explain(this.reason, this.call)}`
  }
}

/** Whether trying the same read again may help: the fault lies in the path or in load, not in what was asked. */
export const isTransient = (error: KubeError): boolean => {
  switch (error.reason._tag) {
    case "Unreachable":
      return error.reason.kind !== "tls" && error.reason.kind !== "expired"
    case "TooManyRequests":
    case "Expired":
    case "ServerFault":
      return true
    default:
      return false
  }
}
