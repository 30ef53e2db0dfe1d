import { assert, describe, it } from "@effect/vitest"
import * as Needs from "../../src/probes/Needs.ts"
import * as Roles from "../../src/probes/Roles.ts"

const roles = (needs: ReadonlyArray<Needs.Need>, options: { readonly optional?: boolean } = {}) =>
  Roles.forNeeds(needs, { name: "prober", probeNamespace: "probes", ...options })

describe("Roles.forNeeds", () => {
  it("grants cluster-wide needs and paths in one ClusterRole, resources of the same verbs together", () => {
    assert.deepStrictEqual(
      roles([
        ...Needs.list("pods"),
        ...Needs.list("nodes"),
        ...Needs.watch("nodes"),
        ...Needs.watch("pods"),
        ...Needs.list("deployments", { group: "apps" }),
        ...Needs.path("/readyz"),
        ...Needs.path("/livez")
      ]),
      [{
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: "prober" },
        rules: [
          { apiGroups: [""], resources: ["nodes", "pods"], verbs: ["list", "watch"] },
          { apiGroups: ["apps"], resources: ["deployments"], verbs: ["list"] },
          { nonResourceURLs: ["/livez", "/readyz"], verbs: ["get"] }
        ]
      }]
    )
  })

  it("grants namespaced needs in their namespaces only, the probe namespace by its name", () => {
    const made = roles([
      ...Needs.verbs(["create", "delete"], "configmaps", { namespace: Needs.probeNamespace }),
      ...Needs.get("endpointslices", { group: "discovery.k8s.io", namespace: "default", names: ["kubernetes"] })
    ])
    assert.deepStrictEqual(made.map(({ kind, metadata, rules }) => [kind, metadata.namespace, rules]), [
      ["Role", "default", [{
        apiGroups: ["discovery.k8s.io"],
        resources: ["endpointslices"],
        resourceNames: ["kubernetes"],
        verbs: ["get"]
      }]],
      ["Role", "probes", [{ apiGroups: [""], resources: ["configmaps"], verbs: ["create", "delete"] }]]
    ])
  })

  it("leaves out what a cluster-wide need grants anyway, and keeps what it does not", () => {
    const made = roles([
      ...Needs.list("pods"),
      ...Needs.list("pods", { namespace: "kube-system" }),
      ...Needs.get("configmaps", { names: ["a"] }),
      ...Needs.get("configmaps", { namespace: "kube-system" })
    ])
    assert.deepStrictEqual(made.map(({ kind, rules }) => [kind, rules.length]), [["ClusterRole", 2], ["Role", 1]])
  })

  it("does not depend on order or repetition", () => {
    const needs = [
      ...Needs.verbs(["get", "list", "watch"], "pods"),
      ...Needs.list("leases", { group: "coordination.k8s.io", namespace: "kube-node-lease" }),
      ...Needs.path("/version")
    ]
    assert.deepStrictEqual(roles([...needs, ...needs].toReversed()), roles(needs))
  })

  it("grants optional needs unless told not to", () => {
    const needs = [...Needs.list("nodes"), ...Needs.list("pods", { optional: true })]
    assert.deepStrictEqual(roles(needs)[0]?.rules, [{ apiGroups: [""], resources: ["nodes", "pods"], verbs: ["list"] }])
    assert.deepStrictEqual(roles(needs, { optional: false })[0]?.rules, [{
      apiGroups: [""],
      resources: ["nodes"],
      verbs: ["list"]
    }])
  })

  it("grants nothing for no needs", () => assert.deepStrictEqual(roles([]), []))
})

describe("Roles.bindings", () => {
  it("binds each role where it holds, to users and ServiceAccounts in their own form", () => {
    const made = Roles.bindings(
      roles([...Needs.list("nodes"), ...Needs.get("pods", { namespace: "shop" })]),
      [{ kind: "User", name: "ann" }, { kind: "ServiceAccount", name: "agent", namespace: "kubeprober" }]
    )
    assert.deepStrictEqual(made.map(({ kind, metadata, roleRef }) => [kind, metadata.namespace, roleRef.kind]), [
      ["ClusterRoleBinding", undefined, "ClusterRole"],
      ["RoleBinding", "shop", "Role"]
    ])
    assert.deepStrictEqual(made[0]?.subjects, [
      { kind: "User", name: "ann", apiGroup: "rbac.authorization.k8s.io" },
      { kind: "ServiceAccount", name: "agent", namespace: "kubeprober" }
    ])
  })
})
