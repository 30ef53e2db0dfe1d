/**
 * Gives every linked cluster what it is to run. Each has a fiber of its own for as long as its link, so that none waits for
 * another; one that was away is told all of it when it is back.
 */
import { Clock, Duration, Effect, FiberMap, Layer, Option, Queue, Schedule, Stream } from "effect"
import { type Link, LinkEvent, Links } from "../infra/link/Links.ts"
import { Desired } from "./Desired.ts"
import { Heartbeats } from "./Heartbeats.ts"

/** Changes within this are given out together. */
const TOGETHER = "50 millis"

/** An agent that does not answer is asked again, sooner than it would notice. */
const ANSWER_WITHIN = Duration.seconds(30)

const retries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("1 minute")]).pipe(Schedule.jittered)

/** What an agent refused it is given again after this: the reason may have passed, such as a webhook that was down. */
const REFUSED_AGAIN = Duration.minutes(2)

/** What breaks once is looked at again with the next change. */
const broke = ({ cluster }: Link) => (defect: unknown) =>
  Effect.logError(`the Probes of ${cluster} could not be given out`, defect)

/** How the distribution to one link stands. */
interface Giving {
  /** Hash of the set that the agent was last given on this link. */
  last: string | undefined
  /** When that was answered (ms). */
  at: number
  busy: boolean
  /** Asks to look again. */
  readonly again: Queue.Queue<void>
}

export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const desired = yield* Desired
  const heartbeats = yield* Heartbeats
  const links = yield* Links
  const fibers = yield* FiberMap.make<string>()
  const served = new Map<string, Giving>()

  /**
   * Gives the set, unless the agent has it. The first time on a link it is given in any case: what it refused a master that
   * was restarted does not know.
   */
  const give = Effect.fnUntraced(function*(link: Link, giving: Giving) {
    const heard = yield* heartbeats.of(link.cluster)
    // It registers first, and is looked at again then.
    if (Option.isNone(heard) || heard.value.epoch < link.epoch) return
    const wanted = yield* desired.of(link.cluster)
    if (Option.isNone(wanted)) return
    const { hash, set } = wanted.value
    const isDueAgain = heard.value.refused.length > 0 &&
      (yield* Clock.currentTimeMillis) - giving.at >= Duration.toMillis(REFUSED_AGAIN)
    if (hash === giving.last && hash === heard.value.applied && !isDueAgain) return
    giving.busy = true
    const { refused } = yield* link.control.applyProbes({ hash, desired: set }).pipe(
      Effect.timeout(ANSWER_WITHIN),
      Effect.tapError((error) =>
        Effect.logWarning(`the Probes of ${link.cluster} could not be given out: ${error.message}`)
      ),
      Effect.retry({ schedule: retries, while: ({ _tag }) => _tag !== "LinkClosed" })
    )
    yield* heartbeats.hear(link.cluster, (known) => known === undefined ? known : { ...known, applied: hash, refused })
    giving.last = hash
    giving.at = yield* Clock.currentTimeMillis
  }, (effect, _, giving) =>
    Effect.ensuring(
      effect,
      Effect.sync(() => {
        giving.busy = false
      })
    ))

  const serve = Effect.fnUntraced(
    function*(link: Link) {
      const again = yield* Queue.sliding<void>(1)
      const giving: Giving = { last: undefined, at: 0, busy: false, again }
      served.set(link.cluster, giving)
      yield* Stream.merge(desired.changes, Stream.fromQueue(again)).pipe(
        Stream.debounce(TOGETHER),
        // A newer wish ends the attempts to fulfil an older one.
        Stream.switchMap(() => Stream.fromEffectDrain(Effect.catchDefect(give(link, giving), broke(link)))),
        Stream.runDrain,
        Effect.ensuring(Effect.sync(() => served.get(link.cluster) === giving && served.delete(link.cluster)))
      )
    },
    (effect, link) => Effect.raceFirst(effect, link.closed),
    Effect.catchTag("LinkClosed", ({ message }) => Effect.logDebug(message)),
    Effect.ignoreCause({ log: "Error", message: "the distribution of Probes to a cluster broke" })
  )

  // An agent that runs another set than it was given, whyever, is given it again.
  const heard = yield* heartbeats.events
  yield* heard.pipe(
    Stream.runForEach((cluster) => {
      const giving = served.get(cluster)
      return giving === undefined || giving.busy ? Effect.void : Queue.offer(giving.again, undefined)
    }),
    Effect.forkScoped
  )
  const events = yield* links.events
  yield* Effect.forEach(yield* links.all, (link) => FiberMap.run(fibers, link.cluster, serve(link)))
  yield* events.pipe(
    Stream.runForEach((event) =>
      LinkEvent.$match(event, {
        Opened: ({ link }) => FiberMap.run(fibers, link.cluster, serve(link)),
        Ended: () => Effect.void
      })
    ),
    Effect.forkScoped
  )
}))
