/** A credential store that lasts as long as the layer. */
import { Effect, HashMap, Layer, Ref } from "effect"
import type { Credential } from "../../src/infra/pki/Credential.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"

export const memoryStore = Layer.effect(
  CredentialStore,
  Effect.gen(function*() {
    const kept = yield* Ref.make(HashMap.empty<string, Credential>())
    return CredentialStore.of({
      read: (name) => Effect.map(Ref.get(kept), HashMap.get(name)),
      create: (name, credential) =>
        Ref.modify(kept, (all) => {
          const winner = HashMap.has(all, name) ? HashMap.getUnsafe(all, name) : credential
          return [winner, HashMap.set(all, name, winner)]
        }),
      replace: (name, credential) => Ref.update(kept, HashMap.set(name, credential))
    })
  })
)
