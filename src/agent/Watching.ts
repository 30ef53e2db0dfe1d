/**
 * Follows what probes watch: one list and watch of the API server for each kind, namespace and selector, shared by all
 * that name it and held only while somebody does.
 *
 * What is there at first is no change. What cannot be watched, for want of a right or of the kind, is logged once and tried
 * again from time to time: checks then run by their schedule alone.
 */
import { Cause, Context, Deferred, Effect, Layer, RcMap, Schedule, type Scope, Stream } from "effect"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import { KubeGate } from "../infra/kube/KubeGate.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import type * as Watch from "../probes/Watch.ts"
import { Budget } from "./Budget.ts"

export class Watching extends Context.Service<Watching, {
  /**
   * Calls `onChange` after each change that matters to the watch, for as long as the scope. Returns at once; the effect it
   * returns waits until what is there at first is known.
   */
  readonly follow: (
    watch: Watch.Watch,
    onChange: Effect.Effect<void>
  ) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  /** What somebody follows and cannot be watched now, and why. */
  readonly faults: Effect.Effect<ReadonlyMap<string, string>>
}>()("kubeprober/agent/Watching") {
  static readonly layer: Layer.Layer<Watching, never, Budget | Kube> = Layer.effect(
    Watching,
    Effect.suspend(() => make)
  )

  /** Nothing ever changes: for tests of what else makes runs. */
  static readonly layerNone: Layer.Layer<Watching> = Layer.succeed(Watching, {
    follow: () => Effect.succeed(Effect.never),
    faults: Effect.succeed(new Map())
  })
}

/** A reflector that nobody follows any more stays for so long: specs are replaced, not only removed. */
const IDLE = "10 seconds"

/** After the API server refused: rights may be granted, and kinds installed. */
const refusedRetries = Schedule.min([Schedule.exponential("2 seconds", 3), Schedule.spaced("5 minutes")]).pipe(
  Schedule.jittered
)

/** One list and watch, and who follows it. */
interface Shared {
  /** By the watch, for watches of a catalogue's probe are one for all Probes that use it. */
  readonly followers: Map<Watch.Watch, Set<Effect.Effect<void>>>
  readonly synced: Deferred.Deferred<void>
}

const nameOf = ({ metadata }: KubeObject): string => `${metadata.namespace ?? ""}/${metadata.name ?? ""}`

const textOf = ({ namespace, resource: { group, plural }, selector }: Watch.Watch): string =>
  `${group === "" ? plural : `${plural}.${group}`}${namespace === undefined ? "" : ` in ${namespace}`}${
    selector === undefined ? "" : ` with ${selector}`
  }`

const make = Effect.gen(function*() {
  const kube = yield* Kube
  const budget = yield* Budget
  const faults = new Map<string, string>()
  /** By key, for ever: there are no more than probes name. */
  const watches = new Map<string, Watch.Watch>()
  const numbers = new WeakMap<KubeResource<KubeObject>, number>()
  let count = 0

  /** Resources of one plural may read different fields of it, and are then followed apart. */
  const keyOf = (watch: Watch.Watch): string => {
    const number = numbers.get(watch.resource) ?? ++count
    numbers.set(watch.resource, number)
    const key = JSON.stringify([number, watch.namespace ?? null, watch.selector ?? null])
    watches.set(key, watch)
    return key
  }

  const matters = (watch: Watch.Watch, before: KubeObject | undefined, after: KubeObject | undefined) =>
    Effect.sync(() => watch.when(before, after)).pipe(
      Effect.catchDefect((defect) =>
        // A run too many is better than one too few.
        Effect.as(Effect.logError(`whether a change of ${textOf(watch)} matters could not be told`, defect), true)
      )
    )

  const tell = Effect.fnUntraced(function*(
    { followers }: Shared,
    changes: ReadonlyArray<readonly [before: KubeObject | undefined, after: KubeObject | undefined]>
  ) {
    for (const [watch, following] of followers) {
      for (const [before, after] of changes) {
        if (!(yield* matters(watch, before, after))) continue
        for (const onChange of following) yield* onChange
        break
      }
    }
  })

  const reflect = (shared: Shared, watch: Watch.Watch) => {
    // Kept over refusals, so that what changes meanwhile is told when the watch is back.
    let objects: Map<string, KubeObject> | undefined
    const { namespace, resource, selector } = watch
    const text = textOf(watch)
    const regained = Effect.suspend(() =>
      faults.delete(text)
        ? Effect.logInfo("changes are watched again").pipe(Effect.annotateLogs({ watch: text }))
        : Effect.void
    )
    const lost = Effect.fnUntraced(function*(error: KubeError) {
      if (faults.get(text) === error.message) return
      faults.set(text, error.message)
      yield* Effect.logWarning(
        `changes of ${text} are not watched, so checks that follow them run by their schedule alone: ${error.message}`
      )
    })
    return kube.reflect(resource, { namespace, labelSelector: selector }).pipe(
      Stream.runForEach(Effect.fnUntraced(function*(event) {
        if (event._tag === "Synced") {
          const before = objects
          const after = new Map(event.items.map((item) => [nameOf(item), item]))
          objects = after
          yield* regained
          if (before !== undefined) {
            const names = new Set([...before.keys(), ...after.keys()])
            yield* tell(shared, [...names].map((name) => [before.get(name), after.get(name)] as const))
          }
          yield* Deferred.succeed(shared.synced, undefined)
          return
        }
        const name = nameOf(event.object)
        const before = objects?.get(name)
        if (event._tag === "Deleted") objects?.delete(name)
        else objects?.set(name, event.object)
        yield* tell(shared, [[before, event._tag === "Deleted" ? undefined : event.object]])
      })),
      Effect.provideService(KubeGate, budget.standing("what is watched")),
      Effect.tapError(lost),
      Effect.retry(refusedRetries),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.logError(`the watch of ${text} broke`, cause)
      )
    )
  }

  const shared = yield* RcMap.make({
    lookup: Effect.fnUntraced(function*(key: string) {
      const made: Shared = { followers: new Map(), synced: yield* Deferred.make<void>() }
      const watch = watches.get(key)
      if (watch === undefined) return made
      yield* Effect.addFinalizer(() => Effect.sync(() => faults.delete(textOf(watch))))
      yield* Effect.forkScoped(reflect(made, watch))
      return made
    }),
    idleTimeToLive: IDLE
  })

  return Watching.of({
    follow: Effect.fnUntraced(function*(watch, onChange) {
      const { followers, synced } = yield* RcMap.get(shared, keyOf(watch))
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const following = followers.get(watch) ?? new Set()
          followers.set(watch, following.add(onChange))
        }),
        () =>
          Effect.sync(() => {
            const following = followers.get(watch)
            following?.delete(onChange)
            if (following?.size === 0) followers.delete(watch)
          })
      )
      return Deferred.await(synced)
    }),
    faults: Effect.sync(() => new Map(faults))
  })
})
