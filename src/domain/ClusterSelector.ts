/**
 * Which clusters something is for, by the labels of their Cluster resources.
 *
 * The form and meaning are Kubernetes' LabelSelector
 * (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors): all requirements must
 * hold, and a selector without requirements selects everything.
 */
import { Schema } from "effect"
import * as Rule from "./crd/Rule.ts"

/** The longest label key: a DNS subdomain of 253, a slash and a name of 63. */
const MAX_KEY = 317
const MAX_VALUE = 63
const MAX_REQUIREMENTS = 32
const MAX_VALUES = 64

const LabelValue = Schema.String.check(Schema.isMaxCodePoints(MAX_VALUE))

const takesValues = (operator: string): boolean => operator === "In" || operator === "NotIn"

/** One requirement on one label. */
export const Requirement = Schema.Struct({
  key: Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(MAX_KEY)).pipe(
    Rule.described("The label's key.")
  ),
  operator: Schema.Literals(["In", "NotIn", "Exists", "DoesNotExist"]).pipe(
    Rule.described("How the label is compared. NotIn also selects clusters without the label.")
  ),
  values: Schema.optionalKey(
    Schema.Array(LabelValue).check(Schema.isMaxLength(MAX_VALUES)).pipe(
      Rule.described("The values to compare with; for In and NotIn only.")
    )
  )
}).pipe(Rule.enforce([{
  cel: "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : " +
    "!has(self.values) || self.values.size() == 0",
  message: "In and NotIn need values, Exists and DoesNotExist take none",
  holds: ({ operator, values = [] }) => takesValues(operator) === values.length > 0
}]))
export type Requirement = typeof Requirement.Type

/** Which clusters, by label. */
export const ClusterSelector = Schema.Struct({
  matchLabels: Schema.optionalKey(
    Schema.Record(Schema.String, LabelValue).check(Schema.isMaxProperties(MAX_REQUIREMENTS)).pipe(
      Rule.described("Labels a cluster must have with exactly these values.")
    )
  ),
  matchExpressions: Schema.optionalKey(
    Schema.Array(Requirement).check(Schema.isMaxLength(MAX_REQUIREMENTS)).pipe(
      Rule.described("Further requirements; all must hold.")
    )
  )
})
export type ClusterSelector = typeof ClusterSelector.Type

/** Labels of a Cluster resource. */
export type Labels = Readonly<Record<string, string>>

const meets = (labels: Labels, { key, operator, values = [] }: Requirement): boolean => {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value)
    case "NotIn":
      return value === undefined || !values.includes(value)
    case "Exists":
      return value !== undefined
    case "DoesNotExist":
      return value === undefined
  }
}

/** Whether a cluster with these labels is selected. */
export const matches = (selector: ClusterSelector, labels: Labels): boolean =>
  Object.entries(selector.matchLabels ?? {}).every(([key, value]) =>
    meets(labels, { key, operator: "In", values: [value] })
  ) && (selector.matchExpressions ?? []).every((requirement) => meets(labels, requirement))

/**
 * Whether a Probe runs on a cluster: its selector matches, or the cluster carries the original's label
 * `probe/NAME: "true"`. A Probe without a selector runs only where it is asked for by label.
 */
export const attaches = (
  probe: { readonly name: string; readonly clusterSelector?: ClusterSelector | undefined },
  labels: Labels
): boolean =>
  (Object.hasOwn(labels, `probe/${probe.name}`) && labels[`probe/${probe.name}`] === "true") ||
  (probe.clusterSelector !== undefined && matches(probe.clusterSelector, labels))
