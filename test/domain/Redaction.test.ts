import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Schema } from "effect"
import { REDACTED, quote, redact } from "../../src/domain/Redaction.ts"
import { MAX_EVIDENCE_TEXT, MAX_MESSAGE, fromFindings } from "../../src/domain/Report.ts"

const base64 = (text: string) => Buffer.from(text).toString("base64")
const base64url = (text: string) => Buffer.from(text).toString("base64url")

/** Made of letters that occur nowhere else in these texts, so that finding one is finding a leak. */
const Secret = Schema.String.check(Schema.isPattern(/^Zq[0-9A-Za-z]{6,40}$/u))

/** Every shape a secret comes in, given the secret. */
const shapes = {
  bearer: (secret: string) => `Authorization: Bearer ${secret}`,
  bearerAlone: (secret: string) => `sent bearer ${secret}`,
  basic: (secret: string) => `Basic ${base64(`user:${secret}`)}`,
  headerWithoutScheme: (secret: string) => `authorization=${secret}`,
  urlPassword: (secret: string) => `https://user:${secret}@example.com/path`,
  urlToken: (secret: string) => `https://${secret}@example.com/path?x=1`,
  urlUnencoded: (secret: string) => `postgres://user:${secret}/x@db:5432/app`,
  key: (secret: string) => `-----BEGIN EC PRIVATE KEY-----\n${secret}\n-----END EC PRIVATE KEY-----`,
  keyCut: (secret: string) => `-----BEGIN PRIVATE KEY-----\n${secret}`,
  keyEscaped: (secret: string) => `-----BEGIN RSA PRIVATE KEY-----\\n${secret}\\n-----END RSA PRIVATE KEY-----`,
  jwt: (secret: string) => `${base64url("{\"alg\":\"RS256\"}")}.${base64url(`{"sub":"${secret}"}`)}.${secret}`,
  dockerConfig: (secret: string) => base64(`{"auths":{"r.example":{"auth":"${secret}"}}}`),
  query: (secret: string) => `GET /path?user=a&access_token=${secret}&b=c`,
  password: (secret: string) => `host=db password=${secret} user=a`,
  quotedPassword: (secret: string) => `password = "a ${secret} b"`,
  json: (secret: string) => `{"user":"a","clientSecret":"${secret}"}`,
  jsonEscaped: (secret: string) => `{\\"password\\": \\"${secret}\\"}`,
  yaml: (secret: string) => `user: a\n  client-key-data: ${secret}\n`
}

const Shapes = Schema.Literals([
  "bearer",
  "bearerAlone",
  "basic",
  "headerWithoutScheme",
  "urlPassword",
  "urlToken",
  "urlUnencoded",
  "key",
  "keyCut",
  "keyEscaped",
  "jwt",
  "dockerConfig",
  "query",
  "password",
  "quotedPassword",
  "json",
  "jsonEscaped",
  "yaml"
])
const isShape = Schema.is(Shapes)

/** Forms under which the secret would still be read. */
const forms = (secret: string) => [secret, base64(secret).replace(/=+$/u, "")]

describe("redaction", () => {
  it("takes every shape of a secret, wherever it stands", () => {
    for (const [name, shape] of Object.entries(shapes)) {
      for (const [before, after] of [["", ""], ["it said: ", " (code 401)"], ["a\n", "\nb"]] as const) {
        const secret = "ZqA1b2C3d4E5f6"
        const text = redact(`${before}${shape(secret)}${after}`)
        assert.notInclude(text, secret, `${name}: ${text}`)
        assert.include(text, REDACTED, name)
        assert.isTrue(text.startsWith(before), name)
      }
    }
  })

  it.effect.prop(
    "finds a secret embedded anywhere, and leaves a text without one as it is",
    { secret: Secret, shape: Shapes, before: Schema.String, after: Schema.String },
    ({ after, before, secret, shape }) =>
      Effect.sync(() => {
        const text = redact(`${before}\n${shapes[shape](secret)}\n${after}`)
        for (const form of forms(secret)) assert.notInclude(text, form, `${shape}: ${text}`)
      })
  )

  it.effect.prop(
    "is idempotent",
    { parts: Schema.Array(Schema.Union([Schema.String, Shapes])), secret: Secret },
    ({ parts, secret }) =>
      Effect.sync(() => {
        const text = parts.map((part) => isShape(part) ? shapes[part](secret) : part).join("")
        assert.strictEqual(redact(redact(text)), redact(text))
      })
  )

  it.effect.prop(
    "keeps reports within their bounds, and nothing secret in any text of them",
    { secret: Secret, shape: Shapes, padding: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1100 })) },
    ({ padding, secret, shape }) =>
      Effect.sync(() => {
        // The secret lies across the place where the text is cut.
        const text = `${"a ".repeat(padding / 2)}\n${shapes[shape](secret)}\nend`
        const report = fromFindings({
          checker: "c",
          findings: [{
            status: "ERROR",
            code: "CODE",
            blame: "target",
            message: text,
            subject: { kind: "Pod", name: text },
            evidence: { text, password: secret }
          }],
          summary: text,
          startedAt: DateTime.makeUnsafe(0),
          duration: 0
        })
        const written = JSON.stringify(report)
        for (const form of forms(secret)) assert.notInclude(written, form)
        assert.isAtMost(report.message.length, MAX_MESSAGE)
        for (const finding of report.findings) {
          assert.isAtMost(finding.message.length, MAX_MESSAGE)
          assert.isAtMost(String(finding.evidence?.["text"]).length, MAX_EVIDENCE_TEXT)
        }
      })
  )

  it.effect.prop(
    "quotes no part of a secret that is cut",
    { secret: Secret, shape: Shapes, padding: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 110 })) },
    ({ padding, secret, shape }) =>
      Effect.sync(() => {
        const text = quote(`${"a ".repeat(padding)}\n${shapes[shape](secret)}\nend`, 200)
        assert.isAtMost(text.length, 200)
        // Its beginning, which nothing else in the text has: what a cut before would have left.
        for (const form of forms(secret)) assert.notInclude(text, form.slice(0, 5), text)
      })
  )

  it("leaves alone what people need to read", () => {
    for (
      const text of [
        "not allowed to list secrets in kube-system; grant this rule to the prober",
        "https://10.0.0.1:6443 does not answer (refused: connect ECONNREFUSED 10.0.0.1:6443)",
        "the server does not take bearer authentication, nor basic auth",
        "invalid bearer token; renew the token or certificate in the kubeconfig",
        "registry.example:5000/app@sha256:0123456789abcdef was not pulled",
        "https://example.com:8443/path@x?user=a says 404",
        "secret kubeprober/redis has no field password: add one",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "write to admin@example.com about tokens and passwords"
      ]
    ) assert.strictEqual(redact(text), text)
  })

  it("takes no longer than a moment for what is made to take long", () => {
    const started = performance.now()
    for (
      const text of ["://", "password=\"", "-----BEGIN PRIVATE KEY-----", "eyJ", "bearer ", "authorization:", "token"]
    ) {
      redact(text.repeat(Math.ceil(16_384 / text.length)))
      redact(`${text}${"a".repeat(16_384)}`)
    }
    assert.isBelow(performance.now() - started, 2000)
  })
})

describe("a text made to be slow", () => {
  const runs = [
    "://:",
    "://a:x",
    "://",
    "://a:",
    "@",
    "://a@",
    ":",
    "/",
    "\"",
    "'",
    "\\",
    "<",
    "=",
    "-",
    "- ",
    ".",
    " ",
    "\t",
    "\n",
    "a",
    "0",
    "eyJ",
    "eyJ.",
    "token",
    "token=",
    "token:",
    "token\\\"",
    "\"token\":",
    "token ",
    "token: ",
    "authorization:",
    "authorization: bearer ",
    "bearer ",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN A A A ",
    "A "
  ]
  it.each(runs)("of %j takes no longer than others", (run) => {
    // One that takes time by the square of its length takes fifteen seconds here.
    for (let number = 0; number < 200; number++) redact(run.repeat(Math.ceil(65_536 / run.length)))
  }, 5_000)
})
