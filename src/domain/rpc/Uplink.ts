/**
 * What an agent tells its master, over the link's uplink stream. The master serves.
 *
 * Who the agent is follows from its certificate, never from a message. Contracts grow as {@link Control} does.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ContentHash } from "../DesiredSet.ts"
import { DurationString, format } from "../Duration.ts"
import { Facts, Versions } from "../kinds/Cluster.ts"
import { RunRecord } from "../Run.ts"
import { Timestamp } from "../Timestamp.ts"
import { Capabilities } from "./Control.ts"

/** The most records of one delivery. */
export const MAX_BATCH = 500

/** Number of a cluster's link. The newest authenticated one wins. */
export const Epoch = Schema.Natural
export type Epoch = typeof Epoch.Type

/** Number of a delivery in its epoch, counted from 1. */
export const Sequence = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
export type Sequence = typeof Sequence.Type

/** A newer link of this cluster has taken over; close this one. */
export class Superseded extends Schema.TaggedError<Superseded>()("Superseded", { epoch: Epoch, current: Epoch }) {
  override get message(): string {
    return `link ${this.epoch} was superseded by link ${this.current}; close it`
  }
}

/** The cluster may not come back: its Cluster was revoked or deleted. */
export class Revoked extends Schema.TaggedError<Revoked>()("Revoked", { cluster: Schema.String }) {
  override get message(): string {
    return `cluster ${this.cluster} was revoked; enrol it again with kubeprober cluster add ${this.cluster}`
  }
}

/** Another cluster is enrolled under this name: the uid of its kube-system namespace differs. */
export class ClusterMismatch extends Schema.TaggedError<ClusterMismatch>()("ClusterMismatch", {
  cluster: Schema.String,
  enrolled: Schema.String,
  presented: Schema.String
}) {
  override get message(): string {
    return `${this.cluster} is enrolled for the cluster with kube-system ${this.enrolled}, not ${this.presented}; ` +
      `revoke it, or enrol this cluster under another name`
  }
}

/** The master sheds load; nothing was kept. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", { retryAfter: DurationString }) {
  override get message(): string {
    return `the master sheds load; deliver again in ${format(this.retryAfter)}`
  }
}

/** What an agent says first on a new link. */
export const Registration = Schema.Struct({
  /** Uid of the kube-system namespace: what makes a cluster this cluster. */
  clusterUid: Schema.String,
  /** Chosen anew each time the agent's process starts. */
  boot: Schema.String,
  versions: Versions,
  capabilities: Capabilities,
  applied: Schema.optionalKey(ContentHash)
})
export type Registration = typeof Registration.Type

/** What the agent is told for this link. */
export const Welcome = Schema.Struct({
  cluster: Schema.String,
  epoch: Epoch,
  /** What the master can do. */
  capabilities: Capabilities,
  /** How often to beat. */
  heartbeat: DurationString
})
export type Welcome = typeof Welcome.Type

/** How the agent and its cluster are. */
export const Heartbeat = Schema.Struct({
  epoch: Epoch,
  versions: Versions,
  nodeCount: Schema.optionalKey(Schema.Natural),
  facts: Schema.optionalKey(Facts),
  /** Hash of the desired set it runs. */
  applied: Schema.optionalKey(ContentHash),
  /** Records not delivered yet, and how old the oldest is. */
  undelivered: Schema.Struct({ count: Schema.Natural, oldest: Schema.optionalKey(Timestamp) })
})
export type Heartbeat = typeof Heartbeat.Type

/** Records in the order they were made. */
export const Delivery = Schema.Struct({
  epoch: Epoch,
  seq: Sequence,
  records: Schema.Array(RunRecord).check(Schema.isMaxLength(MAX_BATCH))
})
export type Delivery = typeof Delivery.Type

export class Uplink extends RpcGroup.make(
  /** First call on a link. Opens the epoch; deliveries and beats of older epochs fail with `Superseded` from then on. */
  Rpc.make("register", {
    payload: Registration,
    success: Welcome,
    error: Schema.Union([Revoked, ClusterMismatch])
  }),
  /** The answer's hash is of the set the cluster should run; when it differs, the master is about to apply it. */
  Rpc.make("heartbeat", {
    payload: Heartbeat,
    success: Schema.Struct({ desired: Schema.optionalKey(ContentHash) }),
    error: Schema.Union([Superseded, Revoked])
  }),
  /**
   * Answered after the records are durable: then, and only then, may the agent forget them. A delivery may be repeated;
   * records already kept are dropped by cluster, run and checker.
   */
  Rpc.make("deliver", {
    payload: Delivery,
    success: Schema.Struct({ epoch: Epoch, seq: Sequence }),
    error: Schema.Union([Superseded, Revoked, Overloaded])
  })
) {}
