/**
 * The links a master holds now, one a cluster at most.
 */
import { Context, Data, type DateTime, Effect, HashMap, Layer, Option, PubSub, Ref, type Scope, Stream } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { Control } from "../../domain/rpc/Control.ts"
import { Superseded } from "../../domain/rpc/Uplink.ts"
import type { AgentName } from "../pki/AgentName.ts"
import { release, takeOver } from "./epoch.ts"
import { type Farewell, LinkClosed, NotLinked, PeerGone } from "./LinkError.ts"
import type { LinkRpcClient } from "./LinkRpc.ts"
import type { MasterMux } from "./Mux.ts"

/** A link as its master sees it. */
export interface Link extends AgentName {
  readonly epoch: number
  readonly since: DateTime.Utc
  /** The agent's address, or that of the last proxy before us. */
  readonly address: string
  /** The agent's procedures. */
  readonly control: LinkRpcClient<RpcGroup.Rpcs<typeof Control>>
  /** Any other request to the cluster, such as to its API server. */
  readonly request: MasterMux["request"]
  readonly closed: Effect.Effect<never, LinkClosed>
  /** Streams open now. */
  readonly streams: Effect.Effect<number>
  readonly close: (farewell: Farewell) => Effect.Effect<void>
}

export type LinkEvent = Data.TaggedEnum<{
  Opened: { readonly link: Link }
  /** Of a link that was not superseded: the cluster has none now. */
  Ended: { readonly link: Link; readonly reason: LinkClosed }
}>
export const LinkEvent = Data.taggedEnum<LinkEvent>()

/** Events a slow subscriber may lag behind before it misses the oldest; what is true now is in {@link Links.all}. */
const EVENTS = 4096

export class Links extends Context.Service<Links, {
  readonly all: Effect.Effect<ReadonlyArray<Link>>
  readonly size: Effect.Effect<number>
  readonly find: (cluster: string) => Effect.Effect<Link, NotLinked>
  /** What happens from the moment the effect has run. */
  readonly events: Effect.Effect<Stream.Stream<LinkEvent>, never, Scope.Scope>
  /** Makes the link its cluster's until the scope ends. Of this and another one, the older is told to close. */
  readonly hold: (link: Link) => Effect.Effect<void, never, Scope.Scope>
}>()("kubeprober/link/Links") {
  static readonly layer = Layer.effect(
    Links,
    Effect.gen(function*() {
      const held = yield* Ref.make(HashMap.empty<string, Link>())
      const events = yield* PubSub.sliding<LinkEvent>(EVENTS)
      const scope = yield* Effect.scope

      const install = (link: Link) =>
        Ref.modify(held, (all) => {
          const { holder, superseded } = takeOver(Option.getOrUndefined(HashMap.get(all, link.cluster)), link)
          return [{ holder, superseded }, HashMap.set(all, link.cluster, holder)]
        })

      const remove = (link: Link) =>
        Ref.modify(held, (all) => {
          const holder = Option.getOrUndefined(HashMap.get(all, link.cluster))
          const left = release(holder, link)
          return [
            holder !== left,
            left === undefined ? HashMap.remove(all, link.cluster) : HashMap.set(all, link.cluster, left)
          ]
        })

      const end = Effect.fnUntraced(function*(link: Link) {
        if (!(yield* remove(link))) return
        const shutDown = new LinkClosed({
          peer: link.cluster,
          reason: new PeerGone({ detail: "this end was shut down" })
        })
        const reason = yield* Effect.raceFirst(Effect.flip(link.closed), Effect.succeed(shutDown))
        yield* PubSub.publish(events, LinkEvent.Ended({ link, reason }))
      })

      const hold = Effect.fnUntraced(function*(link: Link) {
        const { holder, superseded } = yield* install(link)
        if (superseded !== undefined) {
          const farewell = new Superseded({ epoch: superseded.epoch, current: holder.epoch })
          // In the background: the old peer may be long gone.
          yield* Effect.forkIn(superseded.close(farewell), scope)
        }
        if (holder === link) yield* PubSub.publish(events, LinkEvent.Opened({ link }))
        yield* Effect.addFinalizer(() => end(link))
      })

      return Links.of({
        all: Effect.map(Ref.get(held), (all) => Array.from(HashMap.values(all))),
        size: Effect.map(Ref.get(held), HashMap.size),
        find: Effect.fnUntraced(function*(cluster) {
          const link = HashMap.get(yield* Ref.get(held), cluster)
          return Option.isSome(link) ? link.value : yield* new NotLinked({ cluster })
        }),
        events: Effect.map(PubSub.subscribe(events), Stream.fromSubscription),
        hold
      })
    })
  )
}
