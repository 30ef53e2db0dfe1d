/**
 * What the probes of applications share: how a request and the wanted answer are written, how the answer is held against
 * it, and whose fault it is when there is none.
 *
 * What the other side did (it refused, cut, was late, showed a bad certificate, answered wrongly) is its fault. What could
 * not even be asked (the name has no address for us, no route leads there, a credential is missing or was rejected) is
 * ours.
 */
import { Effect, Option, Redacted, Result, Schema } from "effect"
import { quote, redact as redactForeign } from "../../domain/Redaction.ts"
import type { Subject } from "../../domain/Report.ts"
import type { Cookies, HttpAnswer, HttpRequest } from "../../infra/net/HttpCall.ts"
import type { NetError } from "../../infra/net/NetError.ts"
import { certificatesOf } from "../../infra/tls/pem.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import { type Find, type Walk, document, jsonPath, pattern } from "./matching.ts"
import { SecretValue, type Secrets } from "./secrets.ts"

/** The codes of a request that could not be made. */
export const askingCodes = Codes.make({
  NAME_UNRESOLVED: Codes.unknown(
    "The name has no address where the prober runs, so nothing was asked. k8s.dns.cluster judges the cluster's DNS.",
    "Check the name, and the DNS of the prober; names of Services end in `.svc` and are known inside the cluster alone."
  ),
  NO_ROUTE: Codes.unknown(
    "No route leads from the prober to the address, or something on the way or on its own machine forbids it.",
    "Check routes, firewalls and network policies between the prober and the address."
  ),
  ADDRESS_REFUSED: Codes.unknown(
    "The address is link-local or one at which clouds serve credentials of machines; the prober does not ask it.",
    "Use another address, or set `allowLinkLocal` if this one is meant."
  )
})

/** Of one that is made with a credential. */
export const credentialCodes = Codes.make({
  CREDENTIAL_REJECTED: Codes.unknown(
    "The other side answered 401 or 403 to the configured credential, so nothing is known of what is behind it.",
    "Renew the credential, or give its account the right; without a configured credential such an answer is judged as any."
  )
})

/** One of `http` or `https`; empty when absent. */
export const HttpUrl = Schema.String.check(
  Schema.isMaxLength(2048),
  Schema.makeFilter((text) => text === "" || /^https?:$/u.test(URL.parse(text)?.protocol ?? ""), {
    expected: "a URL such as https://shop.example.com/health"
  }),
  Schema.makeFilter((text) => (URL.parse(text)?.password ?? "") === "", {
    expected: "a URL without a password: refer to a credential instead"
  })
)

/** Values as they are, or secrets by reference. */
export const Headers = Schema.Record(
  Schema.String.check(Schema.isPattern(/^[-!#$%&'*+.^_`|~0-9A-Za-z]+$/u, { message: "no name of an HTTP header" })),
  Schema.Union([Schema.String, SecretValue])
).check(Schema.isMaxProperties(50))
export type Headers = typeof Headers.Type

/** A status, or a class of them. */
export const StatusPattern = Schema.Union([
  Schema.Int.check(Schema.isBetween({ minimum: 100, maximum: 599 })),
  Schema.String.check(Schema.isPattern(/^[1-5](xx|[0-9]{2})$/u, { message: "a status is written 200 or 2xx" }))
])

const Expression = Schema.String.check(Schema.isMaxLength(1024))

/** What is expected of one value of a JSON answer: that it is there, equals a value, or matches an expression. */
export const JsonExpectation = Schema.Struct({
  path: Expression.annotate({ description: "RFC 9535 without match(), search() and a second `..`, such as $.status." }),
  equals: Schema.optionalKey(Schema.Json),
  matches: Schema.optionalKey(Expression)
})

/** What an answer has to be. */
export const Expectation = Schema.Struct({
  status: Schema.optionalKey(
    Schema.NonEmptyArray(StatusPattern).check(Schema.isMaxLength(50)).annotate({
      description: "Such as [200, \"3xx\"]; [\"2xx\"] when absent."
    })
  ),
  body: Schema.optionalKey(Expression.annotate({ description: "A regular expression (RE2) that matches somewhere." })),
  json: Schema.optionalKey(Schema.Array(JsonExpectation).check(Schema.isMaxLength(20))),
  headers: Schema.optionalKey(
    Schema.Record(Schema.String, Expression).check(Schema.isMaxProperties(20)).annotate({
      description: "Regular expressions by the header's name."
    })
  )
})
export type Expectation = typeof Expectation.Type

/** OpenSSL takes any text for authorities, and trusts nobody then. */
const isBundle = (text: string): boolean => {
  const certificates = certificatesOf(text)
  return certificates.length > 0 && certificates.every(Result.isSuccess)
}

export const TlsSettings = Schema.Struct({
  ca: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(65_536),
      Schema.makeFilter(isBundle, { expected: "certificates of authorities in PEM" })
    ).annotate({
      description: "PEM of the authorities to trust instead of the public ones."
    })
  ),
  serverName: Schema.optionalKey(
    Schema.NonEmptyString.annotate({ description: "The name to ask for and to find in the certificate." })
  ),
  insecure: Schema.optionalKey(
    Schema.Boolean.annotate({
      description:
        "Ask a server that cannot be trusted too. Not together with a credential, which anyone might get then."
    })
  )
})

/** The requests' own part of what {@link HttpRequest} says. */
export const requestOf = (options: {
  readonly url: string
  readonly method: string
  readonly headers: HttpRequest["headers"]
  readonly tls?: typeof TlsSettings.Type | undefined
  readonly allowLinkLocal: boolean
  readonly redirects: number
  readonly timeout: HttpRequest["timeout"]
  readonly body?: HttpRequest["body"]
  readonly cookies?: Cookies | undefined
}): HttpRequest => ({
  ...options,
  url: new URL(options.url),
  maximumBody: MAXIMUM_BODY
})

/** Of an answer; enough for any page that is looked at by an expression. */
const MAXIMUM_BODY = 1024 * 1024

/** Whether any of these values is a secret. */
export const hasSecret = (headers: Headers): boolean =>
  Object.values(headers).some((value) => typeof value !== "string")

const PERSONAL = /^(authorization|proxy-authorization|cookie|x-api-key)$/iu

/** Headers with their secrets read. What people write into personal headers themselves is not repeated either. */
export const revealHeaders = Effect.fnUntraced(
  function*(headers: Headers, secrets: Secrets) {
    const revealed: Record<string, string | Redacted.Redacted<string>> = {}
    for (const [name, value] of Object.entries(headers)) {
      if (typeof value === "string") {
        if (PERSONAL.test(name)) secrets.hide(value)
        revealed[name] = value
      } else {
        const secret = yield* secrets.read(value)
        revealed[name] = Redacted.make(`${value.prefix ?? ""}${Redacted.value(secret)}`)
      }
    }
    return revealed
  }
)

/** The header of basic authentication with the keys `username` and `password` of a credential, as in Secrets of that type. */
export const basicAuth = Effect.fnUntraced(
  function*(credential: string, secrets: Secrets) {
    const username = yield* secrets.read({ credential, key: "username" })
    const password = yield* secrets.read({ credential, key: "password" })
    const pair = `${Redacted.value(username)}:${Redacted.value(password)}`
    secrets.hide(pair)
    return Redacted.make(`Basic ${Buffer.from(pair).toString("base64")}`)
  }
)

/** Why a request came to nothing, when that is ours; nothing when it is the other side's doing. */
export const notAsked = (error: NetError, about: { readonly message: string; readonly subject: Subject }) => {
  switch (error.kind) {
    case "dns":
      return askingCodes.NAME_UNRESOLVED(about)
    case "unreachable":
      return askingCodes.NO_ROUTE(about)
    case "forbidden":
      return askingCodes.ADDRESS_REFUSED(about)
    case "unknown":
      return checkerCodes.CHECKER_FAILED(about)
    default:
      return undefined
  }
}

/** An expectation with its expressions and paths read. */
export interface Expected {
  readonly status: ReadonlyArray<number | string>
  readonly body: readonly [expression: string, find: Find] | undefined
  readonly json: ReadonlyArray<{
    readonly path: string
    readonly walk: Walk
    readonly equals: Option.Option<Schema.Json>
    readonly matches: readonly [expression: string, find: Find] | undefined
  }>
  readonly headers: ReadonlyArray<readonly [name: string, expression: string, find: Find]>
}

const named = (expression: string | undefined) =>
  expression === undefined
    ? Effect.undefined
    : Effect.map(pattern(expression), (find) => [expression, find] as const)

/** Fails with INVALID_CONFIG when an expression or a path is none. */
export const compile = Effect.fnUntraced(function*(expectation: Expectation) {
  const expected: Expected = {
    status: expectation.status ?? ["2xx"],
    body: yield* named(expectation.body),
    json: yield* Effect.forEach(expectation.json ?? [], (item) =>
      Effect.all({
        path: Effect.succeed(item.path),
        walk: jsonPath(item.path),
        equals: Effect.succeed("equals" in item ? Option.some(item.equals) : Option.none()),
        matches: named(item.matches)
      })),
    headers: yield* Effect.forEach(
      Object.entries(expectation.headers ?? {}),
      ([name, expression]) => Effect.map(pattern(expression), (find) => [name.toLowerCase(), expression, find] as const)
    )
  }
  return expected
})

const isExpectedStatus = (patterns: Expected["status"], status: number): boolean =>
  patterns.some((wanted) =>
    String(wanted).replace("xx", "") === String(status).slice(0, String(wanted).endsWith("xx") ? 1 : 3)
  )

/** As `Secrets.redact`. It comes before anything is cut: a secret of which a part is left is not found any more. */
export type Redact = (text: string) => string

/** A text for a message, without secrets. */
const shortWith = (redact: Redact) => (text: string): string => {
  const whole = redact(text)
  return whole.length <= 120 ? whole : `${whole.slice(0, 119)}…`
}

/** A value as JSON, without secrets: they are sought in its texts too, which JSON may write otherwise. */
const jsonWith = (redact: Redact, value: Schema.Json): string =>
  JSON.stringify(value, (_key, inner: unknown) => typeof inner === "string" ? redact(inner) : inner)

const sameJson = (a: Schema.Json, b: Schema.Json): boolean => canonical(a) === canonical(b)

const canonical = (value: Schema.Json): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => a < b ? -1 : 1))
      : inner)

/** How an answer differs from what was expected. */
export interface Mismatch {
  readonly of: "status" | "content"
  readonly text: string
}

const inJson = (answer: HttpAnswer, expected: Expected["json"], redact: Redact): ReadonlyArray<string> => {
  const short = shortWith(redact)
  if (expected.length === 0) return []
  const read = document(answer.body)
  if (Option.isNone(read)) {
    return [answer.truncated ? "the body is too long to be read as JSON" : "the body is not JSON"]
  }
  return expected.flatMap(({ equals, matches, path, walk }) => {
    const found = walk(read.value)
    if (found === undefined) return [`the body has no ${path}`]
    const shown = short(jsonWith(redact, found.value))
    const text = typeof found.value === "string" ? found.value : JSON.stringify(found.value)
    if (Option.isSome(equals) && !sameJson(equals.value, found.value)) {
      return [`${path} is ${shown} instead of ${short(jsonWith(redact, equals.value))}`]
    }
    return matches !== undefined && matches[1](text) === undefined
      ? [`${path} is ${shown}, which does not match /${short(matches[0])}/`]
      : []
  })
}

/** All that is not as expected. Of an answer with another status nothing else is looked at. */
export const mismatches = (answer: HttpAnswer, expected: Expected, redact: Redact): ReadonlyArray<Mismatch> => {
  const short = shortWith(redact)
  if (!isExpectedStatus(expected.status, answer.status)) {
    return [{ of: "status", text: `answered ${answer.status} instead of ${expected.status.join(" or ")}` }]
  }
  const body = expected.body !== undefined && expected.body[1](answer.body) === undefined
    ? [`the body does not match /${short(expected.body[0])}/${answer.truncated ? " in its first MiB" : ""}`]
    : []
  const headers = expected.headers.flatMap(([name, expression, find]) => {
    const value = answer.headers[name]
    if (value === undefined) return [`there is no header ${name}`]
    return find(value) === undefined ? [`header ${name} does not match /${short(expression)}/`] : []
  })
  return [...body, ...inJson(answer, expected.json, redact), ...headers].map((text) => ({ of: "content", text }))
}

/** Whether a credential that was sent was not accepted: nothing else is told by such an answer. */
export const isRejected = (answer: HttpAnswer, expected: Expected, withCredential: boolean): boolean =>
  withCredential && (answer.status === 401 || answer.status === 403) &&
  !isExpectedStatus(expected.status, answer.status)

/**
 * The beginning of an answer's body, for evidence: of an error always; of anything else only where nothing secret was sent,
 * because what is behind a login may be anybody's data.
 */
export const excerpt = (
  answer: HttpAnswer,
  withCredential: boolean,
  redact: Redact
): Readonly<Record<string, string>> => {
  // Both that we sent and that the answer has of its own; before the lines are joined, which rules go by.
  const text = quote(redactForeign(redact(answer.body)).replace(/\s+/gu, " "), 200)
  return text === "" || (withCredential && answer.status < 400) ? {} : { body: text }
}
