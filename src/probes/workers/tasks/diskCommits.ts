/** `disk.commits`: how long small writes take until they are on the disk under a folder. */
import { Duration, Effect, Schema } from "effect"
import { Disk } from "../../../infra/host/Disk.ts"
import { percentile } from "../../Percentile.ts"
import * as Task from "../Task.ts"

const Input = Schema.Struct({
  folder: Schema.String,
  times: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })),
  bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_048_576 }))
})

/** Milliseconds, with fractions. */
const Output = Schema.Struct({ p50: Schema.Finite, p99: Schema.Finite, max: Schema.Finite, times: Schema.Int })

export const diskCommits = Task.make("disk.commits", {
  input: Input,
  output: Output,
  timeout: "60 seconds",
  run: Effect.fnUntraced(function*(input: typeof Input.Type) {
    const disk = yield* Disk
    const took = (yield* disk.commits(input)).map(Duration.toMillis)
    return { p50: percentile(took, 50), p99: percentile(took, 99), max: Math.max(...took), times: took.length }
  })
})
