/**
 * What a user does with an application, step by step: log in, act, log out. Each step is a request, what its answer must
 * be, and what later steps take from it.
 *
 * {@link make} defines a probe of steps in TypeScript; `app.scenario` is the same with steps in YAML. Cookies go from step
 * to step; the first step that is not answered as expected ends the scenario and is named; whatever was registered with
 * `finally` is done at the end, however it ends, in a time of its own.
 *
 * ```ts
 * export default Scenario.make("shop.order", {
 *   proves: "A customer can log in, order and log out.",
 *   config: Config,
 *   baseUrl: ({ url }) => url,
 *   run: (session) =>
 *     Effect.gen(function*() {
 *       const password = yield* session.credential({ credential: "shop", key: "password" })
 *       const { token } = yield* session.step("log in", {
 *         method: "POST",
 *         url: "/login",
 *         json: { user: "prober", password },
 *         capture: { token: Scenario.json("$.token") }
 *       })
 *       const headers = { authorization: `Bearer ${token}` }
 *       yield* session.finally("log out", { method: "POST", url: "/logout", headers })
 *       yield* session.step("order", { method: "POST", url: "/orders", headers, json: { item: 1 } })
 *     })
 * })
 * ```
 */
import { Clock, Duration, Effect, Exit, Option, Redacted, type Schema } from "effect"
import type { Finding } from "../domain/Report.ts"
import type { CredentialMissing, CredentialRef } from "../infra/credentials/Credentials.ts"
import { HttpCall } from "../infra/net/HttpCall.ts"
import * as Asking from "./application/asking.ts"
import * as Cookies from "./application/cookies.ts"
import { document, jsonPath, pattern } from "./application/matching.ts"
import * as Secrets from "./application/secrets.ts"
import { checkerCodes } from "./CheckerCodes.ts"
import * as Codes from "./Codes.ts"
import * as Outcome from "./Outcome.ts"
import * as Probe from "./Probe.ts"
import * as Retry from "./Retry.ts"
import { RunContext } from "./RunContext.ts"
import * as Stopwatch from "./Stopwatch.ts"

/** What a scenario can say. */
export const codes = {
  ...Codes.make({
    STEP_FAILED: Codes.error(
      "A step of the scenario was refused, cut, late, or answered otherwise than expected: a user could not go on here.",
      "Read the log of the application for the request in the message, at the time of the run."
    ),
    SCENARIO_SLOW: Codes.warn(
      "All steps were right and together took longer than allowed, the prober's own delays not counted.",
      "See in the evidence which step took the time."
    ),
    STEP_NOT_UNDONE: Codes.warn(
      "A step that ends the scenario, such as logging out, failed: a session or data of the synthetic account is left.",
      "Remove what is left of the synthetic account; look why the step in the message fails."
    )
  }),
  ...Asking.askingCodes,
  ...Asking.credentialCodes
}

/** Any JSON, with secrets in place of texts. */
export type JsonWithSecrets =
  | Schema.Json
  | Redacted.Redacted<string>
  | ReadonlyArray<JsonWithSecrets>
  | { readonly [key: string]: JsonWithSecrets }

/** Where in an answer a value is. */
export type Capture =
  | { readonly json: string }
  | { readonly body: string }
  | { readonly header: string }
  | { readonly cookie: string }

/** The first value a JSON path (RFC 9535 without match(), search() and a second `..`) leads to; what is no text is taken as JSON. */
export const json = (path: string): Capture => ({ json: path })

/** The first group of a regular expression (RE2) in the body, or the whole match when it has no group. */
export const body = (expression: string): Capture => ({ body: expression })

export const header = (name: string): Capture => ({ header: name })

/** A cookie the session holds after the step. */
export const cookie = (name: string): Capture => ({ cookie: name })

/** One request. At most one of `json`, `form` and `body`. */
export interface Request {
  /** `GET` when absent. */
  readonly method?: string | undefined
  /** Absolute, or relative to the scenario's `baseUrl`. */
  readonly url: string
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  readonly json?: JsonWithSecrets | undefined
  readonly form?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  readonly body?: string | Redacted.Redacted<string> | undefined
}

export interface Step<Names extends Readonly<Record<string, Capture>> = {}> extends Request {
  /** Any 2xx when absent. */
  readonly expect?: Asking.Expectation | undefined
  /** Values later steps use; one that is not there fails the step. */
  readonly capture?: Names | undefined
  /** Redirects to follow, 5 when absent. */
  readonly redirects?: number | undefined
  /** For the whole step; that of the scenario when absent. */
  readonly timeout?: Duration.Input | undefined
}

/** A scenario under way. */
export interface Session {
  /** Unique to the run, for names of what the scenario makes. */
  readonly run: string
  /**
   * Do a step; what it captures, by name. Captured values of eight characters and more, and all cookies, are taken out of
   * whatever is reported, as are credentials.
   */
  readonly step: <const Names extends Readonly<Record<string, Capture>> = {}>(
    name: string,
    step: Step<Names>
  ) => Effect.Effect<{ readonly [K in keyof Names]: string }, Codes.TargetFault>
  /** Register a step for the end, however it comes; the last registered is done first. Its failure is a warning. */
  readonly finally: (name: string, step: Step) => Effect.Effect<void>
  /** Read at once; from then on it is taken out of whatever is reported. */
  readonly credential: (ref: CredentialRef) => Effect.Effect<Redacted.Redacted<string>, CredentialMissing>
}

export interface SessionOptions {
  /** What relative URLs of steps begin with. */
  readonly baseUrl: string
  readonly tls?: typeof Asking.TlsSettings.Type | undefined
  readonly allowLinkLocal?: boolean | undefined
  /** Of each step; 10 s when absent. */
  readonly timeout?: Duration.Input | undefined
  /** All steps together, those of the end not counted; 5 s when absent. */
  readonly slow?: Duration.Input | undefined
}

const STEP_TIMEOUT = Duration.seconds(10)
const SLOW = Duration.seconds(5)

/** For all steps of the end together. Whoever stops the prober waits for them. */
export const FINALLY_TIMEOUT = Duration.seconds(20)

const MAXIMUM_STEPS = 100

/** Shorter ones are numbers and the like, which would garble every message they are taken out of. */
const SECRET_LENGTH = 8

/** A step of the end, made when the end has come; none when there is nothing to end. */
export type LateStep = () => Option.Option<Step>

interface Took {
  readonly name: string
  readonly millis: number
}

const reveal = (value: JsonWithSecrets): unknown => {
  if (Redacted.isRedacted(value)) return Redacted.value(value)
  if (Array.isArray(value)) return value.map(reveal)
  return typeof value === "object" && value !== null
    ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, reveal(inner)]))
    : value
}

const text = (value: string | Redacted.Redacted<string>): string =>
  Redacted.isRedacted(value) ? Redacted.value(value) : value

/** Whether a request carries a secret of the configuration. */
const carriesSecret = ({ body, form, headers, json }: Request): boolean => {
  const holds = (value: JsonWithSecrets): boolean =>
    Redacted.isRedacted(value) ||
    (typeof value === "object" && value !== null && Object.values(value).some(holds))
  return [json, form, body, headers].some((part) => part !== undefined && holds(part))
}

/** Body and its type. Bodies are redacted, whatever is in them: they go to one origin only. */
const bodyOf = ({ body, form, json }: Request) => {
  if (json !== undefined) return { type: "application/json", body: JSON.stringify(reveal(json)) }
  if (form !== undefined) {
    const pairs = Object.fromEntries(Object.entries(form).map(([name, value]) => [name, text(value)]))
    return { type: "application/x-www-form-urlencoded", body: new URLSearchParams(pairs).toString() }
  }
  return body === undefined ? undefined : { type: undefined, body: text(body) }
}

const start = Effect.fnUntraced(function*(options: SessionOptions) {
  const http = yield* HttpCall
  const clock = yield* Clock.Clock
  const { runId } = yield* RunContext
  const secrets = yield* Secrets.make
  const jar = Cookies.make(() => clock.currentTimeMillisUnsafe())
  const ends: Array<readonly [name: string, step: LateStep]> = []
  const took: Array<Took> = []

  const capture = Effect.fnUntraced(
    function*(what: Capture, answer: { body: string; headers: Readonly<Record<string, string>> }) {
      if ("header" in what) return answer.headers[what.header.toLowerCase()]
      if ("cookie" in what) return jar.value(what.cookie)
      if ("body" in what) return (yield* pattern(what.body))(answer.body)
      const walk = yield* jsonPath(what.json)
      const found = Option.flatMapNullishOr(document(answer.body), walk)
      if (Option.isNone(found)) return undefined
      const { value } = found.value
      return typeof value === "string" ? value : JSON.stringify(value)
    }
  )

  const perform = Effect.fnUntraced(function*(name: string, step: Step<Readonly<Record<string, Capture>>>) {
    const url = URL.parse(step.url, options.baseUrl === "" ? undefined : options.baseUrl)
    if (url === null || !/^https?:$/u.test(url.protocol)) {
      return yield* checkerCodes.INVALID_CONFIG.fail({
        message: `step ${JSON.stringify(name)}: no URL: ${step.url}; write it whole, or give a \`baseUrl\``
      })
    }
    const method = (step.method ?? "GET").toUpperCase()
    const withCredential = carriesSecret(step)
    if (withCredential && options.tls?.insecure === true) {
      return yield* checkerCodes.INVALID_CONFIG.fail({
        message: `step ${
          JSON.stringify(name)
        }: \`tls.insecure\` together with a credential: whoever answers would get it`
      })
    }
    const expected = yield* Asking.compile(step.expect ?? {})
    const sent = bodyOf(step)
    const subject = { kind: "Step", name }
    // A query holds what was filled in.
    const asked = `step ${JSON.stringify(name)} (${method} ${url.origin}${url.pathname})`
    const [duration, result] = yield* http.send(Asking.requestOf({
      url: url.href,
      method,
      headers: { ...(sent?.type === undefined ? {} : { "content-type": sent.type }), ...step.headers },
      body: sent === undefined ? undefined : Redacted.make(sent.body),
      tls: options.tls,
      allowLinkLocal: options.allowLinkLocal ?? false,
      redirects: step.redirects ?? 5,
      timeout: step.timeout ?? options.timeout ?? STEP_TIMEOUT,
      cookies: jar
    })).pipe(Effect.result, Stopwatch.timed)
    took.push({ name, millis: Math.round(Duration.toMillis(duration)) })
    for (const value of jar.values()) secrets.hide(value)
    if (result._tag === "Failure") {
      const error = result.failure
      const message = `${asked}: ${error.message}`
      const finding = Asking.notAsked(error, { message, subject }) ??
        codes.STEP_FAILED({ message, subject, evidence: { stage: error.stage } })
      return yield* new Codes.TargetFault({ finding })
    }
    const answer = result.success
    const evidence = { status: answer.status, millis: Math.round(Duration.toMillis(duration)) }
    if (Asking.isRejected(answer, expected, withCredential)) {
      return yield* codes.CREDENTIAL_REJECTED.fail({
        message: `${asked} answered ${answer.status} to the configured credential`,
        subject,
        evidence
      })
    }
    const wrong = Asking.mismatches(answer, expected, secrets.redact)
    if (wrong.length > 0) {
      return yield* codes.STEP_FAILED.fail({
        message: `${asked}: ${wrong.map(({ text }) => text).join("; ")}`,
        subject,
        // What is behind a login is somebody's data.
        evidence: { ...evidence, ...Asking.excerpt(answer, true, secrets.redact) }
      })
    }
    const captured: Record<string, string> = {}
    for (const [key, what] of Object.entries(step.capture ?? {})) {
      const value = yield* capture(what, answer)
      if (value === undefined) {
        const [[kind = "", where = ""] = []] = Object.entries(what)
        return yield* codes.STEP_FAILED.fail({
          message: `${asked}: the answer has no ${key} (${kind} ${where})`,
          subject,
          evidence
        })
      }
      if (value.length >= SECRET_LENGTH) secrets.hide(value)
      captured[key] = value
    }
    return captured
  })

  const engine: Engine = {
    run: runId,
    step: <const Names extends Readonly<Record<string, Capture>>>(name: string, step: Step<Names>) =>
      took.length >= MAXIMUM_STEPS
        ? checkerCodes.INVALID_CONFIG.fail({ message: `a scenario has ${MAXIMUM_STEPS} steps at most` })
        // Each name of `capture` has a value, or the step has failed.
        : Effect.map(perform(name, step), (captured) => captured as { readonly [K in keyof Names]: string }),
    finally: (name, step) => Effect.sync(() => void ends.push([name, () => Option.some(step)])),
    finallyLate: (name, step) => Effect.sync(() => void ends.push([name, step])),
    credential: secrets.read
  }

  const left: Array<Finding> = []
  const notUndone = (name: string, message: string) =>
    void left.push(codes.STEP_NOT_UNDONE({ message: `at the end: ${message}`, subject: { kind: "Step", name } }))
  const undo = Effect.gen(function*() {
    for (let end = ends.pop(); end !== undefined; end = ends.pop()) {
      const [name, late] = end
      const step = late()
      if (Option.isNone(step)) continue
      yield* Effect.catch(
        perform(name, step.value),
        ({ finding }) => Effect.sync(() => notUndone(name, finding.message))
      )
    }
  }).pipe(
    // Whoever interrupts the scenario waits for this, and not for longer than its own time.
    Effect.interruptible,
    Effect.timeoutOrElse({
      duration: FINALLY_TIMEOUT,
      orElse: () =>
        Effect.sync(() => {
          for (const [name] of ends) notUndone(name, `no time was left for step ${JSON.stringify(name)}`)
        })
    }),
    Effect.map((): ReadonlyArray<Finding> => left)
  )
  return { engine, undo, took, secrets }
})

/** What `app.scenario` uses besides: steps of the end that are made when it has come. */
export interface Engine extends Session {
  readonly finallyLate: (name: string, step: LateStep) => Effect.Effect<void>
}

const millisOf = (duration: Duration.Input): number => Math.round(Duration.toMillis(Duration.fromInputUnsafe(duration)))

/**
 * Do a scenario and judge it. For probes that do more than one, or other things besides; otherwise use {@link make}.
 * Findings that `program` returns are reported too.
 */
export const outcome = Effect.fnUntraced(function*<E, R>(
  options: SessionOptions,
  program: (session: Engine) => Effect.Effect<ReadonlyArray<Finding> | void, E, R>
) {
  const { engine, secrets, took, undo } = yield* start(options)
  const done = yield* Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const exit = yield* Effect.exit(restore(Stopwatch.timed(program(engine))))
    const steps = [...took]
    return { exit, steps, left: yield* undo }
  }))
  const { exit, left, steps } = done
  const split = steps.map(({ millis, name }) => `${name} ${millis} ms`).join(", ")
  if (Exit.isFailure(exit)) {
    const fault = Option.getOrUndefined(Exit.findErrorOption(exit))
    return fault instanceof Codes.TargetFault
      ? Secrets.redactOutcome(secrets, Outcome.make("", [fault.finding, ...left]))
      : yield* Effect.failCause(exit.cause)
  }
  const [duration, said] = exit.value
  const limit = options.slow ?? SLOW
  const slow = Duration.isGreaterThan(duration, Duration.fromInputUnsafe(limit))
    ? [codes.SCENARIO_SLOW({
      message: `${steps.length} steps took ${millisOf(duration)} ms (limit ${millisOf(limit)} ms): ${split}`,
      subject: { kind: "Scenario", name: options.baseUrl },
      evidence: { totalMillis: millisOf(duration), steps: split }
    })]
    : []
  return Secrets.redactOutcome(
    secrets,
    Outcome.make(`${steps.length} steps in ${millisOf(duration)} ms: ${split}`, [...(said ?? []), ...slow, ...left])
  )
})

export interface ScenarioOptions<Config, Encoded, E>
  extends
    Pick<Probe.ProbeOptions<Config, Encoded, E>, "proves" | "config">,
    Partial<
      Pick<
        Probe.ProbeOptions<Config, Encoded, E>,
        "layer" | "writes" | "costs" | "needs" | "timeout" | "retry" | "onChange" | "dependsOn"
      >
    >
{
  /** What relative URLs of steps begin with. */
  readonly baseUrl: (config: Config) => string
  readonly session?: ((config: Config) => Omit<SessionOptions, "baseUrl">) | undefined
  /** Codes of your own, beside those of every scenario. */
  readonly codes?: Codes.Codes | undefined
  readonly run: (
    session: Session,
    config: Config
  ) => Effect.Effect<ReadonlyArray<Finding> | void, E, Probe.ProbeServices>
}

/**
 * Define a probe of steps. It is of the layer `application`, writes `middleware` (it acts on a service of the user's, so
 * it runs only where it is named or the profile is `full`; say `nothing` of one that only looks), and may take 60 s.
 */
export const make = <Config, Encoded, E>(
  id: string,
  options: ScenarioOptions<Config, Encoded, E>
): Probe.Probe<Config, Encoded> =>
  Probe.make(id, {
    layer: options.layer ?? "application",
    proves: options.proves,
    writes: options.writes ?? "middleware",
    costs: options.costs ?? "The requests of its steps to the application, and none to the API.",
    needs: options.needs ?? [],
    codes: { ...options.codes, ...codes },
    config: options.config,
    timeout: options.timeout ?? "60 seconds",
    retry: options.retry ?? Retry.none,
    onChange: options.onChange,
    dependsOn: options.dependsOn,
    run: (config) =>
      outcome(
        { ...options.session?.(config), baseUrl: options.baseUrl(config) },
        (session) => options.run(session, config)
      )
  })
