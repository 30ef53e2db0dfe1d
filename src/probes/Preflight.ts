/**
 * Which of a probe's needs the prober's identity lacks.
 *
 * One SelfSubjectRulesReview per namespace lists what RBAC grants; it may be incomplete (webhook authorizers cannot
 * list their rules), so whatever it does not show is asked again, one by one, with a SelfSubjectAccessReview, whose
 * answer is final (https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access).
 */
import { Cache, Duration, Effect, Exit } from "effect"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import { SelfSubjectAccessReview, SelfSubjectRulesReview } from "../infra/kube/resources/authorization.ts"
import { type Need, type PathNeed, type ResourceNeed, describe, probeNamespace } from "./Needs.ts"

/** What a SelfSubjectRulesReview granted, in one namespace. */
export type Rules = SelfSubjectRulesReview["status"]

/** What can be asked about before a run. */
type Askable = ResourceNeed | PathNeed

const holds = (granted: ReadonlyArray<string>, wanted: string): boolean =>
  granted.includes("*") || granted.includes(wanted)

const holdsResource = (granted: ReadonlyArray<string>, wanted: string): boolean => {
  const subresource = wanted.split("/")[1]
  return holds(granted, wanted) || (subresource !== undefined && granted.includes(`*/${subresource}`))
}

/** Whether these rules show that `need` is granted. `false` means "not shown", which is not yet "refused". */
export const shows = (rules: Rules, need: Need): boolean => {
  if (need._tag === "CustomResourcesNeed") return false
  if (need._tag === "PathNeed") {
    return rules.nonResourceRules.some((rule) =>
      holds(rule.verbs, "get") && rule.nonResourceURLs.some((granted) =>
        granted === "*" || granted === need.path ||
        (granted.endsWith("*") && need.path.startsWith(granted.slice(0, -1)))
      )
    )
  }
  return rules.resourceRules.some((rule) =>
    holds(rule.verbs, need.verb) && holds(rule.apiGroups, need.group) && holdsResource(rule.resources, need.resource) &&
    (rule.resourceNames.length === 0 ||
      (need.names !== undefined && need.names.every((name) => rule.resourceNames.includes(name))))
  )
}

const resolved = (need: Askable, probeNamespaceName: string): string | undefined =>
  need._tag === "PathNeed" ? undefined : need.namespace === probeNamespace ? probeNamespaceName : need.namespace

const review = Effect.fnUntraced(function*(need: Askable, probeNamespaceName: string) {
  const kube = yield* Kube
  const namespace = resolved(need, probeNamespaceName)
  const ask = (name?: string) => {
    const spec = need._tag === "PathNeed"
      ? { nonResourceAttributes: { path: need.path, verb: "get" } }
      : {
        resourceAttributes: {
          verb: need.verb,
          group: need.group,
          resource: need.resource.split("/")[0] ?? need.resource,
          ...(need.resource.includes("/") ? { subresource: need.resource.split("/")[1] } : {}),
          ...(namespace === undefined ? {} : { namespace }),
          ...(name === undefined ? {} : { name })
        }
      }
    return Effect.map(kube.create(SelfSubjectAccessReview, { metadata: {}, spec }), ({ status }) => status.allowed)
  }
  const answers = need._tag === "ResourceNeed" && need.names !== undefined
    ? yield* Effect.forEach(need.names, ask)
    : [yield* ask()]
  return answers.every((allowed) => allowed)
})

/**
 * The namespace asked about for needs that must hold everywhere: one that nobody has, so that only cluster-wide rules
 * show in it and no Role bound in a real namespace can pass for one.
 */
export const EVERYWHERE = "kubeprober-nowhere"

/** How the rules of a namespace are had. */
export type ReadRules = (namespace: string) => Effect.Effect<Rules, KubeError, Kube>

/** Asks the API server each time. */
export const readRules: ReadRules = Effect.fnUntraced(function*(namespace) {
  const kube = yield* Kube
  const answer = yield* kube.create(SelfSubjectRulesReview, { metadata: {}, spec: { namespace } })
  return answer.status
})

/** How long rules that were read are believed by {@link rememberedRules}. */
export const REMEMBERED = Duration.minutes(5)

/** More namespaces than a plan of checks names. */
const NAMESPACES = 64

/**
 * Rules that are read once in five minutes, for one identity that asks again and again. What is granted meanwhile is seen
 * at once, because what rules do not show is asked about; what is taken away is refused by the API server in the run
 * itself, which is UNKNOWN for the same reason.
 */
export const rememberedRules = (read: ReadRules = readRules): Effect.Effect<ReadRules> =>
  Effect.map(
    Cache.makeWith(read, {
      capacity: NAMESPACES,
      timeToLive: (exit) => Exit.isSuccess(exit) ? REMEMBERED : Duration.zero,
      requireServicesAt: "lookup"
    }),
    (cache): ReadRules => (namespace) => Cache.get(cache, namespace)
  )

/** The needs that are not granted, required ones and optional ones alike. */
export const missing = Effect.fn("Preflight.missing")(
  function*(
    needs: ReadonlyArray<Need>,
    probeNamespaceName: string,
    read: ReadRules = readRules
  ): Effect.fn.Return<ReadonlyArray<Need>, KubeError, Kube> {
    const askable = needs.filter((need): need is Askable => need._tag !== "CustomResourcesNeed")
    const distinct = [...new Map(askable.map((need) => [describe(need, probeNamespaceName), need])).values()]
    const namespaces = [...new Set(distinct.map((need) => resolved(need, probeNamespaceName) ?? EVERYWHERE))]
    const rules = new Map(
      yield* Effect.forEach(
        namespaces,
        (namespace) => Effect.map(read(namespace), (rules) => [namespace, rules] as const),
        { concurrency: 4 }
      )
    )
    const unseen = distinct.filter((need) => {
      const shown = rules.get(resolved(need, probeNamespaceName) ?? EVERYWHERE)
      return shown === undefined || !shows(shown, need)
    })
    const answers = yield* Effect.forEach(unseen, (need) => review(need, probeNamespaceName), { concurrency: 4 })
    return unseen.filter((_, index) => answers[index] === false)
  }
)
