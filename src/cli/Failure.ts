/** What ends a command before it has a result, in words for the person who typed it. Exit code 2. */
import { Data } from "effect"

export class Failure extends Data.TaggedError("Failure")<{
  /** What is wrong and what to do, without the program's name. */
  readonly reason: string
}> {
  override get message(): string {
    return this.reason
  }
}

export { closest } from "../domain/EditDistance.ts"
