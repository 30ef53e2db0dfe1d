/**
 * List, then watch, for ever: the loop behind `Kube.reflect`.
 *
 * Follows client-go's reflector (tools/cache/reflector.go) in what it survives, with full jitter instead of client-go's
 * partial one (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that agents cut off together
 * do not come back together.
 */
import { Cause, Clock, Duration, Effect, Exit, Option, Queue, Random, Stream } from "effect"
import type { KubeList, ReflectorEvent, WatchEvent } from "../Kube.ts"
import { type KubeError, isTransient } from "../KubeError.ts"
import type { KubeObject } from "../KubeResource.ts"

/** What a watch connection says: changes, and how far it has come when there are none. */
export type WatchFrame<A> = WatchEvent<A> | { readonly _tag: "Bookmark"; readonly resourceVersion: string }

/** Where a reflector reads from. */
export interface ReflectorSource<A> {
  readonly list: Effect.Effect<KubeList<A>, KubeError>
  /** One watch; the server is asked to end it after `timeout`. */
  readonly watch: (resourceVersion: string, timeout: Duration.Duration) => Stream.Stream<WatchFrame<A>, KubeError>
}

const BACKOFF_BASE = 500
const BACKOFF_CAP = 30_000
/** No server's Retry-After makes us wait longer than this. */
const RETRY_AFTER_CAP = 300_000
/** A watch that lived this long was healthy: its end is no reason to back off. */
const HEALTHY = 10_000
/** Server-side end of a watch, between 4 and 5 minutes: spreads reconnects (client-go uses 5 to 10 minutes). */
const WATCH_SECONDS = [240, 300] as const
/** Beyond the server's own end of the watch: the connection is dead although nobody said so. */
const SILENCE_GRACE = 15_000
/** How long (ms) a synced reflector is refused before it believes it: longer than an API server takes to start. */
const PATIENCE = 60_000

const retryAfter = (error: KubeError): number =>
  "retryAfter" in error.reason ? Math.min(error.reason.retryAfter ?? 0, RETRY_AFTER_CAP) : 0

/** Events of `source`, with bounded buffering: a slow reader slows the watch, it does not fill memory. */
export const reflect = <A extends KubeObject>(
  source: ReflectorSource<A>
): Stream.Stream<ReflectorEvent<A>, KubeError> =>
  Stream.callback<ReflectorEvent<A>, KubeError>((queue) => run(source, queue), { bufferSize: 16, strategy: "suspend" })

const run = Effect.fnUntraced(function*<A extends KubeObject>(
  source: ReflectorSource<A>,
  queue: Queue.Queue<ReflectorEvent<A>, KubeError | Cause.Done>
): Effect.fn.Return<never, KubeError> {
  let version: string | undefined
  let synced = false
  /** Attempts without health in between; also the exponent of the backoff. */
  let unhealthy = 0
  /** When the refusals that have not ended yet began. */
  let refusedSince: number | undefined

  const backOff = Effect.fnUntraced(function*(atLeast: number) {
    const ceiling = Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** Math.min(unhealthy, 16))
    unhealthy++
    yield* Effect.sleep(Duration.millis(Math.max(atLeast, yield* Random.nextBetween(0, ceiling))))
  })

  const relist = Effect.gen(function*() {
    const list = yield* source.list
    yield* Queue.offer(queue, { _tag: "Synced", items: list.items })
    version = list.resourceVersion
    synced = true
  })

  const watch = Effect.fnUntraced(function*(from: string) {
    const seconds = yield* Random.nextIntBetween(...WATCH_SECONDS)
    const timeout = Duration.seconds(seconds)
    yield* source.watch(from, timeout).pipe(
      Stream.runForEach(Effect.fnUntraced(function*(frame) {
        if (frame._tag === "Bookmark") {
          version = frame.resourceVersion
          return
        }
        yield* Queue.offer(queue, frame)
        version = frame.object.metadata.resourceVersion ?? version
        refusedSince = undefined
      })),
      Effect.timeoutOption(Duration.sum(timeout, Duration.millis(SILENCE_GRACE)))
    )
  })

  while (true) {
    const started = yield* Clock.currentTimeMillis
    const watching = version !== undefined
    const exit = yield* Effect.exit(version === undefined ? relist : watch(version))
    const ended = yield* Clock.currentTimeMillis
    const lived = ended - started
    if (watching && lived >= HEALTHY) unhealthy = 0
    if (Exit.isSuccess(exit)) {
      if (!watching || lived >= HEALTHY) {
        if (watching) refusedSince = undefined
        continue
      }
      yield* backOff(0)
      continue
    }
    const failure = Cause.findErrorOption(exit.cause)
    if (Option.isNone(failure)) return yield* Effect.failCause(exit.cause)
    const error = failure.value
    if (error.reason._tag === "Expired") version = undefined
    // A plugin or a file that worked before comes back, as a network does.
    const definite = !isTransient(error) && error.reason._tag !== "Unreachable" &&
      !(synced && error.reason._tag === "CredentialsUnavailable")
    refusedSince = definite ? refusedSince ?? ended : undefined
    if (refusedSince !== undefined && (!synced || ended - refusedSince >= PATIENCE)) return yield* error
    // What a watch refuses for ever, a list shows for what it is.
    if (definite) version = undefined
    yield* backOff(retryAfter(error))
  }
})
