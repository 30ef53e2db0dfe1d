/** A command's connection to a master: who and where from flags, environment or the file a running master left. */
import { Effect, type Option } from "effect"
import * as Connection from "../client/Connection.ts"
import { FleetClient } from "../client/FleetClient.ts"

export interface MasterOptions {
  readonly server: Option.Option<string>
  readonly tokenFile: Option.Option<string>
  readonly caFile: Option.Option<string>
}

/** Use the fleet's procedures. */
export const withFleet = <A, E, R>(
  options: MasterOptions,
  use: (fleet: FleetClient["Service"]) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const connection = yield* Connection.resolve(options)
    return yield* Effect.provide(FleetClient.use(use), FleetClient.layer(connection))
  })

/** How agents reach the master, where the connection tells it. */
export const linkOf = (options: MasterOptions) => Effect.map(Connection.resolve(options), ({ link }) => link)

/** The items of all pages. */
export const allPages = <A, E, R>(
  page: (
    after: { readonly after?: string }
  ) => Effect.Effect<{ readonly items: ReadonlyArray<A>; readonly next: string | undefined }, E, R>
): Effect.Effect<ReadonlyArray<A>, E, R> =>
  Effect.gen(function*() {
    const items: Array<A> = []
    let after: string | undefined
    do {
      const found = yield* page(after === undefined ? {} : { after })
      items.push(...found.items)
      after = found.next
    } while (after !== undefined)
    return items
  })
