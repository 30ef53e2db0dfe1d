import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as InCluster from "../../src/infra/kube/InCluster.ts"

const inPod = (host: string) =>
  Effect.provideService(
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnv({ env: { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: "443" } })
  )

const projected = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  yield* fs.writeFileString(`${folder}/token`, "first\n")
  yield* fs.writeFileString(`${folder}/ca.crt`, "CA")
  yield* fs.writeFileString(`${folder}/namespace`, "team\n")
  return folder
})

describe("inside a pod", () => {
  it.effect("the service account's current token is used", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* projected
      const connection = yield* inPod("10.96.0.1")(InCluster.connection({ folder, cluster: "here" }))
      assert.strictEqual(connection.server, "https://10.96.0.1:443")
      assert.strictEqual(connection.cluster, "here")
      const token = Effect.map(connection.identity, ({ authorization, tls }) => {
        assert.strictEqual(tls.ca, "CA")
        return authorization && Redacted.value(authorization)
      })
      assert.strictEqual(yield* token, "Bearer first")
      yield* fs.writeFileString(`${folder}/token`, "second\n")
      assert.strictEqual(yield* token, "Bearer first")
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* token, "Bearer second")
      yield* fs.writeFileString(`${folder}/token`, "third\n")
      yield* connection.refresh
      assert.strictEqual(yield* token, "Bearer third")
      assert.strictEqual(yield* InCluster.namespace({ folder }), "team")
      // The kubelet swaps the files by a symbolic link; between two reads they may be away for a moment.
      yield* fs.writeFileString(`${folder}/token`, "")
      yield* connection.refresh
      assert.include((yield* Effect.flip(connection.identity)).message, "it is empty")
      yield* fs.writeFileString(`${folder}/token`, "fourth")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* token, "Bearer fourth")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("IPv6 addresses get their brackets", () =>
    Effect.gen(function*() {
      const folder = yield* projected
      const connection = yield* inPod("fd00::1")(InCluster.connection({ folder }))
      assert.strictEqual(new URL(connection.server).host, "[fd00::1]")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("is told from outside", () =>
    Effect.gen(function*() {
      const folder = yield* projected
      const outside = yield* Effect.flip(InCluster.connection({ folder })).pipe(
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: {} }))
      )
      assert.include(outside.message, "KUBERNETES_SERVICE_HOST is missing")
      const unmounted = yield* Effect.flip(inPod("10.96.0.1")(InCluster.connection({ folder: `${folder}/none` })))
      assert.include(unmounted.message, "/none/token is missing")
    }).pipe(Effect.provide(NodeServices.layer)))
})
