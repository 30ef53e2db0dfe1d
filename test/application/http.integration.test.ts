import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import type { Report } from "../../src/domain/Report.ts"
import type { KeyPairPem } from "../../src/local/Certificates.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import { type HttpConfig, http } from "../../src/probes/application/http.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { mint } from "../clusters/Mint.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

const SECRET = "s3cr3t-token+/with=signs"

/** What the site says. */
interface Site {
  readonly status?: number
  readonly body?: string
  readonly extra?: string
}

const make = Effect.gen(function*() {
  const nginx = yield* Application.nginx
  const { plain, secure } = yield* Application.ports("plain", "secure")
  const credentials = yield* Application.credentials
  const authority = yield* Certificates.makeAuthority("shop-ca")
  const good = yield* authority.issue({ commonName: "shop", ipAddresses: ["127.0.0.1"], dnsNames: ["localhost"] })
  yield* nginx.file("slow.txt", "x".repeat(4000))
  yield* nginx.file("users", "prober:{PLAIN}right\n")
  const certificate = Effect.fnUntraced(function*(pair: KeyPairPem) {
    yield* nginx.file("site.crt", pair.cert)
    yield* nginx.file("site.key", pair.key)
  })
  yield* certificate(good)
  const serve = ({ body = "{\"status\":\"ok\",\"items\":[1,2]}", extra = "", status = 200 }: Site = {}) => {
    const site = `
      location = /health { default_type application/json; return ${status} '${body}'; }
      location = /moved { return 302 /health; }
      location = /slow.txt { limit_rate 2000; }
      location = /cut { return 444; }
      location = /private { auth_basic shop; auth_basic_user_file users; try_files /slow.txt =404; }
      location = /token { if ($http_authorization != "Bearer ${SECRET}") { return 401; } return 200 welcome; }
      location = /echo { return 500 "you sent $http_authorization"; }
      ${extra}`
    return nginx.serve(`
      server { listen 127.0.0.1:${plain}; ${site} }
      server { listen 127.0.0.1:${secure} ssl; ssl_certificate site.crt; ssl_certificate_key site.key; ${site} }`)
  }
  yield* serve()
  return {
    serve,
    certificate,
    authority,
    good,
    plain: `http://127.0.0.1:${plain}`,
    secure: `https://127.0.0.1:${secure}`,
    credentials
  }
})

class Shop extends Context.Service<Shop, Effect.Success<typeof make>>()("kubeprober/test/Shop") {
  static readonly layer = Layer.effect(Shop, make).pipe(Layer.provideMerge(NodeServices.layer))
}

/** Without second tries, which the tests that want them ask for. */
const ask = (config: typeof HttpConfig.Encoded, world?: ProbeWorld.ProbeWorld) =>
  Application.run(Probe.configure(http, { retries: 0, ...config }), world)

const said = (report: Report, verdict: string) => {
  assert.strictEqual(Application.verdict(report), verdict, report.message)
  return report
}

const blames = (report: Report, url: string) =>
  assert.deepStrictEqual(report.findings[0]?.subject, { kind: "URL", name: url })

describe("app.http", () => {
  layer(Shop.layer, { excludeTestServices: true, timeout: "60 seconds" })("on real servers", (it) => {
    it.effect(healthy(http, "an endpoint of nginx, with the time of each stage"), () =>
      Effect.gen(function*() {
        const { authority, plain, secure } = yield* Shop
        const report = said(
          yield* ask({
            url: `${plain}/health`,
            expect: {
              status: [200],
              body: "\"status\":\\s*\"ok\"",
              json: [{ path: "$.items[1]", equals: 2 }],
              headers: { "content-type": "json" }
            }
          }),
          "PASS"
        )
        assert.match(report.message, /answered 200 in \d+ ms: name \d+, connect \d+, TLS 0, first byte \d+ ms/)
        const tls = said(yield* ask({ url: `${secure}/moved`, tls: { ca: authority.cert } }), "PASS")
        assert.match(tls.message, /answered 200/)
        said(
          yield* ask({ url: `${secure.replace("127.0.0.1", "localhost")}/health`, tls: { ca: authority.cert } }),
          "PASS"
        )
      }))

    it.effect("asks nothing of a configuration without a URL, and refuses one that is wrong", () =>
      Effect.gen(function*() {
        said(yield* Application.run(http), "INFO NOT_APPLICABLE")
        const { plain } = yield* Shop
        for (
          const config of [
            { url: "ftp://example.com" },
            { url: "https://me:secret@example.com" },
            { url: plain, expect: { body: "(" } },
            { url: plain, expect: { json: [{ path: "status" }] } },
            { url: plain, basic: "shop", tls: { insecure: true } }
          ]
        ) said(yield* ask(config), "UNKNOWN INVALID_CONFIG")
      }))

    it.effect(fault(http, "STATUS_UNEXPECTED", "the backend answers 503"), () =>
      Effect.gen(function*() {
        const { plain, serve } = yield* Shop
        yield* serve({ status: 503, body: "out of order" })
        const report = said(yield* ask({ url: `${plain}/health` }), "ERROR STATUS_UNEXPECTED")
        assert.include(report.message, "answered 503 instead of 2xx")
        assert.strictEqual(report.findings[0]?.evidence?.["body"], "out of order")
        assert.containsAllKeys(report.findings[0]?.evidence, ["connectMillis", "firstByteMillis", "totalMillis"])
        blames(report, `${plain}/health`)
        yield* serve()
        said(yield* ask({ url: `${plain}/health` }), "PASS")
      }))

    it.effect(fault(http, "ANSWER_UNEXPECTED", "the body says something else"), () =>
      Effect.gen(function*() {
        const { plain, serve } = yield* Shop
        const config = { url: `${plain}/health`, expect: { json: [{ path: "$.status", equals: "ok" }] } }
        yield* serve({ body: "{\"status\":\"degraded\"}" })
        const report = said(yield* ask(config), "ERROR ANSWER_UNEXPECTED")
        assert.include(report.message, "$.status is \"degraded\" instead of \"ok\"")
        blames(report, config.url)
        yield* serve({ body: "<html>" })
        assert.include(said(yield* ask(config), "ERROR ANSWER_UNEXPECTED").message, "the body is not JSON")
        assert.include(
          said(yield* ask({ url: config.url, expect: { body: "status" } }), "ERROR ANSWER_UNEXPECTED").message,
          "does not match /status/"
        )
        yield* serve()
        said(yield* ask(config), "PASS")
      }))

    it.effect(fault(http, "HTTP_SLOW", "an answer that drips for more than a second"), () =>
      Effect.gen(function*() {
        const { plain } = yield* Shop
        const report = said(yield* ask({ url: `${plain}/slow.txt` }), "WARN HTTP_SLOW")
        assert.match(report.message, /answered in \d{4} ms \(limit 1000 ms\): name/)
        blames(report, `${plain}/slow.txt`)
        said(yield* ask({ url: `${plain}/slow.txt`, slow: "20s", timeout: "20s" }), "PASS")
      }))

    it.effect(fault(http, "HTTP_REFUSED", "nothing listens on the port"), () =>
      Effect.gen(function*() {
        const { free } = yield* Application.ports("free")
        const url = `http://127.0.0.1:${free}/`
        blames(said(yield* ask({ url }), "ERROR HTTP_REFUSED"), url)
        yield* Application.listener((socket) => socket.end("HTTP/1.1 204 No Content\r\n\r\n"), free)
        said(yield* ask({ url }), "PASS")
      }))

    it.effect(fault(http, "HTTP_CUT", "nginx closes the connection without an answer"), () =>
      Effect.gen(function*() {
        const { plain } = yield* Shop
        blames(said(yield* ask({ url: `${plain}/cut` }), "ERROR HTTP_CUT"), `${plain}/cut`)
      }))

    it.effect(fault(http, "HTTP_TIMED_OUT", "a backend that accepts and says nothing"), () =>
      Effect.gen(function*() {
        const port = yield* Application.listener(() => {})
        const url = `http://127.0.0.1:${port}/`
        const [plain, secure] = yield* Effect.all([
          ask({ url, timeout: "2s" }),
          ask({ url: url.replace("http", "https"), timeout: "2s" })
        ], { concurrency: 2 })
        const report = said(plain, "ERROR HTTP_TIMED_OUT")
        assert.include(report.message, "no answer within 2s")
        assert.strictEqual(report.findings[0]?.evidence?.["stage"], "answer")
        const handshake = said(secure, "ERROR HTTP_TIMED_OUT")
        assert.strictEqual(handshake.findings[0]?.evidence?.["stage"], "handshake")
      }))

    it.effect(fault(http, "HTTP_GARBLED", "a server that speaks something else"), () =>
      Effect.gen(function*() {
        const port = yield* Application.listener((socket) => socket.end("220 mail.example.com ESMTP\r\n"))
        said(yield* ask({ url: `http://127.0.0.1:${port}/` }), "ERROR HTTP_GARBLED")
      }))

    it.effect("a header that HTTP cannot carry is no fault of the server", () =>
      Effect.gen(function*() {
        const { plain } = yield* Shop
        const report = said(
          yield* ask({ url: `${plain}/health`, headers: { "x-note": "two\nlines" } }),
          "UNKNOWN CHECKER_FAILED"
        )
        assert.include(report.message, "the request cannot be sent as HTTP")
        assert.notInclude(report.message, "two")
      }))

    it.effect(fault(http, "CERT_EXPIRED", "the backend's certificate has expired"), () =>
      Effect.gen(function*() {
        const { authority, certificate, good, secure, serve } = yield* Shop
        const config = { url: `${secure}/health`, tls: { ca: authority.cert } }
        yield* certificate(yield* mint({ commonName: "shop", age: "366 days", left: "-1 days", issuer: authority }))
        yield* serve()
        const report = said(yield* ask(config), "ERROR CERT_EXPIRED")
        blames(report, config.url)
        assert.strictEqual(report.findings[0]?.evidence?.["certificate"], "CN=shop")
        yield* certificate(good)
        yield* serve()
        said(yield* ask(config), "PASS")
      }))

    it.effect(
      fault(http, "CERT_WRONG_NAME", "the backend's certificate is for another name"),
      () =>
        Effect.gen(function*() {
          const { authority, secure } = yield* Shop
          const tls = { ca: authority.cert, serverName: "shop.example.com" }
          const report = said(yield* ask({ url: `${secure}/health`, tls }), "ERROR CERT_WRONG_NAME")
          assert.include(report.message, "is not for shop.example.com")
          said(yield* ask({ url: `${secure}/health`, tls: { ca: authority.cert, serverName: "localhost" } }), "PASS")
        })
    )

    it.effect(
      fault(http, "TLS_FAILED", "an authority nobody trusts, and a port without TLS"),
      () =>
        Effect.gen(function*() {
          const { plain, secure } = yield* Shop
          const report = said(yield* ask({ url: `${secure}/health` }), "ERROR TLS_FAILED")
          assert.include(report.message, "not trusted here")
          said(yield* ask({ url: `${secure}/health`, tls: { insecure: true } }), "PASS")
          said(yield* ask({ url: `${plain.replace("http", "https")}/health` }), "ERROR TLS_FAILED")
        })
    )

    it.effect(
      faults(http, "five days, then twenty, of the certificate are left", "CERT_EXPIRING", "CERT_EXPIRING_SOON"),
      () =>
        Effect.gen(function*() {
          const { authority, certificate, good, secure, serve } = yield* Shop
          const config = { url: `${secure}/health`, tls: { ca: authority.cert } }
          yield* certificate(yield* mint({ commonName: "shop", age: "360 days", left: "5 days", issuer: authority }))
          yield* serve()
          const report = said(yield* ask(config), "ERROR CERT_EXPIRING")
          blames(report, config.url)
          yield* certificate(yield* mint({ commonName: "shop", age: "340 days", left: "20 days", issuer: authority }))
          yield* serve()
          said(yield* ask(config), "WARN CERT_EXPIRING_SOON")
          yield* certificate(good)
          yield* serve()
          said(yield* ask(config), "PASS")
        })
    )

    it.effect("tries again before it tells a fault, and tells that it did", () =>
      Effect.gen(function*() {
        let connections = 0
        const port = yield* Application.listener((socket) => {
          connections++
          socket.end(`HTTP/1.1 ${connections < 3 ? "502 Bad Gateway" : "200 OK"}\r\ncontent-length: 0\r\n\r\n`)
        })
        const url = `http://127.0.0.1:${port}/`
        const report = said(yield* ask({ url, retries: 2 }), "INFO HTTP_RETRIED")
        assert.include(report.message, "STATUS_UNEXPECTED")
        assert.strictEqual(connections, 3)
        connections = -100
        said(yield* ask({ url, retries: 2 }), "ERROR STATUS_UNEXPECTED")
        assert.strictEqual(connections, -97)
      }))

    it.effect(blind(http, "NAME_UNRESOLVED", "a name that does not resolve here"), () =>
      Effect.gen(function*() {
        said(yield* ask({ url: "http://shop.invalid/" }), "UNKNOWN NAME_UNRESOLVED")
      }))

    it.effect(
      blind(http, "NO_ROUTE", "an address that no connection can be made to (multicast)"),
      () =>
        Effect.gen(function*() {
          said(yield* ask({ url: "http://224.0.0.1/" }), "UNKNOWN NO_ROUTE")
        })
    )

    it.effect(
      blind(http, "ADDRESS_REFUSED", "a cloud's metadata address, named, numbered or redirected to"),
      () =>
        Effect.gen(function*() {
          const { plain, serve } = yield* Shop
          yield* serve({ extra: "location = /away { return 307 http://169.254.169.254/latest/meta-data/; }" })
          for (
            const url of ["http://169.254.169.254/", "http://[fe80::1]/", "http://[::ffff:a9fe:a9fe]/", `${plain}/away`]
          ) {
            said(yield* ask({ url }), "UNKNOWN ADDRESS_REFUSED")
          }
          yield* serve()
        })
    )

    it.effect(blind(http, "CREDENTIAL_REJECTED", "wrong credentials"), () =>
      Effect.gen(function*() {
        const { credentials, plain } = yield* Shop
        const url = `${plain}/private`
        yield* credentials.write("site", { username: "prober", password: "wrong" })
        const report = said(yield* ask({ url, basic: "site" }, credentials.world), "UNKNOWN CREDENTIAL_REJECTED")
        assert.notInclude(JSON.stringify(report), "wrong")
        yield* credentials.write("site", { username: "prober", password: "right\n" })
        said(yield* ask({ url, basic: "site", slow: "20s" }, credentials.world), "PASS")
        // Nobody was named to the endpoint: what it says is what a user meets.
        said(yield* ask({ url }), "ERROR STATUS_UNEXPECTED")
        said(yield* ask({ url, expect: { status: [401] } }), "PASS")
      }))

    it.effect(blind(http, "CREDENTIAL_MISSING", "a credential that is not mounted"), () =>
      Effect.gen(function*() {
        const { credentials, plain } = yield* Shop
        const headers = { authorization: { credential: "nobody", key: "token" } }
        const report = said(
          yield* ask({ url: `${plain}/token`, headers }, credentials.world),
          "UNKNOWN CREDENTIAL_MISSING"
        )
        assert.include(report.message, "nobody")
      }))

    it.effect("sends a secret and never repeats it, not even when the endpoint does", () =>
      Effect.gen(function*() {
        const { authority, credentials, plain, secure, serve } = yield* Shop
        yield* credentials.write("shop", { token: SECRET })
        const headers = { authorization: { credential: "shop", key: "token", prefix: "Bearer " } }
        said(yield* ask({ url: `${plain}/token`, headers }, credentials.world), "PASS")
        const report = said(yield* ask({ url: `${plain}/echo`, headers }, credentials.world), "ERROR STATUS_UNEXPECTED")
        assert.strictEqual(report.findings[0]?.evidence?.["body"], "you sent Bearer [redacted]")
        assert.notInclude(JSON.stringify(report), SECRET)
        // Another origin gets none: it answers as to somebody unknown.
        yield* serve({ extra: `location = /elsewhere { return 307 ${secure}/token; }` })
        said(
          yield* ask({ url: `${plain}/elsewhere`, headers, tls: { ca: authority.cert } }, credentials.world),
          "UNKNOWN CREDENTIAL_REJECTED"
        )
        yield* serve()
      }))
  })
})
