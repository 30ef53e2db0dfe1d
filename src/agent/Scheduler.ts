/**
 * Starts the runs of every Probe when its policy says so: one fiber a Probe, which a change of its spec replaces and
 * nothing else disturbs. No Probe overlaps with itself.
 *
 * Checks whose probe watches something also run, alone, when that changes (`onChange`). They need not wait for the rest of
 * their Probe: it is each check that never overlaps with itself.
 */
import {
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  FiberMap,
  Layer,
  Queue,
  Random,
  Result,
  Semaphore,
  Stream
} from "effect"
import { nextRun } from "../domain/Policy.ts"
import { type Profile, permits } from "../domain/Profile.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import type { Watch } from "../probes/Watch.ts"
import * as Debounce from "./debounce.ts"
import { Execution } from "./Execution.ts"
import { checksOf, planOf } from "./probePlan.ts"
import { ProbeStore, type StoredProbe, digestOf, keyOf } from "./ProbeStore.ts"
import { randomSuffix } from "./RunScratch.ts"
import { Standings } from "./Standings.ts"
import { StatusWriter } from "./StatusWriter.ts"
import { Watching } from "./Watching.ts"

export interface SchedulerOptions {
  /** The catalogue and the user's own modules: their probes say what they watch. */
  readonly available: ReadonlyArray<AnyProbe>
  /** What probes may write. Those that write more do not run, so nothing is watched for them. */
  readonly profile: Profile
}

/** Follows the store for as long as the layer. */
export const layer = (
  options: SchedulerOptions
): Layer.Layer<never, never, ProbeStore | Execution | Standings | StatusWriter | Watching> =>
  Layer.effectDiscard(make(options))

/**
 * The longest sleep: timers hold no more than 24.8 days, and a machine that slept, or whose clock was set, is then late by
 * no more than this.
 */
const LONGEST_SLEEP = Duration.minutes(1)

/**
 * First runs of many new Probes are spread over this, and none waits longer: who makes a Probe that runs hourly looks at
 * its first result now. Times of cron stay as they are.
 */
const FIRST_WITHIN = Duration.seconds(5)

/**
 * A first run waits so long for the watches to know what is there: what changes after that, they tell. Where they are late,
 * or cannot be had, it goes ahead.
 */
const WATCHED_WITHIN = Duration.seconds(1)

/** Sleeps until the clock says so. */
const sleepUntil = Effect.fnUntraced(function*(due: DateTime.Utc) {
  while (true) {
    // Whole milliseconds: a sleep of a smaller rest does not move the clock, and this would spin.
    const left = Math.ceil(DateTime.toEpochMillis(due) - (yield* Clock.currentTimeMillis))
    if (left <= 0) return
    yield* Effect.sleep(Duration.min(Duration.millis(left), LONGEST_SLEEP))
  }
})

/** A check that runs on changes. */
interface Watched {
  readonly name: string
  readonly watches: ReadonlyArray<Watch>
  state: Debounce.Debounce
  /** Says that something changed; one word is enough. */
  readonly news: Queue.Queue<void>
}

/** A check that runs now. */
interface Running {
  /** Of the spec it runs for. */
  readonly digest: string
  readonly ended: Deferred.Deferred<void>
}

const make = Effect.fnUntraced(function*({ available, profile }: SchedulerOptions) {
  const store = yield* ProbeStore
  const execution = yield* Execution
  const standings = yield* Standings
  const writer = yield* StatusWriter
  const watching = yield* Watching

  const fibers = yield* FiberMap.make<string>()
  /** What each fiber follows. */
  const following = new Map<string, { readonly digest: string; readonly uid: string | undefined }>()
  /** Held during a run: the run of a spec that was replaced may still be cleaning up. */
  const running = new Map<string, Semaphore.Semaphore>()
  /** Checks that run now, by Probe and name. */
  const busy = new Map<string, Running>()

  const busyKey = (probe: StoredProbe, check: string) => `${keyOf(probe)}/${check}`

  /** Those of these checks that do not run now; they count as running until they leave. */
  const claim = (probe: StoredProbe, names: ReadonlyArray<string>) => {
    const digest = digestOf(probe)
    const taken = new Map<string, Running>()
    for (const name of names) {
      const key = busyKey(probe, name)
      if (busy.has(key)) continue
      const running: Running = { digest, ended: Deferred.makeUnsafe<void>() }
      taken.set(name, running)
      busy.set(key, running)
    }
    /** Its turn is over; by then another run of it may have begun. */
    const leave = (name: string) =>
      Effect.suspend(() => {
        const running = taken.get(name)
        if (running === undefined) return Effect.void
        if (busy.get(busyKey(probe, name)) === running) busy.delete(busyKey(probe, name))
        return Deferred.succeed(running.ended, undefined)
      })
    return { names: [...taken.keys()], leave, leaveAll: Effect.forEach(taken.keys(), leave, { discard: true }) }
  }

  type Claim = ReturnType<typeof claim>

  const claiming = (claimed: () => Claim, use: (claim: Claim) => Effect.Effect<void>) =>
    Effect.acquireUseRelease(Effect.sync(claimed), use, ({ leaveAll }) => leaveAll)

  /** The Probe by its schedule. Checks that run at this moment because of a change have their result anyway. */
  const start = (probe: StoredProbe, watched: ReadonlyArray<Watched>) =>
    Effect.gen(function*() {
      const run = yield* randomSuffix
      const names = (probe.spec.checks ?? []).map(({ name }) => name)
      const digest = digestOf(probe)
      for (const name of names) {
        // A run of a spec that was replaced only cleans up.
        const other = busy.get(busyKey(probe, name))
        if (other !== undefined && other.digest !== digest) yield* Deferred.await(other.ended)
      }
      yield* claiming(() => claim(probe, names), (free) => {
        if (names.length > 0 && free.names.length === 0) return Effect.void
        for (const check of watched) {
          if (free.names.includes(check.name)) check.state = Debounce.covered(check.state)
        }
        return execution.run({
          probe,
          run,
          trigger: "schedule",
          ...(free.names.length === names.length ? {} : { only: new Set(free.names) }),
          onRecord: ({ report }) => free.leave(report.checker)
        })
      })
    }).pipe((running.get(keyOf(probe)) ?? Semaphore.makeUnsafe(1)).withPermits(1))

  /** Runs a check whenever what it watches has changed, as its debounce allows. */
  const followChanges = Effect.fnUntraced(function*(probe: StoredProbe, check: Watched) {
    while (true) {
      const due = Debounce.dueAt(check.state)
      if (due === undefined) {
        yield* Queue.take(check.news)
        continue
      }
      const now = yield* Clock.currentTimeMillis
      if (due > now) {
        yield* Effect.sleep(Math.ceil(due - now))
        continue
      }
      const other = busy.get(busyKey(probe, check.name))
      if (other !== undefined) {
        yield* Deferred.await(other.ended)
        continue
      }
      const run = yield* randomSuffix
      yield* claiming(() => claim(probe, [check.name]), ({ names }) => {
        if (names.length === 0) return Effect.void
        check.state = Debounce.started(check.state, now)
        return execution.run({ probe, run, trigger: "watch", only: new Set(names) })
      })
    }
  })

  const watchedOf = Effect.fnUntraced(function*(probe: StoredProbe) {
    const watched: Array<Watched> = []
    for (const planned of checksOf(probe, { available, inside: false })) {
      if (planned._tag === "Unknown" || !permits(profile, planned.check.probe.writes)) continue
      const { name, probe: { onChange } } = planned.check
      if (onChange.length === 0) continue
      const news = yield* Queue.sliding<void>(1)
      watched.push({ name, watches: onChange, state: Debounce.initial, news })
    }
    return watched
  })

  /** Begins to watch; the effect waits until all that is watched is known. */
  const beginToWatch = Effect.fnUntraced(function*(watched: ReadonlyArray<Watched>) {
    const known = yield* Effect.forEach(
      watched.flatMap((check) => check.watches.map((watch) => [check, watch] as const)),
      ([check, watch]) =>
        watching.follow(
          watch,
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            check.state = Debounce.changed(check.state, now)
            return Queue.offer(check.news, undefined)
          })
        )
    )
    return Effect.all(known, { concurrency: "unbounded", discard: true })
  })

  const follow = Effect.fnUntraced(function*(probe: StoredProbe, digest: string) {
    const plan = planOf(probe)
    // It cannot run; that is said once, and stays true until the spec changes.
    if (Result.isFailure(plan)) return yield* start(probe, [])
    const { onChange, schedule } = plan.success
    const { ran } = yield* standings.of(probe)
    let lastStart = ran?.digest === digest ? ran.at : undefined
    const again = schedule._tag === "Interval" || schedule._tag === "Cron"
    const watched = again && onChange ? yield* watchedOf(probe) : []
    if (watched.length > 0) {
      const known = yield* beginToWatch(watched)
      yield* Effect.timeoutOption(known, WATCHED_WITHIN)
      yield* Effect.forEach(watched, (check) => Effect.forkScoped(followChanges(probe, check)), { discard: true })
    }
    while (true) {
      const now = yield* DateTime.now
      // A clock that was set back must not hold up runs until it has caught up.
      if (lastStart !== undefined && DateTime.isGreaterThan(lastStart, now)) lastStart = now
      const random = yield* Random.next
      const next = nextRun(schedule, { lastStart, now, random })
      if (next === undefined) return
      const soon = DateTime.addDuration(now, Duration.times(FIRST_WITHIN, random))
      const due = lastStart === undefined && schedule._tag === "Interval" ? DateTime.min(next, soon) : next
      yield* sleepUntil(due)
      lastStart = yield* DateTime.now
      yield* start(probe, watched)
    }
  }, Effect.scoped)

  /** Follows the Probe, unless that is what its fiber does. */
  const schedule = Effect.fnUntraced(function*(key: string, probe: StoredProbe) {
    const known = following.get(key)
    following.delete(key)
    const digest = probe.fault ?? digestOf(probe)
    following.set(key, { digest, uid: probe.uid })
    if (known?.digest === digest && known.uid === probe.uid) return
    if (!running.has(key)) running.set(key, Semaphore.makeUnsafe(1))
    yield* FiberMap.run(
      fibers,
      key,
      Effect.catchCause(follow(probe, digest), (cause) => Effect.logError("the schedule of a Probe broke", cause))
    )
  })

  const reconcile = Effect.fnUntraced(function*(probes: ReadonlyArray<StoredProbe>) {
    const wanted = new Map(probes.map((probe) => [keyOf(probe), probe]))
    for (const key of [...following.keys()].filter((known) => !wanted.has(known))) {
      following.delete(key)
      running.delete(key)
      yield* FiberMap.remove(fibers, key)
    }
    yield* standings.retain(probes)
    yield* writer.retain(probes)
    for (const [key, probe] of wanted) {
      // One that breaks must not keep the others from their schedules.
      yield* schedule(key, probe).pipe(
        Effect.catchCause((cause) =>
          Effect.andThen(Effect.logError("a Probe could not be scheduled", cause), FiberMap.remove(fibers, key))
        ),
        Effect.annotateLogs({ probe: key })
      )
    }
  })

  yield* standings.seeded.pipe(
    Effect.andThen(Stream.runForEach(store.probes, reconcile)),
    Effect.forkScoped
  )
})
