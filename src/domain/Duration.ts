/**
 * Lengths of time as people write them in manifests: `90s`, `1h30m`, `250ms`.
 *
 * The syntax is Go's (https://pkg.go.dev/time#ParseDuration), as in every Kubernetes field, without signs and with
 * the millisecond as the smallest unit: nothing here is timed more finely.
 */
import { Duration, Effect, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import * as Rule from "./crd/Rule.ts"

/** The longest text accepted; long enough for every canonical form. */
export const MAX_LENGTH = 32

/** Go keeps durations as int64 nanoseconds, so this many whole hours is the most any Kubernetes client can read. */
const MAX_MILLIS = 2_562_047n * 3_600_000n

const units: ReadonlyArray<readonly [name: string, millis: bigint]> = [
  ["h", 3_600_000n],
  ["m", 60_000n],
  ["s", 1000n],
  ["ms", 1n]
]

const unitMillis = new Map(units)

/** What an API server checks, and how a schema tells that its text is a duration; {@link parse} says the same and more. */
export const looksLikeDuration = Rule.matching(
  "([0-9]+([.][0-9]+)?(ms|s|m|h))+",
  "a duration is written like 90s, 1h30m or 250ms"
)
const part = /(\d+)(?:\.(\d+))?(ms|s|m|h)/gu

const refuse = (input: string, why: string): Result.Result<never, string> =>
  Result.fail(`${JSON.stringify(input)} ${why}; write it like "90s", "1h30m" or "250ms"`)

/**
 * Reads a duration. The failure is a sentence that names the input, what is wrong with it and an example.
 *
 * Accepts what Go accepts (`1.5h`, units in any order and repeated) as long as it is a whole number of milliseconds.
 */
export const parse = (input: string): Result.Result<Duration.Duration, string> => {
  if (input.length > MAX_LENGTH) {
    return refuse(`${input.slice(0, MAX_LENGTH)}…`, `is too long for a duration (at most ${MAX_LENGTH} characters)`)
  }
  if (!looksLikeDuration.holds(input)) return refuse(input, "is not a duration")
  let total = 0n
  for (const [, integer = "", fraction = "", unit = ""] of input.matchAll(part)) {
    const scaled = BigInt(integer + fraction) * (unitMillis.get(unit) ?? 0n)
    const divisor = 10n ** BigInt(fraction.length)
    if (scaled % divisor !== 0n) return refuse(input, "is finer than a millisecond")
    total += scaled / divisor
  }
  return total > MAX_MILLIS ? refuse(input, "is longer than 292 years") : Result.succeed(Duration.millis(Number(total)))
}

/** Whether a duration has a text form: finite, not negative, whole milliseconds, within Go's range. */
export const isExpressible = (duration: Duration.Duration): boolean => {
  const millis = Duration.toMillis(duration)
  return Number.isSafeInteger(millis) && millis >= 0 && BigInt(millis) <= MAX_MILLIS
}

/**
 * The canonical text: largest units first, none that is zero, `0s` for nothing.
 *
 * Total on what {@link isExpressible} accepts; anything else is rounded into it.
 */
export const format = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  const bounded = Number.isNaN(millis) ? 0 : Math.min(Math.max(millis, 0), Number(MAX_MILLIS))
  let rest = BigInt(Math.round(bounded))
  let text = ""
  for (const [name, size] of units) {
    if (rest >= size) text += `${rest / size}${name}`
    rest %= size
  }
  return text === "" ? "0s" : text
}

/**
 * A duration in a manifest or on the wire. Decodes to Effect's `Duration`; encodes canonically, so that decoding and
 * encoding again turns `90m` into `1h30m` and changes no length.
 */
export const DurationString = Schema.String.check(Schema.isMaxCodePoints(MAX_LENGTH)).pipe(
  Rule.annotate([looksLikeDuration]),
  Schema.decodeTo(
    Schema.Duration.check(
      Schema.makeFilter(isExpressible, { expected: "a duration of whole milliseconds from 0 to 292 years" })
    ),
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Result.match(parse(text), {
          onFailure: (message) => Effect.fail(new SchemaIssue.InvalidValue({ message }, text, options)),
          onSuccess: Effect.succeed
        }),
      encode: (duration) => Effect.succeed(format(duration))
    })
  )
)

/** A duration of at least `minimum`; `why` ends the message that refuses a shorter one. */
export const atLeast = (minimum: Duration.Input, why: string) => {
  const least = Duration.fromInputUnsafe(minimum)
  const text = format(least)
  return DurationString.pipe(Rule.enforce([{
    cel: `!(${looksLikeDuration.cel}) || duration(self) >= duration('${text}')`,
    message: `at least ${text}: ${why}`,
    holds: (duration: Duration.Duration) => Duration.isGreaterThanOrEqualTo(duration, least)
  }]))
}
