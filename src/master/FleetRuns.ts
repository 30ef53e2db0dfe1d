/** Manual runs on many clusters at once. */
import { Context, Deferred, type Duration, Effect, Layer, Option, Ref, Result, Stream } from "effect"
import { ProbeNotFound, type RunTarget, type UnknownChecks } from "../domain/rpc/Control.ts"
import type { FleetFilter, FleetRunEvent } from "../domain/rpc/Fleet.ts"
import { Links } from "../infra/link/Links.ts"
import { Desired } from "./Desired.ts"
import { selects } from "./FleetState.ts"

export class FleetRuns extends Context.Service<FleetRuns, {
  /** Ends with every cluster's end; at the deadline those that have not answered end as timed out. */
  readonly run: (options: {
    readonly filter: FleetFilter
    readonly target: RunTarget
    readonly timeout: Duration.Duration
  }) => Stream.Stream<FleetRunEvent, ProbeNotFound | UnknownChecks>
}>()("kubeprober/master/FleetRuns") {
  static readonly layer = Layer.effect(FleetRuns, Effect.suspend(() => make))
}

/** What a cluster is asked to run: a Probe is in the namespace that its Cluster says. */
interface Ask {
  readonly cluster: string
  /** Or why it is not asked. */
  readonly target: Result.Result<RunTarget, string>
}

const NOT_GIVEN = "the Probe is not given to this cluster"

const NO_SUCH = "there is no cluster of this name in the fleet; see kubeprober cluster list"

const make = Effect.gen(function*() {
  const desired = yield* Desired
  const links = yield* Links

  /** A Probe runs where it is attached; a cluster that was named and has it not, or is not there, is told of. */
  const asks = Effect.fnUntraced(function*(filter: FleetFilter, target: RunTarget) {
    if (target._tag === "Probe" && !(yield* desired.probes).some(({ name }) => name === target.probe.name)) {
      return yield* new ProbeNotFound({ probe: target.probe })
    }
    const clusters = (yield* desired.clusters).filter((cluster) => selects(filter, cluster))
    const known = yield* Effect.forEach(clusters, ({ name }) =>
      Effect.map(desired.of(name), (set): Ask => {
        if (target._tag === "Checks") return { cluster: name, target: Result.succeed(target) }
        const found = Option.getOrUndefined(set)?.set.probes.find((probe) => probe.name === target.probe.name)
        return {
          cluster: name,
          target: found === undefined
            ? Result.fail(NOT_GIVEN)
            : Result.succeed({ _tag: "Probe", probe: { namespace: found.namespace, name: found.name } })
        }
      }))
    const isNamed = (cluster: string): boolean => filter.clusters?.includes(cluster) === true
    const missing = yield* Effect.filter(
      [...new Set(filter.clusters)],
      (name) => Effect.map(desired.cluster(name), Option.isNone)
    )
    return [
      ...known.filter(({ cluster, target }) => Result.isSuccess(target) || isNamed(cluster)),
      ...missing.map((cluster): Ask => ({ cluster, target: Result.fail(NO_SUCH) }))
    ]
  })

  const runOn = ({ cluster, target }: Ask, options: {
    readonly run: string
    readonly timeout: Duration.Duration
    readonly deadline: Deferred.Deferred<void>
  }): Stream.Stream<FleetRunEvent> => {
    const ended = (outcome: Extract<FleetRunEvent, { readonly _tag: "Ended" }>["outcome"], message?: string) =>
      Stream.succeed<FleetRunEvent>({
        _tag: "Ended",
        cluster,
        outcome,
        ...(message === undefined ? {} : { message })
      })
    if (Result.isFailure(target)) return ended("refused", target.failure)
    const asked = target.success
    return Stream.unwrap(Effect.gen(function*() {
      const link = yield* links.find(cluster)
      const done = yield* Ref.make(false)
      const reports = link.control.runNow({ run: options.run, target: asked, timeout: options.timeout }).pipe(
        Stream.map((record): FleetRunEvent => ({ _tag: "Reported", cluster, record })),
        Stream.concat(Stream.fromEffectDrain(Ref.set(done, true))),
        Stream.interruptWhen(Deferred.await(options.deadline))
      )
      const end = Stream.unwrap(Effect.gen(function*() {
        if (yield* Ref.get(done)) return ended("finished")
        yield* Effect.forkDetach(Effect.ignore(link.control.cancel({ run: options.run })))
        return ended("timed-out", "it did not finish before the deadline")
      }))
      return Stream.concat(reports, end)
    })).pipe(
      Stream.catch((error) =>
        error._tag === "NotLinked" || error._tag === "LinkClosed"
          ? ended("unreachable", error.message)
          : ended("refused", error.message)
      )
    )
  }

  return FleetRuns.of({
    run: ({ filter, target, timeout }) =>
      Stream.unwrap(Effect.gen(function*() {
        const clusters = yield* asks(filter, target)
        const run = yield* Effect.sync(() => crypto.randomUUID().replaceAll("-", ""))
        const deadline = yield* Deferred.make<void>()
        yield* Deferred.succeed(deadline, undefined).pipe(Effect.delay(timeout), Effect.forkScoped)
        return Stream.concat(
          Stream.succeed<FleetRunEvent>({ _tag: "Started", run, clusters: clusters.map(({ cluster }) => cluster) }),
          Stream.fromIterable(clusters).pipe(
            // Unbounded: a cluster that hangs must not keep another from its turn.
            Stream.flatMap((ask) => runOn(ask, { run, timeout, deadline }), { concurrency: "unbounded" })
          )
        )
      }))
  })
})
