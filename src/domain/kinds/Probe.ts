/**
 * Probe: a plan. Checks from the catalogue or a pod of one's own, when they run, and on which clusters.
 *
 * Everything of the original's Probe is here under its own name; the rest is ours and optional.
 */
import { Schema } from "effect"
import { ClusterSelector } from "../ClusterSelector.ts"
import * as Rule from "../crd/Rule.ts"
import { isDeeperThan } from "../depth.ts"
import { atLeast } from "../Duration.ts"
import { ProbePolicy } from "../Policy.ts"
import { ProbeLayer } from "../ProbeLayer.ts"
import { Conditions } from "./Condition.ts"
import * as Kind from "./Kind.ts"

/** Enough for the whole catalogue twice over; bounded because rules look at every pair of names. */
const MAX_CHECKS = 128

/** The name of an object becomes the value of a label, which holds no more. */
const MAX_NAME = 63

const dotted = (what: string, maximum: number) =>
  Schema.String.check(Schema.isMaxCodePoints(maximum)).pipe(Rule.enforce([Rule.matching(
    "[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
    `${what} is lower-case letters, digits, dots and dashes, for example k8s.node.readiness`
  )]))

/** Configuration whose fields only the probe that reads it knows. */
const FreeForm = Schema.Record(Schema.String, Schema.Json).pipe(Rule.preserveUnknown)

/** A probe of the catalogue, configured. */
export const Check = Schema.Struct({
  name: dotted("a check's name", 128).pipe(Rule.described(
    "Name of the checker in results; unique in the Probe."
  )),
  use: dotted("a catalogue id", 128).pipe(Rule.described(
    "The catalogue's id of the probe to run, for example k8s.node.readiness."
  )),
  with: Schema.optionalKey(FreeForm.pipe(Rule.described(
    "The probe's configuration; what it takes is in the probe reference."
  ))),
  timeout: Schema.optionalKey(
    atLeast("1 millis", "a run needs time").pipe(Rule.described(
      "Deadline of this check with its retries, instead of the policy's."
    ))
  ),
  retries: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10 })).pipe(Rule.described(
      "How often this check is tried again when it could not look, instead of the policy's."
    ))
  )
})
export type Check = typeof Check.Type

/**
 * Lists and objects in each other, in what only a probe or the API server reads. Deeper is nothing anyone writes, and would
 * exhaust the stack of what compares and sends specs. A CEL rule cannot say it.
 */
const MAX_DEPTH = 64

const tooDeep = (what: string): string => `${what} is nested more than ${MAX_DEPTH} deep; make it flatter`

const areShallow = Schema.makeFilter((checks: ReadonlyArray<Check>) => {
  const deep = checks.find((check) => isDeeperThan(check.with, MAX_DEPTH))
  return deep === undefined ? undefined : tooDeep(`with of check ${JSON.stringify(deep.name)}`)
}, { toJsonSchema: () => ({}) })

/** Checks of one Probe or run. */
export const Checks = Schema.NonEmptyArray(Check).check(Schema.isMaxLength(MAX_CHECKS), areShallow).pipe(
  Rule.keyedBy("name"),
  Rule.enforce([{
    cel: "self.all(check, self.exists_one(other, other.name == check.name))",
    message: "two checks have one name; name each differently",
    holds: (checks) => new Set(checks.map(({ name }) => name)).size === checks.length
  }])
)

/** A container of the template. Everything but the name is passed on as it is. */
const Container = Schema.StructWithRest(
  Schema.Struct({
    name: Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(63)).pipe(
      Rule.described("The container's name; configs of this name are added to its environment.")
    ),
    image: Schema.optionalKey(Schema.String.pipe(Rule.described("The image to run.")))
  }),
  [Schema.Record(Schema.String, Schema.Json)]
).pipe(Rule.preserveUnknown)

/** A PodSpec (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec). */
export const PodTemplate = Schema.StructWithRest(
  Schema.Struct({
    containers: Schema.NonEmptyArray(Container).check(Schema.isMaxLength(32)).pipe(
      Rule.described("The containers of the pod; each reports results or leaves a verdict by its exit.")
    )
  }),
  [Schema.Record(Schema.String, Schema.Json)]
).pipe(Rule.preserveUnknown)
export type PodTemplate = typeof PodTemplate.Type

/** One environment variable, as in a PodSpec. */
const EnvVar = Schema.Struct({
  name: Schema.String.pipe(Rule.described("The variable's name.")),
  value: Schema.optionalKey(Schema.String.pipe(Rule.described("The variable's value."))),
  valueFrom: Schema.optionalKey(FreeForm.pipe(Rule.described(
    "Where the value comes from, as in a PodSpec: fieldRef, configMapKeyRef, secretKeyRef."
  )))
})

/** Environment for containers of the template, by container name. */
const Config = Schema.Struct({
  name: Schema.optionalKey(Schema.String.pipe(Rule.described("The container this is for."))),
  env: Schema.optionalKey(
    Schema.Array(EnvVar).pipe(Rule.described("Variables added to the container's environment."))
  )
})

/** How a Probe reaches its clusters bit by bit. */
const Rollout = Schema.Struct({
  shadow: Schema.optionalKey(Schema.Boolean.pipe(Rule.described(
    "Run and record, but keep results out of statuses and alerts."
  ))),
  percent: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 })).pipe(Rule.described(
      "The share of selected clusters that run the probe; always the same ones, and more as it grows. 100 when absent."
    ))
  )
})

const isShallow = Schema.makeFilter(
  ({ configs, template }: { readonly configs?: unknown; readonly template?: unknown }) =>
    isDeeperThan(template, MAX_DEPTH)
      ? tooDeep("template")
      : isDeeperThan(configs, MAX_DEPTH)
      ? tooDeep("configs")
      : undefined,
  { toJsonSchema: () => ({}) }
)

/** What a Probe asks for. */
export const ProbeSpec = Schema.Struct({
  layer: Schema.optionalKey(ProbeLayer.pipe(Rule.described(
    "The layer results are read under: application, middleware, kubernetes or infrastructure.",
    "The catalogue's layer of each check when absent."
  ))),
  checks: Schema.optionalKey(Checks.pipe(Rule.described(
    "Probes of the catalogue to run. Either this or template."
  ))),
  template: Schema.optionalKey(PodTemplate.pipe(Rule.described(
    "A pod to run as a Job: the original's form, for any image. Either this or checks."
  ))),
  configs: Schema.optionalKey(
    Schema.Array(Config).pipe(Rule.described("Environment for the containers of template."))
  ),
  policy: Schema.optionalKey(ProbePolicy.pipe(Rule.described(
    "When the probe runs and how failures count. A template without a policy runs once."
  ))),
  clusterSelector: Schema.optionalKey(ClusterSelector.pipe(Rule.described(
    "The clusters to run on, by the labels of their Cluster; an empty selector means all.",
    "Clusters labelled probe/NAME: \"true\" run the probe as well."
  ))),
  rollout: Schema.optionalKey(Rollout.pipe(Rule.described("How the probe reaches its clusters.")))
}).check(isShallow).pipe(Rule.enforce([
  {
    cel: "has(self.template) != has(self.checks)",
    message: "a Probe has checks (probes of the catalogue) or a template (a pod of your own), exactly one of the two",
    holds: ({ checks, template }) => (template === undefined) !== (checks === undefined)
  },
  {
    cel: "!has(self.configs) || has(self.template)",
    message: "configs are the environment of a template's containers; give a check its configuration under with",
    holds: ({ configs, template }) => configs === undefined || template !== undefined
  },
  {
    cel: "!has(self.policy) || !has(self.policy.onChange) || !self.policy.onChange || has(self.checks)",
    message: "policy.onChange needs checks: a template does not say what it watches",
    holds: ({ checks, policy }) => policy?.onChange !== true || checks !== undefined
  }
]))
export type ProbeSpec = typeof ProbeSpec.Type

/** What became of a Probe. */
export const ProbeState = Schema.Struct({
  md5: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "Hash of the spec last acted on, as in the original."
  ))),
  phase: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "DONE once a one-shot probe has run, as in the original."
  ))),
  observedGeneration: Schema.optionalKey(Schema.Int.pipe(Rule.described(
    "The metadata.generation last acted on."
  ))),
  conditions: Schema.optionalKey(Conditions)
})
export type ProbeState = typeof ProbeState.Type

export const Probe = Kind.make({
  kind: "Probe",
  plural: "probes",
  shortNames: ["kp"],
  description: "A set of checks, when they run and on which clusters. Results are in the ProbeStatus of the same name.",
  columns: [
    { name: "LAYER", type: "string", jsonPath: ".spec.layer" },
    { name: "INTERVAL", type: "string", jsonPath: ".spec.policy.interval" },
    { name: "CRON", type: "string", jsonPath: ".spec.policy.cron", wide: true },
    { name: "RUNINTERVAL", type: "integer", jsonPath: ".spec.policy.runInterval" },
    { name: "IMAGE", type: "string", jsonPath: ".spec.template.containers[0].image" },
    { name: "AGE", type: "date", jsonPath: ".metadata.creationTimestamp" }
  ],
  rules: [{
    cel: `self.metadata.name.size() <= ${MAX_NAME}`,
    message: `a Probe's name becomes a label and has at most ${MAX_NAME} characters`
  }],
  fields: {
    spec: ProbeSpec.pipe(Rule.described("What to run, when and where.")),
    status: Schema.optionalKey(ProbeState.pipe(Rule.described("What became of it.")))
  }
})
