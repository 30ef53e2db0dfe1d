/** What agents tell of themselves, as heard since this master started. */
import { Context, type DateTime, Effect, HashMap, Layer, Option, PubSub, Ref, type Scope, Stream } from "effect"
import type { ContentHash } from "../domain/DesiredSet.ts"
import type { Facts, Versions } from "../domain/kinds/Cluster.ts"
import type { RefusedProbe } from "../domain/rpc/Control.ts"

/** The latest word of a cluster's agent. */
export interface Heard {
  readonly epoch: number
  readonly at: DateTime.Utc
  /** Uid of the cluster's kube-system namespace. */
  readonly clusterUid: string
  readonly versions: Versions
  readonly nodeCount?: number | undefined
  readonly facts?: typeof Facts.Type | undefined
  /** Hash of the desired set it runs. */
  readonly applied?: ContentHash | undefined
  /** Of the set it was last given: Probes it cannot run. */
  readonly refused: ReadonlyArray<RefusedProbe>
  readonly undelivered?: { readonly count: number; readonly oldest?: DateTime.Utc | undefined } | undefined
}

export class Heartbeats extends Context.Service<Heartbeats, {
  readonly of: (cluster: string) => Effect.Effect<Option.Option<Heard>>
  /** From what is known of the cluster, if anything is, to what was heard. */
  readonly hear: (
    cluster: string,
    how: (known: Heard | undefined) => Heard | undefined
  ) => Effect.Effect<void>
  readonly forget: (cluster: string) => Effect.Effect<void>
  /** Names of clusters that were heard of, from the moment the effect has run. */
  readonly events: Effect.Effect<Stream.Stream<string>, never, Scope.Scope>
}>()("kubeprober/master/Heartbeats") {
  static readonly layer = Layer.effect(
    Heartbeats,
    Effect.gen(function*() {
      const heard = yield* Ref.make(HashMap.empty<string, Heard>())
      const events = yield* PubSub.sliding<string>(EVENTS)
      return Heartbeats.of({
        of: (cluster) => Effect.map(Ref.get(heard), HashMap.get(cluster)),
        hear: Effect.fnUntraced(function*(cluster, how) {
          yield* Ref.update(heard, (all) => {
            const next = how(Option.getOrUndefined(HashMap.get(all, cluster)))
            return next === undefined ? all : HashMap.set(all, cluster, next)
          })
          yield* PubSub.publish(events, cluster)
        }),
        forget: (cluster) => Ref.update(heard, HashMap.remove(cluster)),
        events: Effect.map(PubSub.subscribe(events), Stream.fromSubscription)
      })
    })
  )
}

/** Events a slow subscriber may lag behind; what is true now is asked for, not counted. */
const EVENTS = 16_384
