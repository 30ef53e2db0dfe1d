import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import { apiCrud } from "../../src/probes/kubernetes/apiCrud.ts"
import { apiHealth } from "../../src/probes/kubernetes/apiHealth.ts"
import { judgeMissing, selfAccess, wildcards } from "../../src/probes/kubernetes/selfAccess.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Roles from "../../src/probes/Roles.ts"
import type { Planned } from "../../src/probes/RunContext.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

describe("judging access", () => {
  it("names each missing rule once, with the probes that need it, and takes a required one for required", () => {
    const plan: ReadonlyArray<Planned> = [
      { id: "a", needs: Needs.list("nodes") },
      { id: "b", needs: [...Needs.list("nodes", { optional: true }), ...Needs.path("/readyz", { optional: true })] },
      { id: "c", needs: Needs.list("nodes") }
    ]
    const missing = plan.flatMap(({ needs }) => needs)
    assert.deepStrictEqual(
      judgeMissing(missing, plan, "probes").map((
        { evidence, status }
      ) => [status, evidence?.["missing"], evidence?.["probes"]]),
      [["INFO", "get /readyz", "b"], ["UNKNOWN", "list nodes", "a, c"]]
    )
  })

  it("finds wildcards in verbs, resources and groups of resource rules", () => {
    const rule = (verbs: string, resources: string, apiGroups: string) => ({
      verbs: [verbs],
      resources: [resources],
      apiGroups: [apiGroups],
      resourceNames: []
    })
    assert.deepStrictEqual(
      wildcards({
        resourceRules: [
          rule("get", "pods", ""),
          rule("*", "pods", ""),
          rule("get", "*", "apps"),
          rule("get", "pods", "*")
        ],
        nonResourceRules: [{ verbs: ["get"], nonResourceURLs: ["/api/*"] }],
        incomplete: false
      }),
      ["* pods", "get * of apps", "get pods of *"]
    )
  })
})

describe("k8s.self.access", () => {
  layer(TestCluster.layer({ name: "self-access" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      const strict = Probe.configure(selfAccess, { strict: true })
      const plan = [apiHealth, apiCrud]
      const verdict = (check: Probe.AnyProbe | Probe.Check, as?: Kube["Service"]) =>
        Effect.gen(function*() {
          const { round } = yield* TestCluster
          const [result] = yield* round([check, ...plan], { as })
          assert.isDefined(result)
          return result.report
        })
      const needs = plan.flatMap((probe) => probe.needs)

      it.effect(
        healthy(selfAccess, "passes for a user with the rights of the plan and no more, and stores nothing"),
        () =>
          Effect.gen(function*() {
            const { kube, userWith } = yield* TestCluster
            const count = Effect.map(
              Effect.all([kube.list(ConfigMap), kube.list(Namespace)]),
              (lists) => lists.map(({ items }) => items.length)
            )
            const user = yield* userWith([...needs, ...selfAccess.needs])
            const before = yield* count
            const report = yield* verdict(strict, user)
            assert.strictEqual(report.status, "PASS", report.message)
            assert.match(report.message, /permissions of 3 probes are granted/)
            assert.deepStrictEqual(yield* count, before)
          })
      )

      it.effect(
        blind(selfAccess, "ACCESS_MISSING", "is UNKNOWN with each rule the plan lacks, and passes when it is granted"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, userWith } = yield* TestCluster
            const [lacking] = apiCrud.needs
            const user = yield* userWith(needs.filter((need) => need !== lacking))
            const report = yield* verdict(strict, user)
            assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN ACCESS_MISSING")
            assert.include(report.message, `create configmaps in ${PROBE_NAMESPACE}, needed by k8s.api.crud`)
            assert.strictEqual(report.findings.length, 1)
            const roles = Roles.forNeeds(apiCrud.needs.slice(0, 1), {
              name: "granted",
              probeNamespace: PROBE_NAMESPACE
            })
            yield* apply(...roles, ...Roles.bindings(roles, [{ kind: "Group", name: "system:authenticated" }]))
            yield* eventually(verdict(strict, user), ({ status }) => status === "PASS")
            yield* kubectl("delete", "role,rolebinding", "granted", "-n", PROBE_NAMESPACE)
          })
      )

      it.effect("only remarks that an optional rule is missing", () =>
        Effect.gen(function*() {
          const { userWith } = yield* TestCluster
          const report = yield* verdict(strict, yield* userWith(apiCrud.needs))
          assert.strictEqual(`${report.status} ${report.code}`, "INFO OPTIONAL_ACCESS_MISSING")
          assert.include(report.message, "endpointslices")
        }))

      it.effect(
        blind(selfAccess, "ACCESS_MISSING", "is UNKNOWN when it may not even ask"),
        () =>
          Effect.gen(function*() {
            const { kubectl, userWith } = yield* TestCluster
            yield* kubectl("delete", "clusterrolebinding", "system:basic-user")
            const report = yield* eventually(
              verdict(selfAccess, yield* userWith(needs)),
              ({ code, status }) => `${status} ${code}` === "UNKNOWN ACCESS_MISSING"
            )
            assert.include(report.message, "selfsubjectrulesreviews.authorization.k8s.io")
            yield* eventually(
              verdict(selfAccess, yield* userWith([...needs, ...selfAccess.needs])),
              ({ status }) => status === "PASS"
            )
          })
      )

      it.effect(
        fault(
          selfAccess,
          "AGENT_OVERPRIVILEGED",
          "tells an administrator so, and warns of an agent with an administrator's power"
        ),
        () =>
          Effect.gen(function*() {
            const admin = yield* verdict(selfAccess)
            assert.strictEqual(`${admin.status} ${admin.code}`, "INFO OVERPRIVILEGED")
            const agent = yield* verdict(strict)
            assert.strictEqual(`${agent.status} ${agent.code}`, "WARN AGENT_OVERPRIVILEGED")
            assert.include(agent.message, "wildcards")
            assert.include(agent.message, "secrets")
            assert.include(agent.message, "nodes/proxy")
          })
      )

      it.effect(
        fault(
          selfAccess,
          "AGENT_OVERPRIVILEGED",
          "warns of each dangerous power alone, but not of one the plan needs or one in a single namespace"
        ),
        () =>
          Effect.gen(function*() {
            const { round, userWith } = yield* TestCluster
            const granted = [...needs, ...selfAccess.needs]
            const powers = {
              "read secrets": Needs.list("secrets"),
              "nodes/proxy": Needs.get("nodes/proxy"),
              "* pods": Needs.verbs(["*"], "pods")
            }
            for (const [said, power] of Object.entries(powers)) {
              const report = yield* verdict(strict, yield* userWith([...granted, ...power]))
              assert.strictEqual(`${report.status} ${report.code}`, "WARN AGENT_OVERPRIVILEGED", said)
              assert.include(report.message, said)
              assert.notInclude(report.message, ";", "one power alone")
            }
            const local = yield* verdict(
              strict,
              yield* userWith([...granted, ...Needs.list("secrets", { namespace: PROBE_NAMESPACE })])
            )
            assert.strictEqual(local.status, "PASS", local.message)

            const reader: Probe.AnyProbe = { ...apiCrud, id: "test.secrets", needs: Needs.list("secrets") }
            const [needed] = yield* round([strict, reader], {
              as: yield* userWith([...selfAccess.needs, ...reader.needs])
            })
            assert.strictEqual(needed?.report.status, "PASS", needed?.report.message)
          })
      )
    }
  )
})
