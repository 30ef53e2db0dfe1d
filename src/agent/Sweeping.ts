/** Sweeps the probe namespace from time to time, and at the start: an agent that was killed may have left things behind. */
import { Context, Effect, Layer, Ref, Schedule } from "effect"
import type { Finding } from "../domain/Report.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import * as Sweeper from "./Sweeper.ts"

/** An expired object may stay this much longer, give or take a fifth. */
const EVERY = "5 minutes"

/** In a report no more is told. */
const MOST_TOLD = 10

export class Sweeping extends Context.Service<Sweeping, {
  /** What the last sweep could not remove; `k8s.self.access` reports it. */
  readonly leftovers: Effect.Effect<ReadonlyArray<Finding>>
}>()("kubeprober/agent/Sweeping") {
  /** For as long as the layer. Kinds that may not be listed are left alone. */
  static readonly layer = (options: {
    readonly namespace: string
    /** What runs here, and so may leave something behind. */
    readonly available: ReadonlyArray<AnyProbe>
  }): Layer.Layer<Sweeping, never, Kube> => Layer.effect(Sweeping, make(options))

  /** Where nothing is ever created. */
  static readonly layerNone: Layer.Layer<Sweeping> = Layer.succeed(Sweeping, { leftovers: Effect.succeed([]) })
}

const tell = ({ error, held, kind, name, namespace, run }: Sweeper.Swept) =>
  (error === undefined && held.length === 0
    ? Effect.logInfo("swept what a run that died left behind")
    : Effect.logWarning(`could not be swept: ${error?.message ?? `it waits for finalizers ${held.join(", ")}`}`)).pipe(
      Effect.annotateLogs({ kind, name, namespace, run })
    )

const make = Effect.fnUntraced(
  function*({ available, namespace }: { readonly namespace: string; readonly available: ReadonlyArray<AnyProbe> }) {
    const left = yield* Ref.make<ReadonlyArray<Finding>>([])
    yield* Sweeper.sweep({ namespace, resources: Sweeper.resourcesFor(available) }).pipe(
      Effect.tap((swept) => Ref.set(left, Sweeper.leftovers(swept).slice(0, MOST_TOLD))),
      Effect.tap((swept) => Effect.forEach(swept, tell, { discard: true })),
      Effect.catch((error) => Effect.logWarning(`nothing was swept: ${error.message}`)),
      Effect.repeat(Schedule.jittered(Schedule.spaced(EVERY))),
      Effect.forkScoped
    )
    return Sweeping.of({ leftovers: Ref.get(left) })
  }
)
