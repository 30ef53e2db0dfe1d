/**
 * Counters as earlier runs saw them. What a counter says is how much it has grown, and one look at it does not tell since
 * when.
 */
import { Context, type DateTime, type Duration, type Effect } from "effect"

/** Counters by name, as they were at a time. */
export interface Sample {
  readonly at: DateTime.Utc
  readonly counters: Readonly<Record<string, number>>
}

/** Provided by `SamplesNode`: remembered by this process, so the first run after its start knows nothing. */
export class Samples extends Context.Service<Samples, {
  /**
   * Remembers `counters` under `key`, and gives what was remembered before, oldest first, at most an hour old. The key
   * says which life of which process counts: a counter starts anew with it.
   */
  readonly take: (
    key: string,
    counters: Readonly<Record<string, number>>,
    options: { readonly within: Duration.Duration }
  ) => Effect.Effect<ReadonlyArray<Sample>>
}>()("kubeprober/infra/samples/Samples") {}
