/**
 * What agents call: they register, beat, and deliver what their checkers said. Provides the uplink's handlers.
 */
import { DateTime, Duration, Effect, Layer, Option, Random, Ref, Semaphore } from "effect"
import { ClusterMismatch, Overloaded, Superseded, Uplink } from "../domain/rpc/Uplink.ts"
import { Links } from "../infra/link/Links.ts"
import { UplinkHandlers } from "../infra/link/LinkServer.ts"
import { ClusterStatuses } from "./ClusterStatuses.ts"
import { Desired } from "./Desired.ts"
import { Drift } from "./Drift.ts"
import { FleetState } from "./FleetState.ts"
import { type Heard, Heartbeats } from "./Heartbeats.ts"
import { History } from "./History.ts"

/** How often agents beat. Whether they live is seen sooner, by the link's own pings. */
export const HEARTBEAT = Duration.seconds(10)

/** Deliveries that may wait for the disk at a time; the next is sent away. Each holds 500 records at most. */
const MAX_WAITING = 64

/** The uplink of every link. */
export const layer = Layer.effect(
  UplinkHandlers,
  Effect.gen(function*() {
    const desired = yield* Desired
    const drift = yield* Drift
    const fleet = yield* FleetState
    const heartbeats = yield* Heartbeats
    const history = yield* History
    const links = yield* Links
    const statuses = yield* ClusterStatuses
    const waiting = yield* Ref.make(0)
    // The history takes one delivery at a time anyway; here the others wait where they are counted.
    const turn = yield* Semaphore.make(1)

    const overloaded = Effect.gen(function*() {
      const seconds = yield* Random.nextIntBetween(1, 5)
      return yield* new Overloaded({ retryAfter: Duration.seconds(seconds) })
    })

    /** Only who has registered on this very link is heard. */
    const registered = (cluster: string, epoch: number) =>
      Effect.map(heartbeats.of(cluster), (heard) => Option.isSome(heard) && heard.value.epoch === epoch)

    const newest = Effect.fnUntraced(function*(cluster: string, epoch: number, own: number) {
      if (epoch !== own) return yield* new Superseded({ epoch, current: own })
      const held = yield* Effect.option(links.find(cluster))
      if (Option.isSome(held) && held.value.epoch > epoch) {
        return yield* new Superseded({ epoch, current: held.value.epoch })
      }
    })

    return UplinkHandlers.of({
      of: ({ cluster, epoch }) =>
        Uplink.of({
          register: Effect.fnUntraced(function*(registration) {
            const { applied, clusterUid, versions } = registration
            const known = yield* desired.cluster(cluster)
            const bound = Option.isNone(known) ? undefined : (yield* statuses.of(known.value)).clusterUid
            if (bound !== undefined && bound !== clusterUid) {
              const mismatch = new ClusterMismatch({ cluster, enrolled: bound, presented: clusterUid })
              // After the answer has left: who holds this link is not the cluster, and nothing may be asked of it.
              yield* links.find(cluster).pipe(
                Effect.flatMap((link) => link.epoch === epoch ? link.close(mismatch) : Effect.void),
                Effect.delay("200 millis"),
                Effect.ignore,
                Effect.forkDetach
              )
              return yield* mismatch
            }
            const at = yield* DateTime.now
            yield* heartbeats.hear(cluster, (before): Heard =>
              before !== undefined && before.epoch > epoch
                ? before
                : { ...before, epoch, at, clusterUid, versions, applied, refused: before?.refused ?? [] })
            // The name is this cluster's from here on, also after a restart of the master.
            yield* statuses.write(cluster)
            return { cluster, epoch, capabilities: [], heartbeat: HEARTBEAT }
          }),

          heartbeat: Effect.fnUntraced(function*(beat) {
            yield* newest(cluster, beat.epoch, epoch)
            const at = yield* DateTime.now
            yield* heartbeats.hear(cluster, (before) =>
              before === undefined || before.epoch > epoch ? before : {
                ...before,
                at,
                epoch,
                versions: beat.versions,
                nodeCount: beat.nodeCount ?? before.nodeCount,
                facts: beat.facts ?? before.facts,
                applied: beat.applied,
                undelivered: beat.undelivered
              })
            const set = yield* desired.of(cluster)
            return Option.isNone(set) ? {} : { desired: set.value.hash }
          }),

          deliver: Effect.fnUntraced(function*({ epoch: of, records, seq }) {
            yield* newest(cluster, of, epoch)
            const before = yield* Ref.getAndUpdate(waiting, (count) => count + 1)
            return yield* Effect.gen(function*() {
              if (before >= MAX_WAITING || !(yield* registered(cluster, epoch))) return yield* overloaded
              const recorded = yield* drift.derive(cluster, records).pipe(
                Effect.flatMap((derived) => history.record(cluster, [...records, ...derived])),
                Effect.tap(drift.observe),
                turn.withPermits(1),
                // Not kept, so not acknowledged: the agent has the records and delivers them again.
                Effect.catch((error) => Effect.andThen(Effect.logError(error.message), overloaded))
              )
              yield* fleet.observe(cluster, recorded)
              return { epoch: of, seq }
            }).pipe(Effect.ensuring(Ref.update(waiting, (count) => count - 1)))
          })
        })
    })
  })
)
