/** What a node may lack. */
import { Effect, Option } from "effect"
import type { HostError } from "../../../infra/host/Host.ts"

/** Nothing for what the kernel has not got; other failures stay. */
export const optional = <A, R>(
  effect: Effect.Effect<A, HostError, R>
): Effect.Effect<Option.Option<A>, HostError, R> =>
  Effect.asSome(effect).pipe(
    Effect.catchIf((error) => error.kind === "missing", () => Effect.succeed(Option.none<A>()))
  )
