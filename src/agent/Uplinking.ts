/**
 * What the agent does on every link it has: says who it is, beats, and delivers what the outbox holds.
 *
 * A batch is forgotten only when the master has answered for it. One that was not answered is delivered again, on this
 * link under the same number, on the next under a new one: the master drops what it has by run and checker.
 */
import { Duration, Effect, Layer, Option, Random, Schedule, Stream } from "effect"
import { type Heartbeat, MAX_BATCH, type Welcome } from "../domain/rpc/Uplink.ts"
import type { RunRecord } from "../domain/Run.ts"
import { LinkClient, LinkStatus, type Session } from "../infra/link/LinkClient.ts"
import { CAPABILITIES } from "./capabilities.ts"
import { ClusterFacts } from "./ClusterFacts.ts"
import { Outbox } from "./Outbox.ts"
import { ProbeStore } from "./ProbeStore.ts"
import { randomSuffix } from "./RunScratch.ts"

/** The most JSON of one delivery; messages hold four times as much. */
const MAX_BATCH_BYTES = 1 << 20

/** Heartbeats stray by this much, so that agents that were linked together do not beat together. */
const JITTER = 0.1

/** The master answers in far less; a link whose uplink is stuck is of no use. */
const ANSWER_WITHIN = Duration.seconds(30)

/** Between two tries of what the master did not take. */
const retries = Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

/** For as long as the layer. */
export const layer: Layer.Layer<never, never, LinkClient | ClusterFacts | Outbox | ProbeStore> = Layer.effectDiscard(
  Effect.suspend(() => make)
)

const make = Effect.gen(function*() {
  const client = yield* LinkClient
  const cluster = yield* ClusterFacts
  const outbox = yield* Outbox
  const store = yield* ProbeStore
  const boot = yield* randomSuffix

  const applied = Effect.map(
    store.applied,
    Option.match({ onNone: () => ({}), onSome: (hash) => ({ applied: hash }) })
  )

  const register = Effect.fnUntraced(function*({ uplink }: Session) {
    const clusterUid = yield* cluster.clusterUid
    const { versions } = yield* cluster.now
    return yield* uplink.register({
      clusterUid,
      boot,
      versions,
      capabilities: CAPABILITIES,
      ...(yield* applied)
    }).pipe(Effect.timeout(ANSWER_WITHIN))
  })

  const beat = Effect.fnUntraced(function*({ uplink }: Session, { epoch }: Welcome) {
    const heartbeat: Heartbeat = {
      epoch,
      ...(yield* cluster.now),
      ...(yield* applied),
      undelivered: yield* outbox.size
    }
    yield* uplink.heartbeat(heartbeat).pipe(Effect.timeout(ANSWER_WITHIN))
  })

  const beating = Effect.fnUntraced(function*(session: Session, welcome: Welcome) {
    while (true) {
      yield* beat(session, welcome)
      yield* Effect.sleep(Duration.times(welcome.heartbeat, yield* Random.nextBetween(1 - JITTER, 1)))
    }
  })

  const deliver = (
    { uplink }: Session,
    { epoch }: Welcome,
    seq: number,
    records: ReadonlyArray<RunRecord>
  ) =>
    uplink.deliver({ epoch, seq, records }).pipe(
      Effect.timeout(ANSWER_WITHIN),
      Effect.tapError((error) => error._tag === "Overloaded" ? Effect.sleep(error.retryAfter) : Effect.void),
      Effect.retry({ while: ({ _tag }) => _tag === "Overloaded" || _tag === "TimeoutError", schedule: retries })
    )

  const delivering = Effect.fnUntraced(function*(session: Session, welcome: Welcome) {
    for (let seq = 1;; seq++) {
      yield* outbox.pending
      const batch = yield* outbox.peek({ records: MAX_BATCH, bytes: MAX_BATCH_BYTES })
      if (Option.isNone(batch)) {
        // The file could not be read; that has been logged.
        yield* Effect.sleep("1 second")
        seq--
        continue
      }
      if (batch.value.records.length > 0) yield* deliver(session, welcome, seq, batch.value.records)
      yield* outbox.ack(batch.value.upTo)
    }
  })

  /** One link, until it ends. Nothing is sent on it any more once the master has said that it is not wanted. */
  const serve = (session: Session) =>
    Effect.gen(function*() {
      const welcome = yield* register(session)
      yield* Effect.logInfo("registered").pipe(
        Effect.annotateLogs({ cluster: welcome.cluster, epoch: welcome.epoch })
      )
      return yield* Effect.raceFirst(beating(session, welcome), delivering(session, welcome))
    }).pipe(
      Effect.catch((error) =>
        error._tag === "LinkClosed"
          ? Effect.void
          : Effect.andThen(
            Effect.logWarning(`the uplink has stopped: ${error.message}`),
            error._tag === "TimeoutError" ? Effect.fail("again") : Effect.never
          )
      ),
      // A bug on one side must not silence the agent for as long as the link lives.
      Effect.catchDefect((defect) =>
        Effect.andThen(Effect.logError("the uplink broke and is tried again", defect), Effect.fail("again"))
      ),
      Effect.retry(retries),
      Effect.raceFirst(Effect.ignore(session.closed))
    )

  yield* client.changes.pipe(
    Stream.filter(LinkStatus.$is("Linked")),
    Stream.switchMap(({ session }) => Stream.fromEffect(serve(session))),
    Stream.runDrain,
    Effect.forkScoped
  )
})
