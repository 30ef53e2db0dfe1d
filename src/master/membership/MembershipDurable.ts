/**
 * Membership that outlives the master, follows other masters, and ends with the Cluster resource.
 *
 * Questions are answered from memory; changes are in the store before they are true here. Whoever deletes a Cluster, with
 * kubectl or otherwise, expels its agent: a member belongs to the Cluster of its name and uid. A member whose Cluster has
 * not been made yet waits for it.
 */
import { Deferred, Duration, Effect, HashMap, Layer, Option, PubSub, Ref, Schedule, Semaphore, Stream } from "effect"
import { Revoked } from "../../domain/rpc/Uplink.ts"
import { Cluster } from "../../infra/kube/resources/kubeprober.ts"
import { UnknownCluster } from "../../infra/link/LinkError.ts"
import { Expelled, Membership } from "../../infra/link/Membership.ts"
import type { AgentName } from "../../infra/pki/AgentName.ts"
import { Resources } from "../Resources.ts"
import { MemberStore, MemberStoreError, type Stored, type StoredMember } from "./MemberStore.ts"

/** Waits 0.5 s, twice as long each time up to 30 s, spread; for ever. */
const patiently = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.jittered
)

/** How long the master waits for its first look at the members before it gives up. */
const FIRST_LOOK = Duration.seconds(30)

/** Ready once the members are known. Fails when they cannot be had. */
export const layer: Layer.Layer<Membership, MemberStoreError, MemberStore | Resources> = Layer.effect(
  Membership,
  Effect.suspend(() => make)
)

const make = Effect.gen(function*() {
  const store = yield* MemberStore
  const resources = yield* Resources
  const members = yield* Ref.make(HashMap.empty<string, Stored>())
  const events = yield* PubSub.unbounded<Expelled>()
  /** Between a look at a Cluster and what follows from it for its member. */
  const binding = yield* Semaphore.make(1)

  /** What is known from now on, unless something newer is; and who loses their place by it. */
  const install = Effect.fnUntraced(function*(cluster: string, next: Option.Option<Stored>, version?: number) {
    const expelled = yield* Ref.modify(members, (all) => {
      const known = Option.getOrUndefined(HashMap.get(all, cluster))
      const newest = Option.match(next, { onNone: () => version ?? Infinity, onSome: ({ version }) => version })
      if (known !== undefined && newest <= known.version) return [undefined, all]
      const changed = Option.match(next, {
        onNone: () => HashMap.remove(all, cluster),
        onSome: (stored) => HashMap.set(all, cluster, stored)
      })
      return [known === undefined ? undefined : expulsion(known.member, next), changed]
    })
    if (expelled !== undefined) yield* PubSub.publish(events, expelled)
  })

  /**
   * In the store, then here. The interface has no failure of the store's: it ends the request that needed it, with its
   * message in the log, and the caller comes again.
   */
  const modify = (cluster: string, change: (known: StoredMember | undefined) => StoredMember | undefined) =>
    Effect.uninterruptible(
      Effect.tap(Effect.orDie(store.modify(cluster, change)), (stored) => install(cluster, stored))
    )

  /** Uid of the Cluster of this name; none of one that is being deleted. */
  const resourceOf = (cluster: string) =>
    Effect.map(
      resources.get(Cluster, cluster),
      (found) =>
        Option.isSome(found) && found.value.metadata.deletionTimestamp === undefined
          ? found.value.metadata.uid
          : undefined
    )

  /**
   * Looks again whether the member still has its Cluster, or has one at last. `ended` when a Cluster of this name was
   * seen to go: then a member that had not been bound to it yet waits for no other.
   */
  const reconcile = (cluster: string, ended: boolean) =>
    Effect.gen(function*() {
      const resource = yield* resourceOf(cluster)
      const stored = yield* store.modify(cluster, (member) => {
        if (member === undefined || (resource !== undefined && member.resource === resource)) return member
        if (member.resource !== undefined) return undefined
        return resource === undefined ? ended ? undefined : member : { ...member, resource }
      })
      yield* install(cluster, stored)
    }).pipe(
      binding.withPermit,
      Effect.tapError((error) =>
        Effect.logWarning("a member could not be compared with its Cluster").pipe(
          Effect.annotateLogs({ cluster, detail: error.message })
        )
      ),
      Effect.retry(patiently),
      // Without an end to its patience it never fails.
      Effect.orDie
    )

  const followClusters = Stream.runForEach(resources.reflect(Cluster), (event) =>
    Effect.gen(function*() {
      const all = yield* Ref.get(members)
      const present = new Map(
        (event._tag === "Synced" ? event.items : [event.object]).flatMap(({ metadata }) =>
          metadata.name === undefined ? [] : [[
            metadata.name,
            event._tag === "Deleted" || metadata.deletionTimestamp !== undefined ? undefined : metadata.uid
          ]]
        )
      )
      const names = event._tag === "Synced" ? HashMap.keys(all) : present.keys()
      for (const name of names) {
        const known = HashMap.get(all, name)
        if (Option.isNone(known)) continue
        const ended = event._tag === "Deleted"
        if (ended || known.value.member.resource !== present.get(name)) yield* reconcile(name, ended)
      }
    }))

  const ready = yield* Deferred.make<void, MemberStoreError>()
  const followStore = Stream.runForEach(store.follow, (event) =>
    Effect.gen(function*() {
      if (event._tag !== "Synced") {
        const { member: { cluster }, version } = event.stored
        const next = event._tag === "Removed" ? Option.none() : Option.some(event.stored)
        return yield* install(cluster, next, version)
      }
      const listed = new Set(event.members.map(({ member }) => member.cluster))
      for (const stored of event.members) yield* install(stored.member.cluster, Option.some(stored))
      for (const cluster of HashMap.keys(yield* Ref.get(members))) {
        // It may have been added since the list was made.
        if (!listed.has(cluster)) yield* install(cluster, yield* store.find(cluster))
      }
      yield* Deferred.succeed(ready, undefined)
    }))

  const forEver = <E extends { readonly message: string }>(what: string, follow: Effect.Effect<void, E>) =>
    follow.pipe(
      Effect.tapError(({ message }) =>
        Effect.logError(`the master no longer follows ${what} and tries again`).pipe(
          Effect.annotateLogs({ detail: message })
        )
      ),
      Effect.retry(patiently),
      Effect.forkScoped
    )

  yield* forEver(
    "its members",
    Effect.tapError(followStore, (error) => Deferred.fail(ready, error))
  )
  yield* Deferred.await(ready).pipe(Effect.timeoutOrElse({
    duration: FIRST_LOOK,
    orElse: () => Effect.fail(new MemberStoreError({ detail: "there was no answer in 30 seconds" }))
  }))
  yield* forEver("the Clusters", followClusters)

  const find = Effect.fn("Membership.find")(function*(cluster: string) {
    const known = HashMap.get(yield* Ref.get(members), cluster)
    if (Option.isNone(known)) return yield* new UnknownCluster({ cluster })
    if (known.value.member.revoked) return yield* new Revoked({ cluster })
    return known.value.member
  })

  const admit = Effect.fn("Membership.admit")(function*({ cluster, uid }: AgentName) {
    const member = yield* find(cluster)
    // Another cluster has this name now: the certificate is of one that was removed or revoked.
    if (member.uid !== uid) return yield* new Revoked({ cluster })
    return member
  })

  const add = Effect.fn("Membership.add")(function*(cluster: string) {
    const uid = yield* Effect.sync(() => crypto.randomUUID())
    const stored = yield* binding.withPermit(Effect.gen(function*() {
      const resource = yield* Effect.orDie(resourceOf(cluster))
      return yield* modify(cluster, (known) => {
        // Of a Cluster that is gone, although the news of it may still be on its way.
        const orphaned = known?.resource !== undefined && known.resource !== resource
        if (known !== undefined && !known.revoked && !orphaned) {
          return known.resource === resource
            ? known
            : { ...known, resource }
        }
        return { cluster, uid, revoked: false, epoch: known?.epoch ?? 0, resource }
      })
    }))
    return Option.getOrThrow(stored).member
  })

  const openEpoch = Effect.fn("Membership.openEpoch")(function*(name: AgentName) {
    yield* admit(name)
    let opened = false
    const stored = yield* modify(name.cluster, (known) => {
      opened = known !== undefined && known.uid === name.uid && !known.revoked
      return known !== undefined && opened ? { ...known, epoch: known.epoch + 1 } : known
    })
    // Another master has changed it a moment ago; what it is now says why this one is refused.
    if (!opened || Option.isNone(stored)) {
      yield* admit(name)
      return yield* new Revoked({ cluster: name.cluster })
    }
    return stored.value.member
  })

  return Membership.of({
    add,
    find,
    admit,
    openEpoch,
    revoke: Effect.fn("Membership.revoke")(function*(cluster: string) {
      const stored = yield* modify(
        cluster,
        (known) => known === undefined || known.revoked ? known : { ...known, revoked: true }
      )
      return Option.isSome(stored)
    }),
    remove: Effect.fn("Membership.remove")(function*(cluster: string) {
      let found = false
      const removal = modify(cluster, (known) => {
        found = known !== undefined
        return undefined
      })
      // What `add` makes anew right after must not be taken for what was removed.
      yield* binding.withPermit(removal)
      return found
    }),
    expelled: Effect.map(PubSub.subscribe(events), Stream.fromSubscription)
  })
})

/** Whether a member loses its place when `next` is what is known of its cluster. */
const expulsion = (member: StoredMember, next: Option.Option<Stored>): Expelled | undefined => {
  const { cluster } = member
  if (Option.isNone(next)) return new Expelled({ member, why: new UnknownCluster({ cluster }) })
  const stays = next.value.member.uid === member.uid && (!next.value.member.revoked || member.revoked)
  return stays ? undefined : new Expelled({ member, why: new Revoked({ cluster }) })
}
