/**
 * The master's join tokens: issues them, and lets each be spent once, for one cluster, within ten minutes.
 */
import { Context, DateTime, Duration, Effect, HashMap, Layer, Option, Redacted, Ref } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"
import { CertificateAuthority } from "./CertificateAuthority.ts"
import * as JoinToken from "./JoinToken.ts"
import { JoinTokenRefused } from "./PkiError.ts"

/** Long enough to paste a command, too short to be found in a shell history. */
export const JOIN_TOKEN_LIFE = Duration.minutes(10)

/** A token as the master keeps it. */
export interface JoinTokenRecord {
  readonly id: string
  readonly cluster: string
  /** SHA-256 of the secret, hex. 256 random bits need neither salt nor stretching. */
  readonly hash: string
  readonly expiresAt: DateTime.Utc
  /** Hash of the public key it was spent for. */
  readonly spentFor?: string | undefined
}

/** Where tokens are kept: memory here; what masters share when they are several. */
export class JoinTokenStore extends Context.Service<JoinTokenStore, {
  readonly insert: (record: JoinTokenRecord) => Effect.Effect<void>
  readonly find: (id: string) => Effect.Effect<Option.Option<JoinTokenRecord>>
  /** Marks the token spent for this key unless it is spent already, in one step; returns the key it is spent for. */
  readonly spend: (id: string, key: string) => Effect.Effect<Option.Option<string>>
}>()("kubeprober/pki/JoinTokenStore") {
  static readonly layerMemory = Layer.effect(
    JoinTokenStore,
    Effect.gen(function*() {
      const records = yield* Ref.make(HashMap.empty<string, JoinTokenRecord>())
      return JoinTokenStore.of({
        insert: Effect.fnUntraced(function*(record) {
          const now = yield* DateTime.now
          yield* Ref.update(
            records,
            (all) =>
              HashMap.filter(all, ({ expiresAt }) => DateTime.isGreaterThan(DateTime.addDuration(expiresAt, KEPT), now))
                .pipe(
                  HashMap.set(record.id, record)
                )
          )
        }),
        find: (id) => Effect.map(Ref.get(records), HashMap.get(id)),
        spend: (id, key) =>
          Ref.modify(records, (all) =>
            Option.match(HashMap.get(all, id), {
              onNone: () => [Option.none<string>(), all],
              onSome: (record) => {
                const spentFor = record.spentFor ?? key
                return [Option.some(spentFor), HashMap.set(all, id, { ...record, spentFor })]
              }
            }))
      })
    })
  )
}

/** How long an expired token can still be told from one that never was. */
export const KEPT = Duration.hours(1)

export class JoinTokens extends Context.Service<JoinTokens, {
  readonly issue: (cluster: string) => Effect.Effect<{
    readonly token: Redacted.Redacted<string>
    readonly expiresAt: DateTime.Utc
  }>
  /** Fails unless the token is good for this cluster and not spent; spends nothing. */
  readonly check: (presented: Presented) => Effect.Effect<void, JoinTokenRefused>
  /**
   * Spends the token for a public key. Spending it again for the same key succeeds, so that an agent whose answer was
   * lost can ask again.
   */
  readonly spend: (presented: Presented, publicKey: Uint8Array) => Effect.Effect<void, JoinTokenRefused>
}>()("kubeprober/pki/JoinTokens") {
  static readonly layer = Layer.effect(
    JoinTokens,
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const { pin } = yield* CertificateAuthority

      const issue = Effect.fn("JoinTokens.issue")(function*(cluster: string) {
        const token = yield* JoinToken.generate(cluster, pin)
        const expiresAt = DateTime.addDuration(yield* DateTime.now, JOIN_TOKEN_LIFE)
        yield* store.insert({ id: token.id, cluster, hash: hashOf(Redacted.value(token.secret)), expiresAt })
        return { token: JoinToken.format(token), expiresAt }
      })

      const check = Effect.fn("JoinTokens.check")(function*({ cluster, id, secret }: Presented) {
        const refuse = (fault: JoinTokenRefused["fault"]) => new JoinTokenRefused({ cluster, fault })
        const record = yield* store.find(id)
        // Compared even when there is none, so that the time taken tells nothing.
        const known = timingSafeEqual(
          Buffer.from(Option.match(record, { onNone: () => NO_HASH, onSome: ({ hash }) => hash }), "hex"),
          Buffer.from(hashOf(Redacted.value(secret)), "hex")
        )
        if (Option.isNone(record) || !known) return yield* refuse("unknown")
        if (record.value.cluster !== cluster) return yield* refuse("foreign")
        if (DateTime.isLessThanOrEqualTo(record.value.expiresAt, yield* DateTime.now)) return yield* refuse("expired")
      })

      const spend = Effect.fn("JoinTokens.spend")(function*(presented: Presented, publicKey: Uint8Array) {
        yield* check(presented)
        const key = createHash("sha256").update(publicKey).digest("hex")
        const spentFor = yield* store.spend(presented.id, key)
        if (!Option.contains(spentFor, key)) {
          return yield* new JoinTokenRefused({ cluster: presented.cluster, fault: "used" })
        }
      })

      return JoinTokens.of({ issue, check, spend })
    })
  )
}

/** What an agent presents. */
export interface Presented {
  readonly cluster: string
  readonly id: string
  readonly secret: Redacted.Redacted<string>
}

const hashOf = (secret: string): string => createHash("sha256").update(secret).digest("hex")

const NO_HASH = "0".repeat(64)
