/**
 * Runs asked for as resources: every new ProbeRun is run once, on the clusters it names, and says how it went.
 *
 * To be run by one master at a time. A run that a master began and did not end is not begun again: its records may be in the
 * history already, and a checker that changes something must not run twice unasked.
 */
import { DateTime, Duration, Effect, FiberMap, Layer, Ref, Schedule, Schema, Semaphore, Stream } from "effect"
import { type ProbeRunSpec, ProbeRunState } from "../domain/kinds/ProbeRun.ts"
import type { RunTarget } from "../domain/rpc/Control.ts"
import type { FleetFilter } from "../domain/rpc/Fleet.ts"
import { ProbeRun } from "../infra/kube/resources/kubeprober.ts"
import * as RunState from "./fleet/runState.ts"
import { FleetRuns } from "./FleetRuns.ts"
import { Resources } from "./Resources.ts"

/** The deadline of a ProbeRun that gives none, as its schema says. */
const TIMEOUT = Duration.minutes(2)

/** ProbeRuns that run at a time; the others are Pending. */
const AT_A_TIME = 16

/** How often a run tells how far it is. */
const PROGRESS: Duration.Input = "5 seconds"

const retries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.jittered
)

const encode = Schema.encodeEffect(ProbeRunState)

export const layer: Layer.Layer<never, never, FleetRuns | Resources> = Layer.effectDiscard(Effect.suspend(() => make))

const make = Effect.gen(function*() {
  const resources = yield* Resources
  const runs = yield* FleetRuns
  const fibers = yield* FiberMap.make<string>()
  const turns = yield* Semaphore.make(AT_A_TIME)
  /** Uids of those this master has taken on: what is heard of them later is its own writing. */
  const taken = new Set<string>()

  const writeOnce = Effect.fnUntraced(function*(name: string, state: ProbeRunState) {
    const status = yield* Effect.orDie(encode(state))
    yield* resources.applyStatus(ProbeRun, name, status)
  })

  /** Until it is written, or can never be. */
  const write = (name: string, state: ProbeRunState) =>
    writeOnce(name, state).pipe(
      Effect.tapError((error) => Effect.logWarning(error.message)),
      Effect.retry({ schedule: retries, while: ({ reason }) => reason !== "Invalid" }),
      Effect.ignore
    )

  const run = Effect.fnUntraced(function*(name: string, wish: Wish) {
    const startedAt = yield* DateTime.now
    const running: ProbeRunState = { phase: "Running", startedAt }
    yield* write(name, running)
    const tally = yield* Ref.make(RunState.empty)
    yield* Ref.get(tally).pipe(
      // Let finish once begun: it must not arrive after the end.
      Effect.flatMap((now) => Effect.uninterruptible(writeOnce(name, { ...running, ...RunState.stateOf(now) }))),
      Effect.ignore,
      Effect.delay(PROGRESS),
      Effect.forever,
      Effect.raceFirst(
        Stream.runForEach(runs.run(wish), (event) => Ref.update(tally, (known) => RunState.next(known, event)))
      ),
      Effect.andThen(Ref.get(tally)),
      Effect.flatMap(Effect.fnUntraced(function*(result) {
        const over = { startedAt, finishedAt: yield* DateTime.now }
        yield* write(
          name,
          result.selected.length === 0
            ? { ...over, phase: "Refused", status: "UNKNOWN", message: NOWHERE }
            : { ...over, phase: "Finished", ...RunState.stateOf(result), ...RunState.verdictOf(result) }
        )
      })),
      Effect.catch(({ message }) => write(name, { ...running, phase: "Refused", status: "UNKNOWN", message }))
    )
  })

  const take = Effect.fnUntraced(function*(name: string, { spec, status }: ProbeRun) {
    if (status?.phase === "Running") {
      const finishedAt = yield* DateTime.now
      return yield* write(name, { ...status, phase: "Finished", finishedAt, status: "UNKNOWN", message: CUT_SHORT })
    }
    const wish = wishOf(spec)
    if (typeof wish === "string") {
      return yield* write(name, { phase: "Refused", status: "UNKNOWN", message: wish })
    }
    yield* write(name, { phase: "Pending" })
    yield* turns.withPermits(1)(run(name, wish))
  })

  const consider = Effect.fnUntraced(function*(object: ProbeRun) {
    const { name = "", uid = name } = object.metadata
    const phase = object.status?.phase
    if (taken.has(uid) || phase === "Finished" || phase === "Refused") return
    taken.add(uid)
    yield* FiberMap.run(fibers, uid, Effect.ignoreCause(take(name, object), { log: "Error" }))
  })

  /** A ProbeRun that is deleted stops to be waited for; what its agents have begun they end. */
  const drop = Effect.fnUntraced(function*(uid: string) {
    taken.delete(uid)
    yield* FiberMap.remove(fibers, uid)
  })

  yield* resources.reflect(ProbeRun).pipe(
    Stream.runForEach(Effect.fnUntraced(function*(event) {
      switch (event._tag) {
        case "Synced": {
          const there = new Set(event.items.map(({ metadata: { name = "", uid = name } }) => uid))
          yield* Effect.forEach([...taken].filter((uid) => !there.has(uid)), drop, { discard: true })
          return yield* Effect.forEach(event.items, consider, { discard: true })
        }
        case "Added":
        case "Modified":
          return yield* consider(event.object)
        case "Deleted": {
          const { name = "", uid = name } = event.object.metadata
          return yield* drop(uid)
        }
      }
    })),
    Effect.tapError((error) => Effect.logError(error.message)),
    Effect.retry(retries),
    Effect.ignore,
    Effect.forkScoped
  )
})

const NOWHERE = "there is no cluster that the run is for: none that fits has the Probe; see the labels of the Clusters"

const CUT_SHORT = "the master ended during the run; what was reported is in the history. Create another ProbeRun"

const NOTHING = "it names neither a probe nor checks; give one of the two"

const NO_CLUSTERS =
  "a master runs on the clusters it is told: name them in spec.clusters, or select them by spec.clusterSelector ({} is all)"

interface Wish {
  readonly filter: FleetFilter
  readonly target: RunTarget
  readonly timeout: Duration.Duration
}

/** What is asked for, or why it cannot be. */
const wishOf = ({ checks, clusterSelector, clusters, probe, timeout = TIMEOUT }: ProbeRunSpec): Wish | string => {
  if (clusters === undefined && clusterSelector === undefined) return NO_CLUSTERS
  if (checks === undefined && probe === undefined) return NOTHING
  return {
    filter: {
      ...(clusters === undefined ? {} : { clusters }),
      ...(clusterSelector === undefined ? {} : { clusterSelector })
    },
    // A Probe is meant by its name; which namespace it has in a cluster its Cluster says.
    target: checks === undefined
      ? { _tag: "Probe", probe: { namespace: "", name: probe ?? "" } }
      : { _tag: "Checks", checks },
    timeout
  }
}
