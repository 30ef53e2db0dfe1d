import { Effect } from "effect"
import { createServer } from "node:net"
import { NoFreePort } from "./LocalError.ts"

/**
 * A port of the address for each name, all different and free now. Nothing keeps them free: be ready to ask again.
 */
export const free = <Name extends string>(
  address: string,
  names: ReadonlyArray<Name>
): Effect.Effect<Record<Name, number>, NoFreePort> =>
  Effect.forEach(names, (name) => Effect.map(listen(address), (port) => [name, port] as const)).pipe(
    Effect.scoped,
    // The keys are the names, which the type of fromEntries cannot say.
    Effect.map((ports) => Object.fromEntries(ports) as Record<Name, number>)
  )

/** Listens for the length of the scope, so that the next one gets another port. */
const listen = (address: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }, NoFreePort>((resume) => {
        const server = createServer()
        server.once("error", (cause) => resume(Effect.fail(new NoFreePort({ address, cause }))))
        server.listen(0, address, () => {
          const bound = server.address()
          if (bound !== null && typeof bound === "object") {
            resume(Effect.succeed({ port: bound.port, close: () => server.close() }))
          }
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ port }) => port
  )
