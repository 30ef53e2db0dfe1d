import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import type { HttpAnswer } from "../../src/infra/net/HttpCall.ts"
import * as Asking from "../../src/probes/application/asking.ts"
import { redact } from "../../src/probes/application/secrets.ts"

const SECRET = "Zq7\"W kP\t9vLx3Rm5TnB8"
const hide = (text: string) => redact([SECRET], text)

const answer = (status: number, body: string): HttpAnswer => ({
  status,
  headers: {},
  body,
  truncated: false,
  address: "127.0.0.1",
  url: new URL("http://127.0.0.1/"),
  redirects: 0,
  timings: {
    name: Duration.zero,
    connect: Duration.zero,
    handshake: Duration.zero,
    firstByte: Duration.zero,
    total: Duration.zero
  },
  certificates: []
})

/** Eight characters of the secret in a row, as it is, as JSON writes it, or with its white space collapsed. */
const leaks = (told: string): boolean =>
  [SECRET, JSON.stringify(SECRET).slice(1, -1), SECRET.replace(/\s+/gu, " ")].some((form) =>
    Array.from({ length: form.length - 7 }, (_, at) => form.slice(at, at + 8)).some((part) => told.includes(part))
  )

describe("a secret that an answer repeats where its excerpt is cut", () => {
  it("leaves no part of itself in the evidence, also when it is the answer's own", () => {
    const body = `${"-".repeat(170)} postgres://shop_rw:S3cr3t-Pa55@db:5432/shop`
    assert.notInclude(Asking.excerpt(answer(500, body), true, hide)["body"], "S3cr3t")
  })

  it("leaves no part of itself in the evidence", () => {
    for (let offset = 150; offset <= 210; offset++) {
      const { body = "" } = Asking.excerpt(answer(500, `${"-".repeat(offset)}${SECRET} and more`), true, hide)
      // As `redactOutcome` does to all that is told.
      assert.isFalse(leaks(hide(body)), `${offset}: ${body}`)
      assert.isAtMost(body.length, 200)
    }
  })

  it.effect("nor in the message", () =>
    Effect.gen(function*() {
      const equal = yield* Asking.compile({ json: [{ path: "$.said", equals: "ok" }] })
      const match = yield* Asking.compile({ json: [{ path: "$.said", matches: "^ok$" }] })
      for (let offset = 80; offset <= 210; offset++) {
        const text = `${"-".repeat(offset)}${SECRET} and more`
        for (const said of [text, { deep: [text] }, JSON.stringify({ inner: text })]) {
          for (const expected of [equal, match]) {
            const wrong = Asking.mismatches(answer(200, JSON.stringify({ said })), expected, hide)
            assert.lengthOf(wrong, 1)
            assert.isFalse(leaks(hide(wrong[0]?.text ?? "")), `${offset}: ${wrong[0]?.text}`)
          }
        }
      }
    }))
})
