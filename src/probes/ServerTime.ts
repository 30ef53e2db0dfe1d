/**
 * What time it is for the cluster, as far as that can be read from it.
 *
 * Ages are differences between the cluster's clock and ours. Each API server renews a Lease of its identity every 10
 * seconds (KEP-1965), which tells its clock to within that time; ours is corrected only when it lies outside. A laptop that
 * is minutes off then still sees young leases as young. Where API servers contradict each other, most of them are right, and
 * one that agrees with us is not overruled by a single other one.
 */
import { Clock, Context, DateTime, Duration, Effect, Option, Order } from "effect"
import { Kube } from "../infra/kube/Kube.ts"
import { Lease } from "../infra/kube/resources/coordination.ts"
import * as Needs from "./Needs.ts"

/** What {@link now} and {@link nowOrOurs} would like to be allowed. Without it, it does not know. */
export const needs: ReadonlyArray<Needs.Need> = Needs.list("leases", {
  group: "coordination.k8s.io",
  namespace: "kube-system",
  optional: true
})

/** Between renewals pass 10 s (kube-apiserver's IdentityLeaseRenewIntervalPeriod); 5 s more for being late. */
const SLACK = { seconds: 15 }

/** Our clock, moved into what a server's last sign of life allows. Pure; use {@link now}. */
export const correct = (ours: DateTime.Utc, renewed: DateTime.Utc): DateTime.Utc =>
  DateTime.clamp(ours, { minimum: renewed, maximum: DateTime.add(renewed, SLACK) })

/**
 * Our clock, corrected by what these leases of API servers say together. Leases of servers that are gone stay for an hour
 * and look like clocks that are behind. Pure; use {@link now}.
 */
export const agreed = (ours: DateTime.Utc, leases: Iterable<Lease>): Option.Option<DateTime.Utc> => {
  const renewals = Array.from(leases, ({ spec: { renewTime } }) => renewTime)
    .filter((renewTime) => renewTime !== undefined)
    .toSorted(Order.flip(DateTime.Order))
  if (renewals.length === 0) return Option.none()
  const isOf = (latest: DateTime.Utc) => (time: DateTime.Utc) =>
    DateTime.between(time, { minimum: DateTime.subtract(latest, SLACK), maximum: latest })
  // Newest first, so that among as many it is those: the others' servers may be gone.
  const [latest, servers] = renewals
    .map((renewal) => [renewal, renewals.filter(isOf(renewal)).length] as const)
    .reduce((best, each) => each[1] > best[1] ? each : best)
  const allies = renewals.filter((renewal) => DateTime.Equivalence(correct(ours, renewal), ours)).length
  return Option.some(allies > 0 && servers <= Math.max(1, allies) ? ours : correct(ours, latest))
}

/** How the cluster's time is had; none when it does not say: no identity leases, or no permission to read them. */
export type Read = Effect.Effect<Option.Option<DateTime.Utc>, never, Kube>

/** Asks the API server each time. */
export const read: Read = Effect.gen(function*() {
  const kube = yield* Kube
  const { items } = yield* kube.list(Lease, {
    namespace: "kube-system",
    labelSelector: "apiserver.kubernetes.io/identity=kube-apiserver"
  })
  const ours = yield* DateTime.now
  return agreed(ours, items)
}).pipe(Effect.orElseSucceed(() => Option.none()))

/** How long {@link remembered} believes our own clock, once it was found right. */
export const BELIEVED = Duration.minutes(1)

/** By how much the wall clock may move against the monotonic one (ms): one that is set, or a machine that slept, moves by more. */
const STEADY = 1_000

/**
 * {@link read} for one prober of one cluster: once a minute while our clock agrees with the cluster's and is not set, each
 * time otherwise.
 */
export const remembered: Effect.Effect<Read> = Effect.sync(() => {
  let right: { readonly wall: number; readonly ticks: bigint } | undefined
  return Effect.gen(function*() {
    const [wall, ticks] = yield* Effect.all([Clock.currentTimeMillis, Clock.monotonicTimeNanos])
    if (right !== undefined) {
      const passed = Duration.nanos(ticks - right.ticks)
      const moved = Math.abs(wall - right.wall - Duration.toMillis(passed))
      if (Duration.isLessThan(passed, BELIEVED) && moved < STEADY) return Option.some(yield* DateTime.now)
    }
    const time = yield* read
    const ours = yield* DateTime.now
    const agrees = Option.exists(
      time,
      (time) => Math.abs(DateTime.toEpochMillis(time) - DateTime.toEpochMillis(ours)) < STEADY
    )
    right = agrees ? { wall, ticks } : undefined
    return time
  })
})

/** What {@link now} uses: {@link read}, unless whoever runs probes remembers. */
export const Reading: Context.Reference<Read> = Context.Reference<Read>("kubeprober/probes/ServerTime/Reading", {
  defaultValue: () => read
})

/** The cluster's time, or none when it does not say. */
export const now: Read = Effect.flatten(Reading)

/** {@link now}, or our own clock's time when the cluster does not say. */
export const nowOrOurs: Effect.Effect<DateTime.Utc, never, Kube> = Effect.flatMap(
  now,
  Option.match({ onNone: () => DateTime.now, onSome: Effect.succeed })
)

/** The latest renewal of any of these leases. */
export const newest = (leases: Iterable<Lease>): Option.Option<DateTime.Utc> => {
  let latest: DateTime.Utc | undefined
  for (const { spec: { renewTime } } of leases) {
    if (renewTime !== undefined && (latest === undefined || DateTime.isGreaterThan(renewTime, latest))) {
      latest = renewTime
    }
  }
  return Option.fromNullishOr(latest)
}
