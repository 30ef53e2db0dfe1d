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

/** Provided by `DiskNode`. */
export class Disk extends Context.Service<Disk, {
  /**
   * Appends `bytes` to a new file in `folder` and waits until they are on the disk (fdatasync), `times` over; how long each
   * took, in order. The file is gone afterwards.
   */
  readonly commits: (options: {
    readonly folder: string
    readonly times: number
    readonly bytes: number
  }) => Effect.Effect<ReadonlyArray<Duration.Duration>, DiskError>
}>()("kubeprober/infra/host/Disk") {}
