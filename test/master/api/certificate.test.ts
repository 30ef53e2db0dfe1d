import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, FileSystem, Layer, Path, Redacted, References } from "effect"
import { TestClock } from "effect/testing"
import { connect } from "node:tls"
import { CertificateAuthority } from "../../../src/infra/pki/CertificateAuthority.ts"
import { ApiServer } from "../../../src/master/api/ApiServer.ts"
import { memoryStore } from "../../pki/memoryStore.ts"
import { apiWith, embedded } from "./apiFixture.ts"

/** What a server shows, checked against this authority. */
const shown = (port: number, ca: string) =>
  Effect.callback<string, Error>((resume) => {
    const socket = connect({ host: "127.0.0.1", port, ca }, () => {
      resume(Effect.succeed(socket.getPeerX509Certificate()?.serialNumber ?? "none"))
      socket.destroy()
    })
    socket.on("error", (cause) => resume(Effect.fail(cause)))
    return Effect.sync(() => socket.destroy())
  })

/** Certificates are of now. */
const now = Layer.effectDiscard(Effect.flatMap(TestClock.withLive(Clock.currentTimeMillis), TestClock.setTime))

const own = CertificateAuthority.layer.pipe(Layer.provide([memoryStore, now]), Layer.fresh)

/** A certificate of an authority of one's own, in files. */
const files = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const authority = yield* CertificateAuthority
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
  const certificate = path.join(folder, "tls.crt")
  const key = path.join(folder, "tls.key")
  const issue = Effect.map(authority.issueServer(["127.0.0.1"]), (issued) =>
    Effect.andThen(
      fs.writeFileString(certificate, issued.certificate),
      fs.writeFileString(key, Redacted.value(issued.key))
    ))
  yield* Effect.flatten(issue)
  // Issued before the test's clock goes ahead of the world's.
  return { certificate, key, renew: yield* issue, ca: authority.certificate }
})

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

describe("the API's certificate", () => {
  it.effect("is somebody else's when files are given, and follows them; what cannot be used is left alone", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { ca, renew, ...pair } = yield* files
      yield* Effect.gen(function*() {
        const server = yield* ApiServer
        assert.isUndefined(server.ca)
        const first = yield* shown(server.port, ca)
        yield* fs.writeFileString(pair.key, "no key")
        const inAMinute = Effect.andThen(TestClock.adjust("1 minute"), shown(server.port, ca))
        const later = yield* Effect.forEach(Array.from({ length: 20 }), () => inAMinute)
        assert.deepStrictEqual([...new Set(later)], [first])
        yield* renew
        // A handshake gives the reading of the files its time.
        const renewed = yield* Effect.repeat(inAMinute, { until: (serial) => serial !== first, times: 200 })
        assert.notStrictEqual(renewed, first)
      }).pipe(Effect.provide(Layer.fresh(apiWith(embedded, { files: pair }))))
    }).pipe(Effect.scoped, Effect.provide([own, NodeServices.layer]), quietly))

  it.effect("must fit its key, or the master does not start", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([files, files])
      const error = yield* Effect.flip(Layer.build(Layer.fresh(
        apiWith(embedded, { files: { certificate: one.certificate, key: other.key } })
      )))
      assert.strictEqual(error._tag, "ApiServerError")
      assert.include(error.message, "127.0.0.1:0")
    }).pipe(Effect.scoped, Effect.provide([own, NodeServices.layer]), quietly))

  it.live("is of the master's own authority otherwise", () =>
    Effect.gen(function*() {
      const { ca, port } = yield* ApiServer
      assert.match(yield* shown(port, ca ?? ""), /^[0-9A-F]+$/u)
    }).pipe(Effect.provide(Layer.fresh(apiWith(embedded))), quietly))
})
