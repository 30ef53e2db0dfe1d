import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, FileSystem, Layer, Option, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import { X509Certificate } from "node:crypto"
import * as AgentName from "../../src/infra/pki/AgentName.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { ClusterIdentity, renewAt } from "../../src/infra/pki/ClusterIdentity.ts"
import { pinOf } from "../../src/infra/pki/Credential.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"
import { P256, generate } from "../../src/infra/pki/keys.ts"
import * as x509 from "../../src/infra/pki/x509.ts"
import { memoryStore } from "./memoryStore.ts"

const Pki = Layer.merge(CertificateAuthority.layer, ClusterIdentity.layer).pipe(Layer.provideMerge(memoryStore))
const cluster = "staging"
const uid = "7c1c6b8e-1f0b-4b7e-9a43-0d8f1a2b3c4d"

const csrWith = (subject: string, extensions: Array<x509.Extension> = []) =>
  Effect.gen(function*() {
    const keys = yield* generate
    const csr = yield* Effect.promise(() =>
      x509.Pkcs10CertificateRequestGenerator.create({ name: subject, keys, signingAlgorithm: P256, extensions })
    )
    return csr.toString("pem")
  })

describe("CertificateAuthority", () => {
  it.effect("signs a client certificate that says which cluster, for a day at most", () =>
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const identity = yield* ClusterIdentity
      const request = yield* identity.request(cluster)
      const signed = yield* authority.signAgent({ csr: request.csr, cluster, uid, validFor: Duration.days(30) })
      const certificate = new X509Certificate(signed)
      const root = new X509Certificate(authority.certificate)
      assert.isTrue(certificate.verify(root.publicKey))
      assert.deepStrictEqual(Result.getOrThrow(AgentName.read(certificate)), { cluster, uid })
      assert.deepStrictEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.2"])
      const now = yield* DateTime.now
      const end = DateTime.fromDateUnsafe(certificate.validToDate)
      assert.strictEqual(Duration.toHours(DateTime.distance(now, end)), 24)
      assert.strictEqual(pinOf(root), authority.pin)
    }).pipe(Effect.provide(Pki)))

  it.effect("refuses requests for other names, for more names, without proof of the key", () =>
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const refusal = (csr: string) =>
        Effect.map(Effect.flip(authority.signAgent({ csr, cluster, uid })), ({ detail }) => detail)
      const notThisName = "its subject is not exactly CN=staging"
      assert.strictEqual(yield* refusal(yield* csrWith("CN=production")), notThisName)
      assert.strictEqual(yield* refusal(yield* csrWith("CN=staging, O=system:masters")), notThisName)
      assert.strictEqual(yield* refusal(yield* csrWith("CN=staging, CN=production")), notThisName)
      const san = new x509.SubjectAlternativeNameExtension([{ type: "url", value: AgentName.sanOf("another") }])
      assert.match(yield* refusal(yield* csrWith("CN=staging", [san])), /asks for extensions/)
      assert.match(yield* refusal("-----BEGIN CERTIFICATE REQUEST-----"), /not PKCS #10/)
      assert.match(yield* refusal("kpj1"), /not PKCS #10/)
      const der = Buffer.from((yield* csrWith("CN=staging")).replaceAll(/-----.*-----|\s/gu, ""), "base64")
      der[der.length - 1] = (der.at(-1) ?? 0) ^ 1
      assert.match(yield* refusal(x509.PemConverter.encode(der, "CERTIFICATE REQUEST")), /not signed|cannot be checked/)
    }).pipe(Effect.provide(Pki)))

  it.effect("is the same after a restart", () =>
    Effect.gen(function*() {
      const pin = Effect.map(CertificateAuthority, (authority) => authority.pin)
      const first = yield* Effect.provide(pin, Layer.fresh(CertificateAuthority.layer))
      const second = yield* Effect.provide(pin, Layer.fresh(CertificateAuthority.layer))
      assert.strictEqual(first, second)
    }).pipe(Effect.provide(memoryStore)))
})

describe("ClusterIdentity", () => {
  const enrolled = Effect.gen(function*() {
    const authority = yield* CertificateAuthority
    const identity = yield* ClusterIdentity
    const request = yield* identity.request(cluster)
    const certificate = yield* authority.signAgent({ csr: request.csr, cluster, uid })
    return yield* identity.accept(request, { certificate, authorities: authority.certificate })
  })

  it.effect("is kept, and gone when its certificate runs out", () =>
    Effect.gen(function*() {
      const identity = yield* ClusterIdentity
      assert.isTrue(Option.isNone(yield* identity.current))
      const accepted = yield* enrolled
      assert.strictEqual(accepted.cluster, cluster)
      const restarted = yield* Effect.provide(
        Effect.flatMap(ClusterIdentity, ({ current }) => current),
        Layer.fresh(ClusterIdentity.layer)
      )
      assert.strictEqual(Option.getOrThrow(restarted).uid, uid)
      yield* TestClock.adjust("24 hours")
      assert.isTrue(Option.isNone(yield* identity.current))
    }).pipe(Effect.provide(Pki)))

  it.effect("refuses a certificate for another key, and one that is no agent's", () =>
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const identity = yield* ClusterIdentity
      const request = yield* identity.request(cluster)
      const other = yield* identity.request(cluster)
      const certificate = yield* authority.signAgent({ csr: other.csr, cluster, uid })
      const answer = { certificate, authorities: authority.certificate }
      assert.match((yield* Effect.flip(identity.accept(request, answer))).message, /not the certificate's/)
      const server = yield* authority.issueServer(["localhost"])
      const wrongKind = yield* Effect.flip(
        identity.accept({ csr: "", key: server.key }, { ...answer, certificate: server.certificate })
      )
      assert.match(wrongKind.message, /not the certificate of an agent/)
      assert.isTrue(Option.isNone(yield* identity.current))
    }).pipe(Effect.provide(Pki)))

  it.effect("renews around two thirds of its life, spread", () =>
    Effect.gen(function*() {
      const notBefore = yield* DateTime.now
      const notAfter = DateTime.addDuration(notBefore, "24 hours")
      const times = yield* Effect.replicateEffect(renewAt({ notBefore, notAfter }), 200)
      const hours = times.map((time) => Duration.toHours(DateTime.distance(notBefore, time)))
      assert.isTrue(hours.every((hour) => hour >= 14.4 && hour <= 17.6))
      assert.isAbove(Math.max(...hours) - Math.min(...hours), 2)
    }))
})

describe("CredentialStore in files", () => {
  const inFolder = <A, E>(use: (folder: string) => Effect.Effect<A, E, CredentialStore | FileSystem.FileSystem>) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = `${yield* fs.makeTempDirectoryScoped()}/pki`
      return yield* Effect.provide(use(folder), CredentialStore.layerFiles(folder))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  const authority = Effect.provide(CertificateAuthority.use((ca) => ca.issueServer(["a"])), Layer.fresh(Pki))

  it.live("keeps them for their owner alone and leaves nothing else behind", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const store = yield* CredentialStore
        const fs = yield* FileSystem.FileSystem
        assert.isTrue(Option.isNone(yield* store.read("a")))
        const credential = yield* authority
        yield* store.create("a", credential)
        const read = Option.getOrThrow(yield* store.read("a"))
        assert.strictEqual(read.certificate, credential.certificate)
        assert.strictEqual(read.authorities, credential.authorities)
        assert.strictEqual(Redacted.value(read.key), Redacted.value(credential.key))
        assert.strictEqual(Number((yield* fs.stat(`${folder}/a.pem`)).mode) & 0o777, 0o600)
        assert.deepStrictEqual(yield* fs.readDirectory(folder), ["a.pem"])
      })
    ))

  it.live("has one winner when several create it at once, and replaces", () =>
    inFolder(() =>
      Effect.gen(function*() {
        const store = yield* CredentialStore
        const creators = Array.from({ length: 8 }, () => Effect.flatMap(authority, (it) => store.create("a", it)))
        const winners = yield* Effect.all(creators, { concurrency: "unbounded" })
        assert.strictEqual(new Set(winners.map(({ certificate }) => certificate)).size, 1)
        const next = yield* authority
        yield* store.replace("a", next)
        assert.strictEqual(Option.getOrThrow(yield* store.read("a")).certificate, next.certificate)
      })
    ))

  it.live("refuses a key others can read, and one that is damaged", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const store = yield* CredentialStore
        const fs = yield* FileSystem.FileSystem
        yield* store.create("a", yield* authority)
        yield* fs.chmod(`${folder}/a.pem`, 0o644)
        assert.match((yield* Effect.flip(store.read("a"))).message, /mode 644 lets others/)
        const one = yield* fs.readFileString(`${folder}/a.pem`)
        yield* fs.writeFileString(`${folder}/b.pem`, one.slice(0, 100), { mode: 0o600 })
        const damaged = yield* Effect.flip(store.read("b"))
        assert.match(damaged.message, /no X.509 certificate in PEM/)
        assert.isFalse(damaged.message.includes(one.slice(30, 60)))
      })
    ))
})
