/**
 * Which changes re-run a probe at once, instead of at its next turn.
 *
 * A watch names a kind; the agent follows it once for all probes that name it. What changes all the time and tells a probe
 * nothing (heartbeats, resource versions) is no change: see {@link significant}, or say with `when` what matters. Nor is
 * what runs of ours create and delete.
 */
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import * as Needs from "./Needs.ts"
import { RUN_LABEL } from "./Scratch.ts"

/** Whether a change matters. `before` is absent for an object that is new, `after` for one that is gone. */
export type When<A> = (before: A | undefined, after: A | undefined) => boolean

export interface Watch {
  readonly resource: KubeResource<KubeObject>
  /** All namespaces when absent. */
  readonly namespace?: string | undefined
  /** A label selector: changes of other objects are not even sent. */
  readonly selector?: string | undefined
  // A method, so that watches of any kind fit one list; it only ever sees what `resource` decoded.
  when(before: KubeObject | undefined, after: KubeObject | undefined): boolean
}

/** Of conditions and metadata, what a controller writes again and again although nothing happened. */
const RESTLESS: ReadonlySet<string> = new Set([
  "resourceVersion",
  "managedFields",
  "lastHeartbeatTime",
  "lastProbeTime",
  "lastUpdateTime"
])

/** The object as text, without what changes all the time: two of the same say the same. */
export const significant = (object: KubeObject): string =>
  JSON.stringify(object, (key, value: unknown) => RESTLESS.has(key) ? undefined : value)

/** Changes in which this part of an object differs, and objects that come or go. */
export const differsIn = <A extends KubeObject>(part: (object: A) => unknown): When<A> => (before, after) =>
  before === undefined || after === undefined
    ? before !== after
    : before.metadata.uid !== after.metadata.uid || JSON.stringify(part(before)) !== JSON.stringify(part(after))

/** Any change but of what is restless by nature: the default. */
export const significantly: When<KubeObject> = differsIn(significant)

/** Whether a run of ours created an object, or it was made for one. */
export const isOfRun = ({ metadata }: KubeObject): boolean => metadata.labels?.[RUN_LABEL] !== undefined

/** Changes of objects of a kind, those of runs excepted. */
export const of = <A extends KubeObject>(resource: KubeResource<A>, options: {
  readonly namespace?: string | undefined
  readonly selector?: string | undefined
  /** {@link significantly} when absent. */
  readonly when?: When<A> | undefined
} = {}): Watch => {
  const { namespace, selector, when = significantly } = options
  return {
    resource,
    namespace,
    selector,
    when: (before: A | undefined, after: A | undefined) => {
      const object = after ?? before
      return object !== undefined && !isOfRun(object) && when(before, after)
    }
  }
}

/** What following these watches takes. A probe does without: it then runs by its schedule alone, so they are optional. */
export const needs = (...watches: ReadonlyArray<Watch>): ReadonlyArray<Needs.ResourceNeed> =>
  watches.flatMap(({ namespace, resource: { group, plural } }) =>
    Needs.verbs(["list", "watch"], plural, {
      group,
      optional: true,
      ...(namespace === undefined ? {} : { namespace })
    })
  )
