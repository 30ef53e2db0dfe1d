/** infra.clock.skew: clocks agree. */
import { Clock, DateTime, Duration, Effect, Option, Schedule, Schema, Stream } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import { Lease } from "../../infra/kube/resources/coordination.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"

const NODE_NAMESPACE = "kube-node-lease"
const SERVER_NAMESPACE = "kube-system"
const SERVER_SELECTOR = "apiserver.kubernetes.io/identity=kube-apiserver"

const TIMEOUT = Duration.seconds(75)
/** For the lists before, and for being late. */
const REQUESTS = Duration.seconds(10)
const LONGEST_WINDOW = Duration.subtract(TIMEOUT, REQUESTS)

/** How often it is looked whether enough was seen. */
const LOOK = Schedule.spaced("250 millis")

/** Fewer renewals than this do not make a verdict on a clock: one may have been held up on its way. */
const FEWEST = 3

export const ClockSkewConfig = Schema.Struct({
  warnAbove: setting(DurationString, {
    default: "500ms",
    description: "A clock may differ this much from those that agree. Deliveries take some of it."
  }),
  errorAbove: setting(DurationString, { default: "2s", description: "A clock that differs more is an ERROR." }),
  samples: setting(Schema.Int.check(Schema.isBetween({ minimum: FEWEST, maximum: 25 })), {
    default: 5,
    description:
      "Of how many renewals the median is taken for a clock that seems to differ. One that agrees at once is not " +
      "watched longer."
  }),
  window: setting(DurationString, {
    default: "55s",
    description: "How long renewals are watched at most. Kubelets renew every 10 s by default, API servers too."
  })
}).check(
  Schema.makeFilter(({ window }) =>
    Duration.isLessThanOrEqualTo(window, LONGEST_WINDOW) ||
    `window is longer than the ${Duration.format(LONGEST_WINDOW)} a run may watch`
  )
)
export type ClockSkewConfig = typeof ClockSkewConfig.Type

export const codes = Codes.make({
  CLOCK_SKEW: Codes.error(
    "A clock differs so much from the others that certificates, tokens and leases are judged wrongly by it.",
    "Look at the time service (chrony, systemd-timesyncd, the hypervisor's) on the machine named."
  ),
  CLOCK_SKEW_SMALL: Codes.warn(
    "A clock differs from the others by more than clocks that are kept do.",
    "Look at the time service (chrony, systemd-timesyncd, the hypervisor's) on the machine named."
  ),
  PROBER_CLOCK_OFF: Codes.unknown(
    "The clocks of the cluster differ from the prober's own by the same amount, so the prober's is wrong, or the API server " +
      "delivers late. The cluster's clocks were compared with each other.",
    "Set the clock of the machine the prober runs on; where that is right, look at the latency of the API server."
  ),
  CLOCKS_DISAGREE: Codes.unknown(
    "The only clock of the cluster that can be read and the prober's own differ, and there is no third to tell which is wrong.",
    "Compare both machines' clocks with a time server."
  ),
  CLOCK_UNREAD: Codes.unknown(
    "A lease was not renewed often enough while it was watched, so nothing is known of that clock.",
    "See k8s.node.readiness; where kubelets renew more seldom than every 10 s, watch longer by `window`."
  )
})

/** A clock that renewals tell. */
export interface Observed {
  readonly subject: Subject
  readonly isServer: boolean
  /** Its time less ours when a renewal arrived, in milliseconds, in order of arrival. */
  readonly offsets: ReadonlyArray<number>
}

const byNumber = (a: number, b: number): number => a - b

/** The lower one of the middle two of an even number. */
const median = (values: ReadonlyArray<number>): number => values.toSorted(byNumber)[(values.length - 1) >> 1] ?? 0

interface Clocked {
  readonly offset: number
  readonly isServer: boolean
}

/**
 * The time that most clocks agree upon, ours among them, as an offset from ours: the middle of the largest group within
 * `width` milliseconds. Of equally large groups, the one with an API server in it: what it says is the cluster's time.
 */
export const agreed = (clocks: ReadonlyArray<Clocked>, width: number): number => {
  const all = [...clocks, { offset: 0, isServer: false }].sort((a, b) => a.offset - b.offset)
  let best: ReadonlyArray<Clocked> = []
  let start = 0
  let bestServers = 0
  let servers = 0
  for (const [end, clock] of all.entries()) {
    if (clock.isServer) servers++
    for (let first = all[start]; first !== undefined && clock.offset - first.offset > width; first = all[start]) {
      if (first.isServer) servers--
      start++
    }
    const size = end + 1 - start
    if (size > best.length || (size === best.length && servers > bestServers)) {
      best = all.slice(start, end + 1)
      bestServers = servers
    }
  }
  return median(best.map(({ offset }) => offset))
}

const clocksOf = (seen: ReadonlyArray<Observed>): ReadonlyArray<Clocked> =>
  seen.filter(({ offsets }) => offsets.length > 0).map(({ isServer, offsets }) => ({
    offset: median(offsets),
    isServer
  }))

/**
 * Whether longer watching would not change the verdict: each clock agrees, with ours too, or was read as often as is wanted.
 * One moment in which everything arrives late makes no clock wrong.
 */
export const isEnough = (config: ClockSkewConfig, seen: ReadonlyArray<Observed>): boolean => {
  const width = Duration.toMillis(config.warnAbove)
  if (seen.some(({ offsets }) => offsets.length === 0)) return false
  const time = agreed(clocksOf(seen), width)
  const isOursRight = Math.abs(time) <= width
  return seen.every(({ offsets }) =>
    offsets.length >= config.samples || (isOursRight && Math.abs(median(offsets) - time) <= width)
  )
}

const text = (millis: number): string => `${(Math.abs(millis) / 1000).toFixed(Math.abs(millis) < 10_000 ? 1 : 0)} s`

const nameOf = ({ isServer, subject }: Observed): string => `${isServer ? "API server" : "node"} ${subject.name}`

/** The verdict on what was seen; `seen` has every clock that was to be read. */
export const judge = (config: ClockSkewConfig) => (seen: ReadonlyArray<Observed>): Outcome.Outcome => {
  if (seen.every(({ isServer }) => isServer)) {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: "the cluster has no node whose clock could differ" })
    ])
  }
  const [warn, error] = [Duration.toMillis(config.warnAbove), Duration.toMillis(config.errorAbove)]
  const read = seen.filter(({ offsets }) => offsets.length > 0)
  const time = agreed(clocksOf(read), warn)
  const unread = (clock: Observed) =>
    codes.CLOCK_UNREAD({
      message: `${nameOf(clock)} renewed its lease ${clock.offsets.length} times within ${
        Duration.format(config.window)
      }, too seldom to read its clock`,
      subject: clock.subject,
      evidence: { renewals: clock.offsets.length }
    })
  const differing = read.filter(({ offsets }) => Math.abs(median(offsets) - time) > warn)
  const [only] = read
  if (
    read.length === 1 && only !== undefined && only.offsets.length >= FEWEST && Math.abs(median(only.offsets)) > warn
  ) {
    const offset = median(only.offsets)
    return Outcome.make("", [
      codes.CLOCKS_DISAGREE({
        message: `the clock of ${nameOf(only)} is ${text(offset)} ${
          offset > 0 ? "ahead of" : "behind"
        } the prober's own`,
        subject: only.subject,
        evidence: { offsetMillis: Math.round(offset), renewals: only.offsets.length }
      }),
      ...seen.filter(({ offsets }) => offsets.length === 0).map(unread)
    ])
  }
  const skewed = differing.map((clock): Finding => {
    const offset = median(clock.offsets) - time
    if (clock.offsets.length < FEWEST) return unread(clock)
    const [code, limit] = Math.abs(offset) > error
      ? [codes.CLOCK_SKEW, error] as const
      : [codes.CLOCK_SKEW_SMALL, warn] as const
    return code({
      message: `the clock of ${nameOf(clock)} is ${text(offset)} ${
        offset > 0 ? "ahead of" : "behind"
      } those that agree (limit ${text(limit)})`,
      subject: clock.subject,
      evidence: { offsetMillis: Math.round(offset), renewals: clock.offsets.length, clocks: read.length }
    })
  })
  const ours = Math.abs(time) > warn
    ? [codes.PROBER_CLOCK_OFF({
      message:
        `the prober's own clock is ${text(time)} ${time < 0 ? "ahead of" : "behind"} those of the cluster that ` +
        `agree, or the API server delivers late; the cluster's clocks were compared with each other`,
      evidence: { offsetMillis: Math.round(-time), clocks: read.length }
    })]
    : []
  const widest = Math.max(0, ...read.map(({ offsets }) => Math.abs(median(offsets) - time)))
  return Outcome.make(
    `${counted(read.length, "clock")} of nodes and API servers agree within ${Math.ceil(widest)} ms`,
    [...skewed, ...ours, ...seen.filter(({ offsets }) => offsets.length === 0).map(unread)]
  )
}

/** Clocks by lease, and the renewal last seen of each. */
type Clocks = Map<string, { readonly observed: Observed; readonly renewed: DateTime.Utc | undefined }>

const subjectOf = ({ metadata: { name = "" } }: Lease, isServer: boolean): Subject =>
  isServer ? { kind: "Lease", name, namespace: SERVER_NAMESPACE } : { kind: "Node", name }

/** Whatever a lease tells, known before or not; one that is deleted is forgotten. */
const note = (clocks: Clocks, lease: Lease, isServer: boolean, arrived: number | undefined): void => {
  const key = `${lease.metadata.namespace ?? ""}/${lease.metadata.name ?? ""}`
  const known = clocks.get(key)
  const { renewTime } = lease.spec
  const isRenewal = arrived !== undefined && renewTime !== undefined &&
    (known?.renewed === undefined || !DateTime.Equivalence(renewTime, known.renewed))
  clocks.set(key, {
    renewed: renewTime,
    observed: {
      subject: subjectOf(lease, isServer),
      isServer,
      offsets: [
        ...known?.observed.offsets ?? [],
        ...isRenewal ? [DateTime.toEpochMillis(renewTime) - arrived] : []
      ]
    }
  })
}

const observe = Effect.fnUntraced(function*(
  clocks: Clocks,
  selection: { readonly namespace: string; readonly labelSelector?: string },
  isServer: boolean
) {
  const kube = yield* Kube
  const { items, resourceVersion } = yield* kube.list(Lease, selection)
  for (const lease of items) note(clocks, lease, isServer, undefined)
  return kube.watch(Lease, { ...selection, resourceVersion, timeout: TIMEOUT }).pipe(
    Stream.runForEach(({ _tag, object }) =>
      Effect.map(Clock.currentTimeMillis, (arrived) => {
        if (_tag === "Deleted") clocks.delete(`${object.metadata.namespace ?? ""}/${object.metadata.name ?? ""}`)
        else note(clocks, object, isServer, arrived)
      })
    )
  )
})

/** Without permission, or where API servers have no identity, they are not among the clocks. */
const orNothing = <A, R>(effect: Effect.Effect<A, KubeError, R>) =>
  Effect.catchIf(
    effect,
    ({ reason }) => reason._tag === "Forbidden" || reason._tag === "NotFound",
    () => Effect.undefined
  )

export const clockSkew = Probe.make("infra.clock.skew", {
  layer: "infrastructure",
  proves: "The clocks of nodes, API servers and the prober agree.",
  writes: "nothing",
  costs: "2 list requests and 2 watches of leases for about 10 s, or up to a minute while a clock differs.",
  needs: [
    Needs.verbs(["list", "watch"], "leases", { group: "coordination.k8s.io", namespace: NODE_NAMESPACE }),
    Needs.verbs(["list", "watch"], "leases", {
      group: "coordination.k8s.io",
      namespace: SERVER_NAMESPACE,
      optional: true
    })
  ],
  codes,
  config: ClockSkewConfig,
  interval: "10 minutes",
  timeout: TIMEOUT,
  // A clock that differs was read several times.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ClockSkewConfig) {
    const clocks: Clocks = new Map()
    const seen = Effect.sync(() => [...clocks.values()].map(({ observed }) => observed))
    const nodes = yield* observe(clocks, { namespace: NODE_NAMESPACE }, false)
    if (clocks.size === 0) return judge(config)([])
    const servers = yield* orNothing(
      observe(clocks, { namespace: SERVER_NAMESPACE, labelSelector: SERVER_SELECTOR }, true)
    )
    // A watch that the server ends is no fault: what was read until then is judged.
    const watching = Effect.all([nodes, orNothing(servers ?? Effect.void)], { concurrency: 2 })
    const enough = Effect.repeat(seen, { schedule: LOOK, until: (clocks) => isEnough(config, clocks) })
    yield* Effect.raceFirst(watching, enough).pipe(Effect.timeoutOption(config.window), Effect.map(Option.isSome))
    return judge(config)(yield* seen)
  })
})
