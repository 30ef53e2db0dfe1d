import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Schema } from "effect"
import { join } from "node:path"
import { CREDENTIAL_KEY, CREDENTIAL_NAME } from "../../src/infra/credentials/Credentials.ts"
import * as CredentialsNode from "../../src/infra/credentials/CredentialsNode.ts"
import { CredentialRef } from "../../src/probes/CredentialRef.ts"
import * as Prober from "./Prober.ts"

const read = (folder: string, credential: string, key: string) =>
  Effect.map(CredentialsNode.make(folder).read({ credential, key }), Redacted.value)

const refused = (folder: string, credential: string, key: string) => Effect.flip(read(folder, credential, key))

describe("credentials", () => {
  it("have the names of Secrets and of their keys, which lead nowhere else", () => {
    const isRef = Schema.is(CredentialRef)
    assert.isTrue(isRef({ credential: "shop-db.v2", key: "tls.crt" }))
    for (const name of ["", ".", "..", "../x", "a/b", "a..b", "/etc", "A", "a\0b", "x".repeat(254)]) {
      assert.isFalse(CREDENTIAL_NAME.test(name), JSON.stringify(name))
      assert.isFalse(isRef({ credential: name, key: "k" }))
    }
    for (const key of ["", ".", "..", "..data", "../x", "a/b", "a b", "x".repeat(254)]) {
      assert.isFalse(CREDENTIAL_KEY.test(key), JSON.stringify(key))
      assert.isFalse(isRef({ credential: "c", key }))
    }
  })

  it.live("are read as the kubelet mounts them, without the line break at their end, and anew each time", () =>
    Effect.scoped(Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* Prober.credentials({ "shop-db": { password: "one\n", "ca.crt": "a\nb\r\n" } })
      assert.strictEqual(yield* read(folder, "shop-db", "password"), "one")
      assert.strictEqual(yield* read(folder, "shop-db", "ca.crt"), "a\nb")
      // A rotation, as the kubelet does one: another folder, and the link put in the place of the old.
      const secret = join(folder, "shop-db")
      yield* fs.makeDirectory(join(secret, "..2026_01_02"))
      yield* fs.writeFileString(join(secret, "..2026_01_02", "password"), "two")
      yield* fs.symlink("..2026_01_02", join(secret, "..data_tmp"))
      yield* fs.rename(join(secret, "..data_tmp"), join(secret, "..data"))
      assert.strictEqual(yield* read(folder, "shop-db", "password"), "two")
    })).pipe(Effect.provide(NodeServices.layer)))

  it.live("that are not there say where they should be, and those that lead elsewhere are not read", () =>
    Effect.scoped(Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* Prober.credentials({ "shop-db": { password: "one", empty: "\n" } })
      assert.strictEqual((yield* refused(folder, "shop", "password")).path, join(folder, "shop", "password"))
      assert.include((yield* refused(folder, "shop-db", "user")).message, "--credentials")
      assert.include((yield* refused(folder, "shop-db", "empty")).detail, "empty")
      yield* fs.writeFileString(join(folder, "outside"), "not yours")
      for (const [credential, key] of [["..", "passwd"], ["shop-db", "../outside"], ["shop-db", "..data"]] as const) {
        const error = yield* refused(folder, credential, key)
        assert.strictEqual(error.path, "")
      }
      yield* fs.makeDirectory(join(folder, "shop-db", "folder"))
      assert.include((yield* refused(folder, "shop-db", "folder")).detail, "no file")
      yield* fs.writeFile(join(folder, "shop-db", "large"), new Uint8Array(1024 * 1024 + 1))
      assert.include((yield* refused(folder, "shop-db", "large")).detail, "longer")
    })).pipe(Effect.provide(NodeServices.layer)))
})
