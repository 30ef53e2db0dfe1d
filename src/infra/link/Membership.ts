/**
 * Which clusters may link: the master's list, with each cluster's uid, whether it was revoked, and the number of its
 * latest link.
 */
import { Context, Data, Effect, HashMap, Layer, Option, PubSub, type Scope, Stream, SynchronizedRef } from "effect"
import { Revoked } from "../../domain/rpc/Uplink.ts"
import type { AgentName } from "../pki/AgentName.ts"
import { UnknownCluster } from "./LinkError.ts"

/** A cluster as the master knows it. */
export interface Member extends AgentName {
  readonly revoked: boolean
  /** Number of its latest link; 0 before the first. */
  readonly epoch: number
}

/** The cluster has lost its place. Its links must go. */
export class Expelled extends Data.TaggedClass("Expelled")<{
  readonly member: Member
  readonly why: Revoked | UnknownCluster
}> {}

export class Membership extends Context.Service<Membership, {
  /** The member of this name; made when there is none, and let in again when it was revoked, under a new uid. */
  readonly add: (cluster: string) => Effect.Effect<Member>
  /** The member an agent may enrol as. */
  readonly find: (cluster: string) => Effect.Effect<Member, Revoked | UnknownCluster>
  /** The member a certificate names: name and uid must both be a member's own. */
  readonly admit: (name: AgentName) => Effect.Effect<Member, Revoked | UnknownCluster>
  /** As {@link admit}, and numbers a new link of it. */
  readonly openEpoch: (name: AgentName) => Effect.Effect<Member, Revoked | UnknownCluster>
  /** False when there is no such member. */
  readonly revoke: (cluster: string) => Effect.Effect<boolean>
  readonly remove: (cluster: string) => Effect.Effect<boolean>
  /** Those who lose their place from the moment the effect has run. */
  readonly expelled: Effect.Effect<Stream.Stream<Expelled>, never, Scope.Scope>
}>()("kubeprober/link/Membership") {
  /** For as long as the process, from these on. */
  static readonly layerMemory = (known: ReadonlyArray<Member> = []) =>
    Layer.effect(
      Membership,
      Effect.gen(function*() {
        const members = yield* SynchronizedRef.make(HashMap.fromIterable(known.map((each) => [each.cluster, each])))
        const events = yield* PubSub.unbounded<Expelled>()

        const find = Effect.fn("Membership.find")(function*(cluster: string) {
          const member = HashMap.get(yield* SynchronizedRef.get(members), cluster)
          if (Option.isNone(member)) return yield* new UnknownCluster({ cluster })
          if (member.value.revoked) return yield* new Revoked({ cluster })
          return member.value
        })

        const admit = Effect.fn("Membership.admit")(function*({ cluster, uid }: AgentName) {
          const member = yield* find(cluster)
          // Another cluster has this name now: the certificate is of one that was removed or revoked.
          if (member.uid !== uid) return yield* new Revoked({ cluster })
          return member
        })

        const add = Effect.fn("Membership.add")(function*(cluster: string) {
          const uid = yield* Effect.sync(() => crypto.randomUUID())
          return yield* SynchronizedRef.modify(members, (all) => {
            const known = HashMap.get(all, cluster)
            const member = Option.isSome(known) && !known.value.revoked
              ? known.value
              : { cluster, uid, revoked: false, epoch: Option.isSome(known) ? known.value.epoch : 0 }
            return [member, HashMap.set(all, cluster, member)]
          })
        })

        const openEpoch = Effect.fn("Membership.openEpoch")((name: AgentName) =>
          SynchronizedRef.modifyEffect(members, (all) =>
            Effect.map(admit(name), (member) => {
              const numbered = { ...member, epoch: member.epoch + 1 }
              return [numbered, HashMap.set(all, name.cluster, numbered)]
            }))
        )

        const expel = Effect.fnUntraced(function*(
          cluster: string,
          why: Revoked | UnknownCluster,
          change: (all: HashMap.HashMap<string, Member>, member: Member) => HashMap.HashMap<string, Member>
        ) {
          const member = yield* SynchronizedRef.modify(members, (all) => {
            const known = HashMap.get(all, cluster)
            return [known, Option.isSome(known) ? change(all, known.value) : all]
          })
          if (Option.isSome(member)) yield* PubSub.publish(events, new Expelled({ member: member.value, why }))
          return Option.isSome(member)
        })

        return Membership.of({
          add,
          find,
          admit,
          openEpoch,
          revoke: Effect.fn("Membership.revoke")((cluster: string) =>
            expel(
              cluster,
              new Revoked({ cluster }),
              (all, member) => HashMap.set(all, cluster, { ...member, revoked: true })
            )
          ),
          remove: Effect.fn("Membership.remove")((cluster: string) =>
            expel(cluster, new UnknownCluster({ cluster }), HashMap.remove(cluster))
          ),
          expelled: Effect.map(PubSub.subscribe(events), Stream.fromSubscription)
        })
      })
    )
}
