/** Real links of real agents to a master whose state is in files. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, FileSystem, Layer, References, type Scope } from "effect"
import { Cluster } from "../../../src/infra/kube/resources/kubeprober.ts"
import { CertificateAuthority } from "../../../src/infra/pki/CertificateAuthority.ts"
import { CredentialStore } from "../../../src/infra/pki/CredentialStore.ts"
import { JoinTokens } from "../../../src/infra/pki/JoinTokens.ts"
import * as Sqlite from "../../../src/infra/sql/Sqlite.ts"
import * as JoinTokensSqlite from "../../../src/master/membership/JoinTokensSqlite.ts"
import * as MembershipDurable from "../../../src/master/membership/MembershipDurable.ts"
import { MemberStore } from "../../../src/master/membership/MemberStore.ts"
import { Resources } from "../../../src/master/Resources.ts"
import * as ResourcesSqlite from "../../../src/master/resources/ResourcesSqlite.ts"
import {
  AT_ONCE,
  eventually,
  failureOf,
  linked,
  newIdentity,
  startAgent,
  startMaster,
  until
} from "../../link/fixture.ts"

const stateIn = (folder: string) =>
  Layer.fresh(
    Layer.merge(MembershipDurable.layer, JoinTokens.layer).pipe(
      Layer.provideMerge(Layer.mergeAll(
        JoinTokensSqlite.layer,
        CertificateAuthority.layer,
        MemberStore.layerSqlite,
        ResourcesSqlite.layer({ namespace: "kubeprober" })
      )),
      Layer.provide(Layer.merge(
        Sqlite.layer({ file: `${folder}/state.db`, synchronous: "FULL" }),
        CredentialStore.layerFiles(`${folder}/pki`)
      ))
    )
  )

const inFolder = <A, E>(use: (folder: string) => Effect.Effect<A, E, NodeServices.NodeServices | Scope.Scope>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    return yield* use(yield* fs.makeTempDirectoryScoped())
  }).pipe(
    Effect.scoped,
    Effect.provide(NodeServices.layer),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

describe("a link", () => {
  it.live("goes at once when its Cluster is deleted, and does not come back", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const resources = yield* Resources
        yield* resources.apply(Cluster, { metadata: { name: "staging" }, spec: {} })
        const { agent, master } = yield* linked("staging")
        const deleted = yield* Clock.currentTimeMillis
        yield* resources.remove(Cluster, "staging")
        yield* until("the link is gone", Effect.map(master.links.size, (links) => links === 0))
        assert.isBelow((yield* Clock.currentTimeMillis) - deleted, AT_ONCE)
        const again = yield* startAgent({ port: master.port, identity: agent.identity })
        assert.match((yield* failureOf(again.client)).message, /staging/)
        assert.strictEqual(yield* master.links.size, 0)
      }).pipe(Effect.scoped, Effect.provide(stateIn(folder)))
    ))

  it.live("is there again after the master has begun anew, under the next number and without a token", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const identity = yield* newIdentity
        const first = yield* linked("staging", { identity }).pipe(
          Effect.map(({ link }) => link.epoch),
          Effect.scoped,
          Effect.provide(stateIn(folder))
        )
        const second = yield* Effect.gen(function*() {
          const master = yield* startMaster()
          yield* startAgent({ port: master.port, identity })
          return (yield* eventually(master.links.find("staging"))).epoch
        }).pipe(Effect.scoped, Effect.provide(stateIn(folder)))
        assert.deepStrictEqual([first, second], [1, 2])
      })
    ))
})
