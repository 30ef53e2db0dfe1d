import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Effect, Schema } from "effect"
import { CustomResourceDefinition } from "../../src/infra/kube/resources/extensions.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import { CrdConversionConfig, crdConversion, isConverted, judge } from "../../src/probes/kubernetes/crdConversion.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { httpsBackend } from "../clusters/HttpsBackend.ts"
import { mint } from "../clusters/Mint.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const config = Schema.decodeSync(CrdConversionConfig)({})
const GROUP = "shop.example.com"
const NAME = `widgets.${GROUP}`
const base64 = (text: string) => Buffer.from(text).toString("base64")

const definition = (options: {
  readonly conversion?: object
  readonly versions?: ReadonlyArray<string>
  readonly plural?: string
  readonly kind?: string
} = {}) => {
  const { conversion, kind = "Widget", plural = "widgets", versions = ["v1", "v2"] } = options
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.${GROUP}` },
    spec: {
      group: GROUP,
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      scope: "Namespaced",
      versions: versions.map((name) => ({
        name,
        served: true,
        storage: name === "v1",
        schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } }
      })),
      conversion: conversion === undefined ? { strategy: "None" } : {
        strategy: "Webhook",
        webhook: { conversionReviewVersions: ["v1"], clientConfig: conversion }
      }
    }
  }
}

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")

const decoded = (options: {
  readonly minutes: number
  readonly versions?: ReadonlyArray<string>
  readonly stored?: ReadonlyArray<string>
  readonly deleted?: boolean
  readonly refused?: boolean
}) => {
  const { minutes, refused = false, stored = ["v1"], versions } = options
  const made = definition({ conversion: { service: { namespace: "a", name: "b" } }, ...versions && { versions } })
  return Schema.decodeSync(CustomResourceDefinition.object)({
    ...made,
    metadata: {
      ...made.metadata,
      creationTimestamp: DateTime.formatIso(DateTime.subtract(NOW, { minutes })),
      ...options.deleted === true ? { deletionTimestamp: DateTime.formatIso(NOW) } : {}
    },
    status: {
      storedVersions: stored,
      conditions: [{ type: "Established", status: refused ? "False" : "True" }, {
        type: "NamesAccepted",
        status: refused ? "False" : "True",
        message: "already in use"
      }]
    }
  })
}

describe("judging conversions", () => {
  const says = (options: Parameters<typeof decoded>[0]) =>
    judge(config, { services: [], slices: [] }, NOW)(decoded(options)).map(({ code, status }) => `${status} ${code}`)

  it("asks for a webhook's backend only where it is called", () => {
    assert.isTrue(isConverted(decoded({ minutes: 9 })))
    assert.isTrue(isConverted(decoded({ minutes: 9, versions: ["v1"], stored: ["v0", "v1"] })))
    assert.isFalse(isConverted(decoded({ minutes: 9, versions: ["v1"] })))
    assert.deepStrictEqual(says({ minutes: 9 }), ["ERROR CONVERSION_BACKEND_DOWN", "WARN CONVERSION_CA_MISSING"])
    assert.deepStrictEqual(says({ minutes: 9, versions: ["v1"] }), [])
  })

  it("lets a new one start and a deleted one go", () => {
    assert.deepStrictEqual(says({ minutes: 1 }), ["INFO CONVERSION_STARTING"])
    assert.deepStrictEqual(says({ minutes: 9, deleted: true }), [])
    assert.deepStrictEqual(says({ minutes: 9, refused: true }), ["ERROR CRD_NOT_ESTABLISHED"])
  })
})

const Review = Schema.fromJsonString(Schema.Struct({
  request: Schema.Struct({
    uid: Schema.String,
    desiredAPIVersion: Schema.String,
    objects: Schema.Array(Schema.Record(Schema.String, Schema.Json))
  })
}))

/** A conversion webhook for versions that differ in nothing but their names. */
const converter = httpsBackend({
  answer: (_path, body) => {
    const { request } = Schema.decodeSync(Review)(body)
    return {
      body: {
        apiVersion: "apiextensions.k8s.io/v1",
        kind: "ConversionReview",
        response: {
          uid: request.uid,
          result: { status: "Success" },
          convertedObjects: request.objects.map((object) => ({ ...object, apiVersion: request.desiredAPIVersion }))
        }
      }
    }
  }
})

const widget = {
  apiVersion: `${GROUP}/v1`,
  kind: "Widget",
  metadata: { name: "one", namespace: "default" },
  spec: { secret: "do not tell" }
}

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Nothing is granted time, unless it is. */
const until = (wanted: string, config: typeof CrdConversionConfig.Encoded = {}) =>
  TestCluster.use(({ run }) =>
    eventually(
      run(Probe.configure(crdConversion, { startWithin: "1ms", ...config })),
      (report) => verdict(report) === wanted,
      { every: "300 millis" }
    )
  )

/** A definition with one object, and neither afterwards. */
const withDefinition = <A, E, R>(conversion: object | undefined, effect: Effect.Effect<A, E, R>) =>
  TestCluster.use(({ apply, kubectl }) =>
    Effect.acquireUseRelease(
      // Made without a webhook, so that the object can be made whatever state the webhook is in.
      apply(definition()).pipe(
        Effect.andThen(kubectl("wait", "crd", NAME, "--for=condition=Established", "--timeout=30s")),
        Effect.andThen(apply(widget)),
        Effect.andThen(conversion === undefined ? Effect.void : apply(definition({ conversion })))
      ),
      () => effect,
      () => Effect.andThen(apply(definition()), kubectl("delete", "crd", NAME))
    )
  )

const reader = [
  ...crdConversion.needs,
  ...Needs.verbs(["list", "get"], "widgets", { group: GROUP })
]

describe("k8s.crd.conversion", () => {
  layer(TestCluster.layer({ name: "conversion" }), { excludeTestServices: true, timeout: "180 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(crdConversion, "says that there is nothing to ask where no definition is"),
        () => until("INFO NOT_APPLICABLE")
      )

      it.effect(
        healthy(
          crdConversion,
          "reads every version through a real webhook, with no rights but its needs and those of the kind"
        ),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            const server = yield* converter
            yield* withDefinition(
              { url: server.url, caBundle: server.caBundle },
              Effect.gen(function*() {
                const report = yield* run(crdConversion, { as: yield* userWith(reader) })
                assert.strictEqual(verdict(report), "PASS", report.message)
                assert.include(report.message, "1 converted by webhooks; 2 versions of 1 kinds were read")
              })
            )
          })
      )

      it.effect(
        blind(
          crdConversion,
          "ACCESS_MISSING",
          "each required right taken away, and that to read a kind it is told to read"
        ),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            // Questions about oneself are everybody's.
            for (
              const lacking of crdConversion.needs.filter((need) =>
                !need.optional && need._tag === "ResourceNeed" && need.verb !== "create"
              )
            ) {
              const as = yield* userWith(crdConversion.needs.filter((need) => need !== lacking))
              const report = yield* run(crdConversion, { as })
              assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
            const server = yield* converter
            yield* withDefinition(
              { url: server.url, caBundle: server.caBundle },
              Effect.gen(function*() {
                const as = yield* userWith(crdConversion.needs)
                const unread = yield* run(crdConversion, { as })
                assert.strictEqual(verdict(unread), "INFO RESOURCES_NOT_READ")
                assert.include(unread.message, NAME)
                const told = yield* run(Probe.configure(crdConversion, { kinds: [NAME] }), { as })
                assert.strictEqual(verdict(told), "UNKNOWN ACCESS_MISSING")
                assert.include(told.message, `list ${NAME}`)
              })
            )
          })
      )

      it.effect(blind(crdConversion, "KIND_UNKNOWN", "told to read what is not there"), () =>
        Effect.gen(function*() {
          const report = yield* until("UNKNOWN KIND_UNKNOWN", { kinds: ["gadgets.example.com"] })
          assert.include(report.message, "gadgets.example.com")
        }))

      it.effect(
        fault(
          crdConversion,
          "CONVERSION_BACKEND_DOWN",
          "a webhook whose Service is missing, then has no endpoint, seen without any right on the kind"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run, userWith } = yield* TestCluster
            const authority = yield* Certificates.makeAuthority("webhook")
            const as = yield* userWith(crdConversion.needs)
            const clientConfig = {
              service: { namespace: "default", name: "converter", port: 443 },
              caBundle: base64(authority.cert)
            }
            const strict = Probe.configure(crdConversion, { startWithin: "1ms" })
            yield* withDefinition(
              clientConfig,
              Effect.gen(function*() {
                const missing = yield* run(strict, { as })
                assert.strictEqual(verdict(missing), "ERROR CONVERSION_BACKEND_DOWN")
                assert.include(missing.message, "Service default/converter does not exist")
                assert.deepStrictEqual(missing.findings[0]?.subject, { kind: "CustomResourceDefinition", name: NAME })
                assert.strictEqual(verdict(yield* run(crdConversion, { as })), "INFO CONVERSION_STARTING", "it is new")
                yield* apply({
                  apiVersion: "v1",
                  kind: "Service",
                  metadata: { name: "converter", namespace: "default" },
                  spec: { ports: [{ port: 443 }] }
                })
                assert.include((yield* run(strict, { as })).message, "has no ready endpoint")
                yield* apply({
                  apiVersion: "discovery.k8s.io/v1",
                  kind: "EndpointSlice",
                  metadata: {
                    name: "converter",
                    namespace: "default",
                    labels: { "kubernetes.io/service-name": "converter" }
                  },
                  addressType: "IPv4",
                  endpoints: [{ addresses: ["10.1.2.3"], conditions: { ready: true } }],
                  ports: [{ port: 9443 }]
                })
                assert.strictEqual(verdict(yield* run(strict, { as })), "INFO RESOURCES_NOT_READ")
              })
            )
            yield* kubectl("delete", "--namespace=default", "service/converter", "endpointslice/converter")
            yield* until("INFO NOT_APPLICABLE")
          })
      )

      it.effect(
        fault(
          crdConversion,
          "CONVERSION_FAILED",
          "a webhook that dies after objects were read, then one of another CA"
        ),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const [server, stranger] = yield* Effect.all([converter, converter])
            const clientConfig = { url: server.url, caBundle: server.caBundle }
            yield* withDefinition(
              clientConfig,
              Effect.gen(function*() {
                yield* until("PASS")
                yield* server.fail(500)
                const failing = yield* until("ERROR CONVERSION_FAILED")
                assert.include(failing.message, `${NAME} cannot be read in version v2`)
                assert.include(failing.message, "conversion webhook for")
                assert.deepStrictEqual(failing.findings[0]?.subject, { kind: "CustomResourceDefinition", name: NAME })
                yield* server.fail(undefined)
                yield* until("PASS")
                yield* apply(definition({ conversion: { url: "https://127.0.0.1:1", caBundle: server.caBundle } }))
                const dead = yield* until("ERROR CONVERSION_FAILED")
                assert.include(dead.message, "refused")
                yield* apply(definition({ conversion: { url: server.url, caBundle: stranger.caBundle } }))
                yield* eventually(until("ERROR CONVERSION_FAILED"), ({ message }) => message.includes("certificate"))
                yield* apply(definition({ conversion: clientConfig }))
                yield* until("PASS")
              })
            )
          })
      )

      it.effect(fault(crdConversion, "RESOURCE_SLOW", "a webhook that takes its time"), () =>
        Effect.gen(function*() {
          const server = yield* converter
          yield* withDefinition(
            { url: server.url, caBundle: server.caBundle },
            Effect.gen(function*() {
              yield* until("PASS")
              yield* server.delay(700)
              const slow = yield* until("WARN RESOURCE_SLOW", { slow: "400ms" })
              assert.include(slow.message, `${NAME} in version v2 takes`)
              assert.strictEqual(slow.findings[0]?.subject?.name, NAME)
              yield* server.delay(0)
              yield* until("PASS", { slow: "400ms" })
            })
          )
        }))

      it.effect(
        fault(crdConversion, "CONVERSION_CA_INVALID", "a caBundle that has expired"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const server = yield* converter
            const ended = yield* mint({ commonName: "ended", age: "2 days", left: "-1 days" })
            const ending = yield* mint({ commonName: "ending", age: "2 days", left: "1 hour" })
            const withBundle = (cert: string) =>
              apply(definition({ conversion: { url: server.url, caBundle: base64(cert) } }))
            yield* withDefinition(
              { url: server.url, caBundle: server.caBundle },
              Effect.gen(function*() {
                yield* until("PASS")
                yield* withBundle(ended.cert)
                const expired = yield* until("ERROR CONVERSION_CA_INVALID")
                assert.include(expired.message, "expired 1d")
                assert.strictEqual(expired.findings[0]?.subject?.name, NAME)
                yield* withBundle(`${Buffer.from(server.caBundle, "base64").toString()}\n${ended.cert}`)
                yield* until("PASS")
                yield* withBundle(ending.cert)
                const report = yield* eventually(
                  until("ERROR CONVERSION_FAILED"),
                  ({ findings }) => findings.some(({ code }) => code === "CONVERSION_CA_EXPIRING")
                )
                assert.include(report.findings.map(({ message }) => message).join(), "expires in")
              })
            )
          })
      )

      it.effect(
        fault(crdConversion, "CONVERSION_CA_EXPIRING", "a caBundle that expires within the hour"),
        () =>
          Effect.gen(function*() {
            const { apply, run, userWith } = yield* TestCluster
            const server = yield* converter
            const ending = yield* mint({ commonName: "ending", age: "2 days", left: "1 hour" })
            const as = yield* userWith(crdConversion.needs)
            yield* withDefinition(
              { url: server.url, caBundle: base64(ending.cert) },
              Effect.gen(function*() {
                const report = yield* run(Probe.configure(crdConversion, { startWithin: "1ms" }), { as })
                assert.strictEqual(verdict(report), "WARN CONVERSION_CA_EXPIRING")
                assert.strictEqual(report.findings[0]?.subject?.name, NAME)
                yield* apply(definition({ conversion: { url: server.url, caBundle: server.caBundle } }))
                yield* until("PASS")
              })
            )
          })
      )

      it.effect(
        fault(crdConversion, "CONVERSION_CA_MISSING", "a webhook served by a Service, without a caBundle"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run, userWith } = yield* TestCluster
            const as = yield* userWith(crdConversion.needs)
            const service = { namespace: "default", name: "converter", port: 443 }
            yield* apply({
              apiVersion: "v1",
              kind: "Service",
              metadata: { name: "converter", namespace: "default" },
              spec: { type: "ExternalName", externalName: "localhost" }
            })
            yield* withDefinition(
              { service },
              Effect.gen(function*() {
                const report = yield* run(Probe.configure(crdConversion, { startWithin: "1ms" }), { as })
                assert.strictEqual(verdict(report), "WARN CONVERSION_CA_MISSING")
                assert.strictEqual(report.findings[0]?.subject?.name, NAME)
                const { cert } = yield* Certificates.makeAuthority("webhook")
                yield* apply(definition({ conversion: { service, caBundle: base64(cert) } }))
                assert.strictEqual(verdict(yield* run(crdConversion, { as })), "INFO RESOURCES_NOT_READ")
              })
            )
            yield* kubectl("delete", "--namespace=default", "service/converter")
          })
      )

      it.effect(
        fault(crdConversion, "RESOURCE_UNREADABLE", "objects stored in a version that the definition lost"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            yield* withDefinition(
              undefined,
              Effect.gen(function*() {
                yield* until("PASS")
                // What careless hands do when the API server refuses to drop a version: say that nothing is stored in it.
                const later = definition({ versions: ["v2"] })
                const stored = { ...later.spec.versions[0], storage: true }
                yield* kubectl(
                  "patch",
                  "crd",
                  NAME,
                  "--type=merge",
                  `--patch=${
                    JSON.stringify({
                      spec: { versions: [{ ...definition().spec.versions[0], storage: false }, stored] }
                    })
                  }`
                )
                yield* kubectl(
                  "patch",
                  "crd",
                  NAME,
                  "--subresource=status",
                  "--type=merge",
                  "--patch={\"status\":{\"storedVersions\":[\"v2\"]}}"
                )
                yield* kubectl(
                  "patch",
                  "crd",
                  NAME,
                  "--type=merge",
                  `--patch=${JSON.stringify({ spec: { versions: [stored] } })}`
                )
                const lost = yield* until("ERROR RESOURCE_UNREADABLE")
                assert.include(lost.message, `${NAME} cannot be read in version v2`)
                assert.deepStrictEqual(lost.findings[0]?.subject, { kind: "CustomResourceDefinition", name: NAME })
                yield* apply(definition())
                yield* until("PASS")
              })
            )
          })
      )

      it.effect(
        fault(crdConversion, "CRD_NOT_ESTABLISHED", "a definition whose kind another one has already"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            yield* withDefinition(
              undefined,
              Effect.gen(function*() {
                yield* until("PASS")
                yield* apply(definition({ plural: "gadgets" }))
                const refused = yield* until("ERROR CRD_NOT_ESTABLISHED")
                assert.include(refused.message, "Widget")
                assert.deepStrictEqual(refused.findings[0]?.subject, {
                  kind: "CustomResourceDefinition",
                  name: `gadgets.${GROUP}`
                })
                yield* kubectl("delete", "crd", `gadgets.${GROUP}`)
                yield* until("PASS")
              })
            )
          })
      )
    }
  )
})
