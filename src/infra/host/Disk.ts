/** How the disk under a folder behaves. */
import { Context, Data, type Duration, type Effect } from "effect"

/** The folder cannot be written to, or not in time. */
export class DiskError extends Data.TaggedError("DiskError")<{
  readonly folder: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.folder} could not be written to: ${this.detail}`
  }
}

/** How long each took, in order. */
export interface Commits {
  readonly took: ReadonlyArray<Duration.Duration>
  /** What of that was this process' own doing: the same number of trips to the file, with nothing for the disk to do. */
  readonly own: ReadonlyArray<Duration.Duration>
}

/** Provided by `DiskNode`. */
export class Disk extends Context.Service<Disk, {
  /**
   * Appends `bytes` to a new file in `folder` and waits until they are on the disk (fdatasync), `times` over, but begins
   * none after `within`, the first excepted. The file is gone afterwards.
   */
  readonly commits: (options: {
    readonly folder: string
    readonly times: number
    readonly bytes: number
    readonly within: Duration.Duration
  }) => Effect.Effect<Commits, DiskError>
}>()("kubeprober/infra/host/Disk") {}
