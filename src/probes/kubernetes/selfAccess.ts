/**
 * `k8s.self.access`: may the prober see what its plan asks for, and no more than is good for it?
 *
 * What is missing is reported by each probe too; here it is in one place, optional rights included.
 */
import { Effect, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { SelfSubjectRulesReview } from "../../infra/kube/resources/authorization.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Preflight from "../Preflight.ts"
import * as Probe from "../Probe.ts"
import { type Planned, RunContext } from "../RunContext.ts"
import { setting } from "../Setting.ts"

const LESS = "Give the prober the roles that `kubeprober probe roles` prints for its plan, and nothing else."

const codes = Codes.make({
  OPTIONAL_ACCESS_MISSING: Codes.info(
    "The prober lacks a permission without which a probe says less than it could.",
    "Grant the rule in the message if you want to know all."
  ),
  OVERPRIVILEGED: Codes.info(
    "The prober acts with more power than probes need; nothing unusual for a person with an administrator's kubeconfig.",
    LESS
  ),
  AGENT_OVERPRIVILEGED: Codes.warn(
    "An agent holds more power than its probes need, and whoever takes it over holds it too.",
    LESS
  )
})

const Config = Schema.Struct({
  strict: setting(Schema.Boolean, {
    default: false,
    description: "Whether too much power is a warning, as it is for an agent, instead of a remark."
  })
})
type Config = typeof Config.Type

const SECRETS = "read secrets of every namespace"
const NODE_PROXY = "reach nodes/proxy, which runs commands in any pod"

/**
 * Powers no probe needs. `get nodes/proxy` suffices to exec in any container of the node
 * (https://kubernetes.io/docs/concepts/security/rbac-good-practices/#access-to-proxy-subresource-of-nodes).
 */
const POWERS: ReadonlyArray<readonly [power: string, needs: ReadonlyArray<Needs.Need>]> = [
  [SECRETS, Needs.verbs(["get", "list", "watch"], "secrets")],
  [NODE_PROXY, Needs.verbs(["get", "create"], "nodes/proxy")]
]

/** What a plan lacks: the required of each rule once, with the probes that want it. */
export const judgeMissing = (
  missing: ReadonlyArray<Needs.Need>,
  plan: ReadonlyArray<Planned>,
  probeNamespace: string
): ReadonlyArray<Finding> => {
  const ruleOf = (need: Needs.Need) => Needs.describe(need, probeNamespace)
  return [...new Set(missing.map(ruleOf))].sort().map((rule) => {
    const wanting = (
      optional: boolean
    ) => [
      ...new Set(
        plan.filter(({ needs }) => needs.some((need) => need.optional === optional && ruleOf(need) === rule))
          .map(({ id }) => id)
      )
    ]
    const required = wanting(false)
    const probes = (required.length > 0 ? required : wanting(true)).join(", ")
    return (required.length > 0 ? checkerCodes.ACCESS_MISSING : codes.OPTIONAL_ACCESS_MISSING)({
      message: `not allowed to ${rule}, ${required.length > 0 ? "needed" : "used"} by ${probes}; grant this rule`,
      evidence: { missing: rule, probes }
    })
  })
}

/** Rules with a wildcard, as a person would write them. */
export const wildcards = (rules: Preflight.Rules): ReadonlyArray<string> =>
  rules.resourceRules
    .filter(({ apiGroups, resources, verbs }) => [apiGroups, resources, verbs].some((part) => part.includes("*")))
    .map(({ apiGroups, resources, verbs }) =>
      `${verbs.join(",")} ${resources.join(",")}${
        apiGroups.every((group) => group === "") ? "" : ` of ${apiGroups.join(",")}`
      }`
    )

/** Too much power, in one finding: each of its parts is mended in the same place. */
export const judgePowers = (powers: ReadonlyArray<string>, strict: boolean): ReadonlyArray<Finding> =>
  powers.length === 0 ? [] : [(strict ? codes.AGENT_OVERPRIVILEGED : codes.OVERPRIVILEGED)({
    message: `the prober may ${powers.join("; ")}`,
    evidence: { powers: powers.join("; ") }
  })]

const run = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const { leftovers = [], plan = [], probeNamespace } = yield* RunContext
  const needs = plan.flatMap((probe) => probe.needs)
  const missing = yield* Preflight.missing(needs, probeNamespace)

  const { status: rules } = yield* kube.create(SelfSubjectRulesReview, {
    metadata: {},
    spec: { namespace: Preflight.EVERYWHERE }
  })
  const planned = new Set(needs.map((need) => Needs.describe(need, probeNamespace)))
  // What the plan itself wants is not too much. Asked again by name: the list of rules may be incomplete.
  const asked = POWERS.flatMap(([, power]) => power).filter((need) => !planned.has(Needs.describe(need)))
  const lacking = new Set((yield* Preflight.missing(asked, probeNamespace)).map((need) => Needs.describe(need)))
  const held = POWERS.filter(([, power]) =>
    power.some((need) => asked.includes(need) && !lacking.has(Needs.describe(need)))
  ).map(([power]) => power)
  const wild = wildcards(rules)
  const powers = [
    ...(wild.length === 0 ? [] : [`use wildcards (${wild.slice(0, MAXIMUM_QUOTED).join("; ")})`]),
    ...held
  ]

  return Outcome.make(
    `all ${new Set(needs.map((need) => Needs.describe(need, probeNamespace))).size} permissions of ` +
      `${counted(plan.length, "probe")} are granted, and none that is too much`,
    [...judgeMissing(missing, plan, probeNamespace), ...judgePowers(powers, config.strict), ...leftovers]
  )
})

/** Wildcard rules in a message; there are rarely two. */
const MAXIMUM_QUOTED = 3

export const selfAccess = Probe.make("k8s.self.access", {
  layer: "kubernetes",
  proves: "The prober holds every permission its plan needs, no dangerous one besides, and can remove what it made.",
  writes: "nothing",
  costs:
    "One access review for each namespace that the plan's rules name, 2 for the rest, and one for each right that is not " +
    "held or not listed, 5 of them powers that no probe should have; nothing is stored.",
  // Every authenticated user may ask about itself (ClusterRole system:basic-user); nothing is stored.
  needs: [
    Needs.create("selfsubjectaccessreviews", { group: "authorization.k8s.io" }),
    Needs.create("selfsubjectrulesreviews", { group: "authorization.k8s.io" })
  ],
  codes,
  config: Config,
  interval: "5 minutes",
  timeout: "20 seconds",
  dependsOn: ["k8s.api.health"],
  run
})
