/**
 * All kinds of the group, in the order they are installed.
 */
import { Alert } from "./Alert.ts"
import { Cluster } from "./Cluster.ts"
import type { AnyKind } from "./Kind.ts"
import { Probe } from "./Probe.ts"
import { ProbeRun } from "./ProbeRun.ts"
import { ProbeStatus } from "./ProbeStatus.ts"

export const kinds: ReadonlyArray<AnyKind> = [Cluster, Probe, ProbeStatus, ProbeRun, Alert]
