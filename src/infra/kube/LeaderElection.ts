/**
 * One leader among many processes, by a Lease (coordination.k8s.io/v1).
 *
 * The algorithm and its figures are client-go's (tools/leaderelection/leaderelection.go), so that the same caveat holds:
 * nobody compares clocks of different machines, each measures how long a record it saw has not changed. Two leaders are
 * possible only when a process is frozen for longer than the lease and then goes on, when the body cannot be interrupted, or
 * where it may go on without renewals (`contested`).
 */
import { Clock, DateTime, Duration, Effect, Option, Random } from "effect"
import { Kube, type ObjectRef } from "./Kube.ts"
import type { KubeError } from "./KubeError.ts"
import { formatMicroTime } from "./KubeResource.ts"
import { Lease } from "./resources/coordination.ts"

/** client-go's defaults for core components: 15 s, 10 s and 2 s (component-base/config/v1alpha1/defaults.go). */
export interface LeaderElectionOptions {
  readonly lease: ObjectRef & { readonly namespace: string }
  /** Unique to this process, such as a pod's name and a random part. */
  readonly identity: string
  /** How long others wait after the last renewal they saw. Whole seconds; default 15. */
  readonly leaseDuration?: Duration.Input | undefined
  /**
   * How long the leader goes on without a successful renewal, unless `contested` says otherwise; less than `leaseDuration`;
   * default 10 s.
   */
  readonly renewDeadline?: Duration.Input | undefined
  /** Between two renewals; default 2 s. */
  readonly retryPeriod?: Duration.Input | undefined
  /** Between two tries of a candidate, and up to 1.2 times longer at random; `retryPeriod` when absent. */
  readonly acquirePeriod?: Duration.Input | undefined
  /**
   * For a body that is worth running while the API server takes no renewals, such as one that tells just that. It goes on
   * past `renewDeadline` until another is seen to hold the lease, or until this effect ends, because another is known of
   * otherwise, or the work has lost its use. For that long two may lead, of which one does not reach the API server.
   */
  readonly contested?: Effect.Effect<void> | undefined
}

/** Of wait.JitterUntil in client-go's acquire loop. */
const JITTER_FACTOR = 1.2
const RELEASE_TIMEOUT = "5 seconds"

/**
 * Runs `body` whenever this process leads, and interrupts it when it no longer does; then it waits for its next turn. Ends
 * with what `body` ends with, and gives the lease back when it ends in any way, so that a successor need not wait.
 *
 * A body that is interrupted must end within `leaseDuration` minus `renewDeadline`: then no two run at once, without
 * `contested`. Errors of the API server are logged and tried again for ever; they are no reason to stop being a candidate.
 */
export const whileLeading = <A, E, R>(
  options: LeaderElectionOptions,
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | Kube> =>
  Effect.gen(function*() {
    const election = yield* makeElection(options)
    while (true) {
      const renewedAt = yield* election.acquire
      yield* Effect.logInfo("leading")
      const result = yield* body.pipe(
        Effect.asSome,
        Effect.raceFirst(Effect.as(election.renewUntilLost(renewedAt), Option.none<A>())),
        Effect.onExit(() => election.release)
      )
      if (Option.isSome(result)) return result.value
      yield* Effect.logWarning("no longer leading")
    }
  }).pipe(
    Effect.annotateLogs({ lease: `${options.lease.namespace}/${options.lease.name}`, identity: options.identity })
  )

/** Since when the lease is sure to be ours (monotonic milliseconds), or why it is not. */
type Attempt = number | "others" | "failed"

const makeElection = Effect.fnUntraced(function*(options: LeaderElectionOptions) {
  const kube = yield* Kube
  const leaseSeconds = Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(options.leaseDuration ?? "15 seconds")))
  const renewDeadline = Duration.toMillis(Duration.fromInputUnsafe(options.renewDeadline ?? "10 seconds"))
  const retryPeriod = Duration.toMillis(Duration.fromInputUnsafe(options.retryPeriod ?? "2 seconds"))
  const acquirePeriod = Duration.toMillis(Duration.fromInputUnsafe(options.acquirePeriod ?? retryPeriod))
  if (leaseSeconds * 1000 <= renewDeadline || renewDeadline <= retryPeriod * JITTER_FACTOR) {
    return yield* Effect.die(
      new Error("leader election: leaseDuration > renewDeadline > 1.2 * retryPeriod must hold")
    )
  }

  /** The last record seen, and since when it has not changed. */
  let observed: { readonly record: string; readonly since: number } | undefined
  /** Ours, as long as nobody else changed it. */
  let held: Lease | undefined

  const observe = (lease: Lease, now: number) => {
    const record = JSON.stringify(lease.spec)
    if (observed?.record !== record) observed = { record, since: now }
    return observed.since
  }

  const write = Effect.fnUntraced(function*(previous: Lease | undefined) {
    const now = formatMicroTime(yield* DateTime.now)
    const renews = previous?.spec.holderIdentity === options.identity
    const spec = {
      holderIdentity: options.identity,
      leaseDurationSeconds: leaseSeconds,
      renewTime: now,
      ...(!renews && {
        acquireTime: now,
        leaseTransitions: previous === undefined ? 0 : (previous.spec.leaseTransitions ?? 0) + 1
      })
    }
    const { name, namespace } = options.lease
    const written = previous === undefined
      ? yield* kube.create(Lease, { metadata: { name, namespace }, spec })
      // With the version it was read at, so that of two candidates one fails with Conflict.
      : yield* kube.patch(Lease, options.lease, {
        metadata: { resourceVersion: previous.metadata.resourceVersion },
        spec
      })
    held = written
    observe(written, yield* monotonicMillis)
  })

  /** One try to get or keep the lease. */
  const attempt: Effect.Effect<Attempt, KubeError> = Effect.gen(function*() {
    const started = yield* monotonicMillis
    const current = held ?? (yield* kube.get(Lease, options.lease).pipe(
      Effect.asSome,
      Effect.catchIf(
        (error) => error.reason._tag === "NotFound" && error.reason.what === "object",
        () => Effect.succeedNone
      ),
      Effect.map(Option.getOrUndefined)
    ))
    if (current !== undefined) {
      const now = yield* monotonicMillis
      const unchangedFor = now - observe(current, now)
      const { holderIdentity = "", leaseDurationSeconds = leaseSeconds } = current.spec
      const isOthers = holderIdentity !== "" && holderIdentity !== options.identity
      if (isOthers && unchangedFor < leaseDurationSeconds * 1000) return "others"
    }
    held = undefined
    yield* write(current)
    return started
  })

  const tryFor = (millis: number): Effect.Effect<Attempt> =>
    attempt.pipe(
      Effect.catchTag("KubeError", (error) =>
        Effect.as(
          error.reason._tag === "Conflict" ? Effect.void : Effect.logWarning(error.message),
          "failed" as const
        )),
      Effect.timeoutOrElse({ duration: millis, orElse: () => Effect.succeed("failed" as const) })
    )

  /** Answers since when the lease is sure to be ours. */
  const acquire = Effect.gen(function*() {
    while (true) {
      const result = yield* tryFor(renewDeadline)
      if (typeof result === "number") return result
      yield* Effect.sleep(acquirePeriod * (1 + (yield* Random.next) * JITTER_FACTOR))
    }
  })

  /** Tries for ever. Answers since when the lease is sure to be ours again, or that another has it. */
  const regain = Effect.gen(function*() {
    while (true) {
      const result = yield* tryFor(renewDeadline)
      if (result !== "failed") return result
      yield* Effect.sleep(retryPeriod)
    }
  })

  /** Ends when the lease is lost, and with it the term. */
  const renewUntilLost = Effect.fnUntraced(function*(acquiredAt: number) {
    let renewedAt = acquiredAt
    while (true) {
      const ended = yield* renewUntilOverdue(renewedAt)
      if (ended === "others" || options.contested === undefined) return
      yield* Effect.logWarning("the lease cannot be renewed; the work goes on until another leads")
      const regained = yield* Effect.raceFirst(regain, Effect.as(options.contested, "others" as const))
      if (regained === "others") return
      yield* Effect.logInfo("the lease is renewed again")
      renewedAt = regained
    }
  })

  /** Ends when another has the lease, or no renewal succeeded in time. */
  const renewUntilOverdue = Effect.fnUntraced(function*(acquiredAt: number) {
    let renewedAt = acquiredAt
    const left = Effect.map(monotonicMillis, (now) => renewedAt + renewDeadline - now)
    while (true) {
      yield* Effect.sleep(Math.max(0, Math.min(retryPeriod, yield* left)))
      const remaining = yield* left
      if (remaining <= 0) return "overdue" as const
      const result = yield* tryFor(remaining)
      if (result === "others") return "others" as const
      if (result !== "failed") renewedAt = result
    }
  })

  const release = Effect.suspend(() => {
    const mine = held
    held = undefined
    return mine === undefined ? Effect.void : Effect.gen(function*() {
      const now = formatMicroTime(yield* DateTime.now)
      yield* kube.patch(Lease, options.lease, {
        metadata: { resourceVersion: mine.metadata.resourceVersion },
        spec: { holderIdentity: null, leaseDurationSeconds: 1, renewTime: now, acquireTime: now }
      })
    }).pipe(Effect.timeout(RELEASE_TIMEOUT), Effect.ignore)
  })

  return { acquire, renewUntilLost, release }
})

const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))
