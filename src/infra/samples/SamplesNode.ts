/** {@link Samples} in the memory of this process. */
import { DateTime, Duration, Effect } from "effect"
import { type Sample, Samples } from "./Samples.ts"

/** Of one key: an hour of runs that come every 30 seconds. */
const MAX_SAMPLES = 120

/** The keys least recently used go first. */
const MAX_KEYS = 500

const MAX_AGE = Duration.hours(1)

/** With nothing remembered. */
export const make = (): Samples["Service"] => {
  const known = new Map<string, ReadonlyArray<Sample>>()
  return Samples.of({
    take: Effect.fnUntraced(function*(key, counters, { within }) {
      const at = yield* DateTime.now
      const since = (age: Duration.Duration) => {
        const oldest = DateTime.subtractDuration(at, age)
        return (sample: Sample) => !DateTime.isLessThan(sample.at, oldest)
      }
      const before = (known.get(key) ?? []).filter(since(MAX_AGE))
      known.delete(key)
      known.set(key, [...before, { at, counters }].slice(-MAX_SAMPLES))
      for (const oldest of known.keys()) {
        if (known.size <= MAX_KEYS) break
        known.delete(oldest)
      }
      return before.filter(since(within))
    })
  })
}

/** Of this process. */
export const service = make()
