/**
 * Gives every linked cluster what it is to run. Each has a fiber of its own for as long as its link, so that none waits for
 * another; one that was away is told all of it when it is back.
 */
import { Duration, Effect, FiberMap, Layer, Option, Schedule, Stream } from "effect"
import { type Link, LinkEvent, Links } from "../infra/link/Links.ts"
import { Desired } from "./Desired.ts"
import { Heartbeats } from "./Heartbeats.ts"

/** Changes within this are given out together. */
const TOGETHER = "50 millis"

/** An agent that does not answer is asked again, sooner than it would notice. */
const ANSWER_WITHIN = Duration.seconds(30)

const retries = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("1 minute")]).pipe(Schedule.jittered)

export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const desired = yield* Desired
  const heartbeats = yield* Heartbeats
  const links = yield* Links
  const fibers = yield* FiberMap.make<string>()

  /** Gives the set, unless it is the one that was given last; the hash given. */
  const give = Effect.fnUntraced(function*(link: Link, last: string | undefined) {
    const wanted = yield* desired.of(link.cluster)
    if (Option.isNone(wanted) || wanted.value.hash === last) return last
    const { hash, set } = wanted.value
    const { refused } = yield* link.control.applyProbes({ hash, desired: set }).pipe(
      Effect.timeout(ANSWER_WITHIN),
      Effect.tapError((error) =>
        Effect.logWarning(`the Probes of ${link.cluster} could not be given out: ${error.message}`)
      ),
      Effect.retry({ schedule: retries, while: ({ _tag }) => _tag !== "LinkClosed" })
    )
    yield* heartbeats.hear(link.cluster, (known) => known === undefined ? known : { ...known, applied: hash, refused })
    return hash
  })

  const serve = Effect.fnUntraced(
    function*(link: Link) {
      let last: string | undefined
      yield* desired.changes.pipe(
        Stream.debounce(TOGETHER),
        // A newer wish ends the attempts to fulfil an older one.
        Stream.switchMap(() =>
          Stream.fromEffect(Effect.map(give(link, last), (given) => {
            last = given
          }))
        ),
        Stream.runDrain
      )
    },
    (effect, link) => Effect.raceFirst(effect, link.closed),
    Effect.ignoreCause({ log: "Debug" })
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
