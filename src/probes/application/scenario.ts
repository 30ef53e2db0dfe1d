/**
 * `app.scenario`: can a user log in, act and log out?
 *
 * Steps written in YAML, done by the engine of `Scenario`. A text of a step may hold `{{name}}`: a value captured by an
 * earlier step, `{{account.password}}`, the key of a credential, or `{{run}}`, which no other run has.
 *
 * It acts on an application, so its write level is `middleware`: data of a service of the user's, which the profiles
 * `observe` and `standard` leave alone unless the probe is named. Give it an account of its own.
 */
import { Effect, Option, Redacted, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as Retry from "../Retry.ts"
import * as Scenario from "../Scenario.ts"
import { setting } from "../Setting.ts"
import * as Asking from "./asking.ts"

/** Far more than a person would do to see whether it works. */
const MAXIMUM_STEPS = 30

const Name = Schema.String.check(
  Schema.isPattern(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/u, { message: "a name is letters, digits and underscores" })
)

const Text = Schema.String.check(Schema.isMaxLength(65_536))

const CaptureSpec = Schema.Union([
  Schema.Struct({ json: Text }),
  Schema.Struct({ body: Text }),
  Schema.Struct({ header: Text }),
  Schema.Struct({ cookie: Text })
])

export const StepSpec = Schema.Struct({
  name: Schema.NonEmptyString.check(Schema.isMaxLength(100)),
  request: Schema.Struct({
    method: Schema.optionalKey(Schema.Literals(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])),
    url: Text.annotate({ description: "Whole, or relative to baseUrl." }),
    headers: Schema.optionalKey(Schema.Record(Schema.String, Text)),
    json: Schema.optionalKey(Schema.Json),
    form: Schema.optionalKey(Schema.Record(Schema.String, Text)),
    body: Schema.optionalKey(Text)
  }).check(
    Schema.makeFilter(({ body, form, json }) => [body, form, json].filter((part) => part !== undefined).length <= 1, {
      expected: "one of json, form and body at most"
    })
  ),
  expect: Schema.optionalKey(Asking.Expectation),
  capture: Schema.optionalKey(
    Schema.Record(Name, CaptureSpec).check(Schema.isMaxProperties(20)).annotate({
      description: "Values for later steps: {token: {json: $.token}}; or by body (RE2), header, cookie."
    })
  ),
  timeout: Schema.optionalKey(DurationString)
})
export type StepSpec = typeof StepSpec.Type

const PLACE = /\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}/gu

/** The names a step's texts use. */
const uses = ({ request }: StepSpec): ReadonlyArray<string> =>
  [...JSON.stringify(request).matchAll(PLACE)].map(([, name = ""]) => name)

interface Written {
  readonly credentials: Readonly<Record<string, string>>
  readonly steps: ReadonlyArray<StepSpec>
  readonly finally: ReadonlyArray<StepSpec>
}

/** The first name that is used and cannot be known by then. */
export const unknownName = (config: Written): string | undefined => {
  const known = new Set(["run"])
  const isKnown = (name: string) =>
    known.has(name) || Object.keys(config.credentials).includes(name.split(".")[0] ?? "")
  for (const step of [...config.steps, ...config.finally]) {
    const missing = uses(step).find((name) => !isKnown(name))
    if (missing !== undefined) {
      return `step ${JSON.stringify(step.name)} uses {{${missing}}}, which nothing before it captures`
    }
    for (const name of Object.keys(step.capture ?? {})) known.add(name)
  }
  return undefined
}

const Steps = Schema.Array(StepSpec).check(Schema.isMaxLength(MAXIMUM_STEPS))

export const ScenarioConfig = Schema.Struct({
  baseUrl: setting(Asking.HttpUrl, { default: "", description: "What relative URLs of steps begin with." }),
  credentials: setting(Schema.Record(Name, Schema.NonEmptyString).check(Schema.isMaxProperties(10)), {
    default: {},
    description:
      "Credentials by the name steps use: with {account: shop-prober}, {{account.password}} is its key `password`."
  }),
  steps: setting(Steps, {
    default: [],
    description: "What is done, in this order; the first step that fails ends it. At most 30."
  }),
  finally: setting(Steps, {
    default: [],
    description:
      "What is done at the end, however it comes and in 20 s of its own; a step that uses what was never captured is left out."
  }),
  tls: setting(Asking.TlsSettings, { default: {}, description: "Whom to trust, and under which name." }),
  slow: setting(DurationString, { default: "5s", description: "Steps that together take longer are a warning." }),
  timeout: setting(DurationString, { default: "10s", description: "How long one step may take." }),
  allowLinkLocal: setting(Schema.Boolean, {
    default: false,
    description: "Whether link-local addresses, and those where clouds serve credentials, are asked."
  })
})
export type ScenarioConfig = typeof ScenarioConfig.Type

type Value = string | Redacted.Redacted<string>

/** A text with its places filled; redacted when a credential is among them. None when a name has no value. */
export const fill = (
  template: string,
  values: ReadonlyMap<string, Value>,
  encode: (value: string) => string = (value) => value
): Option.Option<Value> => {
  let secret = false
  let missing = false
  const filled = template.replace(PLACE, (_place, name: string) => {
    const value = values.get(name)
    if (value === undefined) {
      missing = true
      return ""
    }
    if (Redacted.isRedacted(value)) secret = true
    return encode(Redacted.isRedacted(value) ? Redacted.value(value) : value)
  })
  return missing ? Option.none() : Option.some(secret ? Redacted.make(filled) : filled)
}

const plain = (value: Value): string => Redacted.isRedacted(value) ? Redacted.value(value) : value

/** A step with all its places filled; none when a name has no value. */
export const fillStep = (spec: StepSpec, values: ReadonlyMap<string, Value>): Option.Option<Scenario.Step> => {
  if (uses(spec).some((name) => !values.has(name))) return Option.none()
  const { body, form, headers, json, method, url } = spec.request
  const value = (template: string): Value => Option.getOrElse(fill(template, values), () => "")
  const record = (templates: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(templates).map(([name, template]) => [name, value(template)]))
  const document = (template: Schema.Json): Scenario.JsonWithSecrets => {
    if (typeof template === "string") return value(template)
    if (Array.isArray(template)) return template.map(document)
    return typeof template === "object" && template !== null
      ? Object.fromEntries(Object.entries(template).map(([name, inner]) => [name, document(inner)]))
      : template
  }
  return Option.some({
    method,
    // A value is one part of a path or of a query, whatever is in it.
    url: plain(Option.getOrElse(fill(url, values, encodeURIComponent), () => "")),
    headers: headers === undefined ? undefined : record(headers),
    form: form === undefined ? undefined : record(form),
    json: json === undefined ? undefined : document(json),
    body: body === undefined ? undefined : value(body),
    expect: spec.expect,
    timeout: spec.timeout
  })
}

const run = Effect.fnUntraced(function*(config: ScenarioConfig) {
  if (config.steps.length === 0) {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: "no `steps` are configured, so there is nothing to do" })
    ])
  }
  const unknown = unknownName(config)
  if (unknown !== undefined) return yield* checkerCodes.INVALID_CONFIG.fail({ message: unknown })
  return yield* Scenario.outcome(
    config,
    Effect.fnUntraced(function*(session) {
      const values = new Map<string, Value>([["run", session.run]])
      for (const name of new Set([...config.steps, ...config.finally].flatMap(uses))) {
        const [alias = "", ...key] = name.split(".")
        const credential = config.credentials[alias]
        if (credential === undefined || key.length === 0) continue
        values.set(name, yield* session.credential({ credential, key: key.join(".") }))
      }
      // The last registered is done first.
      for (const spec of config.finally.toReversed()) {
        yield* session.finallyLate(spec.name, () => fillStep(spec, values))
      }
      for (const spec of config.steps) {
        const step = Option.getOrThrow(fillStep(spec, values))
        const captured = yield* session.step(spec.name, { ...step, capture: spec.capture ?? {} })
        for (const [name, value] of Object.entries(captured)) values.set(name, value)
      }
    })
  )
})

export const scenario = Probe.make("app.scenario", {
  asks: "configured",
  layer: "application",
  proves: "A user can do a scenario step by step, such as log in, act and log out, and in time.",
  writes: "middleware",
  costs: "The requests of its steps to the application, and none to the API.",
  needs: [],
  codes: Scenario.codes,
  config: ScenarioConfig,
  timeout: "60 seconds",
  retry: Retry.none,
  run
})
