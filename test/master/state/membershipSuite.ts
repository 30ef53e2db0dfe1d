/** What every layer of Membership and of JoinTokenStore does. Each works on names of its own. */
import { assert } from "@effect/vitest"
import { DateTime, type Duration, Effect, Option, Queue, Stream } from "effect"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"

/** Those who lose their place from now on, as `<cluster> <why>`. */
export const expulsions = Effect.gen(function*() {
  const seen = yield* Queue.unbounded<string>()
  const expelled = yield* (yield* Membership).expelled
  yield* expelled.pipe(
    Stream.runForEach(({ member, why }) => Queue.offer(seen, `${member.cluster} ${why._tag}`)),
    Effect.forkScoped
  )
  return seen
})

export const tagOf = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
  Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "admitted" })

export const membershipSuite: ReadonlyArray<
  readonly [name: string, Effect.Effect<void, unknown, Membership>]
> = [
  [
    "admits its members by name and uid, and nobody else",
    Effect.gen(function*() {
      const membership = yield* Membership
      const member = yield* membership.add("admits")
      assert.deepStrictEqual([member.cluster, member.revoked, member.epoch], ["admits", false, 0])
      assert.strictEqual((yield* membership.add("admits")).uid, member.uid)
      assert.strictEqual((yield* membership.find("admits")).uid, member.uid)
      assert.strictEqual((yield* membership.admit(member)).uid, member.uid)
      assert.strictEqual(yield* tagOf(membership.admit({ ...member, uid: "another" })), "Revoked")
      assert.strictEqual(yield* tagOf(membership.find("never-added")), "UnknownCluster")
      assert.strictEqual(
        yield* tagOf(membership.openEpoch({ cluster: "never-added", uid: member.uid })),
        "UnknownCluster"
      )
    })
  ],
  [
    "numbers links without gaps or repetitions, also of many who come at once",
    Effect.gen(function*() {
      const membership = yield* Membership
      const member = yield* membership.add("numbers")
      const opened = yield* Effect.all(Array.from({ length: 6 }, () => membership.openEpoch(member)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(opened.map(({ epoch }) => epoch).sort(), [1, 2, 3, 4, 5, 6])
      assert.strictEqual((yield* membership.find("numbers")).epoch, 6)
      assert.strictEqual(yield* tagOf(membership.openEpoch({ ...member, uid: "another" })), "Revoked")
      assert.strictEqual((yield* membership.openEpoch(member)).epoch, 7)
    })
  ],
  [
    "expels who is revoked, and lets the cluster in again under a new uid with higher numbers",
    Effect.scoped(Effect.gen(function*() {
      const membership = yield* Membership
      const seen = yield* expulsions
      const member = yield* membership.add("revoked")
      yield* membership.openEpoch(member)
      assert.isTrue(yield* membership.revoke("revoked"))
      assert.isFalse(yield* membership.revoke("never-added"))
      assert.strictEqual(yield* Queue.take(seen), "revoked Revoked")
      for (const attempt of [membership.find("revoked"), membership.admit(member), membership.openEpoch(member)]) {
        assert.strictEqual(yield* tagOf(attempt), "Revoked")
      }
      const again = yield* membership.add("revoked")
      assert.notStrictEqual(again.uid, member.uid)
      assert.strictEqual(yield* tagOf(membership.admit(member)), "Revoked")
      assert.strictEqual((yield* membership.openEpoch(again)).epoch, 2)
    }))
  ],
  [
    "expels who is removed, and does not know them any more",
    Effect.scoped(Effect.gen(function*() {
      const membership = yield* Membership
      const seen = yield* expulsions
      const member = yield* membership.add("removed")
      assert.isTrue(yield* membership.remove("removed"))
      assert.isFalse(yield* membership.remove("removed"))
      assert.strictEqual(yield* Queue.take(seen), "removed UnknownCluster")
      assert.strictEqual(yield* tagOf(membership.openEpoch(member)), "UnknownCluster")
      assert.notStrictEqual((yield* membership.add("removed")).uid, member.uid)
    }))
  ]
]

const hash = "ab".repeat(32)

export const joinTokenSuite: ReadonlyArray<
  readonly [name: string, Effect.Effect<void, unknown, JoinTokenStore>]
> = [
  [
    "keeps a token as it is",
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
      yield* store.insert({ id: "Keep_Me-AAAA", cluster: "staging", hash, expiresAt })
      const found = Option.getOrThrow(yield* store.find("Keep_Me-AAAA"))
      assert.deepStrictEqual([found.id, found.cluster, found.hash, found.spentFor], [
        "Keep_Me-AAAA",
        "staging",
        hash,
        undefined
      ])
      assert.isTrue(DateTime.Equivalence(found.expiresAt, expiresAt))
      assert.isTrue(Option.isNone(yield* store.find("keep_me-aaaa")))
      assert.isTrue(Option.isNone(yield* store.spend("keep_me-aaaa", "key")))
    })
  ],
  [
    "lets one key of many have it, for good",
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
      yield* store.insert({ id: "spend-me-AAA", cluster: "staging", hash, expiresAt })
      const keys = Array.from({ length: 8 }, (_, n) => `key-${n}`)
      const answers = yield* Effect.forEach(keys, (key) => store.spend("spend-me-AAA", key), {
        concurrency: "unbounded"
      })
      const winners = new Set(answers.map(Option.getOrThrow))
      assert.strictEqual(winners.size, 1)
      const [winner] = winners
      assert.strictEqual(Option.getOrThrow(yield* store.find("spend-me-AAA")).spentFor, winner)
      assert.deepStrictEqual(yield* store.spend("spend-me-AAA", "late"), Option.fromUndefinedOr(winner))
    })
  ],
  [
    "removes a token an hour after its end, when the next one comes",
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const now = yield* DateTime.now
      const insert = (id: string, ago: Duration.Input) =>
        store.insert({ id, cluster: "staging", hash, expiresAt: DateTime.subtractDuration(now, ago) })
      yield* insert("long-expired", "61 minutes")
      yield* insert("just-expired", "59 minutes")
      yield* insert("next-token-A", "0 minutes")
      assert.isTrue(Option.isNone(yield* store.find("long-expired")))
      assert.isTrue(Option.isSome(yield* store.find("just-expired")))
    })
  ]
]
