/** `disk.commits`: how long small writes take until they are on the disk under a folder. */
import { Duration, Effect, Schema } from "effect"
import { type Commits, Disk } from "../../../infra/host/Disk.ts"
import { percentile } from "../../Percentile.ts"
import * as Task from "../Task.ts"

const Input = Schema.Struct({
  folder: Schema.String,
  times: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })),
  bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_048_576 })),
  /** How often all that is done, a moment apart; once when absent. */
  rounds: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9 }))),
  /** A round begins no more writes after this long, and has then told enough of a slow disk. */
  roundMillis: Schema.optionalKey(Schema.Finite)
})

/** Milliseconds, with fractions: of the middle one of the rounds. */
const Output = Schema.Struct({ p50: Schema.Finite, p99: Schema.Finite, max: Schema.Finite, times: Schema.Int })
export type Measured = typeof Output.Type

/** Between rounds: longer than a disk is busy with what one program writes at once. */
const PAUSE = "2 seconds"

/**
 * One round. The time that the process itself lost, as it does on a busy node, is what the same takes without the disk, and
 * is no time of the disk: percentile for percentile, because neither can be told of a single write.
 */
export const measured = ({ own, took }: Commits): Measured => {
  const all = took.map(Duration.toMillis)
  const lost = own.map(Duration.toMillis)
  const at = (percent: number) => Math.max(0, percentile(all, percent) - percentile(lost, percent))
  return { p50: at(50), p99: at(99), max: Math.max(0, ...all), times: all.length }
}

/** The round whose 99th percentile is neither the best nor the worst; of two the better. */
export const middle = (rounds: readonly [Measured, ...ReadonlyArray<Measured>]): Measured =>
  rounds.toSorted((a, b) => a.p99 - b.p99)[Math.floor((rounds.length - 1) / 2)] ?? rounds[0]

export const diskCommits = Task.make("disk.commits", {
  input: Input,
  output: Output,
  timeout: "60 seconds",
  run: Effect.fnUntraced(function*({ roundMillis, rounds = 1, ...input }: typeof Input.Type) {
    const disk = yield* Disk
    const within = roundMillis === undefined ? Duration.infinity : Duration.millis(roundMillis)
    const round = Effect.map(disk.commits({ ...input, within }), measured)
    const first = yield* round
    const others = yield* Effect.forEach(Array.from({ length: rounds - 1 }), () => Effect.delay(round, PAUSE))
    return middle([first, ...others])
  })
})
