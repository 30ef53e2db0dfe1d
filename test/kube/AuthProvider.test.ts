import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, FileSystem, Redacted } from "effect"
import * as Crypto from "node:crypto"
import * as Https from "node:https"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import * as Certificates from "../../src/local/Certificates.ts"

const { privateKey } = Crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })

const base64url = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")

const idToken = (issuer: string, expiresAt: number, nonce: string) => {
  const signed = `${base64url({ alg: "RS256", typ: "JWT" })}.${
    base64url({ iss: issuer, aud: "kubernetes", sub: "alice", iat: expiresAt - 3_600, exp: expiresAt, nonce })
  }`
  return `${signed}.${Crypto.sign("sha256", Buffer.from(signed), privateKey).toString("base64url")}`
}

/** An OpenID Connect issuer with nothing but a token endpoint for refresh tokens. */
const issuer = Effect.gen(function*() {
  const authority = yield* Certificates.makeAuthority("issuer-ca")
  const pair = yield* authority.issue({ commonName: "issuer", ipAddresses: ["127.0.0.1"], dnsNames: ["localhost"] })
  const now = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
  const state = { refreshes: 0, refuses: false, authorization: "", usedToken: "" }
  const url = yield* Effect.acquireRelease(
    Effect.callback<readonly [string, Https.Server]>((resume) => {
      const server = Https.createServer({ cert: pair.cert, key: pair.key }, (request, response) => {
        const self = `https://${request.headers.host}`
        response.setHeader("content-type", "application/json")
        if (request.method === "GET") {
          return void response.end(JSON.stringify({
            issuer: self,
            token_endpoint: `${self}/token`,
            authorization_endpoint: `${self}/authorize`,
            jwks_uri: `${self}/keys`,
            response_types_supported: ["code"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: ["RS256"]
          }))
        }
        state.refreshes++
        state.authorization = request.headers.authorization ?? ""
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          state.usedToken = new URLSearchParams(Buffer.concat(chunks).toString()).get("refresh_token") ?? ""
          if (state.refuses) {
            response.statusCode = 400
            return void response.end(
              JSON.stringify({ error: "invalid_grant", error_description: "secret-refresh-token" })
            )
          }
          response.end(JSON.stringify({
            access_token: "access",
            token_type: "Bearer",
            expires_in: 3_600,
            refresh_token: `secret-refresh-token-${state.refreshes}`,
            id_token: idToken(self, now + 3_600, String(state.refreshes))
          }))
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed([`https://127.0.0.1:${port}`, server]))
      })
    }),
    ([, server]) =>
      Effect.callback<void>((done) => {
        server.closeAllConnections()
        server.close(() => done(Effect.void))
      })
  )
  return { url: url[0], ca: authority.cert, now, state }
})

const connect = Effect.fnUntraced(function*(provider: object) {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  yield* fs.writeFileString(
    `${folder}/config`,
    JSON.stringify({
      "current-context": "a",
      "clusters": [{ name: "a", cluster: { server: "https://a:6443" } }],
      "users": [{ name: "a", user: { "auth-provider": provider } }],
      "contexts": [{ name: "a", context: { cluster: "a", user: "a" } }]
    })
  )
  const connection = yield* (yield* KubeConfigFile.load({ path: `${folder}/config` })).connection()
  const token = Effect.map(
    connection.identity,
    ({ authorization }) => authorization === undefined ? "" : Redacted.value(authorization)
  )
  return { connection, token }
})

const nonceOf = (authorization: string) => {
  const claims: { readonly nonce?: string } = JSON.parse(
    Buffer.from(authorization.split(".")[1] ?? "", "base64url").toString("utf8")
  )
  return claims.nonce
}

describe("an OIDC user", () => {
  it.live(
    "signs in again with the refresh token when the token has ended, and not more often",
    () =>
      Effect.gen(function*() {
        const { ca, now, state, url } = yield* issuer
        const { connection, token } = yield* connect({
          name: "oidc",
          config: {
            "client-id": "kubernetes",
            "client-secret": "s",
            "idp-issuer-url": url,
            "idp-certificate-authority-data": Buffer.from(ca).toString("base64"),
            "id-token": idToken(url, now - 10, "old"),
            "refresh-token": "secret-refresh-token"
          }
        })
        const first = yield* token
        assert.match(first, /^Bearer /)
        assert.strictEqual(nonceOf(first), "1")
        yield* Effect.forEach(Array.from({ length: 5 }), () => token, { concurrency: "unbounded" })
        assert.strictEqual(state.refreshes, 1)
        yield* connection.refresh
        assert.strictEqual(nonceOf(yield* token), "2")

        state.refuses = true
        yield* connection.refresh
        const exit = yield* Effect.exit(connection.identity)
        assert.strictEqual(exit._tag, "Failure")
        assert.notInclude(JSON.stringify(exit) + String(exit), "secret-refresh-token")
      }).pipe(Effect.provide(NodeServices.layer)),
    30_000
  )

  it.live("with a token that is good needs no sign-in", () =>
    Effect.gen(function*() {
      const { now, state, url } = yield* issuer
      const ended = yield* connect({
        name: "oidc",
        config: { "client-id": "kubernetes", "idp-issuer-url": url, "id-token": idToken(url, now - 10, "ended") }
      })
      assert.include((yield* Effect.flip(ended.token)).message, "its token has ended and there is no refresh token")
      const valid = idToken(url, now + 3_600, "valid")
      const { token } = yield* connect({
        name: "oidc",
        config: { "client-id": "kubernetes", "idp-issuer-url": url, "id-token": valid, "refresh-token": "r" }
      })
      assert.strictEqual(yield* token, `Bearer ${valid}`)
      assert.strictEqual(state.refreshes, 0)
    }).pipe(Effect.provide(NodeServices.layer)), 30_000)

  it.live("of an unknown provider is told so", () =>
    Effect.gen(function*() {
      const { token } = yield* connect({ name: "carrier-pigeon" })
      const error = yield* Effect.flip(token)
      assert.include(error.message, "no credentials for cluster a from auth provider carrier-pigeon: ")
    }).pipe(Effect.provide(NodeServices.layer)), 30_000)
})
