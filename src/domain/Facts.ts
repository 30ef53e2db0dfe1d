/**
 * Facts of a cluster: what it is made of, as keys with values, and how clusters are compared by them.
 *
 * Keys are `family/name`. A cluster tells a fact, or that it has none (silence about a family it has looked at), or that it
 * could not look at a family at all: then nothing is said of that family for this cluster, in either direction.
 */
import { matches } from "./NamePattern.ts"
import { type Evidence, type Finding, MAX_EVIDENCE, type Report } from "./Report.ts"

/** The code of findings that carry facts. They are PASS: a fact alone is no verdict. */
export const FACTS = "FACTS"

/** Fewer clusters than this have no majority worth the name. */
export const MIN_CLUSTERS = 5

/** The label of a Cluster that says with which others it is to be alike; clusters without it are a group too. */
export const GROUP_LABEL = "kubeprober.io/group"

/** How an absent fact is written where a value is expected. */
export const ABSENT = "absent"

/** What a cluster told of itself. */
export interface Facts {
  readonly values: ReadonlyMap<string, string>
  /** Of `values`: those that nothing may differ in. */
  readonly critical: ReadonlySet<string>
  /** Families that could not be looked at. */
  readonly unseen: ReadonlySet<string>
}

/**
 * A fact that is not what it should be. Without `expected` nobody else has it, without `actual` there is none here. A
 * critical one is an error, whether it differs, is missing or is new.
 */
export interface Deviation {
  readonly key: string
  readonly expected?: string | undefined
  readonly actual?: string | undefined
  readonly critical: boolean
}

/** A deviation from most other clusters. */
export interface FleetDeviation extends Deviation {
  /** How many clusters are as expected, of how many that have looked. */
  readonly agree: number
  readonly of: number
}

/** The part of a key before its first slash. */
export const familyOf = (key: string): string => key.split("/", 1)[0] ?? key

/** Kinds of subjects of findings that carry facts. */
const PLAIN = "Facts"
const CRITICAL = "CriticalFacts"
const UNSEEN = "UnseenFacts"

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

const carriers = (kind: string, facts: ReadonlyArray<readonly [string, string]>): ReadonlyArray<Finding> => {
  const sorted = facts.toSorted(([a], [b]) => compare(a, b))
  return Array.from({ length: Math.ceil(sorted.length / MAX_EVIDENCE) }, (_, index): Finding => {
    const part = sorted.slice(index * MAX_EVIDENCE, (index + 1) * MAX_EVIDENCE)
    const evidence: Evidence = Object.fromEntries(part)
    return {
      status: "PASS",
      code: FACTS,
      blame: "target",
      message: `${part.length} of ${sorted.length} ${
        kind === UNSEEN ? "families of facts that were not seen" : "facts"
      }`,
      subject: { kind, name: String(index + 1).padStart(2, "0") },
      evidence
    }
  })
}

/** Facts as findings, of 20 facts each. Bounded by who collects them: a report holds 50 findings. */
export const toFindings = (
  { critical, values }: Pick<Facts, "values" | "critical">,
  unseen: ReadonlyMap<string, string>
): ReadonlyArray<Finding> => [
  ...carriers(CRITICAL, [...values].filter(([key]) => critical.has(key))),
  ...carriers(PLAIN, [...values].filter(([key]) => !critical.has(key))),
  ...carriers(UNSEEN, [...unseen])
]

/** The facts a report carries; none when it carries none, or not all of them. */
export const fromReport = (report: Pick<Report, "findings" | "truncated">): Facts | undefined => {
  const findings = report.findings.filter(({ code, status }) => code === FACTS && status === "PASS")
  if (findings.length === 0 || report.truncated > 0) return undefined
  const of = (kind: string): ReadonlyArray<readonly [string, string]> =>
    findings.filter(({ subject }) => subject?.kind === kind).flatMap(({ evidence }) =>
      Object.entries(evidence ?? {}).map(([key, value]) => [key, String(value)] as const)
    )
  const critical = of(CRITICAL)
  return {
    values: new Map([...critical, ...of(PLAIN)]),
    critical: new Set(critical.map(([key]) => key)),
    unseen: new Set(of(UNSEEN).map(([family]) => family))
  }
}

/** What differs from a baseline, and pinned facts that could not be looked at. Sorted by key. */
export interface Compared {
  readonly deviations: ReadonlyArray<Deviation>
  readonly unseen: ReadonlyArray<string>
}

/**
 * Hold facts against a pinned baseline.
 *
 * A baseline pins keys; of families it says nothing of, nothing is expected. Within a family it does pin, a key it does
 * not name is new. `absent` pins that there is no such fact, and a key that ends with `*` and is pinned `absent` that there
 * is none but those pinned by name.
 */
export const againstBaseline = (
  facts: Pick<Facts, "values" | "unseen">,
  baseline: Readonly<Record<string, string>>,
  isCritical: (key: string) => boolean
): Compared => {
  const pinned = new Map(Object.entries(baseline))
  const families = new Set([...pinned.keys()].map(familyOf))
  const closed = [...pinned].filter(([key, value]) => key.endsWith("*") && value === ABSENT).map(([key]) => key)
  const deviations: Array<Deviation> = []
  const unseen: Array<string> = []
  for (const [key, value] of pinned) {
    if (key.endsWith("*")) continue
    const expected = value === ABSENT ? undefined : value
    const actual = facts.values.get(key)
    if (facts.unseen.has(familyOf(key))) unseen.push(key)
    else if (actual !== expected) deviations.push({ key, expected, actual, critical: isCritical(key) })
  }
  for (const [key, actual] of facts.values) {
    if (pinned.has(key)) continue
    const isClosed = closed.some((pattern) => matches(pattern, key))
    if (isClosed) deviations.push({ key, expected: ABSENT, actual, critical: isCritical(key) })
    else if (families.has(familyOf(key))) deviations.push({ key, actual, critical: isCritical(key) })
  }
  return { deviations: deviations.toSorted((a, b) => compare(a.key, b.key)), unseen: unseen.toSorted(compare) }
}

/**
 * How many clusters of a group have which fact. Adding and removing take as long as the cluster has facts, so that a fleet
 * of thousands is not counted anew for each report. What it says does not depend on the order in which it was told.
 */
export class Tally {
  /** Clusters counted. */
  size = 0
  readonly #counts = new Map<string, Map<string, number>>()
  readonly #critical = new Map<string, number>()
  readonly #unseen = new Map<string, number>()

  add(facts: Facts): void {
    this.#count(facts, 1)
  }

  /** Takes back what was added; nothing else may be removed. */
  remove(facts: Facts): void {
    this.#count(facts, -1)
  }

  #count({ critical, unseen, values }: Facts, by: 1 | -1): void {
    this.size += by
    for (const [key, value] of values) {
      const counts = this.#counts.get(key) ?? new Map<string, number>()
      move(counts, value, by)
      if (counts.size > 0) this.#counts.set(key, counts)
      else this.#counts.delete(key)
    }
    for (const key of critical) move(this.#critical, key, by)
    for (const family of unseen) move(this.#unseen, family, by)
  }

  /**
   * How a cluster of the group, itself counted, deviates from what more than half of those that looked have. Where there
   * is no such majority, or fewer than {@link MIN_CLUSTERS} looked, nothing is expected. Sorted by key.
   */
  deviations(own: Facts): ReadonlyArray<FleetDeviation> {
    const found: Array<FleetDeviation> = []
    for (const [key, counts] of this.#counts) {
      const family = familyOf(key)
      const of = this.size - (this.#unseen.get(family) ?? 0)
      if (of < MIN_CLUSTERS || own.unseen.has(family)) continue
      let have = 0
      let expected: string | undefined
      let agree = 0
      for (const [value, count] of counts) {
        have += count
        if (count * 2 > of) {
          expected = value
          agree = count
        }
      }
      if ((of - have) * 2 > of) agree = of - have
      const actual = own.values.get(key)
      if (agree > 0 && actual !== expected) {
        found.push({ key, expected, actual, critical: this.#critical.has(key), agree, of })
      }
    }
    return found.toSorted((a, b) => compare(a.key, b.key))
  }
}

const move = (counts: Map<string, number>, key: string, by: 1 | -1): void => {
  const count = (counts.get(key) ?? 0) + by
  if (count > 0) counts.set(key, count)
  else counts.delete(key)
}
