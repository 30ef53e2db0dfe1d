/** The fleet's procedures over what the master knows. Thin: who may call them is `FleetAccess`'s, what they do the services'. */
import { Effect, Option, Result, Schema, Stream } from "effect"
import {
  ClusterNotFound,
  type ClusterView,
  Fleet,
  type FleetFilter,
  InvalidCursor,
  InvalidResource,
  ProbeMissing,
  type ProbeView,
  Unavailable
} from "../../domain/rpc/Fleet.ts"
import * as Status from "../../domain/Status.ts"
import type { Handlers } from "../../infra/link/LinkRpc.ts"
import { FleetRuns } from "../FleetRuns.ts"
import { FleetState, selects } from "../FleetState.ts"
import { History } from "../History.ts"
import { type RegisteredProbe, Registry } from "../Registry.ts"
import type { ResourcesError } from "../Resources.ts"

/** Items of a page when none are asked for. A row of the matrix has about 15 KB with the standard profile. */
const PAGE = 100

export const layer = Fleet.toLayer(Effect.gen(function*() {
  const registry = yield* Registry
  const state = yield* FleetState
  const runs = yield* FleetRuns
  const history = yield* History

  const known = Effect.fnUntraced(function*(cluster: string) {
    if (Option.isNone(yield* registry.registered(cluster))) return yield* new ClusterNotFound({ cluster })
  })

  const handlers: Handlers<typeof Fleet> = {
    matrix: Effect.fnUntraced(function*({ after, filter, limit = PAGE }) {
      const rows = yield* state.rows({ filter, after: yield* nameOf(after), limit: limit + 1 })
      const { items, next } = pageOf(rows, limit, ({ cluster }) => cluster)
      return { rows: items, ...next }
    }),
    clusters: Effect.fnUntraced(function*({ after, filter, limit = PAGE }) {
      const name = yield* nameOf(after)
      const views = (yield* registry.clusters).filter((view) =>
        (name === undefined || view.name > name) && fits(filter, view)
      )
      const { items, next } = pageOf(views, limit, ({ name }) => name)
      return { clusters: items, ...next }
    }),
    cluster: ({ cluster }) => registry.cluster(cluster),
    history: Effect.fnUntraced(function*({ after, checker, cluster, from, limit = PAGE, probe, to }) {
      yield* known(cluster)
      const page = yield* history.entries({ cluster, probe, checker }, { from, to, after, limit }).pipe(
        Effect.mapError(({ message }) => new Unavailable({ detail: message }))
      )
      if (Option.isNone(page)) return yield* new InvalidCursor()
      const { items, next } = page.value
      return { entries: items, ...(next === undefined ? {} : { next }) }
    }),
    run: (options) => runs.run(options),
    transitions: ({ filter }) => Stream.unwrap(state.transitions(filter)),
    createJoinToken: ({ cluster, labels }) =>
      Effect.catchTag(registry.add(cluster, labels ?? {}), "ResourcesError", refused),
    revoke: ({ cluster }) => Effect.catchTag(registry.revoke(cluster), "ResourcesError", unavailable),
    removeCluster: ({ cluster }) => Effect.catchTag(registry.remove(cluster), "ResourcesError", unavailable),
    labelCluster: ({ cluster, labels }) => Effect.catchTag(registry.label(cluster, labels), "ResourcesError", refused),
    probes: () => Effect.map(registry.probes, (probes) => ({ probes: probes.map(viewOf) })),
    applyProbe: ({ labels, name, spec }) =>
      registry.applyProbe(name, labels ?? {}, spec).pipe(
        Effect.map(viewOf),
        Effect.catchTag("ResourcesError", refused)
      ),
    deleteProbe: Effect.fnUntraced(function*({ name }) {
      const deleted = yield* Effect.catchTag(registry.deleteProbe(name), "ResourcesError", unavailable)
      if (!deleted) return yield* new ProbeMissing({ name })
    })
  }
  return handlers
}))

const viewOf = ({ generation, labels, name, spec }: RegisteredProbe): ProbeView => ({ name, labels, generation, spec })

const fits = (filter: FleetFilter, view: ClusterView): boolean =>
  selects(filter, view) && (filter.atLeast === undefined || Status.isAtLeast(view.status, filter.atLeast))

const unavailable = (error: ResourcesError) => Effect.fail(new Unavailable({ detail: error.message }))

const refused = (error: ResourcesError): Effect.Effect<never, InvalidResource | Unavailable> =>
  error.reason === "Invalid"
    ? Effect.fail(new InvalidResource({ kind: error.kind, name: error.name ?? "", detail: error.detail }))
    : unavailable(error)

/** The last name of the page before, so that it means the same whatever comes and goes between two pages. */
const Cursor = Schema.StringFromBase64Url.pipe(
  Schema.decodeTo(Schema.fromJsonString(Schema.Struct({ after: Schema.String.check(Schema.isMaxCodePoints(253)) })))
)
const encodeCursor = Schema.encodeSync(Cursor)
const decodeCursor = Schema.decodeResult(Cursor)

const nameOf = (cursor: string | undefined): Effect.Effect<string | undefined, InvalidCursor> => {
  if (cursor === undefined) return Effect.succeed(undefined)
  return Result.match(decodeCursor(cursor), {
    onFailure: () => Effect.fail(new InvalidCursor()),
    onSuccess: ({ after }) => Effect.succeed(after)
  })
}

/** A page of what was found, which goes on when there is one more than fits. */
const pageOf = <A>(found: ReadonlyArray<A>, limit: number, name: (item: A) => string) => {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return {
    items,
    next: found.length > limit && last !== undefined ? { next: encodeCursor({ after: name(last) }) } : {}
  }
}
