/**
 * An API server that sheds the load of one user: those requests are refused with 429 (API Priority and Fairness,
 * https://kubernetes.io/docs/concepts/cluster-administration/flow-control/).
 */
import { Effect } from "effect"
import { ConfigMap } from "../../src/infra/kube/resources/core.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Roles from "../../src/probes/Roles.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "./TestCluster.ts"
import { webhookServer } from "./WebhookServer.ts"

/** As far as a FlowSchema has them (`flowcontrol.apiserver.k8s.io/v1`). */
interface Rules {
  readonly resourceRules?: ReadonlyArray<object>
  readonly nonResourceRules?: ReadonlyArray<object>
}

const CONFIG_MAPS = {
  verbs: ["*"],
  apiGroups: [""],
  resources: ["configmaps"],
  namespaces: ["*"],
  clusterScope: true
}

/**
 * A user with these needs, and an effect by which the API server refuses what the user asks for of `rules`, and of
 * ConfigMaps, until the scope ends.
 */
export const shedUser = Effect.fnUntraced(
  function*(user: string, needs: ReadonlyArray<Needs.Need>, { nonResourceRules, resourceRules = [] }: Rules = {}) {
    const { apply, cluster, kubeAs, kubectl } = yield* TestCluster
    const creates = Needs.verbs(["create"], "configmaps", { namespace: Needs.probeNamespace })
    yield* apply(
      ...Roles.forNeeds([...needs, ...creates], { name: user, probeNamespace: PROBE_NAMESPACE }).flatMap((role) => [
        role,
        ...Roles.bindings([role], [{ kind: "User", name: user }])
      ])
    )
    const as = yield* kubeAs(yield* cluster.issueClientCertificate({ user }))
    const held = { metadata: { name: `${user}-held`, namespace: PROBE_NAMESPACE } }
    const hold = as.create(ConfigMap, held, { dryRun: true })
    yield* eventually(Effect.exit(hold), ({ _tag }) => _tag === "Success")

    const applied = (manifest: { readonly kind: string; readonly [field: string]: unknown }) =>
      Effect.acquireRelease(
        apply({ ...manifest, metadata: { name: user } }),
        () => kubectl("delete", manifest.kind, user)
      )
    const shedding = Effect.gen(function*() {
      const server = yield* webhookServer
      yield* applied({
        apiVersion: "flowcontrol.apiserver.k8s.io/v1",
        kind: "PriorityLevelConfiguration",
        spec: {
          type: "Limited",
          limited: { nominalConcurrencyShares: 0, borrowingLimitPercent: 0, limitResponse: { type: "Reject" } }
        }
      })
      yield* applied({
        apiVersion: "flowcontrol.apiserver.k8s.io/v1",
        kind: "FlowSchema",
        spec: {
          matchingPrecedence: 2,
          priorityLevelConfiguration: { name: user },
          rules: [{
            subjects: [{ kind: "User", user: { name: user } }],
            resourceRules: [CONFIG_MAPS, ...resourceRules],
            ...(nonResourceRules === undefined ? {} : { nonResourceRules })
          }]
        }
      })
      yield* eventually(
        kubectl("get", "flowschema", user, "-o=jsonpath={.status.conditions[?(@.type=='Dangling')].status}"),
        (dangling) => dangling === "False"
      )
      // A level without seats still serves one request at a time: one that a webhook holds up keeps others out.
      yield* server.answer({ allowed: true, delay: 30_000 })
      yield* applied({
        apiVersion: "admissionregistration.k8s.io/v1",
        kind: "ValidatingWebhookConfiguration",
        webhooks: [{
          name: "held.test.example",
          admissionReviewVersions: ["v1"],
          sideEffects: "None",
          timeoutSeconds: 30,
          failurePolicy: "Fail",
          matchConditions: [{ name: "held", expression: `object.metadata.name == '${held.metadata.name}'` }],
          rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] }],
          clientConfig: { url: server.url, caBundle: server.caBundle }
        }]
      })
      yield* Effect.forkScoped(Effect.forever(Effect.exit(hold)))
      yield* eventually(Effect.sync(() => server.waiting()), (waiting) => waiting > 0)
    })
    return { as, shedding }
  }
)
