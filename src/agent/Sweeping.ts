/** Sweeps the probe namespace from time to time, and at the start: an agent that was killed may have left things behind. */
import { Effect, Layer, Schedule } from "effect"
import type { Kube } from "../infra/kube/Kube.ts"
import * as Sweeper from "./Sweeper.ts"

/** An expired object may stay this much longer. */
const EVERY = "10 minutes"

/** For as long as the layer. Kinds that may not be listed are left alone. */
export const layer = (options: { readonly namespace: string }): Layer.Layer<never, never, Kube> =>
  Layer.effectDiscard(
    Sweeper.sweep(options).pipe(
      Effect.tap((swept) =>
        Effect.forEach(swept, ({ error, kind, name, namespace, run }) =>
          (error === undefined
            ? Effect.logInfo("swept what a run that died left behind")
            : Effect.logWarning(`could not be swept: ${error.message}`)).pipe(
              Effect.annotateLogs({ kind, name, namespace, run })
            ), { discard: true })
      ),
      Effect.catch((error) => Effect.logWarning(`nothing was swept: ${error.message}`)),
      Effect.repeat(Schedule.jittered(Schedule.spaced(EVERY))),
      Effect.forkScoped
    )
  )
