/** k8s.pdb.drain: nodes can be drained as far as disruption budgets have a say. */
import { DateTime, Duration, Effect, Schema } from "effect"
import { matches } from "../../domain/ClusterSelector.ts"
import { DurationString } from "../../domain/Duration.ts"
import * as NamePattern from "../../domain/NamePattern.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { PodMetadata } from "../../infra/kube/resources/pods.ts"
import { PodDisruptionBudget } from "../../infra/kube/resources/policy.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Names, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

export const PdbDrainConfig = Schema.Struct({
  blockedAfter: setting(DurationString, {
    default: "1h",
    description: "A budget may allow no disruption for this long before it counts as one that never will."
  }),
  observedWithin: setting(DurationString, {
    default: "2m",
    description: "How long kube-controller-manager may take to look at a new or changed budget."
  }),
  exclude: setting(Names, {
    default: [],
    description: "Budgets that block drains on purpose, as `namespace/name`; `*` at the end matches any rest."
  })
})
export type PdbDrainConfig = typeof PdbDrainConfig.Type

export const codes = Codes.make({
  DRAIN_BLOCKED: Codes.warn(
    "A PodDisruptionBudget allows no disruption although all of its pods are healthy, so a drain of their nodes never ends.",
    "Lower minAvailable, raise maxUnavailable or run more replicas; list it in `exclude` where it blocks on purpose."
  ),
  PODS_UNHEALTHY: Codes.info(
    "A PodDisruptionBudget allows no disruption for long because pods of it are not healthy.",
    "Mend the pods; k8s.workloads.health tells what they lack."
  ),
  BUDGETS_OVERLAP: Codes.error(
    "Pods are covered by several PodDisruptionBudgets. The API server refuses to evict such pods, whatever the budgets allow.",
    "Change the selectors so that every pod is covered by one budget at most."
  ),
  BUDGET_NOT_COUNTED: Codes.warn(
    "kube-controller-manager cannot count the pods of a PodDisruptionBudget, or has not looked at it: it allows no eviction, " +
      "or what it allows is old.",
    "Read the message; pods without a controller can only be counted by a minAvailable that is a number."
  )
})

/** What a look at the budgets saw. */
export interface Seen {
  readonly budgets: ReadonlyArray<PodDisruptionBudget>
  /** Pods of namespaces with several budgets that an eviction would ask the budgets about. */
  readonly pods: ReadonlyArray<PodMetadata>
  readonly now: DateTime.Utc
}

const keyOf = ({ metadata }: PodDisruptionBudget): string => `${metadata.namespace ?? ""}/${metadata.name ?? ""}`

const subjectOf = ({ metadata }: PodDisruptionBudget) => ({
  kind: "PodDisruptionBudget",
  name: metadata.name ?? "",
  namespace: metadata.namespace ?? ""
})

const ageOf = (since: DateTime.Utc | undefined, now: DateTime.Utc): Duration.Duration =>
  since === undefined ? Duration.zero : Elapsed.between(since, now)

const isExcluded = ({ exclude }: PdbDrainConfig, budget: PodDisruptionBudget): boolean =>
  exclude.some((pattern) => NamePattern.matches(pattern, keyOf(budget)))

const limitText = ({ spec: { maxUnavailable, minAvailable } }: PodDisruptionBudget): string =>
  minAvailable !== undefined
    ? `minAvailable ${minAvailable}`
    : maxUnavailable !== undefined
    ? `maxUnavailable ${maxUnavailable}`
    : "no limit"

/** When its specification, or the object, was last written by anyone but the controller that counts. */
const writtenAt = ({ metadata: { creationTimestamp, managedFields } }: PodDisruptionBudget) =>
  managedFields.reduce(
    (latest, { subresource, time }) =>
      time === undefined || subresource === "status" ||
        (latest !== undefined && DateTime.isGreaterThanOrEqualTo(latest, time))
        ? latest
        : time,
    creationTimestamp
  )

const judgeBudget = (
  budget: PodDisruptionBudget,
  now: DateTime.Utc,
  config: PdbDrainConfig
): ReadonlyArray<Finding> => {
  const { metadata, status } = budget
  if (metadata.deletionTimestamp !== undefined) return []
  const subject = subjectOf(budget)
  const title = `PodDisruptionBudget ${keyOf(budget)}`
  if ((status.observedGeneration ?? 0) < (metadata.generation ?? 1)) {
    const age = ageOf(writtenAt(budget), now)
    return Duration.isGreaterThan(age, config.observedWithin)
      ? [codes.BUDGET_NOT_COUNTED({
        message: `${title} was written ${Elapsed.text(age)} ago, and kube-controller-manager has not looked at it ` +
          `since (limit ${Elapsed.text(config.observedWithin)})`,
        subject
      })]
      : []
  }
  const allowed = status.conditions.find(({ type }) => type === "DisruptionAllowed")
  const age = ageOf(allowed?.lastTransitionTime, now)
  if (allowed?.reason === "SyncFailed") {
    return Duration.isGreaterThan(age, config.observedWithin)
      ? [codes.BUDGET_NOT_COUNTED({
        message: `${title} cannot count its pods for ${Elapsed.text(age)}: ${allowed.message ?? "no reason given"}`,
        subject
      })]
      : []
  }
  // Without pods there is nothing that an eviction would ask it about.
  if (status.disruptionsAllowed > 0 || status.expectedPods === 0 || allowed?.status === "True") return []
  if (!Duration.isGreaterThan(age, config.blockedAfter)) return []
  const { currentHealthy, expectedPods } = status
  const evidence = {
    healthy: currentHealthy,
    expected: expectedPods,
    desired: status.desiredHealthy,
    limit: limitText(budget)
  }
  const since = `for ${Elapsed.text(age)} (limit ${Elapsed.text(config.blockedAfter)})`
  return [
    currentHealthy >= expectedPods
      ? codes.DRAIN_BLOCKED({
        message: `${title} allows no disruption ${since}, with ${currentHealthy} of ${expectedPods} pods healthy and ` +
          `${limitText(budget)}: a drain of their nodes never ends`,
        subject,
        evidence
      })
      : codes.PODS_UNHEALTHY({
        message: `${title} allows no disruption ${since}: ${currentHealthy} of ${expectedPods} pods are healthy, ` +
          `${status.desiredHealthy} are needed`,
        subject,
        evidence
      })
  ]
}

const byNamespace = (budgets: ReadonlyArray<PodDisruptionBudget>): ReadonlyMap<string, Array<PodDisruptionBudget>> => {
  const found = new Map<string, Array<PodDisruptionBudget>>()
  for (const budget of budgets) {
    const { deletionTimestamp, namespace = "" } = budget.metadata
    if (deletionTimestamp !== undefined || budget.spec.selector === undefined) continue
    found.set(namespace, [...(found.get(namespace) ?? []), budget])
  }
  return found
}

/** Whether pods must be read: only where a namespace has several budgets can they overlap. */
export const asksForPods = (budgets: ReadonlyArray<PodDisruptionBudget>): boolean =>
  [...byNamespace(budgets).values()].some(({ length }) => length > 1)

/** One finding for each set of budgets that share pods, however many. */
const judgeOverlaps = ({ budgets, pods }: Seen): ReadonlyArray<Finding> => {
  const overlaps = new Map<
    string,
    { readonly budgets: ReadonlyArray<PodDisruptionBudget>; readonly pods: Array<string> }
  >()
  const namespaces = byNamespace(budgets)
  for (const { metadata: { deletionTimestamp, labels = {}, name = "", namespace = "" } } of pods) {
    if (deletionTimestamp !== undefined) continue
    const covering = (namespaces.get(namespace) ?? []).filter(({ spec }) =>
      spec.selector !== undefined && matches(spec.selector, labels)
    )
    if (covering.length < 2) continue
    const key = covering.map(keyOf).sort().join(" ")
    const found = overlaps.get(key) ?? { budgets: covering, pods: [] }
    found.pods.push(name)
    overlaps.set(key, found)
  }
  return [...overlaps.values()].flatMap(({ budgets, pods }) => {
    const [first] = budgets
    if (first === undefined) return []
    const names = budgets.map(({ metadata }) => metadata.name ?? "")
    return [codes.BUDGETS_OVERLAP({
      message: `${pods.length} pods in ${first.metadata.namespace ?? ""}, such as ${pods[0] ?? ""}, are covered by ` +
        `PodDisruptionBudgets ${names.slice(0, 5).join(", ")}: none of these pods can be evicted`,
      subject: subjectOf(first),
      evidence: { budgets: names.slice(0, 5).join(", "), pods: pods.length, pod: pods[0] ?? "" }
    })]
  })
}

/** The verdict on what was seen. */
export const judge = (config: PdbDrainConfig) => (seen: Seen): Outcome.Outcome => {
  if (seen.budgets.length === 0) {
    return Outcome.make("", [checkerCodes.NOT_APPLICABLE({ message: "the cluster has no PodDisruptionBudget" })])
  }
  const judged = seen.budgets.filter((budget) => !isExcluded(config, budget))
  return Outcome.make(
    `${judged.length} PodDisruptionBudgets allow evictions, or will when their pods are ready`,
    [...judged.flatMap((budget) => judgeBudget(budget, seen.now, config)), ...judgeOverlaps(seen)]
  )
}

/** Pods that ended or have not begun are evicted without a look at budgets (registry/core/pod/rest/eviction.go canIgnorePDB). */
const ASKED_ABOUT = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Pending"

export const pdbDrain = Probe.make("k8s.pdb.drain", {
  layer: "kubernetes",
  proves: "No PodDisruptionBudget keeps a node from being drained for ever.",
  writes: "nothing",
  costs: "2 list requests, and one of the metadata of pods where a namespace has several PodDisruptionBudgets.",
  needs: [Needs.list("poddisruptionbudgets", { group: "policy" }), Needs.list("pods"), ServerTime.needs],
  codes,
  config: PdbDrainConfig,
  interval: "10 minutes",
  timeout: "30 seconds",
  timed: [],
  // Budgets may overlap from when they are written; what they allow matters after an hour only.
  onChange: [Watch.of(PodDisruptionBudget, { when: Watch.differsIn(({ metadata }) => metadata.generation) })],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: PdbDrainConfig) {
    const kube = yield* Kube
    const { items: budgets } = yield* kube.list(PodDisruptionBudget)
    const { items: pods } = asksForPods(budgets)
      ? yield* kube.list(PodMetadata, { fieldSelector: ASKED_ABOUT })
      : { items: [] }
    return judge(config)({ budgets, pods, now: yield* ServerTime.nowOrOurs })
  })
})
