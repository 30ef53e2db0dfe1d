/** Interrupts a program at a request of its choice: the request reaches the server, its answer reaches nobody. */
import { Deferred, Effect, type Exit, Fiber } from "effect"
import type { Kube } from "../../src/infra/kube/Kube.ts"

/**
 * Runs `program` with a Kube whose `nth` request (from 1) is sent but never answered, and interrupts the program there.
 * The exit is a success when the program sent fewer requests.
 */
export const interruptAt = <A, E, R>(
  kube: Kube["Service"],
  nth: number,
  program: (kube: Kube["Service"]) => Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.gen(function*() {
    const reached = yield* Deferred.make<void>()
    let sent = 0
    const counted = <A, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        sent++
        return sent === nth
          ? Effect.exit(request).pipe(
            Effect.andThen(Deferred.succeed(reached, undefined)),
            Effect.andThen(Effect.never)
          )
          : request
      })
    const fiber = yield* Effect.forkChild(program({
      ...kube,
      get: (resource, ref) => counted(kube.get(resource, ref)),
      list: (resource, selection) => counted(kube.list(resource, selection)),
      create: (resource, manifest, options) => counted(kube.create(resource, manifest, options)),
      apply: (resource, manifest, options) => counted(kube.apply(resource, manifest, options)),
      patch: (resource, ref, patch, options) => counted(kube.patch(resource, ref, patch, options)),
      replace: (resource, manifest, options) => counted(kube.replace(resource, manifest, options)),
      delete: (resource, ref, options) => counted(kube.delete(resource, ref, options)),
      raw: (path, options) => counted(kube.raw(path, options))
    }))
    yield* Effect.raceFirst(Deferred.await(reached), Fiber.await(fiber))
    yield* Fiber.interrupt(fiber)
    return yield* Fiber.await(fiber)
  })
