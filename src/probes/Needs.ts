/**
 * The Kubernetes permissions a probe uses, declared as data.
 *
 * From the same declarations come the minimal Role, the pre-flight (is it granted?) and the refusal at run time of any
 * call that is not declared. Terms are those of RBAC
 * (https://kubernetes.io/docs/reference/access-authn-authz/rbac/).
 */
import { Data } from "effect"
import { matches } from "../domain/NamePattern.ts"

/** Stands for the probe namespace, whose name is known only when a run starts. */
export const probeNamespace: unique symbol = Symbol.for("kubeprober/probeNamespace")

/** Where a resource need holds: everywhere (absent), in one namespace, or in the probe namespace. */
export type NeedNamespace = string | typeof probeNamespace

/** Permission for one verb on one resource. */
export class ResourceNeed extends Data.TaggedClass("ResourceNeed")<{
  readonly verb: string
  /** Empty for the core group. */
  readonly group: string
  /** Plural, with `/subresource` where meant. */
  readonly resource: string
  readonly namespace?: NeedNamespace | undefined
  /** Only objects of these names. RBAC cannot limit `create`, `list` and `watch` by name. */
  readonly names?: ReadonlyArray<string> | undefined
  /** The probe says less without it, but still runs. */
  readonly optional: boolean
}> {}

/** Permission to GET a path outside the object API, such as `/readyz`. A trailing `*` matches any rest. */
export class PathNeed extends Data.TaggedClass("PathNeed")<{
  readonly path: string
  readonly optional: boolean
}> {}

/**
 * Permission to read custom resources, whose kinds only a run can know. No role is made of it and no pre-flight asks for it:
 * who runs the cluster grants `verb` on the kinds that may be read, and the probe says what it may not read.
 */
export class CustomResourcesNeed extends Data.TaggedClass("CustomResourcesNeed")<{
  readonly verb: "get" | "list"
  /** Always: it is granted kind by kind, or not at all. */
  readonly optional: true
}> {}

export type Need = ResourceNeed | PathNeed | CustomResourcesNeed

export interface NeedOptions {
  readonly group?: string
  readonly namespace?: NeedNamespace
  readonly names?: ReadonlyArray<string>
  readonly optional?: boolean
}

/** One or several verbs on a resource. */
export const verbs = (
  verbs: ReadonlyArray<string>,
  resource: string,
  options: NeedOptions = {}
): ReadonlyArray<ResourceNeed> =>
  verbs.map((verb) =>
    new ResourceNeed({
      verb,
      group: options.group ?? "",
      resource,
      namespace: options.namespace,
      names: options.names,
      optional: options.optional ?? false
    })
  )

const verb = (name: string) => (resource: string, options?: NeedOptions): ReadonlyArray<ResourceNeed> =>
  verbs([name], resource, options)

export const get = verb("get")
export const list = verb("list")
export const watch = verb("watch")
export const create = verb("create")
export const patch = verb("patch")
export const del = verb("delete")

/** GET of a non-resource path. */
export const path = (path: string, options: { readonly optional?: boolean } = {}): ReadonlyArray<PathNeed> => [
  new PathNeed({ path, optional: options.optional ?? false })
]

/** Reads of custom resources of whatever kinds the prober is granted. */
export const customResources = (...verbs: ReadonlyArray<"get" | "list">): ReadonlyArray<CustomResourcesNeed> =>
  verbs.map((verb) => new CustomResourcesNeed({ verb, optional: true }))

/** The rule as a person would write it: `list nodes`, `get leases.coordination.k8s.io in kube-node-lease`, `get /readyz`. */
export const describe = (need: Need, namespaceOfProbes = "the probe namespace"): string => {
  if (need._tag === "PathNeed") return `get ${need.path}`
  if (need._tag === "CustomResourcesNeed") return `${need.verb} custom resources`
  const resource = need.group === "" ? need.resource : `${need.resource}.${need.group}`
  const names = need.names === undefined ? "" : ` named ${need.names.join(", ")}`
  const namespace = need.namespace === probeNamespace ? namespaceOfProbes : need.namespace
  return `${need.verb} ${resource}${names}${namespace === undefined ? "" : ` in ${namespace}`}`
}

/** A call about to be made, to hold against the declared needs. */
export interface Call {
  readonly verb: string
  readonly group: string
  readonly resource: string
  readonly namespace?: string | undefined
  readonly name?: string | undefined
}

/** Whether `need` covers `call`. `probeNamespaceName` is what {@link probeNamespace} stands for in this run. */
export const covers = (need: Need, call: Call, probeNamespaceName: string): boolean => {
  if (need._tag === "PathNeed") return false
  // The groups of custom resources are domain names (CustomResourceDefinition names are `<plural>.<group>`); those of
  // Kubernetes' own kinds that have no dot (`apps`, `batch`) cannot be meant.
  if (need._tag === "CustomResourcesNeed") return need.verb === call.verb && call.group.includes(".")
  const namespace = need.namespace === probeNamespace ? probeNamespaceName : need.namespace
  return need.verb === call.verb && need.group === call.group && need.resource === call.resource &&
    (namespace === undefined || namespace === call.namespace) &&
    (need.names === undefined || (call.name !== undefined && need.names.includes(call.name)))
}

/** Whether `need` covers a GET of `path`. */
export const coversPath = (need: Need, path: string): boolean => need._tag === "PathNeed" && matches(need.path, path)
