/** Names for what a test makes in a cluster that outlives it. */
import { Effect, Random } from "effect"

/** A name that no earlier try of the test has had, so that a second one meets nothing of what the first has left. */
export const freshName = (name: string): Effect.Effect<string> =>
  Effect.map(Random.nextIntBetween(0, 1_000_000_000), (number) => `${name}-${number}`)
