import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Layer, References } from "effect"
import { Kube } from "../../../src/infra/kube/Kube.ts"
import { Authentication } from "../../../src/master/api/Authentication.ts"
import { Authorization } from "../../../src/master/api/Authorization.ts"
import { TestCluster, eventually } from "../../clusters/TestCluster.ts"
import { type ApiServices, apiWith, ask, clientOf } from "./apiFixture.ts"

/** A master that asks this API server who its callers are and what they may do. */
const served = <A, E>(effect: Effect.Effect<A, E, ApiServices | TestCluster>, kube: Kube["Service"]) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(
      apiWith(
        Layer.mergeAll(
          Authentication.layerKubernetes({ audiences: ["kubeprober"] }),
          Authorization.layerKubernetes({ namespace: "default" })
        ).pipe(Layer.provide(Layer.succeed(Kube, kube)))
      )
    )),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )

/** A ServiceAccount that may do `rules`, and a token of it. */
const account = Effect.fnUntraced(function*(name: string, rules: ReadonlyArray<object>) {
  const test = yield* TestCluster
  const subject = { kind: "ServiceAccount", name, namespace: "default" }
  const role = { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name }
  yield* test.apply(
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace: "default" } },
    { apiVersion: "rbac.authorization.k8s.io/v1", kind: "Role", metadata: { name, namespace: "default" }, rules },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata: { name, namespace: "default" },
      roleRef: role,
      subjects: [subject]
    }
  )
  return (audience: string) =>
    Effect.map(
      test.kubectl("-n", "default", "create", "token", name, `--audience=${audience}`),
      (token) => token.trim()
    )
})

const group = "kubeprober.erda.cloud"

/** The tag of what a call failed with. */
const failure = <A, E extends { readonly _tag: string; readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flip(effect)

layer(TestCluster.layer({ name: "api" }), { excludeTestServices: true, timeout: "120 seconds" })(
  "on a real cluster",
  (it) => {
    it.effect("callers are those of the managing cluster, with the rights its RBAC gives", () =>
      Effect.gen(function*() {
        const { kube } = yield* TestCluster
        yield* served(
          Effect.gen(function*() {
            const viewer = yield* account("viewer", [
              { apiGroups: [group], resources: ["clusters"], verbs: ["list"] },
              { apiGroups: [group], resources: ["clusters"], resourceNames: ["mine"], verbs: ["get", "create"] },
              { apiGroups: [group], resources: ["clusters/proxy"], resourceNames: ["mine"], verbs: ["get"] }
            ])
            const token = yield* viewer("kubeprober")
            const fleet = yield* clientOf(token)
            // RBAC's caches follow its objects after a moment.
            yield* eventually(Effect.exit(fleet.clusters({ filter: {} })), Exit.isSuccess)

            yield* fleet.createJoinToken({ cluster: "mine" })
            yield* eventually(Effect.exit(fleet.cluster({ cluster: "mine" })), Exit.isSuccess)
            const other = yield* failure(fleet.createJoinToken({ cluster: "other" }))
            assert.strictEqual(other._tag, "Forbidden")
            assert.include(
              other.message,
              "system:serviceaccount:default:viewer may not create clusters other (group kubeprober.erda.cloud)"
            )
            assert.strictEqual((yield* failure(fleet.probes({})))._tag, "Forbidden")
            assert.strictEqual((yield* failure(fleet.matrix({ filter: {} })))._tag, "Forbidden")
            assert.strictEqual((yield* failure(fleet.removeCluster({ cluster: "mine" })))._tag, "Forbidden")

            // To reach a cluster is a right of its own: past it there is no link yet, without it nothing is told.
            const headers = { authorization: `Bearer ${token}` }
            assert.strictEqual((yield* ask({ path: "/clusters/mine/version", headers })).status, 503)
            assert.strictEqual((yield* ask({ path: "/clusters/other/version", headers })).status, 403)

            // Of the right account, for somebody else.
            const stolen = yield* clientOf(yield* viewer("somebody-else"))
            assert.strictEqual((yield* failure(stolen.clusters({ filter: {} })))._tag, "Unauthenticated")
            const made = yield* clientOf("made.up.token")
            assert.strictEqual((yield* failure(made.clusters({ filter: {} })))._tag, "Unauthenticated")
          }),
          kube
        )
      }))

    it.effect("rights that are taken back are gone within seconds", () =>
      Effect.gen(function*() {
        const { kube, kubectl } = yield* TestCluster
        yield* served(
          Effect.gen(function*() {
            const once = yield* account("once", [{ apiGroups: [group], resources: ["clusters"], verbs: ["list"] }])
            const fleet = yield* clientOf(yield* once("kubeprober"))
            const mayList = Effect.map(Effect.exit(fleet.clusters({ filter: {} })), Exit.isSuccess)
            yield* eventually(mayList, (may) => may)
            yield* kubectl("-n", "default", "delete", "rolebinding", "once")
            yield* eventually(mayList, (may) => !may, { within: "20 seconds" })
          }),
          kube
        )
      }), 60_000)

    it.effect("when nobody can be asked, nobody may", () =>
      Effect.gen(function*() {
        const test = yield* TestCluster
        const viewer = yield* account("unheard", [{ apiGroups: [group], resources: ["clusters"], verbs: ["list"] }])
        const token = yield* viewer("kubeprober")
        // Who may review neither tokens nor rights.
        yield* served(
          Effect.gen(function*() {
            const error = yield* failure((yield* clientOf(token)).clusters({ filter: {} }))
            assert.strictEqual(error._tag, "Unavailable")
            assert.notInclude(error.message, token)
          }),
          yield* test.userWith([])
        )
        // And what is known of a token is not known of a right.
        const reviewer = yield* test.userWith([])
        const half: Kube["Service"] = {
          ...test.kube,
          create: (resource, manifest, options) =>
            (resource.kind === "TokenReview" ? test.kube : reviewer).create(resource, manifest, options)
        }
        yield* served(
          Effect.gen(function*() {
            const error = yield* failure((yield* clientOf(token)).clusters({ filter: {} }))
            assert.strictEqual(error._tag, "Unavailable")
            assert.include(error.message, "rights cannot be reviewed")
          }),
          half
        )
      }))
  }
)
