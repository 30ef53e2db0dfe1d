/** What ends a command before it has a result, in words for the person who typed it. Exit code 2. */
import { Data } from "effect"
import * as EditDistance from "../domain/EditDistance.ts"

export class Failure extends Data.TaggedError("Failure")<{
  /** What is wrong and what to do, without the program's name. */
  readonly reason: string
}> {
  override get message(): string {
    return this.reason
  }
}

/** The candidates closest to `wanted` by edit distance, for "did you mean". */
export const closest = (wanted: string, candidates: ReadonlyArray<string>): ReadonlyArray<string> =>
  candidates
    .map((candidate) => ({ candidate, distance: EditDistance.between(wanted, candidate) }))
    .filter(({ candidate, distance }) =>
      distance <= Math.max(2, Math.floor(wanted.length / 3)) || candidate.includes(wanted)
    )
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ candidate }) => candidate)
