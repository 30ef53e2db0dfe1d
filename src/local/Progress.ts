import { type Effect, Schema } from "effect"

const build = {
  binary: Schema.String,
  /** Number `step` of `of`. */
  step: Schema.Int,
  of: Schema.Int,
  elapsed: Schema.DurationFromMillis
}

/** The stages of a cluster. A control plane alone has `binaries` and `control plane`. */
export const Stage = Schema.Literals(["binaries", "network", "control plane", "images", "nodes", "dns"])
export type Stage = typeof Stage.Type

/** What takes time while a local cluster comes up. */
export const Progress = Schema.TaggedUnion({
  /** A binary is being built. Told every second. */
  Building: build,
  /** Another process builds; this one takes over what it has made. Told every second. */
  Waiting: build,
  Built: { binary: Schema.String, path: Schema.String, elapsed: Schema.DurationFromMillis },
  /** A stage of the cluster is done. */
  Reached: { cluster: Schema.String, stage: Stage, elapsed: Schema.DurationFromMillis }
})
export type Progress = typeof Progress.Type

export const { Building, Built, Reached, Waiting } = Progress.cases

/** Is told of progress. It must return soon: the work waits for it. */
export type OnProgress = (event: Progress) => Effect.Effect<void>
