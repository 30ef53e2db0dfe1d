/**
 * Starts the runs of every Probe when its policy says so: one fiber a Probe, which a change of its spec replaces and
 * nothing else disturbs. No Probe overlaps with itself.
 *
 * Runs on a change of what is watched (`onChange`) are not made yet: the schedule alone decides.
 */
import { Clock, DateTime, Duration, Effect, FiberMap, Layer, Random, Result, Semaphore, Stream } from "effect"
import { nextRun } from "../domain/Policy.ts"
import { Execution } from "./Execution.ts"
import { planOf } from "./probePlan.ts"
import { ProbeStore, type StoredProbe, digestOf, keyOf } from "./ProbeStore.ts"
import { randomSuffix } from "./RunScratch.ts"
import { Standings } from "./Standings.ts"
import { StatusWriter } from "./StatusWriter.ts"

/** Follows the store for as long as the layer. */
export const layer: Layer.Layer<never, never, ProbeStore | Execution | Standings | StatusWriter> = Layer.effectDiscard(
  Effect.suspend(() => make)
)

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

/** Sleeps until the clock says so. */
const sleepUntil = Effect.fnUntraced(function*(due: DateTime.Utc) {
  while (true) {
    // Whole milliseconds: a sleep of a smaller rest does not move the clock, and this would spin.
    const left = Math.ceil(DateTime.toEpochMillis(due) - (yield* Clock.currentTimeMillis))
    if (left <= 0) return
    yield* Effect.sleep(Duration.min(Duration.millis(left), LONGEST_SLEEP))
  }
})

const make = Effect.gen(function*() {
  const store = yield* ProbeStore
  const execution = yield* Execution
  const standings = yield* Standings
  const writer = yield* StatusWriter

  const fibers = yield* FiberMap.make<string>()
  /** What each fiber follows. */
  const following = new Map<string, { readonly digest: string; readonly uid: string | undefined }>()
  /** Held during a run: the run of a spec that was replaced may still be cleaning up. */
  const running = new Map<string, Semaphore.Semaphore>()

  const start = (probe: StoredProbe) =>
    Effect.gen(function*() {
      const run = yield* randomSuffix
      yield* execution.run({ probe, run, trigger: "schedule" })
    }).pipe((running.get(keyOf(probe)) ?? Semaphore.makeUnsafe(1)).withPermits(1))

  const follow = Effect.fnUntraced(function*(probe: StoredProbe, digest: string) {
    const plan = planOf(probe)
    // It cannot run; that is said once, and stays true until the spec changes.
    if (Result.isFailure(plan)) return yield* start(probe)
    const { ran } = yield* standings.of(probe)
    let lastStart = ran?.digest === digest ? ran.at : undefined
    while (true) {
      const now = yield* DateTime.now
      // A clock that was set back must not hold up runs until it has caught up.
      if (lastStart !== undefined && DateTime.isGreaterThan(lastStart, now)) lastStart = now
      const { schedule } = plan.success
      const random = yield* Random.next
      const next = nextRun(schedule, { lastStart, now, random })
      if (next === undefined) return
      const soon = DateTime.addDuration(now, Duration.times(FIRST_WITHIN, random))
      const due = lastStart === undefined && schedule._tag === "Interval" ? DateTime.min(next, soon) : next
      yield* sleepUntil(due)
      lastStart = yield* DateTime.now
      yield* start(probe)
    }
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
      const digest = probe.fault ?? digestOf(probe)
      const known = following.get(key)
      if (known?.digest === digest && known.uid === probe.uid) continue
      following.set(key, { digest, uid: probe.uid })
      if (!running.has(key)) running.set(key, Semaphore.makeUnsafe(1))
      yield* FiberMap.run(
        fibers,
        key,
        Effect.catchCause(
          follow(probe, digest),
          (cause) => Effect.logError("the schedule of a Probe broke", cause)
        ).pipe(Effect.annotateLogs({ probe: key }))
      )
    }
  })

  yield* standings.seeded.pipe(
    Effect.andThen(Stream.runForEach(store.probes, reconcile)),
    Effect.forkScoped
  )
})
