/**
 * The agent's identity: a key made here that never leaves, the certificate the master signed for it, and when to ask
 * for the next.
 */
import { Context, DateTime, Duration, Effect, Layer, Option, Random, type Redacted, Ref, Result } from "effect"
import { UNREADABLE_DATE, type Validity, validityOf } from "../tls/validity.ts"
import { type AgentName, read as readName } from "./AgentName.ts"
import { type Credential, readCertificate, verify } from "./Credential.ts"
import { CredentialStore } from "./CredentialStore.ts"
import * as Keys from "./keys.ts"
import { type CredentialStoreError, InvalidCredential } from "./PkiError.ts"
import * as x509 from "./x509.ts"

/** The name under which the {@link CredentialStore} keeps the identity. */
export const CREDENTIAL = "kubeprober-agent"

/** A certificate in force. */
export interface Identity extends AgentName, Validity {
  readonly credential: Credential
}

/** A new key, and the request that proves it is ours. */
export interface CertificateRequest {
  /** PKCS #10, PEM. */
  readonly csr: string
  readonly key: Redacted.Redacted<string>
}

export class ClusterIdentity extends Context.Service<ClusterIdentity, {
  /** The identity, unless there is none yet or its certificate has run out. */
  readonly current: Effect.Effect<Option.Option<Identity>>
  /** Makes a key and asks for a certificate of `cluster`; the key is kept only once {@link accept} has the answer. */
  readonly request: (cluster: string) => Effect.Effect<CertificateRequest>
  /** Keeps what the master signed. Fails when it is not for the key that was asked for. */
  readonly accept: (
    request: CertificateRequest,
    answer: { readonly certificate: string; readonly authorities: string }
  ) => Effect.Effect<Identity, InvalidCredential | CredentialStoreError>
}>()("kubeprober/pki/ClusterIdentity") {
  static readonly layer = Layer.effect(
    ClusterIdentity,
    Effect.gen(function*() {
      const store = yield* CredentialStore
      const stored = yield* store.read(CREDENTIAL)
      const identity = yield* Ref.make(
        Option.isNone(stored) ? Option.none<Identity>() : Option.some(yield* inspect(stored.value))
      )

      const current = Effect.gen(function*() {
        const now = yield* DateTime.now
        return Option.filter(yield* Ref.get(identity), ({ notAfter }) => DateTime.isGreaterThan(notAfter, now))
      })

      const request = Effect.fn("ClusterIdentity.request")(function*(cluster: string) {
        const keys = yield* Keys.generate
        const csr = yield* Effect.promise(() =>
          x509.Pkcs10CertificateRequestGenerator.create({
            name: [{ CN: [cluster] }],
            keys,
            signingAlgorithm: Keys.P256
          })
        )
        return { csr: `${csr.toString("pem")}\n`, key: yield* Keys.toPem(keys.privateKey) }
      })

      const accept = Effect.fn("ClusterIdentity.accept")(function*(
        { key }: CertificateRequest,
        answer: { readonly certificate: string; readonly authorities: string }
      ) {
        const accepted = yield* inspect(yield* verify({ ...answer, key }, "the master's answer"))
        yield* store.replace(CREDENTIAL, accepted.credential)
        yield* Ref.set(identity, Option.some(accepted))
        return accepted
      })

      return ClusterIdentity.of({ current, request, accept })
    })
  )
}

const inspect = Effect.fnUntraced(function*(credential: Credential): Effect.fn.Return<Identity, InvalidCredential> {
  const certificate = yield* readCertificate(credential.certificate, CREDENTIAL)
  const name = readName(certificate)
  if (Result.isFailure(name)) return yield* new InvalidCredential({ source: CREDENTIAL, detail: name.failure })
  const validity = validityOf(certificate)
  if (Option.isNone(validity)) return yield* new InvalidCredential({ source: CREDENTIAL, detail: UNREADABLE_DATE })
  return { ...name.success, ...validity.value, credential }
})

/**
 * When to renew: two thirds into the certificate's life, give or take a tenth of that, so that agents enrolled together
 * do not renew together. Leaves at least a quarter of the life for retries.
 */
export const renewAt = Effect.fnUntraced(function*(identity: Pick<Identity, "notBefore" | "notAfter">) {
  const life = DateTime.distance(identity.notBefore, identity.notAfter)
  const share = yield* Random.nextBetween(0.6, 0.733)
  return DateTime.addDuration(identity.notBefore, Duration.times(life, share))
})
