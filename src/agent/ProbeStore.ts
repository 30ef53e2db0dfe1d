/**
 * The Probes this cluster is to run, and where they are kept: as resources in the cluster (operator, standalone), or in
 * memory, where nothing of ours may be installed.
 */
import { Context, Data, type Effect, type Option, type Stream } from "effect"
import type { ContentHash, DesiredSet } from "../domain/DesiredSet.ts"
import type { ProbeSpec } from "../domain/kinds/Probe.ts"
import type { HashMismatch, RefusedProbe } from "../domain/rpc/Control.ts"

/** The set could not be kept. */
export class ProbeStoreError extends Data.TaggedError("ProbeStoreError")<{ readonly detail: string }> {
  override get message(): string {
    return `the desired Probes could not be kept: ${this.detail}`
  }
}

/** A Probe that is here. */
export interface StoredProbe {
  readonly namespace: string
  readonly name: string
  readonly spec: ProbeSpec
  /** Of the resource, for its ProbeStatus and Jobs to be owned by it. */
  readonly uid?: string
  readonly generation?: number
}

export class ProbeStore extends Context.Service<ProbeStore, {
  /** Hash of the desired set that is here; none before the first. */
  readonly applied: Effect.Effect<Option.Option<ContentHash>>
  /** Converges to the set; Probes a person made here stay. */
  readonly apply: (
    hash: ContentHash,
    desired: DesiredSet
  ) => Effect.Effect<ReadonlyArray<RefusedProbe>, HashMismatch | ProbeStoreError>
  /** The Probes now, and after every change. */
  readonly probes: Stream.Stream<ReadonlyArray<StoredProbe>>
}>()("kubeprober/agent/ProbeStore") {}
