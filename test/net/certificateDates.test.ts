/** Certificates that TLS shows and that are not as most are: with a date that is none, or without a subject. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { service as httpCall } from "../../src/infra/net/HttpCallNode.ts"
import { service as tlsPeer } from "../../src/infra/tls/TlsPeerNode.ts"
import { validityOf } from "../../src/infra/tls/validity.ts"
import { ofBundle } from "../../src/probes/kubernetes/certExpiry.ts"
import { mint, undated } from "../clusters/Mint.ts"
import { tlsServer } from "../clusters/TlsServer.ts"

const fresh = mint({ commonName: "shop", age: "1 days", left: "90 days" })

const bad = Effect.map(fresh, ({ cert, key }) => ({ cert: undated(cert), key }))

const UNREADABLE = "the certificate has a date that cannot be read"

const peer = (port: number) => tlsPeer.certificates({ host: "127.0.0.1", port, timeout: "20 seconds" })

describe("a certificate with a date that is none", () => {
  it.live("is a failure of whoever asks a server for its certificates", () =>
    Effect.gen(function*() {
      const { port } = yield* tlsServer(yield* bad)
      const { detail, kind } = yield* Effect.flip(peer(port))
      assert.deepStrictEqual({ detail, kind }, { detail: UNREADABLE, kind: "tls" })
    }).pipe(Effect.scoped), 30_000)

  it.live("is a failure of HTTP, verified or not", () =>
    Effect.gen(function*() {
      const { port } = yield* tlsServer(yield* bad)
      for (const insecure of [true, false]) {
        const { detail, kind, stage } = yield* Effect.flip(httpCall.send({
          url: new URL(`https://127.0.0.1:${port}/`),
          method: "GET",
          redirects: 0,
          timeout: "20 seconds",
          maximumBody: 1000,
          tls: { insecure }
        }))
        assert.deepStrictEqual({ detail, kind, stage }, { detail: UNREADABLE, kind: "tls", stage: "handshake" })
      }
    }).pipe(Effect.scoped), 30_000)

  it.live("is left out of a bundle", () =>
    Effect.gen(function*() {
      const { cert } = yield* fresh
      assert.deepStrictEqual(ofBundle(undated(cert)), Option.none())
      assert.deepStrictEqual(ofBundle(undated(cert) + cert), ofBundle(cert))
      assert.isTrue(Option.isSome(ofBundle(cert)))
    }))
})

describe("the validity of a certificate", () => {
  it("is not what Node makes of a date that cannot be read", () => {
    const date = new Date("2026-01-01T00:00:00Z")
    const text = "Jan  1 00:00:00 2026 GMT"
    const good = { validFrom: text, validFromDate: date, validTo: text, validToDate: date }
    assert.isTrue(Option.isSome(validityOf(good)))
    for (
      const bad of [
        { ...good, validTo: "Bad time value" },
        { ...good, validFrom: "Bad time value" },
        { ...good, validToDate: new Date(Number.NaN) }
      ]
    ) assert.deepStrictEqual(validityOf(bad), Option.none())
  })
})

describe("a certificate without a subject", () => {
  it.live("is shown as any other", () =>
    Effect.gen(function*() {
      const { port } = yield* tlsServer(yield* mint({ age: "1 days", left: "90 days" }))
      assert.deepStrictEqual((yield* peer(port)).map(({ issuer, subject }) => ({ issuer, subject })), [
        { issuer: "", subject: "" }
      ])
    }).pipe(Effect.scoped), 30_000)
})
