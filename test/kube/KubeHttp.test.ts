import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import type { KubeError } from "../../src/infra/kube/KubeError.ts"
import { make as makeResource, maybe } from "../../src/infra/kube/KubeResource.ts"
import { SelfSubjectAccessReview } from "../../src/infra/kube/resources/authorization.ts"
import { ConfigMap, Namespace, Node, Pod, SecretMetadata } from "../../src/infra/kube/resources/core.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import * as TestCluster from "./TestCluster.ts"

const inDefault = (name: string) => ({ name, namespace: "default" })

/** The reason an effect fails for; the test fails when it succeeds. */
const reasonOf = <A>(effect: Effect.Effect<A, KubeError>) => Effect.map(Effect.flip(effect), (error) => error.reason)

layer(TestCluster.layer("kube-http"), { excludeTestServices: true, timeout: "2 minutes" })("Kube over HTTP", (it) => {
  describe("objects", () => {
    it.effect("are created, read, changed and deleted", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const created = yield* kube.create(ConfigMap, {
          metadata: { generateName: "crud-", namespace: "default", labels: { a: "b" } },
          data: { key: "1" }
        })
        const ref = inDefault(created.metadata.name ?? "")
        assert.match(ref.name, /^crud-/)
        assert.deepStrictEqual((yield* kube.get(ConfigMap, ref)).data, { key: "1" })

        const patched = yield* kube.patch(ConfigMap, ref, { data: { key: null, other: "2" } })
        assert.deepStrictEqual(patched.data, { other: "2" })

        const stale = yield* reasonOf(kube.replace(ConfigMap, {
          metadata: { ...ref, resourceVersion: created.metadata.resourceVersion },
          data: {}
        }))
        assert.strictEqual(stale._tag === "Conflict" && stale.kind, "conflict")
        const replaced = yield* kube.replace(ConfigMap, {
          metadata: { ...ref, resourceVersion: patched.metadata.resourceVersion },
          data: { last: "3" }
        })
        assert.deepStrictEqual(replaced.data, { last: "3" })

        const exists = yield* reasonOf(kube.create(ConfigMap, { metadata: ref }))
        assert.strictEqual(exists._tag === "Conflict" && exists.kind, "already-exists")

        yield* kube.delete(ConfigMap, ref)
        const gone = yield* reasonOf(kube.get(ConfigMap, ref))
        assert.strictEqual(gone._tag === "NotFound" && gone.what, "object")
      }))

    it.effect("are deleted only if they are the ones meant", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const ref = inDefault(yield* freshName("successor"))
        const first = yield* kube.create(ConfigMap, { metadata: ref })
        yield* kube.delete(ConfigMap, ref)
        const second = yield* kube.create(ConfigMap, { metadata: ref })
        const refused = yield* reasonOf(kube.delete(ConfigMap, ref, { uid: first.metadata.uid }))
        assert.strictEqual(refused._tag, "Conflict")
        yield* kube.delete(ConfigMap, ref, { uid: second.metadata.uid })
      }))

    it.effect("are not stored by a dry run", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const ref = inDefault(yield* freshName("dry"))
        yield* kube.create(ConfigMap, { metadata: ref }, { dryRun: true })
        assert.strictEqual((yield* reasonOf(kube.get(ConfigMap, ref)))._tag, "NotFound")
        yield* kube.apply(ConfigMap, { metadata: ref, data: { a: "1" } })
        yield* kube.apply(ConfigMap, { metadata: ref, data: { a: "2" } }, { dryRun: true })
        yield* kube.delete(ConfigMap, ref, { dryRun: true })
        assert.deepStrictEqual((yield* kube.get(ConfigMap, ref)).data, { a: "1" })
        yield* kube.delete(ConfigMap, ref)
      }))

    it.effect("without a name or namespace are refused before anything is sent", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const before = yield* kube.requests
        for (
          const call of [
            kube.delete(ConfigMap, inDefault("")),
            kube.delete(ConfigMap, inDefault("..")),
            kube.delete(ConfigMap, { name: "a", namespace: ".." }),
            kube.list(ConfigMap, { namespace: "" }),
            kube.get(ConfigMap, inDefault("a/b")),
            kube.get(ConfigMap, inDefault("../../nodes")),
            kube.get(ConfigMap, { name: "a" }),
            kube.create(ConfigMap, { metadata: { name: "a" } }),
            kube.apply(ConfigMap, { metadata: { namespace: "default" } })
          ]
        ) {
          assert.strictEqual((yield* reasonOf<unknown>(call))._tag, "Invalid")
        }
        assert.strictEqual(yield* kube.requests, before)
      }))

    it.effect("of kinds made to be asked answer in their status", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const review = yield* kube.create(SelfSubjectAccessReview, {
          metadata: {},
          spec: { resourceAttributes: { verb: "list", resource: "nodes" } }
        })
        assert.isTrue(review.status.allowed)
      }))
  })

  describe("server-side apply", () => {
    it.effect("creates, owns its fields and tells who else does", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const cluster = yield* LocalCluster
        const ref = inDefault(yield* freshName("owned"))
        yield* kube.apply(ConfigMap, { metadata: ref, data: { ours: "1", shared: "1" } })
        yield* cluster.kubectl(
          ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"],
          {
            stdin: JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: ref, data: { shared: "2" } })
          }
        )
        const conflict = yield* reasonOf(kube.apply(ConfigMap, { metadata: ref, data: { ours: "1", shared: "3" } }))
        assert.strictEqual(conflict._tag, "Conflict")
        assert.include("detail" in conflict ? conflict.detail : "", "other")
        const forced = yield* kube.apply(ConfigMap, { metadata: ref, data: { shared: "3" } }, { force: true })
        assert.deepStrictEqual(forced.data, { shared: "3" }, "fields no longer applied are removed")
        assert.include(
          yield* cluster.kubectl(["get", "configmap", ref.name, "--show-managed-fields", "-o", "json"]),
          `"manager": "kubeprober"`
        )
        yield* kube.delete(ConfigMap, ref)
      }))

    it.effect("writes status apart from the rest", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const metadata = { name: yield* freshName("made-up-node") }
        yield* kube.create(Node, { metadata, spec: { unschedulable: true } })
        const condition = {
          type: "Ready",
          status: "True",
          reason: "Test",
          message: "said so",
          lastHeartbeatTime: "2026-01-01T00:00:00Z",
          lastTransitionTime: "2026-01-01T00:00:00Z"
        }
        const node = yield* kube.applyStatus(Node, { metadata, status: { conditions: [condition] } }, { force: true })
        assert.isTrue(node.spec.unschedulable)
        assert.strictEqual(node.status.conditions.find((found) => found.type === "Ready")?.message, "said so")
        yield* kube.delete(Node, metadata)
      }))
  })

  describe("lists", () => {
    it.effect("read all pages, up to the maximum asked for", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const cluster = yield* LocalCluster
        const namespace = yield* freshName("paging")
        yield* kube.create(Namespace, { metadata: { name: namespace } })
        yield* Effect.forEach(
          Array.from({ length: 1_100 }, (_, index) => index),
          (index) =>
            kube.create(ConfigMap, {
              metadata: { name: `c${index}`, namespace, labels: { part: String(index % 2) } },
              data: { index: String(index) }
            }),
          { concurrency: 32, discard: true }
        )
        const before = yield* kube.requests
        const all = yield* kube.list(ConfigMap, { namespace })
        assert.strictEqual((yield* kube.requests) - before, 3)
        // The controller manager adds kube-root-ca.crt.
        const ours = all.items.flatMap((item) => item.data["index"] ?? [])
        assert.strictEqual(ours.length, 1_100)
        assert.strictEqual(new Set(ours).size, 1_100)
        assert.strictEqual(all.remaining, 0)
        assert.match(all.resourceVersion, /^\d+$/)

        const some = yield* kube.list(ConfigMap, { namespace, maximum: 600 })
        assert.strictEqual(some.items.length, 600)
        assert.strictEqual(some.remaining, all.items.length - 600)

        const half = yield* kube.list(ConfigMap, { namespace, labelSelector: "part=1" })
        assert.strictEqual(half.items.length, 550)
        const one = yield* kube.list(ConfigMap, { namespace, fieldSelector: "metadata.name=c7" })
        assert.deepStrictEqual(one.items.map((item) => item.metadata.name), ["c7"])

        const small = yield* KubeHttp.make(TestCluster.admin(cluster), { pageSize: 100 })
        assert.strictEqual((yield* small.list(ConfigMap, { namespace, labelSelector: "part=1" })).items.length, 550)
        assert.strictEqual(yield* small.requests, 6)
      }), 180_000)

    it.effect("over all namespaces find what lies in each", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const found = yield* kube.list(ConfigMap, { fieldSelector: "metadata.name=kube-root-ca.crt" })
        assert.includeMembers(found.items.map((item) => item.metadata.namespace), ["default", "kube-system"])
      }))

    it.effect("of secrets leave the data on the server", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const cluster = yield* LocalCluster
        const password = yield* freshName("password")
        yield* cluster.kubectl(["create", "secret", "generic", password, "--from-literal=word=open-sesame"])
        const WithData = makeResource({
          kind: "Secret",
          plural: "secrets",
          scope: "Namespaced",
          metadataOnly: true,
          fields: { data: maybe(Schema.Record(Schema.String, Schema.String)), type: maybe(Schema.String) }
        })
        const read = yield* kube.get(WithData, inDefault(password))
        assert.isUndefined(read.data)
        assert.isUndefined(read.type)
        const list = yield* kube.list(WithData, { namespace: "default" })
        assert.isTrue(list.items.every((item) => item.data === undefined))
        assert.include(
          (yield* kube.list(SecretMetadata, { namespace: "default" })).items.map((item) => item.metadata.name),
          password
        )
      }))
  })

  describe("answers outside the object API", () => {
    it.effect("are read whatever their status", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        assert.deepStrictEqual(yield* kube.raw("/readyz"), { status: 200, body: "ok", warnings: [] })
        assert.include((yield* kube.raw("/readyz?verbose")).body, "[+]ping ok")
        assert.strictEqual((yield* reasonOf(kube.raw("@elsewhere.example.org/")))._tag, "Invalid")
        const missing = yield* kube.raw("/no-such-path")
        assert.strictEqual(missing.status, 404)
        const deprecated = yield* kube.raw("/api/v1/namespaces/default/endpoints")
        assert.match(deprecated.warnings[0] ?? "", /Endpoints is deprecated/)
      }))

    it.effect("are asked of another replica, verified by the cluster's name", () =>
      Effect.gen(function*() {
        const cluster = yield* LocalCluster
        // By a name the certificate does not hold, the connection to 127.0.0.1 itself cannot be verified.
        const wrong = yield* KubeHttp.make({
          ...TestCluster.admin(cluster),
          server: cluster.server.replace("127.0.0.1", "10.96.0.99")
        })
        const refused = yield* reasonOf(wrong.raw("/readyz", { server: cluster.server }))
        assert.strictEqual(refused._tag === "Unreachable" && refused.kind, "tls")
        const right = yield* KubeHttp.make({
          ...TestCluster.admin(cluster),
          server: cluster.server.replace("127.0.0.1", "10.96.0.1")
        })
        assert.strictEqual((yield* right.raw("/readyz", { server: cluster.server })).status, 200)
      }))

    it.effect("are bounded", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const reason = yield* reasonOf(kube.raw("/metrics", { maximumBytes: 10_000 }))
        assert.strictEqual(reason._tag, "Undecodable")
        assert.strictEqual((yield* kube.raw("/readyz")).status, 200)
      }))
  })

  describe("a refusal", () => {
    it.effect("by authorization names the user and the missing rule", () =>
      Effect.gen(function*() {
        const cluster = yield* LocalCluster
        const kube = yield* KubeHttp.make(yield* TestCluster.user(cluster, "mallory"))
        const error = yield* Effect.flip(kube.list(Pod, { namespace: "default" }))
        assert.strictEqual(error.reason._tag === "Forbidden" && error.reason.user, "mallory")
        assert.strictEqual(
          error.message,
          `list pods in default on ${cluster.name}: not allowed for mallory; grant the rule: list pods in default`
        )
        const metrics = yield* kube.raw("/metrics")
        assert.strictEqual(metrics.status, 403)
      }))

    it.effect("by authentication is Unauthorized, and never shows the token", () =>
      Effect.gen(function*() {
        const cluster = yield* LocalCluster
        const kube = yield* KubeHttp.make(TestCluster.bearer(cluster, "open-sesame"))
        const exit = yield* Effect.exit(kube.list(Pod))
        assert.isTrue(Exit.isFailure(exit))
        assert.notInclude(JSON.stringify(exit) + String(exit), "open-sesame")
        assert.strictEqual((yield* reasonOf(kube.list(Pod)))._tag, "Unauthorized")
        assert.strictEqual(yield* kube.requests, 2, "a token that cannot change is not tried twice")
      }))

    it.effect("of a kind the server does not serve differs from that of an object", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const Unknown = makeResource({
          group: "example.org",
          kind: "Thing",
          plural: "things",
          scope: "Namespaced",
          fields: {}
        })
        for (const call of [kube.list(Unknown), kube.list(Unknown, { namespace: "default" })]) {
          const reason = yield* reasonOf(call)
          assert.strictEqual(reason._tag === "NotFound" && reason.what, "resource")
        }
        const absent = yield* reasonOf(kube.create(ConfigMap, { metadata: { name: "a", namespace: "nowhere" } }))
        assert.strictEqual(absent._tag === "NotFound" && absent.what, "object")
      }))

    it.effect("of a bad object lists what is wrong", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const reason = yield* reasonOf(kube.create(Pod, {
          metadata: inDefault("Not_A_Name"),
          spec: { containers: [{ name: "c" }] }
        }))
        assert.strictEqual(reason._tag, "Invalid")
        assert.isTrue("causes" in reason && reason.causes.some((cause) => cause.startsWith("metadata.name: ")))
      }))

    it.effect("to decode names the field", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const Odd = makeResource({
          kind: "Namespace",
          plural: "namespaces",
          scope: "Cluster",
          fields: { spec: Schema.Struct({ color: Schema.String }) }
        })
        const reason = yield* reasonOf(kube.get(Odd, { name: "default" }))
        assert.strictEqual(reason._tag, "Undecodable")
        assert.include("issue" in reason ? reason.issue : "", `["color"]`)
      }))
  })
})
