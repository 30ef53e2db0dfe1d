/**
 * infra.disk.latency: nodes' disks commit small writes fast.
 *
 * A pod on each node writes as a database does: little, and waiting each time until it is on the disk.
 */
import { Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Count, setting } from "../Setting.ts"
import { gather } from "../workers/Gather.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { type Measured, diskCommits } from "../workers/tasks/diskCommits.ts"
import { Workers, needs as workerNeeds } from "../workers/Workers.ts"

/** The folder of worker pods that is on their node's disk (an `emptyDir`). */
const FOLDER = "/tmp"

/** As etcd's own benchmark of a disk: small blocks, each committed (https://etcd.io/docs/v3.5/op-guide/hardware/#disks). */
const BYTES = 4096

/** The middle one counts: a disk that others keep busy for a moment is slow in one of them, and one that is slow in most. */
const ROUNDS = 3

/** Of a round: with the pauses, three of them end before the task must. */
const ROUND = Duration.seconds(15)

export const DiskLatencyConfig = Schema.Struct({
  slow: setting(DurationString, {
    default: "10ms",
    description: "A 99th percentile above this in most of 3 rounds is a WARN: etcd asks for less than 10 ms."
  }),
  tooSlow: setting(DurationString, { default: "100ms", description: "A 99th percentile above this is an ERROR." }),
  commits: setting(Schema.Int.check(Schema.isBetween({ minimum: 10, maximum: 1000 })), {
    default: 100,
    description: "Writes of 4 KiB on each node in each of 3 rounds, of 15 s at most."
  }),
  nodes: setting(Count, {
    default: 10,
    description: "Nodes looked at in a run; of more, others each time."
  })
})
export type DiskLatencyConfig = typeof DiskLatencyConfig.Type

const LOOK = "Look for a full or throttled disk on that node, for what else writes there, and at its SMART data."

export const codes = Codes.make({
  DISK_SLOW: Codes.warn("A node's disk takes long to commit small writes.", LOOK),
  DISK_TOO_SLOW: Codes.error("A node's disk takes so long to commit small writes that databases on it stall.", LOOK),
  NO_NODE: Codes.info("No node can run a pod now, so there is no disk to look at.", "See k8s.node.readiness.")
})

/** The verdict on one node's disk. */
export const judge = (
  { slow, tooSlow }: Pick<DiskLatencyConfig, "slow" | "tooSlow">,
  node: string,
  { max, p50, p99, times }: Measured,
  limits: Hysteresis.Limits = Hysteresis.strict
): Finding | undefined => {
  const subject = { kind: "Node", name: node }
  const round = (millis: number) => Math.round(millis * 10) / 10
  const [code, limit] =
    ([[codes.DISK_TOO_SLOW, tooSlow], [codes.DISK_SLOW, slow]] as const).find(([code, limit]) =>
      limits.exceeds(p99, Duration.toMillis(limit), { code, subject })
    ) ?? []
  return code === undefined || limit === undefined ? undefined : code({
    message:
      `node ${node} commits 4 KiB to its disk in ${round(p99)} ms at the 99th percentile of ${times}, in most of ` +
      `${ROUNDS} rounds (${Hysteresis.text(Duration.format(limit), p99 > Duration.toMillis(limit))})`,
    subject,
    evidence: {
      p50Millis: round(p50),
      p99Millis: round(p99),
      maxMillis: round(max),
      limitMillis: Duration.toMillis(limit)
    }
  })
}

export const diskLatency = Probe.make("infra.disk.latency", {
  layer: "infrastructure",
  proves: "Nodes' disks commit small writes fast enough for databases.",
  writes: "namespace",
  placement: "workers",
  costs: "A pod on each of at most 10 nodes, 1.2 MB written on each, and about 3 API requests a pod.",
  needs: [Needs.list("nodes"), workerNeeds],
  codes,
  config: DiskLatencyConfig,
  timeout: "3 minutes",
  interval: "30 minutes",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: DiskLatencyConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const limits = yield* Hysteresis.limits
    const { items } = yield* kube.list(Node)
    const names = yield* sample(usable(items), config.nodes)
    if (names.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "no node can run a pod now" })])
    const input = {
      folder: FOLDER,
      times: config.commits,
      bytes: BYTES,
      rounds: ROUNDS,
      roundMillis: Duration.toMillis(ROUND)
    }
    const { blind, done } = yield* gather(
      names.map((node) =>
        Effect.map(workers.run(diskCommits, input, { node, name: "disk" }), ({ output }) => ({ node, output }))
      )
    )
    const findings = done.flatMap(({ node, output }) => judge(config, node, output, limits) ?? [])
    return Outcome.make(
      `${done.length} of ${items.length} nodes commit 4 KiB within ${
        Math.round(Math.max(0, ...done.map(({ output }) => output.p99)) * 10) / 10
      } ms (99th percentile)`,
      [...findings, ...blind]
    )
  })
})
