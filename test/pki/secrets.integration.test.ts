import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Option, Redacted } from "effect"
import { CREDENTIAL, CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"
import * as TestCluster from "../kube/TestCluster.ts"

layer(TestCluster.layer("pki-secrets"), { excludeTestServices: true, timeout: "2 minutes" })(
  "CredentialStore in Secrets",
  (it) => {
    it.effect("is one authority for masters that start at once, and the same after a restart", () =>
      Effect.gen(function*() {
        const pin = Effect.provide(
          Effect.map(CertificateAuthority, (authority) => authority.pin),
          Layer.fresh(CertificateAuthority.layer)
        )
        const pins = yield* Effect.all(Array.from({ length: 4 }, () => pin), { concurrency: "unbounded" })
        assert.strictEqual(new Set([...pins, yield* pin]).size, 1)
      }).pipe(Effect.provide(CredentialStore.layerSecrets("default"))))

    it.effect("replaces what it keeps", () =>
      Effect.gen(function*() {
        const store = yield* CredentialStore
        assert.isTrue(Option.isNone(yield* store.read("absent")))
        const issued = yield* Effect.provide(
          CertificateAuthority.use((authority) => authority.issueServer(["localhost"])),
          Layer.fresh(CertificateAuthority.layer)
        )
        yield* store.create("server", Option.getOrThrow(yield* store.read(CREDENTIAL)))
        yield* store.replace("server", issued)
        const read = Option.getOrThrow(yield* store.read("server"))
        assert.strictEqual(read.certificate, issued.certificate)
        assert.strictEqual(read.authorities, issued.authorities)
        assert.strictEqual(Redacted.value(read.key), Redacted.value(issued.key))
      }).pipe(Effect.provide(CredentialStore.layerSecrets("default"))))
  }
)
