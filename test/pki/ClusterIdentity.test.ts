import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { CREDENTIAL, ClusterIdentity } from "../../src/infra/pki/ClusterIdentity.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"
import { undated } from "../clusters/Mint.ts"
import { memoryStore } from "./memoryStore.ts"

const UNREADABLE = "the credential in kubeprober-agent cannot be used: the certificate has a date that cannot be read"

describe("the identity of an agent", () => {
  it.live("is none whose certificate has a date that is none, answered or stored", () =>
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const identity = yield* ClusterIdentity
      const store = yield* CredentialStore
      const request = yield* identity.request("staging")
      const signed = yield* authority.signAgent({ csr: request.csr, cluster: "staging", uid: "1" })
      const certificate = undated(signed)
      const { certificate: authorities } = authority
      assert.strictEqual(
        (yield* Effect.flip(identity.accept(request, { certificate, authorities }))).message,
        UNREADABLE
      )
      assert.isTrue(Option.isNone(yield* identity.current))
      yield* store.replace(CREDENTIAL, { certificate, key: request.key, authorities })
      const again = yield* Effect.flip(Effect.scoped(Layer.build(Layer.fresh(ClusterIdentity.layer))))
      assert.strictEqual(again.message, UNREADABLE)
    }).pipe(
      Effect.provide(Layer.provideMerge(Layer.merge(CertificateAuthority.layer, ClusterIdentity.layer), memoryStore))
    ))
})
