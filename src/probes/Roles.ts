/**
 * The least RBAC that lets probes run, made from what they declare.
 *
 * Use it to print or apply the roles of a plan: `kubeprober install` for the agent, and tests that prove a probe's needs
 * complete by running it with nothing else. Terms are those of RBAC
 * (https://kubernetes.io/docs/reference/access-authn-authz/rbac/).
 */
import { type Need, type PathNeed, type ResourceNeed, probeNamespace } from "./Needs.ts"

/** One rule of a Role or ClusterRole, as in its manifest. */
export type PolicyRule =
  | {
    readonly apiGroups: ReadonlyArray<string>
    readonly resources: ReadonlyArray<string>
    readonly resourceNames?: ReadonlyArray<string>
    readonly verbs: ReadonlyArray<string>
  }
  | { readonly nonResourceURLs: ReadonlyArray<string>; readonly verbs: ReadonlyArray<string> }

/** Manifest of a Role (with a namespace) or a ClusterRole (without). */
export interface RoleManifest {
  readonly apiVersion: "rbac.authorization.k8s.io/v1"
  readonly kind: "Role" | "ClusterRole"
  readonly metadata: { readonly name: string; readonly namespace?: string }
  readonly rules: ReadonlyArray<PolicyRule>
}

/** Who gets the roles. `namespace` for a ServiceAccount. */
export interface RoleSubject {
  readonly kind: "User" | "Group" | "ServiceAccount"
  readonly name: string
  readonly namespace?: string
}

/** Manifest of a RoleBinding or ClusterRoleBinding. */
export interface BindingManifest {
  readonly apiVersion: "rbac.authorization.k8s.io/v1"
  readonly kind: "RoleBinding" | "ClusterRoleBinding"
  readonly metadata: { readonly name: string; readonly namespace?: string }
  readonly roleRef: { readonly apiGroup: string; readonly kind: RoleManifest["kind"]; readonly name: string }
  readonly subjects: ReadonlyArray<RoleSubject & { readonly apiGroup?: string }>
}

const RBAC = "rbac.authorization.k8s.io"

const sorted = (texts: Iterable<string>): ReadonlyArray<string> => [...new Set(texts)].sort()

const groupBy = <A>(
  items: Iterable<A>,
  keyOf: (item: A) => ReadonlyArray<unknown>
): ReadonlyArray<ReadonlyArray<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const item of items) {
    const key = JSON.stringify(keyOf(item))
    groups.set(key, [...(groups.get(key) ?? []), item])
  }
  return [...groups.entries()].sort(([a], [b]) => a < b ? -1 : 1).map(([, group]) => group)
}

/** Verbs on one resource become one rule; resources with the same verbs share it. */
const resourceRules = (needs: ReadonlyArray<ResourceNeed>): ReadonlyArray<PolicyRule> => {
  const perResource = groupBy(needs, ({ group, names, resource }) => [group, resource, sorted(names ?? [])])
    .flatMap((same) =>
      same.slice(0, 1).map(({ group, names, resource }) => ({
        group,
        resource,
        names: sorted(names ?? []),
        verbs: sorted(same.map((need) => need.verb))
      }))
    )
  return groupBy(perResource, ({ group, names, verbs }) => [group, names, verbs]).flatMap((same) =>
    same.slice(0, 1).map(({ group, names, verbs }) => ({
      apiGroups: [group],
      resources: sorted(same.map(({ resource }) => resource)),
      ...(names.length === 0 ? {} : { resourceNames: names }),
      verbs
    }))
  )
}

const pathRules = (needs: ReadonlyArray<PathNeed>): ReadonlyArray<PolicyRule> =>
  needs.length === 0 ? [] : [{ nonResourceURLs: sorted(needs.map(({ path }) => path)), verbs: ["get"] }]

/** Whether `wide` grants all that `narrow` asks. */
const includes = (wide: ResourceNeed, narrow: ResourceNeed): boolean =>
  wide.verb === narrow.verb && wide.group === narrow.group && wide.resource === narrow.resource &&
  (wide.names === undefined ||
    (narrow.names !== undefined && narrow.names.every((name) => wide.names?.includes(name))))

/**
 * What every authenticated user may read by Kubernetes' own ClusterRole `system:discovery`
 * (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles). Granting it again would take wildcards;
 * where it was taken away, the pre-flight names what is missing.
 */
const DISCOVERY: ReadonlySet<string> = new Set(["/api", "/api/*", "/apis", "/apis/*"])

/**
 * The roles that grant `needs` and nothing else: at most one ClusterRole, and one Role in each namespace named.
 * The same needs in any order and number give the same manifests.
 */
export const forNeeds = (
  needs: ReadonlyArray<Need>,
  options: {
    /** Of every role. */
    readonly name: string
    /** What the probe namespace is called. */
    readonly probeNamespace: string
    /** Grant optional needs too; default true. */
    readonly optional?: boolean
  }
): ReadonlyArray<RoleManifest> => {
  const wanted = needs.filter((need) => !need.optional || options.optional !== false)
  const paths = wanted.filter((need) => need._tag === "PathNeed").filter(({ path }) => !DISCOVERY.has(path))
  const resources = wanted.filter((need) => need._tag === "ResourceNeed")
  const everywhere = resources.filter((need) => need.namespace === undefined)
  const namespaceOf = (need: ResourceNeed): string =>
    need.namespace === probeNamespace || need.namespace === undefined ? options.probeNamespace : need.namespace
  const local = resources.filter((need) =>
    need.namespace !== undefined && !everywhere.some((wide) => includes(wide, need))
  )
  const clusterRules = [...resourceRules(everywhere), ...pathRules(paths)]
  const namespaces = sorted(local.map(namespaceOf))
  return [
    ...(clusterRules.length === 0 ? [] : [role(options.name, undefined, clusterRules)]),
    ...namespaces.map((namespace) =>
      role(options.name, namespace, resourceRules(local.filter((need) => namespaceOf(need) === namespace)))
    )
  ]
}

const role = (name: string, namespace: string | undefined, rules: ReadonlyArray<PolicyRule>): RoleManifest => ({
  apiVersion: `${RBAC}/v1`,
  kind: namespace === undefined ? "ClusterRole" : "Role",
  metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
  rules
})

/** The binding that gives each of `roles` to `subjects`, under the role's own name. */
export const bindings = (
  roles: ReadonlyArray<RoleManifest>,
  subjects: ReadonlyArray<RoleSubject>
): ReadonlyArray<BindingManifest> =>
  roles.map(({ kind, metadata }) => ({
    apiVersion: `${RBAC}/v1`,
    kind: kind === "Role" ? "RoleBinding" : "ClusterRoleBinding",
    metadata,
    roleRef: { apiGroup: RBAC, kind, name: metadata.name },
    subjects: subjects.map((subject) => subject.kind === "ServiceAccount" ? subject : { ...subject, apiGroup: RBAC })
  }))
