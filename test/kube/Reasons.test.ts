import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Https from "node:https"
import { flatten } from "../../src/domain/flatten.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { reasonOfAnswer, reasonOfNetwork } from "../../src/infra/kube/http/reason.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { type AdmissionDenied, KubeError, describeCall, isTransient } from "../../src/infra/kube/KubeError.ts"
import { make as makeResource } from "../../src/infra/kube/KubeResource.ts"
import { ConfigMap, Namespace, Pod, ResourceQuota } from "../../src/infra/kube/resources/core.ts"
import { Role } from "../../src/infra/kube/resources/rbac.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import { eventually } from "./eventually.ts"
import * as TestCluster from "./TestCluster.ts"

describe("the reason of a failure", () => {
  const Answer = Schema.Struct({
    status: Schema.Int.check(Schema.isBetween({ minimum: 300, maximum: 599 })),
    body: Schema.Union([
      Schema.String,
      Schema.Struct({
        kind: Schema.Literals(["Status", "Pod"]),
        code: Schema.optionalKey(Schema.Int),
        reason: Schema.optionalKey(Schema.NullOr(Schema.String)),
        message: Schema.optionalKey(Schema.NullOr(Schema.String)),
        details: Schema.optionalKey(Schema.NullOr(Schema.Struct({
          name: Schema.optionalKey(Schema.String),
          retryAfterSeconds: Schema.optionalKey(Schema.Int),
          causes: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({
            field: Schema.optionalKey(Schema.String),
            message: Schema.optionalKey(Schema.String)
          }))))
        })))
      })
    ]),
    retryAfter: Schema.optionalKey(Schema.String)
  })

  it.effect.prop(
    "exists for every answer, and can be told to people and machines",
    [Answer],
    ([{ body, ...answer }]) =>
      Effect.gen(function*() {
        const reason = reasonOfAnswer({ ...answer, body: typeof body === "string" ? body : JSON.stringify(body) })
        const error = new KubeError({ cluster: "c", call: { verb: "get", resource: "pods" }, reason })
        assert.notInclude(error.message, "undefined")
        assert.isBelow(error.message.length, 40_000)
        assert.isBoolean(isTransient(error))
        if (answer.status === 429) assert.isTrue(reason._tag === "TooManyRequests" || reason._tag === "AdmissionDenied")
      })
  )

  it.effect.prop("exists for everything a socket may throw", [Schema.Unknown], ([cause]) =>
    Effect.sync(() => {
      const reason = reasonOfNetwork(cause)
      assert.isNotEmpty(reason.detail)
    }))

  it("tells a server that nobody reaches from one that is silent, and whom to blame for a connection", () => {
    const coded = (code: string) => Object.assign(new Error(`connect ${code}`), { code })
    const kind = (thrown: unknown, proxy?: string) => reasonOfNetwork(thrown, proxy).kind
    assert.deepStrictEqual(["ETIMEDOUT", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"].map((code) => kind(coded(code))), [
      "unanswered",
      "unanswered",
      "unanswered"
    ])
    assert.strictEqual(kind(coded("UND_ERR_HEADERS_TIMEOUT")), "timeout")
    assert.strictEqual(kind(coded("CERT_HAS_EXPIRED")), "expired")
    assert.strictEqual(kind(coded("CERT_NOT_YET_VALID")), "tls")
    assert.strictEqual(kind(coded("ENETUNREACH")), "unknown")
    assert.strictEqual(kind(new AggregateError(["ENETUNREACH", "ECONNREFUSED"].map(coded))), "refused")
    assert.strictEqual(kind(coded("ECONNREFUSED"), "proxy:3128"), "unknown")
    assert.strictEqual(kind(coded("ECONNRESET"), "proxy:3128"), "reset")
  })

  it("does not take an answer that is not Kubernetes' for a missing object or a missing right", () => {
    const page = "<html><body>Nothing here</body></html>"
    for (const status of [302, 403, 404, 503]) {
      const reason = reasonOfAnswer({ status, body: page })
      assert.strictEqual(reason._tag, "ServerFault")
    }
    const old = reasonOfAnswer({ status: 404, body: "404 page not found\n" })
    assert.strictEqual(old._tag === "NotFound" && old.what, "resource")
  })

  it("is found in time proportional to the answer", () => {
    // Each of these took minutes when a pattern tried every place of the whole.
    const page = reasonOfAnswer({ status: 500, body: "<".repeat(1_000_000) })
    assert.strictEqual(page._tag, "ServerFault")
    const message = "User \"\" (groups=".repeat(200_000)
    const refused = reasonOfAnswer({ status: 403, body: JSON.stringify({ kind: "Status", code: 403, message }) })
    assert.strictEqual(refused._tag, "Forbidden")
    assert.strictEqual(flatten({ message: `a${" ".repeat(1_000_000)}b\n\n  c` }), `a${" ".repeat(1_000_000)}b c`)
  }, 5_000)

  it("waits for admission plugins that are still starting", () => {
    const reason = reasonOfAnswer({
      status: 403,
      body: JSON.stringify({
        kind: "Status",
        reason: "Forbidden",
        message: `pods "a" is forbidden: not yet ready to handle request`,
        details: { name: "a" }
      })
    })
    assert.strictEqual(reason._tag, "ServerFault")
  })

  it("is described in RBAC's words", () => {
    assert.strictEqual(describeCall({ verb: "list", resource: "nodes" }), "list nodes")
    assert.strictEqual(
      describeCall({ verb: "get", group: "apps", resource: "deployments", namespace: "shop", name: "web" }),
      "get deployments.apps/web in shop"
    )
  })
})

const reasonOf = <A>(effect: Effect.Effect<A, KubeError>) => Effect.map(Effect.flip(effect), (error) => error.reason)

const denied = Effect.fnUntraced(function*<A>(effect: Effect.Effect<A, KubeError>, kind: AdmissionDenied["kind"]) {
  const reason = yield* reasonOf(effect)
  assert.strictEqual(reason._tag, "AdmissionDenied", JSON.stringify(reason))
  assert.strictEqual(reason._tag === "AdmissionDenied" && reason.kind, kind)
  return reason._tag === "AdmissionDenied" ? reason.by : undefined
})

/** A namespace of its own for a test. */
const namespace = Effect.fnUntraced(function*(prefix: string, labels: Record<string, string> = {}) {
  const kube = yield* Kube
  const name = yield* freshName(prefix)
  yield* kube.create(Namespace, { metadata: { name, labels } })
  return name
})

const pod = (namespace: string, spec: object = {}) => ({
  metadata: { generateName: "p-", namespace },
  spec: { containers: [{ name: "c", image: "example.org/none" }], ...spec }
})

const ValidatingWebhookConfiguration = makeResource({
  group: "admissionregistration.k8s.io",
  kind: "ValidatingWebhookConfiguration",
  plural: "validatingwebhookconfigurations",
  scope: "Cluster",
  fields: {}
})

/** An HTTPS server that answers admission reviews with `response`. */
const webhook = Effect.fnUntraced(function*(response: object) {
  const authority = yield* Certificates.makeAuthority("webhook-ca")
  const pair = yield* authority.issue({ commonName: "webhook", ipAddresses: ["127.0.0.1"], dnsNames: ["localhost"] })
  const port = yield* Effect.acquireRelease(
    Effect.callback<readonly [number, Https.Server]>((resume) => {
      const server = Https.createServer({ cert: pair.cert, key: pair.key }, (request, answer) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const review = JSON.parse(Buffer.concat(chunks).toString("utf8"))
          answer.setHeader("content-type", "application/json")
          answer.end(
            JSON.stringify({ ...review, request: undefined, response: { uid: review.request.uid, ...response } })
          )
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed([typeof address === "object" && address !== null ? address.port : 0, server]))
      })
    }),
    ([, server]) =>
      Effect.callback<void>((done) => {
        server.closeAllConnections()
        server.close(() => done(Effect.void))
      })
  )
  return { url: `https://127.0.0.1:${port[0]}/`, caBundle: Buffer.from(authority.cert).toString("base64") }
})

const registered = Effect.fnUntraced(function*(name: string, clientConfig: object, namespace: string) {
  const kube = yield* Kube
  yield* Effect.acquireRelease(
    kube.create(ValidatingWebhookConfiguration, {
      metadata: { name },
      webhooks: [{
        name: `${name}.example.org`,
        clientConfig,
        rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["configmaps"] }],
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
        sideEffects: "None",
        admissionReviewVersions: ["v1"],
        timeoutSeconds: 10
      }]
    }),
    () => Effect.orDie(kube.delete(ValidatingWebhookConfiguration, { name }))
  )
  // The server learns of a new webhook by its own watch.
  return yield* eventually(
    "the webhook is in force",
    Effect.map(
      Effect.exit(kube.create(ConfigMap, { metadata: { generateName: "c-", namespace } })),
      (exit) => exit._tag === "Failure" ? exit : undefined
    )
  )
})

layer(TestCluster.layer("kube-reasons"), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("a real server's refusal", (it) => {
  it.effect("by quota", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const name = yield* namespace("quota")
      yield* kube.create(ResourceQuota, {
        metadata: { name: "two", namespace: name },
        spec: { hard: { "count/configmaps": "2", "limits.cpu": "1" } }
      })
      yield* eventually(
        "the quota is counted",
        Effect.map(kube.get(ResourceQuota, { name: "two", namespace: name }), (quota) =>
          quota.status.used["count/configmaps"] !== undefined)
      )
      const create = kube.create(ConfigMap, { metadata: { generateName: "c-", namespace: name } })
      yield* Effect.ignore(create)
      yield* Effect.ignore(create)
      assert.strictEqual(yield* denied(create, "quota"), "two")
      assert.strictEqual(yield* denied(kube.create(Pod, pod(name)), "quota"), "two", "limits not given")
    }))

  it.effect("by pod security", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const name = yield* namespace("restricted", { "pod-security.kubernetes.io/enforce": "restricted" })
      yield* eventually(
        "the service account is there",
        Effect.map(reasonOf(kube.create(Pod, pod(name))), (reason) =>
          reason._tag === "AdmissionDenied" && reason.kind === "pod-security")
      )
      assert.strictEqual(yield* denied(kube.create(Pod, pod(name)), "pod-security"), "restricted:latest")
    }))

  it.effect("by a namespace that ends", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const name = yield* namespace("ending")
      const metadata = { name: "stays", namespace: name, finalizers: ["example.org/wait"] }
      yield* kube.create(ConfigMap, { metadata })
      yield* kube.delete(Namespace, { name })
      yield* denied(kube.create(ConfigMap, { metadata: { name: "late", namespace: name } }), "namespace-terminating")
      yield* kube.patch(ConfigMap, metadata, { metadata: { finalizers: null } })
    }))

  it.effect("by other admission plugins", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const name = yield* namespace("plugins")
      yield* denied(kube.create(Pod, pod(name, { serviceAccountName: "nobody" })), "policy")
      yield* denied(kube.create(Pod, pod(name, { priorityClassName: "none" })), "policy")
    }))

  it.effect("by a ValidatingAdmissionPolicy", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const cluster = yield* LocalCluster
      const name = yield* namespace("policy")
      const documents = [
        {
          apiVersion: "admissionregistration.k8s.io/v1",
          kind: "ValidatingAdmissionPolicy",
          metadata: { name: "no-configmaps" },
          spec: {
            matchConstraints: {
              resourceRules: [{
                apiGroups: [""],
                apiVersions: ["v1"],
                operations: ["CREATE"],
                resources: ["configmaps"]
              }]
            },
            validations: [{ expression: "object.metadata.name == 'allowed'", message: "not here" }]
          }
        },
        {
          apiVersion: "admissionregistration.k8s.io/v1",
          kind: "ValidatingAdmissionPolicyBinding",
          metadata: { name: "no-configmaps" },
          spec: {
            policyName: "no-configmaps",
            validationActions: ["Deny"],
            matchResources: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } } }
          }
        }
      ]
      yield* cluster.kubectl(["apply", "-f", "-"], {
        // What begins with `---` is read as YAML by every kubectl; old ones read one document of JSON alone.
        stdin: documents.map((document) => `---\n${JSON.stringify(document)}\n`).join("")
      })
      const create = kube.create(ConfigMap, { metadata: { generateName: "c-", namespace: name } })
      yield* eventually(
        "the policy is in force",
        Effect.map(Effect.exit(create), (exit) => exit._tag === "Failure"),
        40
      )
      assert.strictEqual(yield* denied(create, "policy"), "no-configmaps")
    }))

  for (
    const [code, status] of [
      [403, { code: 403, message: "no, thank you" }],
      [418, { code: 418, message: "short and stout" }],
      [500, { code: 500 }]
    ] as const
  ) {
    it.effect(`by a webhook that says ${code}`, () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const name = yield* namespace(`webhook-${code}`)
        yield* registered(`says-${code}`, yield* webhook({ allowed: false, status }), name)
        const create = kube.create(ConfigMap, { metadata: { name: "c", namespace: name } })
        assert.strictEqual(yield* denied(create, "webhook-denied"), `says-${code}.example.org`)
      }))
  }

  it.effect("because a webhook does not answer", () =>
    Effect.gen(function*() {
      const kube = yield* Kube
      const name = yield* namespace("webhook-absent")
      yield* registered("absent", { url: "https://127.0.0.1:1/" }, name)
      const create = kube.create(ConfigMap, { metadata: { name: "c", namespace: name } })
      assert.strictEqual(yield* denied(create, "webhook-failed"), "absent.example.org")
    }))

  it.effect("of more rights than one has is a matter of authorization", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const binding = yield* freshName("edit")
      yield* cluster.kubectl(["create", "rolebinding", binding, "--clusterrole=admin", "--user=carol", "-n", "default"])
      const carol = yield* KubeHttp.make(yield* TestCluster.user(cluster, "carol"))
      const reason = yield* eventually(
        "carol may create roles",
        Effect.map(
          reasonOf(carol.create(Role, {
            metadata: { name: "more", namespace: "default" },
            rules: [{ apiGroups: [""], resources: ["nodes"], verbs: ["*"] }]
          })),
          (reason) => reason._tag === "Forbidden" && reason.detail.includes("attempting to grant") ? reason : undefined
        )
      )
      assert.strictEqual(reason.user, "carol")
    }))
})
