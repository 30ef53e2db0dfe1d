/**
 * What people and services ask of a master: the CLI, the dashboard and typed clients. The master serves.
 *
 * Lists come in pages: `after` is the cursor of the page before, absent on the first; a page without `next` is the
 * last. Contracts grow as {@link Control} does.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup, RpcMiddleware } from "effect/rpc"
import { ClusterSelector } from "../ClusterSelector.ts"
import { DurationString } from "../Duration.ts"
import { Freshness } from "../Freshness.ts"
import { ClusterState } from "../kinds/Cluster.ts"
import { ProbeSpec } from "../kinds/Probe.ts"
import { ProbeLayer } from "../ProbeLayer.ts"
import { Blame, Code } from "../Report.ts"
import { ProbeRef, RunId, RunRecord } from "../Run.ts"
import { Status } from "../Status.ts"
import { Timestamp } from "../Timestamp.ts"
import { ProbeNotFound, RunTarget, UnknownChecks } from "./Control.ts"

/** Where a master serves these procedures: Effect RPC over HTTPS, newline-delimited JSON. */
export const RPC_PATH = "/v1/rpc"

/** The most items of a page. */
export const MAX_PAGE = 1000

/** The name of a Cluster resource (a DNS subdomain, RFC 1123). */
const ClusterName = Schema.String.check(
  Schema.isMaxCodePoints(253),
  Schema.isPattern(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/u, {
    message: "a cluster's name is lower-case letters, digits, and inner dashes and dots"
  })
)

const Cursor = Schema.String.check(Schema.isMaxCodePoints(512))
const Limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: MAX_PAGE }))
const page = { after: Schema.optionalKey(Cursor), limit: Schema.optionalKey(Limit) }

/** No Cluster of this name. */
export class ClusterNotFound extends Schema.TaggedError<ClusterNotFound>()("ClusterNotFound", {
  cluster: Schema.String
}) {
  override get message(): string {
    return `there is no cluster ${this.cluster}; kubeprober cluster list shows those there are`
  }
}

/** A Cluster of this name is there already and may not be enrolled once more. */
export class AlreadyEnrolled extends Schema.TaggedError<AlreadyEnrolled>()("AlreadyEnrolled", {
  cluster: Schema.String
}) {
  override get message(): string {
    return `${this.cluster} is enrolled; revoke it first if another cluster is to take its name`
  }
}

/** The cursor is not one this master gave out, or is too old. */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>()("InvalidCursor", {}) {
  override get message(): string {
    return "the cursor is not valid any more; begin again with the first page"
  }
}

/** No Probe of this name. */
export class ProbeMissing extends Schema.TaggedError<ProbeMissing>()("ProbeMissing", { name: Schema.String }) {
  override get message(): string {
    return `there is no Probe ${this.name}; kubeprober probe get shows those there are`
  }
}

/** The store does not take it as it is: a field, a label or a name is wrong. */
export class InvalidResource extends Schema.TaggedError<InvalidResource>()("InvalidResource", {
  kind: Schema.String,
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.kind} ${this.name} was refused: ${this.detail}`
  }
}

/** The master could not do it now. Nothing that was asked can be taken for done; asking again may help. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", { detail: Schema.String }) {
  override get message(): string {
    return `the master could not do it now: ${this.detail}; try again`
  }
}

/** Whoever asks did not show who they are. */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()("Unauthenticated", {
  detail: Schema.String
}) {
  override get message(): string {
    return `not authenticated: ${this.detail}`
  }
}

/** Whoever asks may not do this. The right is one of group `kubeprober.erda.cloud`, as RBAC writes it. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {
  user: Schema.String,
  verb: Schema.String,
  resource: Schema.String,
  /** Absent when the right is needed for all. */
  name: Schema.optionalKey(Schema.String),
  /** What the authorizer said of it. */
  reason: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return `${this.user} may not ${this.verb} ${this.resource}${this.name === undefined ? "" : ` ${this.name}`} ` +
      `(group kubeprober.erda.cloud)${this.reason === undefined ? "" : `: ${this.reason}`}; ask for that right`
  }
}

/** Lets a call through when its caller has shown who they are and may do it. The token is HTTP's: a bearer token. */
export class FleetAccess extends RpcMiddleware.Service<FleetAccess>()("kubeprober/fleet/FleetAccess", {
  error: Schema.Union([Unauthenticated, Forbidden, Unavailable])
}) {}

/** Which part of the fleet. Everything given must fit. */
export const FleetFilter = Schema.Struct({
  clusters: Schema.optionalKey(Schema.Array(ClusterName).check(Schema.isMaxLength(MAX_PAGE))),
  clusterSelector: Schema.optionalKey(ClusterSelector),
  layers: Schema.optionalKey(Schema.Array(ProbeLayer)),
  probes: Schema.optionalKey(Schema.Array(Schema.String).check(Schema.isMaxLength(MAX_PAGE))),
  /** Cells that show at least this. */
  atLeast: Schema.optionalKey(Status)
})
export type FleetFilter = typeof FleetFilter.Type

/** One checker on one cluster, as it is shown now. */
export const Cell = Schema.Struct({
  probe: ProbeRef,
  checker: Schema.String,
  layer: ProbeLayer,
  /** Never PASS when `freshness` is not fresh. */
  status: Status,
  freshness: Freshness,
  code: Schema.optionalKey(Code),
  blame: Schema.optionalKey(Blame),
  message: Schema.String,
  /** Absent when the checker has never run. */
  lastRun: Schema.optionalKey(Timestamp),
  since: Schema.optionalKey(Timestamp)
})
export type Cell = typeof Cell.Type

/** The messages of a cell that has never run, for no other reason than that its turn has not come. */
export const NEVER_RAN = {
  linked: "it has not run yet",
  unlinked: "it has never run, and there is no link to the cluster"
} as const

/** One cluster of the matrix: its cells by layer, top down. */
export const MatrixRow = Schema.Struct({
  cluster: ClusterName,
  status: Status,
  linked: Schema.Boolean,
  /** When the link was opened that is there now. */
  linkedSince: Schema.optionalKey(Timestamp),
  cells: Schema.Array(Cell)
})
export type MatrixRow = typeof MatrixRow.Type

/** A cluster, its labels and what its agent tells. */
export const ClusterView = Schema.Struct({
  name: ClusterName,
  labels: Schema.Record(Schema.String, Schema.String),
  status: Status,
  state: ClusterState,
  /** Its link was dropped and it may not return. */
  revoked: Schema.optionalKey(Schema.Boolean)
})
export type ClusterView = typeof ClusterView.Type

/** The name of a Probe (as a Kubernetes label's value, at most 63 characters). */
const ProbeName = Schema.String.check(
  Schema.isMaxCodePoints(63),
  Schema.isPattern(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/u, {
    message: "a Probe's name is at most 63 lower-case letters, digits, and inner dashes and dots"
  })
)

/** A Probe of the fleet. */
export const ProbeView = Schema.Struct({
  name: ProbeName,
  labels: Schema.Record(Schema.String, Schema.String),
  /** Counts the changes of the spec. */
  generation: Schema.Natural,
  spec: ProbeSpec
})
export type ProbeView = typeof ProbeView.Type

/** One entry of a checker's history: a run that failed or changed the status. */
export const HistoryEntry = Schema.Struct({ record: RunRecord, receivedAt: Timestamp })
export type HistoryEntry = typeof HistoryEntry.Type

/** A checker's shown status changed. */
export const Transition = Schema.Struct({
  cluster: ClusterName,
  probe: ProbeRef,
  checker: Schema.String,
  layer: ProbeLayer,
  /** Absent for the first result of a checker. */
  from: Schema.optionalKey(Status),
  to: Status,
  freshness: Freshness,
  code: Schema.optionalKey(Code),
  message: Schema.String,
  at: Timestamp
})
export type Transition = typeof Transition.Type

/** How a cluster ended in a fleet-wide run. */
export const RunOutcome = Schema.Literals(["finished", "unreachable", "timed-out", "refused"])
export type RunOutcome = typeof RunOutcome.Type

/** What happens in a fleet-wide run. */
export const FleetRunEvent = Schema.Union([
  Schema.TaggedStruct("Started", { run: RunId, clusters: Schema.Array(ClusterName) }),
  Schema.TaggedStruct("Reported", { cluster: ClusterName, record: RunRecord }),
  Schema.TaggedStruct("Ended", {
    cluster: ClusterName,
    outcome: RunOutcome,
    message: Schema.optionalKey(Schema.String)
  })
])
export type FleetRunEvent = typeof FleetRunEvent.Type

export class Fleet extends RpcGroup.make(
  /** Clusters by name, each with its cells. */
  Rpc.make("matrix", {
    payload: { filter: FleetFilter, ...page },
    success: Schema.Struct({ rows: Schema.Array(MatrixRow), next: Schema.optionalKey(Cursor) }),
    error: InvalidCursor
  }),
  /** Clusters by name. */
  Rpc.make("clusters", {
    payload: { filter: FleetFilter, ...page },
    success: Schema.Struct({ clusters: Schema.Array(ClusterView), next: Schema.optionalKey(Cursor) }),
    error: InvalidCursor
  }),
  Rpc.make("cluster", {
    payload: { cluster: ClusterName },
    success: ClusterView,
    error: ClusterNotFound
  }),
  /** The history of one cell, newest first. */
  Rpc.make("history", {
    payload: {
      cluster: ClusterName,
      probe: ProbeRef,
      checker: Schema.String,
      from: Schema.optionalKey(Timestamp),
      to: Schema.optionalKey(Timestamp),
      ...page
    },
    success: Schema.Struct({ entries: Schema.Array(HistoryEntry), next: Schema.optionalKey(Cursor) }),
    error: Schema.Union([ClusterNotFound, InvalidCursor, Unavailable])
  }),
  /** Run on many clusters at once. An unreachable one delays no other; at the deadline the rest has ended as such. */
  Rpc.make("run", {
    payload: { filter: FleetFilter, target: RunTarget, timeout: DurationString },
    success: FleetRunEvent,
    error: Schema.Union([ProbeNotFound, UnknownChecks]),
    stream: true
  }),
  /** Status changes from now on, for as long as someone listens. */
  Rpc.make("transitions", {
    payload: { filter: FleetFilter },
    success: Transition,
    stream: true
  }),
  /** A single-use token with which one agent joins as this cluster; makes the Cluster when it is not there. */
  Rpc.make("createJoinToken", {
    payload: { cluster: ClusterName, labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)) },
    success: Schema.Struct({ token: Schema.RedactedFromValue(Schema.String), expiresAt: Timestamp }),
    error: Schema.Union([AlreadyEnrolled, InvalidResource, Unavailable])
  }),
  /** Drop the cluster's link and refuse its return. */
  Rpc.make("revoke", {
    payload: { cluster: ClusterName },
    error: Schema.Union([ClusterNotFound, Unavailable])
  }),
  /** Revoke a cluster and forget it, with all that is known of it. */
  Rpc.make("removeCluster", {
    payload: { cluster: ClusterName },
    error: Schema.Union([ClusterNotFound, Unavailable])
  }),
  /** Set labels (a text) and remove them (null). Probes select clusters by them. */
  Rpc.make("labelCluster", {
    payload: { cluster: ClusterName, labels: Schema.Record(Schema.String, Schema.NullOr(Schema.String)) },
    success: ClusterView,
    error: Schema.Union([ClusterNotFound, InvalidResource, Unavailable])
  }),
  /** The Probes of the fleet, by name. */
  Rpc.make("probes", { payload: {}, success: Schema.Struct({ probes: Schema.Array(ProbeView) }) }),
  /** Make or change a Probe: its spec and labels are these afterwards. */
  Rpc.make("applyProbe", {
    payload: {
      name: ProbeName,
      labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
      spec: ProbeSpec
    },
    success: ProbeView,
    error: Schema.Union([InvalidResource, Unavailable])
  }),
  /** Delete a Probe. Agents stop running it, and what it said is forgotten. */
  Rpc.make("deleteProbe", {
    payload: { name: ProbeName },
    error: Schema.Union([ProbeMissing, Unavailable])
  })
).middleware(FleetAccess) {}
