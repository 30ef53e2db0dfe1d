/**
 * What a master asks of an agent, over the link's control stream. The agent serves.
 *
 * Contracts grow by optional fields and new procedures only. Which procedures a peer has is in its capabilities, told
 * when it registers: an older peer answers a procedure it does not know with a defect of that one call.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ContentHash, DesiredSet } from "../DesiredSet.ts"
import { DurationString } from "../Duration.ts"
import { Versions } from "../kinds/Cluster.ts"
import { Checks } from "../kinds/Probe.ts"
import { ProbeRef, RunId, RunRecord } from "../Run.ts"

/** What a peer can do, one word for each procedure or later change of meaning. Unknown words are ignored. */
export const Capability = Schema.String.check(Schema.isMaxCodePoints(64))
export const Capabilities = Schema.Array(Capability).check(Schema.isMaxLength(256))

/** What an agent is. */
export const AgentDescription = Schema.Struct({
  versions: Versions,
  capabilities: Capabilities,
  /** Ids of the catalogue and of the user's own modules that checks may use. */
  catalogue: Schema.Array(Schema.String),
  /** Hash of the desired set it runs; absent before the first. */
  applied: Schema.optionalKey(ContentHash)
})
export type AgentDescription = typeof AgentDescription.Type

/** A Probe of the desired set that the agent cannot run; the others run. */
export const RefusedProbe = Schema.Struct({ probe: ProbeRef, reason: Schema.String })
export type RefusedProbe = typeof RefusedProbe.Type

/** The hash that came with a desired set is not the hash of its content; nothing was changed. */
export class HashMismatch extends Schema.TaggedError<HashMismatch>()("HashMismatch", {
  announced: ContentHash,
  computed: ContentHash
}) {
  override get message(): string {
    return `the desired set announced as ${this.announced} has the hash ${this.computed}; send it again`
  }
}

/** What to run now: a Probe the agent has, or checks that come with the request. */
export const RunTarget = Schema.Union([
  Schema.TaggedStruct("Probe", { probe: ProbeRef }),
  Schema.TaggedStruct("Checks", { checks: Checks })
])
export type RunTarget = typeof RunTarget.Type

/** The agent has no such Probe. */
export class ProbeNotFound extends Schema.TaggedError<ProbeNotFound>()("ProbeNotFound", { probe: ProbeRef }) {
  override get message(): string {
    return `there is no Probe ${this.probe.namespace}/${this.probe.name} here; see which Probes the cluster is given`
  }
}

/** Checks name probes that neither the catalogue nor the agent's modules have. */
export class UnknownChecks extends Schema.TaggedError<UnknownChecks>()("UnknownChecks", {
  uses: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `not in the agent's catalogue: ${this.uses.join(", ")}; update the agent or load the module that has them`
  }
}

/** The agent does not start this run now. */
export class RunRefused extends Schema.TaggedError<RunRefused>()("RunRefused", { run: RunId, reason: Schema.String }) {
  override get message(): string {
    return `run ${this.run} was refused: ${this.reason}`
  }
}

/** Why an agent does not run what it is asked to. */
export const RunNowError = Schema.Union([ProbeNotFound, UnknownChecks, RunRefused])
export type RunNowError = typeof RunNowError.Type

export class Control extends RpcGroup.make(
  /** What the agent is and runs. */
  Rpc.make("describe", { success: AgentDescription }),
  /** Converge to this set, whatever ran before. Asking again with the same hash changes nothing. */
  Rpc.make("applyProbes", {
    payload: { hash: ContentHash, desired: DesiredSet },
    success: Schema.Struct({ applied: ContentHash, refused: Schema.Array(RefusedProbe) }),
    error: HashMismatch
  }),
  /** Run once, beside the schedule. One record for each checker as it finishes; the end means all have. */
  Rpc.make("runNow", {
    payload: { run: RunId, target: RunTarget, timeout: DurationString },
    success: RunRecord,
    error: RunNowError,
    stream: true
  }),
  /** Stop a run. Its cleanup still happens. False when no such run is going on. */
  Rpc.make("cancel", {
    payload: { run: RunId },
    success: Schema.Struct({ cancelled: Schema.Boolean })
  })
) {}
