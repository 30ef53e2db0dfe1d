import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import * as JoinToken from "../../src/infra/pki/JoinToken.ts"
import { JOIN_TOKEN_LIFE, JoinTokenStore, JoinTokens } from "../../src/infra/pki/JoinTokens.ts"
import { memoryStore } from "./memoryStore.ts"

const ClusterName = Schema.String.check(Schema.isPattern(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/u))
const Index = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 250 }))
const pin = Buffer.alloc(32, 7).toString("base64url")

describe("the text of a join token", () => {
  it.effect.prop("reads back as it was written", { cluster: ClusterName }, ({ cluster }) =>
    Effect.gen(function*() {
      const token = yield* JoinToken.generate(cluster, pin)
      const read = Result.getOrThrow(JoinToken.parse(Redacted.make(` ${Redacted.value(JoinToken.format(token))}\n`)))
      assert.deepStrictEqual({ ...read, secret: Redacted.value(read.secret) }, {
        ...token,
        secret: Redacted.value(token.secret)
      })
    }))

  it.effect.prop(
    "cut short anywhere is refused without being quoted",
    { length: Index },
    ({ length }) =>
      Effect.gen(function*() {
        const text = Redacted.value(JoinToken.format(yield* JoinToken.generate("staging", pin)))
        const cut = text.slice(0, Math.min(length, text.length - 1))
        const read = JoinToken.parse(Redacted.make(cut))
        assert.isTrue(Result.isFailure(read))
        const secret = text.split(".")[3] ?? ""
        if (Result.isFailure(read)) assert.isFalse(read.failure.message.includes(secret.slice(0, 8)))
      })
  )

  it.effect.prop(
    "with any one character changed is another token or none",
    { index: Index },
    ({ index }) =>
      Effect.gen(function*() {
        const text = Redacted.value(JoinToken.format(yield* JoinToken.generate("staging", pin)))
        const at = index % text.length
        const changed = `${text.slice(0, at)}${text[at] === "A" ? "B" : "A"}${text.slice(at + 1)}`
        const read = JoinToken.parse(Redacted.make(changed))
        if (Result.isSuccess(read)) assert.strictEqual(Redacted.value(JoinToken.format(read.success)), changed)
      })
  )

  it("says what is wrong with it", () => {
    const messages = ["", "hello", "kpj1.a.b", "kpj1.UPPER.b.c.d", `kpj1.a.AAAAAAAAAAAA.short.${pin}`].map((text) =>
      Result.match(JoinToken.parse(Redacted.make(text)), { onFailure: ({ detail }) => detail, onSuccess: () => "read" })
    )
    assert.deepStrictEqual(messages, [
      "it does not begin with kpj1.",
      "it does not begin with kpj1.",
      "it has 3 parts between dots instead of 5",
      "its second part is not the name of a cluster",
      "its fourth part, the secret, is damaged"
    ])
  })
})

const Tokens = JoinTokens.layer.pipe(
  Layer.provideMerge(Layer.merge(JoinTokenStore.layerMemory, CertificateAuthority.layer)),
  Layer.provide(memoryStore)
)

const key = new TextEncoder().encode("a public key")
const issued = Effect.fnUntraced(function*(cluster: string) {
  const tokens = yield* JoinTokens
  return Result.getOrThrow(JoinToken.parse((yield* tokens.issue(cluster)).token))
})
const faultOf = (effect: Effect.Effect<void, { readonly fault: string }>) =>
  Effect.map(Effect.flip(effect), ({ fault }) => fault)

describe("join tokens", () => {
  it.effect("are spent once, for one key", () =>
    Effect.gen(function*() {
      const tokens = yield* JoinTokens
      const token = yield* issued("staging")
      yield* tokens.check(token)
      yield* tokens.spend(token, key)
      // The answer was lost and the agent asks again.
      yield* tokens.spend(token, key)
      assert.strictEqual(yield* faultOf(tokens.spend(token, new TextEncoder().encode("another key"))), "used")
    }).pipe(Effect.provide(Tokens)))

  it.effect("are spent by one of many who try at once", () =>
    Effect.gen(function*() {
      const tokens = yield* JoinTokens
      const token = yield* issued("staging")
      const tries = Array.from({ length: 50 }, (_, n) => Effect.result(tokens.spend(token, Uint8Array.of(n))))
      const results = yield* Effect.all(tries, { concurrency: "unbounded" })
      assert.strictEqual(results.filter(Result.isSuccess).length, 1)
    }).pipe(Effect.provide(Tokens)))

  it.effect("open nothing when unknown, forged, foreign or expired", () =>
    Effect.gen(function*() {
      const tokens = yield* JoinTokens
      const token = yield* issued("staging")
      const other = yield* issued("staging")
      assert.strictEqual(yield* faultOf(tokens.check({ ...token, id: "AAAAAAAAAAAA" })), "unknown")
      assert.strictEqual(yield* faultOf(tokens.check({ ...token, secret: other.secret })), "unknown")
      assert.strictEqual(yield* faultOf(tokens.check({ ...token, cluster: "production" })), "foreign")
      yield* TestClock.adjust(JOIN_TOKEN_LIFE)
      assert.strictEqual(yield* faultOf(tokens.check(token)), "expired")
      // Who does not know the secret does not learn that there was such a token.
      assert.strictEqual(yield* faultOf(tokens.check({ ...token, secret: other.secret })), "unknown")
    }).pipe(Effect.provide(Tokens)))

  it.effect("carry the pin of the authority and are kept hashed", () =>
    Effect.gen(function*() {
      const authority = yield* CertificateAuthority
      const store = yield* JoinTokenStore
      const token = yield* issued("staging")
      assert.strictEqual(token.pin, authority.pin)
      const record = yield* Effect.flatMap(store.find(token.id), Effect.fromOption)
      assert.isFalse(JSON.stringify(record).includes(Redacted.value(token.secret)))
    }).pipe(Effect.provide(Tokens)))
})
