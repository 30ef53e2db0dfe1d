import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Redacted, Stream } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { SelfSubjectReview } from "../../src/infra/kube/resources/authentication.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import { eventually } from "./eventually.ts"
import * as ForwardProxy from "./ForwardProxy.ts"
import * as TcpProxy from "./TcpProxy.ts"
import * as TestCluster from "./TestCluster.ts"

const whoAmI = Effect.fnUntraced(function*(kube: Kube["Service"]) {
  const review = yield* kube.create(SelfSubjectReview, { metadata: {} })
  return review.status.userInfo.username
})

layer(TestCluster.layer("kube-connections").pipe(Layer.provideMerge(NodeServices.layer)), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("the connection pool", (it) => {
  it.effect("serves 200 requests in a row by at most two connections", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make((yield* LocalCluster).server)
      const kube = yield* KubeHttp.make(TestCluster.admin(yield* LocalCluster, proxy.server))
      yield* Effect.forEach(Array.from({ length: 200 }), () => kube.get(Namespace, { name: "default" }))
      assert.strictEqual(yield* kube.requests, 200)
      assert.isAtMost(proxy.accepted(), 2)
    }))

  it.effect("is bounded, and long streams leave room for requests", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make((yield* LocalCluster).server)
      const kube = yield* KubeHttp.make(TestCluster.admin(yield* LocalCluster, proxy.server))
      for (let opened = 1; opened <= 60; opened++) {
        yield* kube.watch(ConfigMap, { resourceVersion: "0", namespace: "default" }).pipe(
          Stream.runDrain,
          Effect.forkScoped
        )
        // One after the other: so many handshakes at once are more than a busy machine can do in time.
        if (opened <= 48) yield* eventually("the watch is there", Effect.sync(() => proxy.accepted() >= opened))
      }
      yield* Effect.forEach(
        Array.from({ length: 300 }),
        () => kube.get(Namespace, { name: "default" }),
        { concurrency: "unbounded" }
      )
      assert.isAbove(proxy.accepted(), 48)
      assert.isAtMost(proxy.accepted(), 68)
    }))

  it.effect("closes with its scope, streams included", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make((yield* LocalCluster).server)
      yield* Effect.scoped(Effect.gen(function*() {
        const kube = yield* KubeHttp.make(TestCluster.admin(yield* LocalCluster, proxy.server))
        const reader = yield* kube.reflect(ConfigMap, { namespace: "default" }).pipe(Stream.runHead)
        assert.strictEqual(reader._tag, "Some")
        yield* kube.get(Namespace, { name: "default" })
      }))
      yield* eventually("no connection is left", Effect.sync(() => proxy.open() === 0), 30)
    }))

  it.effect("is replaced when the client certificate is, without a failed request", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const proxy = yield* TcpProxy.make(cluster.server)
      const first = yield* cluster.issueClientCertificate({ user: "first" })
      const second = yield* cluster.issueClientCertificate({ user: "second" })
      let current = first
      const kube = yield* KubeHttp.make({
        cluster: cluster.name,
        server: proxy.server,
        identity: Effect.sync(() => ({
          tls: { ca: cluster.caCertPem, cert: current.cert, key: Redacted.make(current.key) }
        })),
        refresh: Effect.void
      })
      assert.strictEqual(yield* whoAmI(kube), "first")
      const rotate = Effect.sync(() => {
        current = second
      })
      const answers = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index),
        (index) => index === 30 ? Effect.andThen(rotate, whoAmI(kube)) : whoAmI(kube),
        { concurrency: 4 }
      )
      assert.strictEqual(answers.at(-1), "second")
      assert.deepStrictEqual(new Set(answers), new Set(["first", "second"]))
      const before = proxy.accepted()
      current = first
      yield* whoAmI(kube)
      yield* eventually("the old pool is closed", Effect.sync(() => proxy.open() === proxy.accepted() - before), 30)
    }))

  it.effect("uses the token its kubeconfig's file holds now, after one refusal", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const fs = yield* FileSystem.FileSystem
      const before = yield* freshName("before")
      const after = yield* freshName("after")
      for (const account of [before, after]) yield* cluster.kubectl(["create", "serviceaccount", account])
      const token = (account: string) =>
        Effect.map(cluster.kubectl(["create", "token", account, "--duration=10m"]), (text) => text.trim())
      const folder = yield* fs.makeTempDirectoryScoped()
      yield* fs.writeFileString(`${folder}/token`, `${yield* token(before)}\n`)
      yield* fs.writeFileString(`${folder}/ca.crt`, cluster.caCertPem)
      yield* fs.writeFileString(
        `${folder}/config`,
        JSON.stringify({
          "current-context": "c",
          "contexts": [{ name: "c", context: { cluster: "c", user: "u" } }],
          "clusters": [{ name: "c", cluster: { "server": cluster.server, "certificate-authority": "ca.crt" } }],
          "users": [{ name: "u", user: { tokenFile: "token" } }]
        })
      )
      const config = yield* KubeConfigFile.load({ path: `${folder}/config` })
      const kube = yield* KubeHttp.make(yield* config.connection())
      assert.strictEqual(yield* whoAmI(kube), `system:serviceaccount:default:${before}`)
      yield* cluster.kubectl(["delete", "serviceaccount", before])
      yield* fs.writeFileString(`${folder}/token`, yield* token(after))
      // The server caches what a token is for some seconds; until it refuses the old one there is no reason to read.
      yield* eventually(
        "the new token is used",
        Effect.map(whoAmI(kube), (name) => name === `system:serviceaccount:default:${after}`),
        30
      )
    }), 60_000)

  it.effect("impersonates, with several groups", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const kube = yield* KubeHttp.make({
        ...TestCluster.admin(cluster),
        headers: { "impersonate-user": "alice", "impersonate-group": ["one", "two"] }
      })
      const { userInfo } = (yield* kube.create(SelfSubjectReview, { metadata: {} })).status
      assert.strictEqual(userInfo.username, "alice")
      assert.includeMembers([...userInfo.groups], ["one", "two"])
    }))

  for (const kind of ["http", "socks5"] as const) {
    it.effect(`goes through a proxy by ${kind}`, () =>
      Effect.gen(function*() {
        const cluster = yield* LocalCluster
        const proxy = yield* ForwardProxy.make(kind)
        const kube = yield* KubeHttp.make({ ...TestCluster.admin(cluster), proxy: Redacted.make(proxy.url) })
        yield* kube.get(Namespace, { name: "default" })
        const watched = yield* Stream.runHead(kube.reflect(Namespace))
        assert.strictEqual(watched._tag, "Some")
        assert.deepStrictEqual(new Set(proxy.targets), new Set([new URL(cluster.server).host]))
      }))
  }

  it.effect("says how it could not reach a server", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const kindOf = Effect.fnUntraced(function*(connection: KubeConnection.KubeConnection, timeout?: "1 second") {
        const kube = yield* KubeHttp.make(connection, { timeout })
        const { reason } = yield* Effect.flip(kube.list(Namespace))
        return reason._tag === "Unreachable" ? reason.kind : reason._tag
      })
      const admin = TestCluster.admin(cluster)
      assert.strictEqual(yield* kindOf({ ...admin, server: "https://127.0.0.1:1" }), "refused")
      assert.strictEqual(yield* kindOf({ ...admin, server: "https://no-such-host.invalid" }), "dns")
      assert.strictEqual(
        yield* kindOf(KubeConnection.make({ cluster: "c", server: cluster.server, identity: { tls: {} } })),
        "tls"
      )
      assert.strictEqual(
        yield* kindOf(KubeConnection.make({
          cluster: "c",
          server: cluster.server,
          identity: { tls: { ca: cluster.caCertPem, serverName: "elsewhere.example.org" } }
        })),
        "tls"
      )
      assert.strictEqual(
        yield* kindOf(KubeConnection.make({
          cluster: "c",
          server: cluster.server,
          identity: { tls: { insecure: true }, authorization: Redacted.make("Bearer nobody") }
        })),
        "Unauthorized"
      )
      const frozen = yield* TcpProxy.make(cluster.server)
      frozen.freeze(true)
      assert.strictEqual(yield* kindOf(TestCluster.admin(cluster, frozen.server), "1 second"), "timeout")
    }))
})
