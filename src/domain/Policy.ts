/**
 * When a probe runs, and how much a run may take: from the policy people write to a plan the scheduler follows.
 *
 * Everything here is pure: the clock's reading and the random number come from the caller.
 */
import { Cron, Data, DateTime, Duration, Result, Schema } from "effect"
import * as Rule from "./crd/Rule.ts"
import { atLeast } from "./Duration.ts"

/** The shortest interval. What must be noticed sooner is watched (`onChange`), not polled. */
export const MINIMUM_INTERVAL = Duration.seconds(1)

/** The deadline of a run unless something says otherwise. */
export const DEFAULT_TIMEOUT = Duration.seconds(60)

/** The original's fixed deadline of a prober's Job (its `activeDeadlineSeconds`), kept for templates. */
export const TEMPLATE_TIMEOUT = Duration.minutes(30)

/** How far each start of an `interval` strays from the exact interval, so that checks made together do not stay so. */
const JITTER = 0.1

/** The most a legacy `runIntervalRandom` moves a start; more, and a run on time could already read as stale. */
const LEGACY_JITTER = 0.5

/** Cron as in Kubernetes' CronJob: minute, hour, day of month, month, day of week. */
const CronExpression = Schema.String.check(Schema.isMaxCodePoints(128)).pipe(Rule.enforce([Rule.matching(
  "[0-9A-Za-z*,/?#L-]+( +[0-9A-Za-z*,/?#L-]+){4}",
  "five fields: minute, hour, day of month, month and day of week, for example */5 * * * *"
)]))

const ZoneName = Schema.String.check(Schema.isMaxCodePoints(64)).pipe(Rule.enforce([Rule.matching(
  "[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*",
  "the name of a time zone, for example Europe/Berlin"
)]))

/** The policy of a Probe as written in its manifest. */
export const ProbePolicy = Schema.Struct({
  runInterval: Schema.optionalKey(Schema.Int.pipe(Rule.described(
    "Minutes between runs, as in the original; 0 or less runs the probe once.",
    "Use interval for anything finer."
  ))),
  runIntervalRandom: Schema.optionalKey(Schema.Int.pipe(Rule.described(
    "Minutes by which each start may stray from runInterval, in either direction; at most half of it is used."
  ))),
  interval: Schema.optionalKey(
    atLeast(MINIMUM_INTERVAL, "watch with onChange what must be noticed sooner").pipe(
      Rule.described("Time between the starts of two runs, for example 90s or 5m. Starts stray by 10 % to spread load.")
    )
  ),
  cron: Schema.optionalKey(CronExpression.pipe(Rule.described(
    "Run at these times instead: minute, hour, day of month, month, day of week.",
    "When clocks go back, times given by the hour run once and those of every hour run in both."
  ))),
  timeZone: Schema.optionalKey(ZoneName.pipe(Rule.described(
    "The time zone of cron, as in the IANA database; UTC when absent."
  ))),
  timeout: Schema.optionalKey(
    atLeast("1 millis", "a run needs time").pipe(Rule.described(
      "Deadline of a run with all its retries. 60s when absent, or what the catalogue says; 30m for a template."
    ))
  ),
  retries: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10 })).pipe(Rule.described(
      "How often a run that could not look (UNKNOWN) is tried again within its timeout."
    ))
  ),
  failureThreshold: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10 })).pipe(Rule.described(
      "Failing runs in a row before WARN or ERROR is shown; until then the checker shows INFO. 1 when absent."
    ))
  ),
  suspend: Schema.optionalKey(Schema.Boolean.pipe(Rule.described(
    "Run only when asked to. What was reported before stays and grows stale."
  ))),
  onChange: Schema.optionalKey(Schema.Boolean.pipe(Rule.described(
    "Whether the probe also runs when an object it watches changes; true when absent. Catalogue checks only."
  )))
}).pipe(Rule.enforce([
  {
    cel: "[has(self.interval), has(self.cron), has(self.runInterval)].filter(given, given).size() <= 1",
    message: "choose one of interval, cron and runInterval",
    holds: ({ cron, interval, runInterval }) =>
      [interval, cron, runInterval].filter((given) => given !== undefined).length <= 1
  },
  {
    cel: "!has(self.timeZone) || has(self.cron)",
    message: "timeZone is the zone of cron and has no meaning without it",
    holds: ({ cron, timeZone }) => timeZone === undefined || cron !== undefined
  }
]))
export type ProbePolicy = typeof ProbePolicy.Type

/** When runs start. */
export type RunSchedule = Data.TaggedEnum<{
  /** Starts are `every` apart, give or take `jitter`. */
  readonly Interval: { readonly every: Duration.Duration; readonly jitter: Duration.Duration }
  /** At the times of `cron`, which carries its zone. */
  readonly Cron: { readonly cron: Cron.Cron }
  /** As soon as possible, and never again. */
  readonly Once: {}
  /** Only when someone asks. */
  readonly Manual: {}
}>
export const RunSchedule = Data.taggedEnum<RunSchedule>()

/** A policy names a time that does not exist. Shown in the Probe's conditions. */
export class InvalidPolicy extends Data.TaggedError("InvalidPolicy")<{
  readonly field: "cron" | "timeZone"
  readonly value: string
  readonly reason: string
}> {
  override get message(): string {
    return `policy.${this.field} ${JSON.stringify(this.value)} ${this.reason}`
  }
}

/** Everything a scheduler and a runner need to know. */
export interface RunPlan {
  readonly schedule: RunSchedule
  /** For the whole run, retries included. */
  readonly timeout: Duration.Duration
  readonly retries: number
  readonly failureThreshold: number
  readonly onChange: boolean
}

/** An interval with the usual jitter. */
export const interval = (every: Duration.Duration): RunSchedule =>
  RunSchedule.Interval({ every, jitter: Duration.times(every, JITTER) })

const legacy = (minutes: number, random: number): RunSchedule => {
  if (minutes <= 0) return RunSchedule.Once()
  const every = Duration.minutes(minutes)
  const jitter = Duration.min(Duration.minutes(Math.max(0, random)), Duration.times(every, LEGACY_JITTER))
  return RunSchedule.Interval({ every, jitter })
}

/** Any moment: a date that exists at all, exists after it. */
const someMoment = DateTime.makeUnsafe("2000-01-01T00:00:00Z")

/**
 * As cron(8) of Debian does it: times named by the hour happen once when clocks go back, times of every hour go on as
 * if the clock had not moved. A date that never comes (30 February) is refused here rather than waited for.
 */
const parseCron = (expression: string, timeZone: string): Result.Result<RunSchedule, InvalidPolicy> =>
  Result.gen(function*() {
    const zone = yield* Result.fromOption(
      DateTime.zoneMakeNamed(timeZone),
      () => new InvalidPolicy({ field: "timeZone", value: timeZone, reason: "is not a known time zone" })
    )
    const parse = (onDstOverlap: Cron.DstOverlapPolicy) =>
      Result.mapError(
        Cron.parse(expression, zone, { onDstOverlap }),
        ({ message }) =>
          new InvalidPolicy({ field: "cron", value: expression, reason: `is not a cron expression: ${message}` })
      )
    const parsed = yield* parse("earlier")
    const everyHour = parsed.hours.size === 0 || parsed.hours.size === 24
    const cron = everyHour ? yield* parse("both") : parsed
    yield* Result.try({
      try: () => Cron.next(cron, someMoment),
      catch: () => new InvalidPolicy({ field: "cron", value: expression, reason: "names a date that never comes" })
    })
    return RunSchedule.Cron({ cron })
  })

/**
 * How often checks of the catalogue run when their Probe says nothing about it. A template without a policy runs once, as
 * in the original.
 */
export const DEFAULT_SCHEDULE: RunSchedule = interval(Duration.minutes(1))

/** When a policy says to run. `fallback` is for policies that say nothing about it; the original runs those once. */
export const schedule = (
  policy: ProbePolicy,
  fallback: RunSchedule = RunSchedule.Once()
): Result.Result<RunSchedule, InvalidPolicy> => {
  if (policy.suspend === true) return Result.succeed(RunSchedule.Manual())
  if (policy.interval !== undefined) return Result.succeed(interval(policy.interval))
  if (policy.cron !== undefined) return parseCron(policy.cron, policy.timeZone ?? "UTC")
  if (policy.runInterval !== undefined) {
    return Result.succeed(legacy(policy.runInterval, policy.runIntervalRandom ?? 0))
  }
  return Result.succeed(fallback)
}

/** The plan of a policy; `defaults` fill what it leaves open. */
export const plan = (
  policy: ProbePolicy,
  defaults: { readonly schedule?: RunSchedule; readonly timeout?: Duration.Duration } = {}
): Result.Result<RunPlan, InvalidPolicy> =>
  Result.map(schedule(policy, defaults.schedule), (schedule) => ({
    schedule,
    timeout: policy.timeout ?? defaults.timeout ?? DEFAULT_TIMEOUT,
    retries: policy.retries ?? 0,
    failureThreshold: policy.failureThreshold ?? 1,
    onChange: policy.onChange ?? true
  }))

/** The start that follows `start` in a cron schedule, strictly later. */
const following = (cron: Cron.Cron, start: DateTime.Utc): DateTime.Utc =>
  DateTime.fromDateUnsafe(Cron.next(cron, start))

/**
 * When the next run is due, or `undefined` when none is. Never earlier than `now`: starts that were missed are made
 * up for by one run, not by many.
 *
 * `random` is in [0, 1). The first run of an interval waits for a random part of the jitter only, so that a new probe
 * has a first result soon and many new ones do not all start at once.
 */
export const nextRun = (schedule: RunSchedule, options: {
  readonly lastStart?: DateTime.Utc | undefined
  readonly now: DateTime.Utc
  readonly random: number
}): DateTime.Utc | undefined => {
  const { lastStart, now, random } = options
  switch (schedule._tag) {
    case "Interval": {
      const due = lastStart === undefined
        ? DateTime.addDuration(now, Duration.times(schedule.jitter, random))
        : DateTime.addDuration(
          DateTime.subtractDuration(DateTime.addDuration(lastStart, schedule.every), schedule.jitter),
          Duration.times(schedule.jitter, 2 * random)
        )
      return DateTime.max(due, now)
    }
    case "Cron":
      return lastStart === undefined
        ? following(schedule.cron, now)
        : DateTime.max(following(schedule.cron, lastStart), now)
    case "Once":
      return lastStart === undefined ? now : undefined
    case "Manual":
      return undefined
  }
}

/**
 * When a result of a run that started at `start` becomes stale: after twice the interval. For cron, that is the second
 * time that follows. `undefined` for schedules that promise no other run.
 */
export const staleAt = (schedule: RunSchedule, start: DateTime.Utc): DateTime.Utc | undefined => {
  switch (schedule._tag) {
    case "Interval":
      return DateTime.addDuration(start, Duration.times(schedule.every, 2))
    case "Cron":
      return following(schedule.cron, following(schedule.cron, start))
    case "Once":
    case "Manual":
      return undefined
  }
}
