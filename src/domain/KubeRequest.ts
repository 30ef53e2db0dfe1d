/**
 * Which requests to a managed cluster's API server pass through a master: reading objects, watching them, logs, and what
 * kubectl needs to find its way. Nothing else, whoever asks: both ends of a link check by this.
 *
 * A path is taken apart and put together again, so that what is judged here is what the API server sees.
 */
import { Result, Schema } from "effect"

/** What is asked of the API server, by its own verbs (https://kubernetes.io/docs/reference/access-authn-authz/authorization). */
export const KubeVerb = Schema.Literals(["get", "list", "watch", "create"])
export type KubeVerb = typeof KubeVerb.Type

/** A request that may pass. */
export interface KubeRequest {
  readonly verb: KubeVerb
  /** As it is sent on, each segment encoded anew; with no query. */
  readonly path: string
  /** With its question mark; empty when there is none. May hold names of objects, never log it. */
  readonly query: string
  /** Whether the answer may go on for as long as somebody reads. */
  readonly isLong: boolean
}

/** It does not pass. */
export interface RefusedKubeRequest {
  readonly status: 400 | 403 | 405 | 414
  /** For a person, in one sentence. */
  readonly why: string
}

/** Longer than any request of kubectl; what an HTTP/2 header of a link holds easily. */
const MAX_TARGET = 8 << 10

const refuse = (status: RefusedKubeRequest["status"], why: string) => Result.fail<RefusedKubeRequest>({ status, why })

/** Whether this is, decoded, one segment of a path that no server resolves to another. */
const isSegment = (text: string): boolean =>
  // Printable ASCII without / \ % ? #.
  text !== "." && text !== ".." && /^[!"$&-.0->@-[\]-~]+$/u.test(text)

const decodeUri = Schema.decodeResult(Schema.StringFromUriComponent)

const decodeSegment = (raw: string): string | undefined => {
  const decoded = decodeUri(raw)
  return Result.isSuccess(decoded) && isSegment(decoded.success) ? decoded.success : undefined
}

/** The decoded segments of a path that begins with a slash; none of one that could be read in two ways. */
export const segmentsOf = (path: string): ReadonlyArray<string> | undefined => {
  if (!path.startsWith("/")) return undefined
  const segments = path.slice(1).split("/").map(decodeSegment)
  return segments.every((segment) => segment !== undefined) ? segments : undefined
}

/** The part before the question mark, and the rest. */
export const splitTarget = (target: string): readonly [path: string, query: string] => {
  const at = target.indexOf("?")
  return at < 0 ? [target, ""] : [target.slice(0, at), target.slice(at)]
}

/** Paths of no object, by their first segments, that tell what a server is and serves. */
const DISCOVERY = new Set(["version", "openapi", "healthz", "livez", "readyz"])

/** Questions about oneself, which the API server takes as POST: kubectl auth can-i, kubectl auth whoami. */
const REVIEWS = new Set([
  "apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
  "apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
  "apis/authentication.k8s.io/v1/selfsubjectreviews"
])

/** Parts of an object that can be read. All others do something, or open a connection into the cluster. */
const READABLE = new Set(["log", "status", "scale"])

/** Parts of a Namespace; anything else after its name is a kind of object in it (apiserver pkg/endpoints/request). */
const OF_NAMESPACE = new Set(["status", "finalize"])

/** Judge a request by its method and the target after the cluster's name: `/api/v1/pods?limit=500`. */
export const read = (
  method: string,
  target: string
): Result.Result<KubeRequest, RefusedKubeRequest> => {
  if (target.length > MAX_TARGET) return refuse(414, `the path and query are longer than ${MAX_TARGET} characters`)
  const [path, query] = splitTarget(target)
  // Of a URL's own characters alone (RFC 3986 section 3.4).
  if (/[^\w\-.~!$&'()*+,;=:@/?%]/u.test(query.slice(1))) {
    return refuse(400, "the query has characters that no query has")
  }
  const segments = segmentsOf(path)
  if (segments === undefined) return refuse(400, "the path can be read in more than one way")
  const pass = (verb: KubeVerb, isLong = false) =>
    Result.succeed({ verb, path: `/${segments.map(encodeURIComponent).join("/")}`, query, isLong })

  if (method === "POST") {
    return REVIEWS.has(segments.join("/"))
      ? pass("create")
      : refuse(403, "through a master nothing is written; reach the cluster directly for that")
  }
  if (method !== "GET" && method !== "HEAD") {
    return refuse(
      405,
      `through a master nothing is written (${method.slice(0, 16)}); reach the cluster directly for that`
    )
  }
  const [root = "", ...below] = segments
  if (DISCOVERY.has(root)) return pass("get")
  // api/VERSION or apis/GROUP/VERSION, and then objects.
  const depth = root === "api" ? 1 : root === "apis" ? 2 : undefined
  if (depth === undefined) return refuse(403, `the path /${root} of the API server is not served through a master`)
  if (below.length <= depth) return pass("get")
  return readObject(below.slice(depth), query, pass)
}

const readObject = (
  rest: ReadonlyArray<string>,
  query: string,
  pass: (verb: KubeVerb, isLong?: boolean) => Result.Result<KubeRequest, RefusedKubeRequest>
) => {
  const [first, , third] = rest
  // The forms of before 1.11 put a verb where the kind is.
  if (first === "watch" || first === "proxy") return refuse(403, `paths that begin with ${first} are not served`)
  const isInNamespace = first === "namespaces" && third !== undefined && !OF_NAMESPACE.has(third)
  const [kind, name, part, ...more] = isInNamespace ? rest.slice(2) : rest
  if (kind === undefined || more.length > 0) {
    return refuse(403, "only objects and their logs are served through a master")
  }
  const parameters = new URLSearchParams(query)
  if (name === undefined) {
    return isTrue(parameters.get("watch")) ? pass("watch", true) : pass("list")
  }
  if (part === undefined) return pass("get", isTrue(parameters.get("watch")))
  if (part === "log" && kind === "pods") return pass("get", isTrue(parameters.get("follow")))
  return READABLE.has(part) && part !== "log"
    ? pass("get")
    : refuse(403, `${kind}/${part} is not served through a master; reach the cluster directly for that`)
}

/** As Kubernetes reads the first of a boolean parameter (apimachinery runtime Convert_Slice_string_To_bool). */
const isTrue = (value: string | null): boolean => value !== null && value.toLowerCase() !== "false" && value !== "0"

/** Who asks, as the master knows them. */
export const KubeCaller = Schema.Struct({
  user: Schema.NonEmptyString.check(Schema.isMaxCodePoints(1024)),
  groups: Schema.Array(Schema.NonEmptyString.check(Schema.isMaxCodePoints(1024))).check(Schema.isMaxLength(1024))
})
export type KubeCaller = typeof KubeCaller.Type

/** The header of a request inside a link that says who asks; base64url of JSON. Set by the master alone. */
export const CALLER_HEADER = "kubeprober-caller"

/**
 * The trailer of an answer that was sent whole. A stream whose connection is lost may end as if it had nothing more to
 * say, and half a list would pass for a list.
 */
export const WHOLE_TRAILER = "kubeprober-whole"

/** Such requests inside a link have paths that begin so. */
export const LINK_PREFIX = "/kube"

const CallerHeader = Schema.StringFromBase64Url.pipe(Schema.decodeTo(Schema.fromJsonString(KubeCaller)))

/** Fails for a caller of too many or too long names. */
export const encodeCaller = Schema.encodeResult(CallerHeader)

/** Fails for a header that no master has written. */
export const decodeCaller = Schema.decodeUnknownResult(CallerHeader)

/** What impersonated names begin with: nobody of the managing cluster is mistaken for somebody of the managed one. */
export const IDENTITY_PREFIX = "kubeprober:"

/** Something in place of an API server's answer. */
export interface KubeFault {
  readonly status: number
  /** As in a Status (apimachinery pkg/apis/meta/v1 StatusReason). */
  readonly reason: string
  readonly message: string
}

/**
 * A fault as a Kubernetes client takes it (`meta/v1` Status): kubectl prints its message.
 *
 * Not so when it looks for what the server serves, as it does first: there client-go shows a person only what is text, and
 * nothing at all that comes with 503 (client-go rest/request.go, apimachinery api/errors NewGenericServerResponse).
 * `accept` tells such requests.
 */
export const answerOf = (
  { message, reason, status }: KubeFault,
  accept: string | undefined
): { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: string } => {
  const headers = {
    ...(status === 401 && { "www-authenticate": "Bearer" }),
    ...(status === 429 && { "retry-after": "1" })
  }
  return accept?.includes("as=APIGroupDiscoveryList") === true
    ? {
      status: status === 503 ? 502 : status,
      headers: { ...headers, "content-type": "text/plain; charset=utf-8" },
      body: message
    }
    : {
      status,
      headers: { ...headers, "content-type": "application/json" },
      body: JSON.stringify({
        kind: "Status",
        apiVersion: "v1",
        metadata: {},
        status: "Failure",
        message,
        reason,
        code: status
      })
    }
}
