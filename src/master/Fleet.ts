/**
 * The heart of a master, whatever keeps its state and whoever asks it: agents link to it, Probes are given out, results
 * are kept and shown.
 */
import { Layer } from "effect"
import { Admission } from "../infra/link/Admission.ts"
import { Enrolments } from "../infra/link/Enrolments.ts"
import { Links } from "../infra/link/Links.ts"
import { LinkServer, type LinkServerOptions } from "../infra/link/LinkServer.ts"
import * as WebSocketTransport from "../infra/link/WebSocketTransport.ts"
import { JoinTokens } from "../infra/pki/JoinTokens.ts"
import { ClusterStatuses } from "./ClusterStatuses.ts"
import * as Collector from "./Collector.ts"
import { Desired } from "./Desired.ts"
import * as Distributor from "./Distributor.ts"
import { Drift } from "./Drift.ts"
import { FleetRuns } from "./FleetRuns.ts"
import { FleetState } from "./FleetState.ts"
import { Heartbeats } from "./Heartbeats.ts"
import * as ProbeRuns from "./ProbeRuns.ts"
import { Registry } from "./Registry.ts"

/** Needs where state is kept: resources, history, members, join tokens and the authority. */
export const layer = (options: LinkServerOptions) =>
  LinkServer.layer(options).pipe(
    Layer.provideMerge(Layer.merge(Distributor.layer, ProbeRuns.layer)),
    Layer.provide([Admission.layer(), Enrolments.layer, WebSocketTransport.layer, Collector.layer]),
    Layer.provideMerge(Layer.mergeAll(Registry.layer, FleetRuns.layer)),
    Layer.provideMerge(ClusterStatuses.layer),
    Layer.provideMerge(Layer.merge(FleetState.layer, Drift.layer)),
    Layer.provideMerge(Desired.layer),
    Layer.provideMerge(Layer.mergeAll(Heartbeats.layer, Links.layer, JoinTokens.layer))
  )
