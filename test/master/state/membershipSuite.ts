/** What every layer of Membership and of JoinTokenStore does. Each try works on names of its own. */
import { assert } from "@effect/vitest"
import { DateTime, type Duration, Effect, Option, Queue, Stream } from "effect"
import { Membership } from "../../../src/infra/link/Membership.ts"
import { JoinTokenStore } from "../../../src/infra/pki/JoinTokens.ts"
import { freshName } from "../../clusters/freshName.ts"

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
      const name = yield* freshName("admits")
      const member = yield* membership.add(name)
      assert.deepStrictEqual([member.cluster, member.revoked, member.epoch], [name, false, 0])
      assert.strictEqual((yield* membership.add(name)).uid, member.uid)
      assert.strictEqual((yield* membership.find(name)).uid, member.uid)
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
      const name = yield* freshName("numbers")
      const member = yield* membership.add(name)
      const opened = yield* Effect.all(Array.from({ length: 6 }, () => membership.openEpoch(member)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(opened.map(({ epoch }) => epoch).sort(), [1, 2, 3, 4, 5, 6])
      assert.strictEqual((yield* membership.find(name)).epoch, 6)
      assert.strictEqual(yield* tagOf(membership.openEpoch({ ...member, uid: "another" })), "Revoked")
      assert.strictEqual((yield* membership.openEpoch(member)).epoch, 7)
    })
  ],
  [
    "expels who is revoked, and lets the cluster in again under a new uid with higher numbers",
    Effect.scoped(Effect.gen(function*() {
      const membership = yield* Membership
      const name = yield* freshName("revoked")
      const seen = yield* expulsions
      const member = yield* membership.add(name)
      yield* membership.openEpoch(member)
      assert.isTrue(yield* membership.revoke(name))
      assert.isFalse(yield* membership.revoke("never-added"))
      assert.strictEqual(yield* Queue.take(seen), `${name} Revoked`)
      for (const attempt of [membership.find(name), membership.admit(member), membership.openEpoch(member)]) {
        assert.strictEqual(yield* tagOf(attempt), "Revoked")
      }
      const again = yield* membership.add(name)
      assert.notStrictEqual(again.uid, member.uid)
      assert.strictEqual(yield* tagOf(membership.admit(member)), "Revoked")
      assert.strictEqual((yield* membership.openEpoch(again)).epoch, 2)
    }))
  ],
  [
    "expels who is removed, and does not know them any more",
    Effect.scoped(Effect.gen(function*() {
      const membership = yield* Membership
      const name = yield* freshName("removed")
      const seen = yield* expulsions
      const member = yield* membership.add(name)
      assert.isTrue(yield* membership.remove(name))
      assert.isFalse(yield* membership.remove(name))
      assert.strictEqual(yield* Queue.take(seen), `${name} UnknownCluster`)
      assert.strictEqual(yield* tagOf(membership.openEpoch(member)), "UnknownCluster")
      assert.notStrictEqual((yield* membership.add(name)).uid, member.uid)
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
      const id = yield* freshName("Keep_Me-AAAA")
      const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
      yield* store.insert({ id, cluster: "staging", hash, expiresAt })
      const found = Option.getOrThrow(yield* store.find(id))
      assert.deepStrictEqual([found.id, found.cluster, found.hash, found.spentFor], [
        id,
        "staging",
        hash,
        undefined
      ])
      assert.isTrue(DateTime.Equivalence(found.expiresAt, expiresAt))
      assert.isTrue(Option.isNone(yield* store.find(id.toLowerCase())))
      assert.isTrue(Option.isNone(yield* store.spend(id.toLowerCase(), "key")))
    })
  ],
  [
    "lets one key of many have it, for good",
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const id = yield* freshName("spend-me-AAA")
      const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
      yield* store.insert({ id, cluster: "staging", hash, expiresAt })
      const keys = Array.from({ length: 8 }, (_, n) => `key-${n}`)
      const answers = yield* Effect.forEach(keys, (key) => store.spend(id, key), {
        concurrency: "unbounded"
      })
      const winners = new Set(answers.map(Option.getOrThrow))
      assert.strictEqual(winners.size, 1)
      const [winner] = winners
      assert.strictEqual(Option.getOrThrow(yield* store.find(id)).spentFor, winner)
      assert.deepStrictEqual(yield* store.spend(id, "late"), Option.fromUndefinedOr(winner))
    })
  ],
  [
    "removes a token an hour after its end, when the next one comes",
    Effect.gen(function*() {
      const store = yield* JoinTokenStore
      const now = yield* DateTime.now
      const insert = (id: string, ago: Duration.Input) =>
        store.insert({ id, cluster: "staging", hash, expiresAt: DateTime.subtractDuration(now, ago) })
      const [long, just, next] = [yield* freshName("long"), yield* freshName("just"), yield* freshName("next")]
      yield* insert(long, "61 minutes")
      yield* insert(just, "59 minutes")
      yield* insert(next, "0 minutes")
      assert.isTrue(Option.isNone(yield* store.find(long)))
      assert.isTrue(Option.isSome(yield* store.find(just)))
    })
  ]
]
