import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, FileSystem, Option, Path } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { ConfigMap, Namespace, Node } from "../../src/infra/kube/resources/core.ts"
import {
  certExpiry,
  hostOfServer,
  judgeValidity,
  ofBundle,
  ofChain,
  standing
} from "../../src/probes/kubernetes/certExpiry.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { mint } from "../clusters/Mint.ts"
import { servingCertificate } from "../clusters/ServingCertificate.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { tlsServer } from "../clusters/TlsServer.ts"
import { blind, faults, healthy } from "../proofs/proof.ts"
import { againstClient } from "./againstClient.ts"

const now = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const limits = { warn: Duration.days(30), error: Duration.days(7) }
const stands = (age: Duration.Input, left: Duration.Input) =>
  standing(
    {
      notBefore: DateTime.subtractDuration(now, Duration.fromInputUnsafe(age)),
      notAfter: DateTime.addDuration(now, Duration.fromInputUnsafe(left))
    },
    limits,
    now
  )._tag

describe("judging a certificate", () => {
  it("holds a long-lived one against the limits in days", () => {
    assert.strictEqual(stands("330 days", "35 days"), "Fine")
    assert.strictEqual(stands("330 days", "29 days"), "ExpiringSoon")
    assert.strictEqual(stands("330 days", "6 days"), "Expiring")
    assert.strictEqual(stands("330 days", "0 days"), "Expired")
    assert.strictEqual(stands("-1 hours", "300 days"), "NotYetValid")
  })

  it("holds one that renews itself against its own life", () => {
    assert.strictEqual(stands("1 hours", "23 hours"), "Fine")
    assert.strictEqual(stands("20 hours", "4 hours"), "ExpiringSoon")
    assert.strictEqual(stands("23 hours", "1 hours"), "Expiring")
    assert.strictEqual(stands("60 days", "30 days"), "Fine")
    assert.strictEqual(stands("75 days", "15 days"), "ExpiringSoon")
  })

  it("takes what others go on without for a warning", () => {
    const says = (left: Duration.Input, isIgnored: boolean) =>
      judgeValidity(
        { what: "CA bundle", subject: { kind: "Webhook", name: "a" }, isIgnored },
        {
          notBefore: DateTime.subtractDuration(now, Duration.days(330)),
          notAfter: DateTime.addDuration(now, Duration.fromInputUnsafe(left))
        },
        limits,
        now
      ).map(({ code, status }) => `${status} ${code}`).join()
    assert.strictEqual(says("-1 days", false), "ERROR CERT_EXPIRED")
    assert.strictEqual(says("-1 days", true), "WARN CERT_EXPIRED_IGNORED")
    assert.strictEqual(says("5 days", false), "ERROR CERT_EXPIRING")
    assert.strictEqual(says("5 days", true), "WARN CERT_EXPIRING_SOON")
  })

  it.effect("goes by the cluster's clock, however wrong ours is", () =>
    Effect.gen(function*() {
      const { cert } = yield* mint({ commonName: "ca", age: "360 days", left: "300 days" })
      const born = yield* DateTime.now
      const lists: Readonly<Record<string, ReadonlyArray<object>>> = {
        leases: [{ metadata: { name: "apiserver-a" }, spec: { renewTime: DateTime.formatIso(born) } }],
        apiservices: [{ metadata: { name: "v1.a" }, spec: { caBundle: base64(cert) } }]
      }
      const client = HttpClient.make((request, { pathname }) =>
        Effect.sync(() =>
          HttpClientResponse.fromWeb(
            request,
            Response.json({ metadata: {}, items: lists[pathname.split("/").at(-1) ?? ""] ?? [] })
          )
        )
      )
      for (const days of [0, 299, 400]) {
        yield* TestClock.setTime(DateTime.toEpochMillis(DateTime.add(born, { days })))
        const { findings } = yield* againstClient(certExpiry, client, { with: { apiServer: false } })
        assert.deepStrictEqual(findings, [], `${days} days ahead`)
      }
    }))

  it("takes the first end of a chain, without its root", () => {
    const part = (subject: string, issuer: string, left: Duration.Input) => ({
      subject,
      issuer,
      notBefore: now,
      notAfter: DateTime.addDuration(now, Duration.fromInputUnsafe(left))
    })
    const end = (...chain: ReadonlyArray<ReturnType<typeof part>>) =>
      Option.map(ofChain(chain), ({ notAfter }) => Duration.toDays(DateTime.distance(now, notAfter)))
    assert.deepStrictEqual(
      end(part("leaf", "sub", "9 days"), part("sub", "root", "5 days"), part("root", "root", "1 days")),
      Option.some(5)
    )
    assert.deepStrictEqual(end(), Option.none())
  })

  it.effect("takes the last end of a bundle, and skips what is no certificate", () =>
    Effect.gen(function*() {
      const old = yield* mint({ commonName: "old", age: "10 days", left: "-1 days" })
      const fresh = yield* mint({ commonName: "new", age: "1 days", left: "9 days" })
      const garbage = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"
      const end = ofBundle(`${garbage}${fresh.cert}${old.cert}`)
      const left = Option.map(end, ({ notAfter }) =>
        Math.round(Duration.toDays(DateTime.distance(DateTime.makeUnsafe(0), notAfter))))
      assert.deepStrictEqual(left, Option.some(9))
      assert.deepStrictEqual(ofBundle(garbage), Option.none())
    }))

  it("dials the server the kubeconfig names", () => {
    assert.deepStrictEqual(hostOfServer("https://api.example.com"), Option.some("api.example.com:443"))
    assert.deepStrictEqual(hostOfServer("https://[fd00::1]:6443/k8s"), Option.some("[fd00::1]:6443"))
    assert.deepStrictEqual(hostOfServer("http://127.0.0.1:8001"), Option.none())
  })
})

const base64 = (text: string) => Buffer.from(text).toString("base64")

const verdict = (check: Probe.AnyProbe | Probe.Check = certExpiry) =>
  Effect.gen(function*() {
    const { run } = yield* TestCluster
    const report = yield* run(check)
    return { said: report.code === undefined ? report.status : `${report.status} ${report.code}`, report }
  })

describe("k8s.cert.expiry", () => {
  layer(TestCluster.layer({ name: "cert-expiry" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(certExpiry, "passes on a healthy cluster with its declared needs alone, and creates nothing"),
        () =>
          Effect.gen(function*() {
            const { kube, run, userWith } = yield* TestCluster
            const count = Effect.map(
              Effect.all([kube.list(ConfigMap), kube.list(Namespace)]),
              (lists) => lists.map(({ items }) => items.length)
            )
            const user = yield* userWith(certExpiry.needs)
            const before = yield* count
            const requests = yield* user.requests
            const report = yield* run(certExpiry, { as: user })
            assert.strictEqual(report.status, "PASS", report.message)
            // The API server, the cluster's CA and the user's own certificate.
            assert.match(report.message, /^3 certificates/)
            assert.isAtMost((yield* user.requests) - requests, 8)
            assert.deepStrictEqual(yield* count, before)
            const required = yield* userWith(certExpiry.needs, { optional: false })
            assert.strictEqual((yield* run(certExpiry, { as: required })).status, "PASS")
          })
      )

      it.effect(
        blind(certExpiry, "ACCESS_MISSING", "is UNKNOWN with the rule that is missing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of certExpiry.needs.filter((need) => !need.optional)) {
              const user = yield* userWith(certExpiry.needs.filter((need) => need !== lacking))
              const report = yield* run(certExpiry, { as: user })
              assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      it.effect(
        faults(
          certExpiry,
          "sees the API server's own certificate run out, and its renewal",
          "CERT_EXPIRING_SOON",
          "CERT_EXPIRING"
        ),
        () =>
          Effect.gen(function*() {
            const { issuer, serve, serving } = yield* servingCertificate
            const aged = (left: Duration.Input) => mint({ commonName: "kube-apiserver", age: "360 days", left, issuer })
            const until = (said: string) =>
              eventually(verdict(), (answer) => answer.said === said, { every: "300 millis" })

            yield* serve(yield* aged("20 days"))
            const soon = yield* until("WARN CERT_EXPIRING_SOON")
            assert.match(
              soon.report.message,
              /certificate of the API server 127\.0\.0\.1:\d+ expires in 19d 23h, at .*Z \(limit 30d\)/
            )
            yield* serve(yield* aged("5 days"))
            yield* until("ERROR CERT_EXPIRING")
            yield* serve(serving)
            yield* until("PASS")
          }).pipe(Effect.provide(NodeServices.layer)),
        90_000
      )

      it.effect(
        faults(
          certExpiry,
          "judges hosts by the certificate they show",
          "CERT_EXPIRING_SOON",
          "CERT_EXPIRING",
          "CERT_EXPIRED",
          "CERT_NOT_YET_VALID"
        ),
        () =>
          Effect.gen(function*() {
            const host = Effect.fnUntraced(function*(age: Duration.Input, left: Duration.Input) {
              const { port } = yield* tlsServer(yield* mint({ commonName: "shop", age, left }))
              const { report, said } = yield* verdict(
                Probe.configure(certExpiry, { hosts: [{ host: `127.0.0.1:${port}` }] })
              )
              if (said !== "PASS") {
                assert.deepStrictEqual(report.findings.map(({ subject }) => subject?.name), [`127.0.0.1:${port}`])
              }
              return said
            }, Effect.scoped)
            assert.strictEqual(yield* host("1 days", "300 days"), "PASS")
            assert.strictEqual(yield* host("340 days", "25 days"), "WARN CERT_EXPIRING_SOON")
            assert.strictEqual(yield* host("360 days", "5 days"), "ERROR CERT_EXPIRING")
            assert.strictEqual(yield* host("366 days", "-1 days"), "ERROR CERT_EXPIRED")
            assert.strictEqual(yield* host("-2 hours", "300 days"), "WARN CERT_NOT_YET_VALID")
            assert.strictEqual(yield* host("1 hours", "23 hours"), "PASS")
          })
      )

      it.effect(
        blind(certExpiry, "NOT_SHOWN", "is UNKNOWN about a host that shows none, whatever the reason"),
        () =>
          Effect.gen(function*() {
            const gone = yield* Effect.scoped(
              tlsServer(yield* mint({ commonName: "x", age: "1 days", left: "300 days" }))
            )
            for (const host of [`127.0.0.1:${gone.port}`, "nowhere.invalid:443"]) {
              const { report, said } = yield* verdict(Probe.configure(certExpiry, { hosts: [{ host }] }))
              assert.strictEqual(said, "UNKNOWN NOT_SHOWN")
              assert.include(report.message, host)
            }
            assert.strictEqual(
              (yield* verdict(Probe.configure(certExpiry, { hosts: [{ host: "no-port" }] }))).said,
              "UNKNOWN INVALID_CONFIG"
            )
          })
      )

      it.effect(
        faults(certExpiry, "asks the kubelet of each node, when told to", "CERT_EXPIRING"),
        () =>
          Effect.gen(function*() {
            const { kube, kubectl } = yield* TestCluster
            const check = Probe.configure(certExpiry, { kubelets: true })
            yield* kube.create(Node, { metadata: { name: "old" } })
            const { port } = yield* tlsServer(
              yield* mint({ commonName: "system:node:old", age: "360 days", left: "5 days" })
            )
            yield* kube.applyStatus(Node, {
              metadata: { name: "old" },
              status: {
                addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
                daemonEndpoints: { kubeletEndpoint: { Port: port } }
              }
            })
            const { report, said } = yield* verdict(check)
            assert.strictEqual(said, "ERROR CERT_EXPIRING")
            assert.deepStrictEqual(report.findings.map(({ subject }) => subject), [{ kind: "Node", name: "old" }])
            assert.strictEqual((yield* verdict()).said, "PASS")
            yield* kubectl("delete", "node", "old")
            assert.strictEqual((yield* verdict(check)).said, "PASS")
          })
      )

      it.effect(
        faults(
          certExpiry,
          "judges the CA bundles of webhooks, aggregated APIs and conversions",
          "CERT_EXPIRING",
          "CERT_EXPIRED",
          "CERT_EXPIRED_IGNORED",
          "CA_UNREADABLE"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            const ca = (left: Duration.Input) =>
              Effect.map(mint({ commonName: "ca", age: "360 days", left }), ({ cert }) => base64(cert))
            const webhook = (kind: string, caBundle: string, failurePolicy = "Fail") => ({
              apiVersion: "admissionregistration.k8s.io/v1",
              kind,
              metadata: { name: "cert-test" },
              webhooks: [{
                name: "cert.test.example",
                admissionReviewVersions: ["v1"],
                sideEffects: "None",
                failurePolicy,
                rules: [{
                  apiGroups: ["test.example"],
                  apiVersions: ["v1"],
                  operations: ["CREATE"],
                  resources: ["things"]
                }],
                clientConfig: { url: "https://127.0.0.1:1", caBundle }
              }]
            })
            const apiService = (caBundle: string) => ({
              apiVersion: "apiregistration.k8s.io/v1",
              kind: "APIService",
              metadata: { name: "v1.cert.test.example" },
              spec: {
                group: "cert.test.example",
                version: "v1",
                groupPriorityMinimum: 100,
                versionPriority: 100,
                service: { namespace: "default", name: "nobody" },
                caBundle
              }
            })
            const schema = { openAPIV3Schema: { type: "object" } }
            const definition = (caBundle: string) => ({
              apiVersion: "apiextensions.k8s.io/v1",
              kind: "CustomResourceDefinition",
              metadata: { name: "things.cert.test.example" },
              spec: {
                group: "cert.test.example",
                names: { kind: "Thing", plural: "things" },
                scope: "Cluster",
                versions: [{ name: "v1", served: true, storage: true, schema }],
                conversion: {
                  strategy: "Webhook",
                  webhook: { conversionReviewVersions: ["v1"], clientConfig: { url: "https://127.0.0.1:1", caBundle } }
                }
              }
            })
            const holders: ReadonlyArray<
              readonly [kind: string, name: string, manifest: (caBundle: string) => object]
            > = [
              [
                "ValidatingWebhookConfiguration",
                "cert-test",
                (bundle) => webhook("ValidatingWebhookConfiguration", bundle)
              ],
              [
                "MutatingWebhookConfiguration",
                "cert-test",
                (bundle) => webhook("MutatingWebhookConfiguration", bundle)
              ],
              ["APIService", "v1.cert.test.example", apiService],
              ["CustomResourceDefinition", "things.cert.test.example", definition]
            ]
            for (const [kind, name, manifest] of holders) {
              yield* apply(manifest(yield* ca("5 days")))
              const bad = yield* verdict()
              assert.strictEqual(bad.said, "ERROR CERT_EXPIRING", kind)
              assert.deepStrictEqual(bad.report.findings.map(({ subject }) => subject), [{ kind, name }])
              yield* apply(manifest(yield* ca("300 days")))
              assert.strictEqual((yield* verdict()).said, "PASS", kind)
              yield* kubectl("delete", kind, name)
            }
            yield* apply(webhook("ValidatingWebhookConfiguration", yield* ca("-2 days")))
            assert.strictEqual((yield* verdict()).said, "ERROR CERT_EXPIRED")
            yield* apply(webhook("ValidatingWebhookConfiguration", yield* ca("-2 days"), "Ignore"))
            const ignored = yield* verdict()
            assert.strictEqual(ignored.said, "WARN CERT_EXPIRED_IGNORED")
            assert.deepStrictEqual(ignored.report.findings.map(({ subject }) => subject), [
              { kind: "ValidatingWebhookConfiguration", name: "cert-test" }
            ])
            yield* apply(webhook("ValidatingWebhookConfiguration", base64("to be injected\n")))
            const unreadable = yield* verdict()
            assert.strictEqual(unreadable.said, "WARN CA_UNREADABLE")
            assert.deepStrictEqual(unreadable.report.findings.map(({ subject }) => subject), [
              { kind: "ValidatingWebhookConfiguration", name: "cert-test" }
            ])
            yield* kubectl("delete", "ValidatingWebhookConfiguration", "cert-test")
            assert.strictEqual((yield* verdict()).said, "PASS")
          })
      )

      it.effect(
        faults(
          certExpiry,
          "tells when the prober's own certificate runs out, and passes when it is renewed",
          "OWN_CERT_EXPIRING_NOW"
        ),
        () =>
          Effect.gen(function*() {
            const { cluster, kubeAs, run } = yield* TestCluster
            const path = yield* Path.Path
            const fs = yield* FileSystem.FileSystem
            const folder = path.join(path.dirname(cluster.kubeconfigPath), "control-plane")
            const issuer = {
              cert: yield* fs.readFileString(path.join(folder, "ca.crt")),
              key: yield* fs.readFileString(path.join(folder, "ca.key"))
            }
            const { apply, kubectl } = yield* TestCluster
            yield* apply({
              apiVersion: "rbac.authorization.k8s.io/v1",
              kind: "ClusterRoleBinding",
              metadata: { name: "aging" },
              roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
              subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "aging" }]
            })
            const as = (left: Duration.Input) =>
              mint({ commonName: "aging", age: "340 days", left, issuer }).pipe(
                Effect.flatMap((pair) => kubeAs(pair)),
                Effect.flatMap((kube) => run(certExpiry, { as: kube })),
                Effect.map(({ code, findings, status }) => `${status} ${code} ${findings[0]?.subject?.kind}`)
              )
            assert.strictEqual(yield* as("20 days"), "INFO OWN_CERT_EXPIRING Kubeconfig")
            assert.strictEqual(yield* as("3 days"), "WARN OWN_CERT_EXPIRING_NOW Kubeconfig")
            assert.strictEqual(yield* as("200 days"), "PASS undefined undefined")
            yield* kubectl("delete", "clusterrolebinding", "aging")
          }).pipe(Effect.provide(NodeServices.layer))
      )
    }
  )
})
