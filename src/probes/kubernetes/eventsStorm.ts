/** k8s.events.storm: no burst of serious failures is under way. */
import { DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Event } from "../../infra/kube/resources/events.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Count, Names, setting } from "../Setting.ts"

/**
 * What nodes, volumes and controllers cannot do, as opposed to what single containers do wrong (`BackOff`, `Unhealthy`,
 * `Failed`, `FailedScheduling`), which repeat for as long as one pod is broken and are judged by k8s.workloads.health.
 * From kubelet (pkg/kubelet/events/event.go), kube-controller-manager and node-problem-detector.
 */
const SERIOUS = [
  "ContainerGCFailed",
  "DockerHung",
  "Evicted",
  "EvictionThresholdMet",
  "FailedAttachVolume",
  "FailedBinding",
  "FailedCreate",
  "FailedCreatePodContainer",
  "FailedCreatePodSandBox",
  "FailedDaemonPod",
  "FailedKillPod",
  "FailedMapVolume",
  "FailedMount",
  "FailedNodeAllocatableEnforcement",
  "FailedToCreateEndpoint",
  "FailedToUpdateEndpoint",
  "FailedToUpdateEndpointSlices",
  "FilesystemIsReadOnly",
  "FreeDiskSpaceFailed",
  "ImageGCFailed",
  "IOError",
  "KernelOops",
  "KubeletSetupFailed",
  "NetworkNotReady",
  "NodeNotReady",
  "OOMKilling",
  "ProvisioningFailed",
  "SyncLoadBalancerFailed",
  "SystemOOM",
  "TaskHung"
]

export const EventsStormConfig = Schema.Struct({
  window: setting(DurationString, {
    default: "10m",
    description: "Events are counted over this long; API servers keep them for an hour (--event-ttl)."
  }),
  warn: setting(Count, { default: 200, description: "So many events within the window are a WARN." }),
  error: setting(Count, { default: 1000, description: "So many events within the window are an ERROR." }),
  reasons: setting(Names, { default: SERIOUS, description: "Reasons of Warning events that count." })
})
export type EventsStormConfig = typeof EventsStormConfig.Type

export const codes = Codes.make({
  EVENTS_STORM: Codes.error(
    "A storm of Warning events of serious reasons: many things fail at once, or one fails over and over.",
    "Look at the reason and object named: `kubectl events --all-namespaces --types=Warning`."
  ),
  EVENTS_BURST: Codes.warn(
    "A burst of Warning events of serious reasons.",
    "Look at the reason and object named: `kubectl events --all-namespaces --types=Warning`."
  ),
  EVENTS_NOT_ALL_READ: Codes.unknown(
    "There are more Warning events than the probe reads, and those it read are below the limits.",
    "Look for what emits them: `kubectl events --all-namespaces --types=Warning`."
  )
})

/** An hour of Warning events of a large cluster; each is about 1 KiB. */
const MAXIMUM_EVENTS = 10_000

/**
 * How often an event happened since `from`. The API tells how often in all, first and last: of an older event that goes on
 * the part of its span that lies in the window counts.
 */
export const occurrences = (event: Event, from: DateTime.Utc): number => {
  const { creationTimestamp } = event.metadata
  const last = event.series?.lastObservedTime ?? event.deprecatedLastTimestamp ?? event.eventTime ?? creationTimestamp
  const first = event.deprecatedFirstTimestamp ?? event.eventTime ?? creationTimestamp ?? last
  const count = Math.max(1, event.series?.count ?? event.deprecatedCount ?? 1)
  if (last === undefined || first === undefined || DateTime.isLessThan(last, from)) return 0
  if (DateTime.isGreaterThanOrEqualTo(first, from)) return count
  const share = DateTime.toEpochMillis(last) - DateTime.toEpochMillis(from)
  const span = DateTime.toEpochMillis(last) - DateTime.toEpochMillis(first)
  return Math.max(1, Math.round(count * share / span))
}

interface Counted {
  readonly event: Event
  readonly times: number
}

/** Sums by a key, largest first. */
const ranked = (counted: ReadonlyArray<Counted>, keyOf: (event: Event) => string) => {
  const sums = new Map<string, Counted>()
  for (const { event, times } of counted) {
    const key = keyOf(event)
    const known = sums.get(key)
    sums.set(key, known === undefined ? { event, times } : { event: known.event, times: known.times + times })
  }
  return [...sums].map(([key, sum]) => ({ key, ...sum }))
    .sort((a, b) => b.times - a.times || (a.key < b.key ? -1 : 1))
}

const objectOf = ({ regarding: { kind = "", name = "", namespace } }: Event): string =>
  `${kind} ${namespace === undefined || namespace === "" ? "" : `${namespace}/`}${name}`

/** What is told of a cluster's Warning events. */
export const judge =
  (config: EventsStormConfig, now: DateTime.Utc) =>
  (events: ReadonlyArray<Event>, remaining: number): Outcome.Outcome => {
    const from = DateTime.subtractDuration(now, config.window)
    const counted = events.filter(({ reason, type }) =>
      type === "Warning" && reason !== undefined && config.reasons.includes(reason)
    ).map((event): Counted => ({ event, times: occurrences(event, from) })).filter(({ times }) => times > 0)
    const sum = counted.reduce((total, { times }) => total + times, 0)
    const window = Elapsed.text(config.window)
    const reasons = ranked(counted, ({ reason = "" }) => reason)
    const [top] = reasons
    const told = (): ReadonlyArray<Finding> => {
      if (top === undefined || sum < Math.min(config.warn, config.error)) {
        return remaining === 0 ? [] : [codes.EVENTS_NOT_ALL_READ({
          message:
            `${sum} serious events in the last ${window} among the first ${events.length} Warning events; there are more`,
          evidence: { events: sum, read: events.length }
        })]
      }
      const [object] = ranked(counted.filter(({ event }) => event.reason === top.key), objectOf)
      const [code, limit] = sum >= config.error ? [codes.EVENTS_STORM, config.error] : [codes.EVENTS_BURST, config.warn]
      const { kind = "", name = "", namespace } = object?.event.regarding ?? {}
      return [code({
        message: `${remaining === 0 ? "" : "at least "}${sum} serious events in the last ${window} (limit ${limit}): ` +
          `${reasons.slice(0, 3).map(({ key, times }) => `${key} ${times} times`).join(", ")}; most of ${top.key} at ${
            object === undefined ? "" : `${objectOf(object.event)} (${object.times})`
          }`,
        subject: { kind, name, ...(namespace === undefined || namespace === "" ? {} : { namespace }) },
        evidence: {
          events: sum,
          objects: new Set(counted.map(({ event }) => objectOf(event))).size,
          windowMinutes: Math.round(Duration.toMinutes(config.window)),
          ...Object.fromEntries(reasons.slice(0, 5).map(({ key, times }) => [key, times]))
        }
      })]
    }
    return Outcome.make(
      `${sum} serious events in the last ${window}${top === undefined ? "" : `, most ${top.key} (${top.times})`}`,
      told()
    )
  }

export const eventsStorm = Probe.make("k8s.events.storm", {
  layer: "kubernetes",
  proves: "No burst of failures of nodes, volumes, sandboxes or controllers is under way.",
  writes: "nothing",
  costs: "One list of Warning events, at most 20 pages of 500.",
  needs: [Needs.list("events", { group: "events.k8s.io" }), ServerTime.needs],
  codes,
  config: EventsStormConfig,
  interval: "5 minutes",
  timeout: "30 seconds",
  timed: [],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: EventsStormConfig) {
    const kube = yield* Kube
    const { items, remaining } = yield* kube.list(Event, { fieldSelector: "type=Warning", maximum: MAXIMUM_EVENTS })
    return judge(config, yield* ServerTime.nowOrOurs)(items, remaining)
  })
})
