/** Names that a call gives of clusters and Probes, held against those there are: a typing error is no empty fleet. */
import { Effect } from "effect"
import type { FleetClient } from "../client/FleetClient.ts"
import { Failure, closest } from "./Failure.ts"
import { allPages } from "./MasterSession.ts"

export interface Asked {
  readonly clusters: ReadonlyArray<string>
  readonly probes: ReadonlyArray<string>
}

/** What there is of the fleet. */
export interface Known extends Asked {
  /** Checkers, each with the Probe it belongs to. */
  readonly checkers: ReadonlyArray<{ readonly checker: string; readonly probe: string }>
}

/** Names printed of those there are; the rest is counted. */
const MOST_NAMES = 10

const isOrAre = (names: ReadonlyArray<string>): string => `there ${names.length === 1 ? "is" : "are"} ${listed(names)}`

const listed = (names: ReadonlyArray<string>): string =>
  `${names.slice(0, MOST_NAMES).join(", ")}${names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : ""}`

const near = (wanted: string, names: ReadonlyArray<string>): string => {
  const found = closest(wanted, names)
  return found.length === 0 ? "" : `; did you mean ${found.join(" or ")}?`
}

const unknownCluster = (name: string, { clusters }: Known): string =>
  `there is no cluster ${name}${near(name, clusters)}${
    clusters.length === 0
      ? "; there is none yet, and `kubeprober cluster add NAME` adds one"
      : ` (${isOrAre(clusters)})`
  }`

const unknownProbe = (name: string, { checkers, probes }: Known): string => {
  const holders = [...new Set(checkers.filter(({ checker }) => checker === name).map(({ probe }) => probe))]
  const meant = holders.length > 0
    ? `; did you mean the checker ${name} of the Probe ${listed(holders)}? --probe ${holders[0]} shows it`
    : near(name, probes)
  return `there is no Probe ${name}${meant}${probes.length === 0 ? "; there is none yet" : ` (${isOrAre(probes)})`}`
}

/** Says of each name that does not exist what there is instead; nothing when all do. */
export const unknown = (asked: Asked, known: Known): ReadonlyArray<string> => [
  ...asked.clusters.filter((name) => !known.clusters.includes(name)).map((name) => unknownCluster(name, known)),
  ...asked.probes.filter((name) => !known.probes.includes(name)).map((name) => unknownProbe(name, known))
]

/** What a cluster's name can look like; the master takes no other. */
const CLUSTER_NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/u

/** Fails when a name does not exist. The whole fleet is asked for its names only when one does not. */
export const ensureKnown = Effect.fn("FleetNames.ensureKnown")(function*(
  fleet: FleetClient["Service"],
  asked: Asked
) {
  const possible = asked.clusters.filter((name) => CLUSTER_NAME.test(name))
  const clusters = possible.length === 0 ?
    [] :
    (yield* allPages((after) =>
      Effect.map(fleet.clusters({ filter: { clusters: possible }, ...after }), ({ clusters, next }) => ({
        items: clusters,
        next
      }))
    )).map(({ name }) => name)
  // Who may not list Probes may still look at what they say.
  const probes = asked.probes.length === 0 ? [] : yield* fleet.probes({}).pipe(
    Effect.map(({ probes }) => probes.map(({ name }) => name)),
    Effect.catchTag("Forbidden", () => Effect.succeed(asked.probes))
  )
  if (unknown(asked, { clusters, probes, checkers: [] }).length === 0) return
  const rows = yield* allPages((after) =>
    Effect.map(fleet.matrix({ filter: {}, ...after }), ({ next, rows }) => ({ items: rows, next }))
  )
  const wrong = unknown(asked, {
    clusters: rows.map(({ cluster }) => cluster),
    probes,
    checkers: rows.flatMap(({ cells }) => cells.map(({ checker, probe }) => ({ checker, probe: probe.name })))
  })
  if (wrong.length > 0) return yield* new Failure({ reason: wrong.join("\n") })
})
