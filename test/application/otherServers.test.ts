/** `app.http` before servers that are not as most are: small ones of Node's, each of which does one thing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import type * as Net from "node:net"
import * as Zlib from "node:zlib"
import * as Dial from "../../src/infra/net/DialNode.ts"
import type { NetStage } from "../../src/infra/net/NetError.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import { type HttpConfig, http } from "../../src/probes/application/http.ts"
import { tcp } from "../../src/probes/application/tcp.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { blind, fault } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

interface Listening extends Pick<Net.Server, "listen" | "close" | "address"> {
  readonly closeAllConnections?: () => void
}

/** Listens on 127.0.0.1 until the scope ends; its port. */
const listening = (server: Listening): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
    () =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections?.()
      })
  )

/** Answers everything with these bytes. */
const answering = (bytes: string | Buffer) =>
  Effect.map(
    Application.listener((socket) => socket.once("data", () => socket.end(bytes))),
    (port) => `http://127.0.0.1:${port}/`
  )

const ask = (config: typeof HttpConfig.Encoded) => Application.run(Probe.configure(http, { retries: 0, ...config }))

const verdictOf = (config: typeof HttpConfig.Encoded) =>
  Effect.map(ask(config), (report) => `${Application.verdict(report)} ${report.message}`)

const isOk = { json: [{ path: "$.status", equals: "ok" }] }
const OK = "{\"status\":\"ok\"}"

const tlsPair = Effect.gen(function*() {
  const authority = yield* Certificates.makeAuthority("shop-ca")
  const pair = yield* authority.issue({ commonName: "shop", ipAddresses: ["127.0.0.1"] })
  return { ca: authority.cert, key: pair.key, cert: pair.cert }
})

describe("answers that users' programs read", () => {
  for (
    const [name, encode] of [
      ["gzip", Zlib.gzipSync],
      ["br", Zlib.brotliCompressSync],
      ["deflate", Zlib.deflateSync],
      ["zstd", Zlib.zstdCompressSync]
    ] as const
  ) {
    it.live(`compressed by ${name}, which nobody asked for`, () =>
      Effect.scoped(Effect.gen(function*() {
        const asked: Array<string | undefined> = []
        const port = yield* listening(Http.createServer((request, response) => {
          asked.push(request.headers["accept-encoding"]?.toString())
          response.setHeader("content-encoding", name).end(encode(Buffer.from(OK)))
        }))
        assert.match(yield* verdictOf({ url: `http://127.0.0.1:${port}/`, expect: isOk }), /^PASS/u)
        assert.deepStrictEqual(asked, ["identity"])
      })))
  }

  it.live("compressed beyond what is read, and so cut", () =>
    Effect.scoped(Effect.gen(function*() {
      const body = Zlib.gzipSync(Buffer.alloc(8 * 1024 * 1024, "x"))
      const port = yield* listening(
        Http.createServer((_, response) => void response.setHeader("content-encoding", "gzip").end(body))
      )
      const url = `http://127.0.0.1:${port}/`
      assert.match(yield* verdictOf({ url, expect: { body: "^x+$" } }), /^PASS/u)
      assert.match(yield* verdictOf({ url, expect: isOk }), /^ERROR ANSWER_UNEXPECTED .* too long/u)
    })))

  it.live("without a body, where one would be compressed", () =>
    Effect.scoped(Effect.gen(function*() {
      const port = yield* listening(
        Http.createServer((_, response) => void response.setHeader("content-encoding", "gzip").writeHead(204).end())
      )
      assert.match(yield* verdictOf({ url: `http://127.0.0.1:${port}/` }), /^PASS/u)
      assert.match(yield* verdictOf({ url: `http://127.0.0.1:${port}/`, method: "HEAD" }), /^PASS/u)
    })))

  it.live("with a byte order mark, long headers, or bare line ends", () =>
    Effect.scoped(Effect.gen(function*() {
      const bodies = {
        mark: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\uFEFF{\"status\":\"ok\"}",
        long: `HTTP/1.1 200 OK\r\nContent-Security-Policy: ${"x".repeat(17_000)}\r\nConnection: close\r\n\r\n${OK}`,
        bare: `HTTP/1.0 200 OK\nContent-Type: text/plain\n\n${OK}`
      }
      for (const [name, bytes] of Object.entries(bodies)) {
        assert.match(yield* verdictOf({ url: yield* answering(bytes), expect: isOk }), /^PASS/u, name)
      }
    })))

  it.live(
    fault(http, "HTTP_GARBLED", "a body that is not compressed as it says"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const url = yield* answering(`HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\n${OK}`)
        assert.match(yield* verdictOf({ url }), /^ERROR HTTP_GARBLED .*the body is not gzip/u)
      }))
  )
})

describe("servers that want what is not offered", () => {
  it.live(
    blind(http, "CHECKER_FAILED", "one that speaks HTTP/2 only, with TLS and without"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { ca, ...pair } = yield* tlsPair
        const secure = yield* listening(Http2.createSecureServer({ ...pair, allowHTTP1: false }))
        const plain = yield* listening(Http2.createServer())
        const overTls = yield* verdictOf({ url: `https://127.0.0.1:${secure}/`, tls: { ca } })
        assert.match(overTls, /^UNKNOWN CHECKER_FAILED .*HTTP\/2 only/u)
        assert.match(yield* verdictOf({ url: `http://127.0.0.1:${plain}/` }), /^UNKNOWN CHECKER_FAILED .*HTTP\/2 only/u)
      }))
  )

  it.live(
    blind(http, "CHECKER_FAILED", "one that wants a client certificate"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { ca, ...pair } = yield* tlsPair
        const port = yield* listening(
          Https.createServer(
            { ...pair, ca, requestCert: true, rejectUnauthorized: true },
            (_, response) => void response.end("ok")
          )
        )
        const said = yield* verdictOf({ url: `https://127.0.0.1:${port}/`, tls: { ca } })
        assert.match(said, /^UNKNOWN CHECKER_FAILED .*client certificate/u)
      }))
  )

  it.live(
    fault(http, "TLS_FAILED", "one whose handshake fails for everybody, with an alert"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { ca, ...pair } = yield* tlsPair
        // Its certificate is of another kind of key than the only cipher it takes.
        const port = yield* listening(
          Https.createServer({ ...pair, maxVersion: "TLSv1.2", ciphers: "ECDHE-RSA-AES128-GCM-SHA256" })
        )
        const report = yield* ask({ url: `https://127.0.0.1:${port}/`, tls: { ca } })
        assert.strictEqual(Application.verdict(report), "ERROR TLS_FAILED", report.message)
        assert.strictEqual(report.blame, "target")
      }))
  )

  it.live(blind(http, "INVALID_CONFIG", "authorities to trust that are none"), () =>
    Effect.gen(function*() {
      const report = yield* ask({ url: "https://127.0.0.1:1/", tls: { ca: "garbage" } })
      assert.strictEqual(Application.verdict(report), "UNKNOWN INVALID_CONFIG", report.message)
    }))
})

describe("a redirect to another origin", () => {
  it.live("takes no Host header along", () =>
    Effect.scoped(Effect.gen(function*() {
      const hosts: Array<string | undefined> = []
      const target = yield* listening(Http.createServer((request, response) => {
        hosts.push(request.headers.host)
        response.end("ok")
      }))
      const first = yield* listening(Http.createServer((request, response) => {
        hosts.push(request.headers.host)
        response.writeHead(302, { location: `http://localhost:${target}/` }).end()
      }))
      const said = yield* verdictOf({ url: `http://127.0.0.1:${first}/`, headers: { Host: "shop.example.com" } })
      assert.match(said, /^PASS/u)
      assert.deepStrictEqual(hosts, ["shop.example.com", `localhost:${target}`])
    })))
})

describe("what cannot be asked", () => {
  const errorOf = (stage: NetStage) => Effect.flip(Dial.tooLate("shop:80", () => stage, "3 seconds")())
  const failed = (code: string) => Dial.failure("shop:80", "connect")(Object.assign(new Error(code), { code })).kind

  it.effect("for name servers that are silent is ours, and no closed port", () =>
    Effect.gen(function*() {
      const error = yield* errorOf("name")
      assert.strictEqual(error.kind, "dns")
      assert.strictEqual((yield* errorOf("connect")).kind, "timeout")
      assert.strictEqual((yield* errorOf("answer")).kind, "timeout")
    }))

  it("for want of files or addresses of our own is ours; a host that is gone is not", () => {
    for (const code of ["EMFILE", "ENFILE", "EADDRNOTAVAIL", "EAFNOSUPPORT"]) {
      assert.strictEqual(failed(code), "unknown")
    }
    for (const code of ["ENETUNREACH", "EACCES", "EPERM"]) assert.strictEqual(failed(code), "unreachable")
    for (const code of ["EHOSTUNREACH", "EHOSTDOWN"]) assert.strictEqual(failed(code), "timeout")
    assert.strictEqual(failed("ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE"), "tls")
  })

  it("of several addresses is what says most of the other side", () => {
    const errors = ["ENETUNREACH", "ETIMEDOUT", "ECONNREFUSED"].map((code) => Object.assign(new Error(code), { code }))
    const both = Object.assign(new AggregateError(errors), { code: "ENETUNREACH" })
    assert.strictEqual(Dial.failure("shop:80", "connect")(both).kind, "refused")
  })

  it.live("is told of a port that must be closed", () =>
    Effect.gen(function*() {
      const report = yield* Application.run(
        Probe.configure(tcp, { targets: [{ address: "nowhere.kubeprober.invalid:22", must: "closed" }] })
      )
      assert.strictEqual(Application.verdict(report), "UNKNOWN NAME_UNRESOLVED", report.message)
    }))
})
