/** Kinds of `rbac.authorization.k8s.io/v1`. */
import { Schema } from "effect"
import { listOf, make, maybe } from "../KubeResource.ts"

const PolicyRule = Schema.Struct({
  verbs: listOf(Schema.String),
  apiGroups: listOf(Schema.String),
  resources: listOf(Schema.String),
  resourceNames: listOf(Schema.String),
  nonResourceURLs: listOf(Schema.String)
})
/** One rule of a role. */
export type PolicyRule = typeof PolicyRule.Type

const Subject = Schema.Struct({ kind: Schema.String, namespace: maybe(Schema.String), name: Schema.String })
const RoleRef = Schema.Struct({ kind: Schema.String, name: Schema.String })

export const Role = make({
  group: "rbac.authorization.k8s.io",
  kind: "Role",
  plural: "roles",
  scope: "Namespaced",
  fields: { rules: listOf(PolicyRule) }
})
export type Role = typeof Role.object.Type

export const ClusterRole = make({
  group: "rbac.authorization.k8s.io",
  kind: "ClusterRole",
  plural: "clusterroles",
  scope: "Cluster",
  fields: { rules: listOf(PolicyRule) }
})
export type ClusterRole = typeof ClusterRole.object.Type

export const RoleBinding = make({
  group: "rbac.authorization.k8s.io",
  kind: "RoleBinding",
  plural: "rolebindings",
  scope: "Namespaced",
  fields: { subjects: listOf(Subject), roleRef: RoleRef }
})
export type RoleBinding = typeof RoleBinding.object.Type

export const ClusterRoleBinding = make({
  group: "rbac.authorization.k8s.io",
  kind: "ClusterRoleBinding",
  plural: "clusterrolebindings",
  scope: "Cluster",
  fields: { subjects: listOf(Subject), roleRef: RoleRef }
})
export type ClusterRoleBinding = typeof ClusterRoleBinding.object.Type
