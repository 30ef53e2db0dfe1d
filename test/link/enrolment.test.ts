import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Layer, Option, type Redacted, Result } from "effect"
import { request } from "node:https"
import { connect } from "node:net"
import { enrol, parseMaster } from "../../src/infra/link/enrol.ts"
import { Membership } from "../../src/infra/link/Membership.ts"
import { LINK_PATH } from "../../src/infra/link/Transport.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import * as JoinToken from "../../src/infra/pki/JoinToken.ts"
import { certify, earlier } from "./certificates.ts"
import {
  AT_ONCE,
  failureOf,
  invite,
  linked,
  masterState,
  newIdentity,
  startAgent,
  startMaster,
  until,
  withState
} from "./fixture.ts"

const parse = (token: Redacted.Redacted<string>) => Result.getOrThrow(JoinToken.parse(token))

describe("enrolment", () => {
  it.live("turns a join token into a certificate and a link", () =>
    withState(Effect.gen(function*() {
      const { agent, link, session } = yield* linked("staging")
      const identity = Option.getOrThrow(yield* agent.identity.current)
      const member = yield* (yield* Membership).find("staging")
      assert.deepStrictEqual([identity.cluster, identity.uid], ["staging", member.uid])
      assert.strictEqual(session.cluster, "staging")
      assert.deepStrictEqual([link.cluster, link.uid, link.epoch], ["staging", member.uid, 1])
    })))

  it.live("is remembered: a restarted agent links without a token", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const token = yield* invite("staging")
      const identity = yield* newIdentity
      yield* Effect.scoped(Effect.gen(function*() {
        const { client } = yield* startAgent({ port: master.port, token, identity })
        yield* client.session
      }))
      const { client } = yield* startAgent({ port: master.port, identity })
      assert.strictEqual((yield* client.session).cluster, "staging")
    })))

  it.live("refuses a token that is wrong, used, or another cluster's, and says which", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const used = yield* invite("staging")
      yield* (yield* startAgent({ port: master.port, token: used })).client.session
      const production = parse(yield* invite("production"))
      const wrong = JoinToken.format({ ...parse(used), id: production.id })
      const foreign = JoinToken.format({ ...production, cluster: "staging" })
      const messageFor = Effect.fnUntraced(function*(token: Redacted.Redacted<string>) {
        const { client } = yield* startAgent({ port: master.port, token })
        return (yield* failureOf(client)).message
      })
      assert.match(yield* messageFor(used), /token for cluster staging was refused: it was used already/)
      assert.match(yield* messageFor(wrong), /was refused: this master did not issue it/)
      assert.match(yield* messageFor(foreign), /was refused: it was issued for another cluster/)
      assert.match(yield* messageFor(used), /make a new one with kubeprober cluster add staging/)
    })))

  it.live("refuses an expired token", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const token = yield* earlier("1 hour", invite("staging"))
      const { client } = yield* startAgent({ port: master.port, token })
      assert.match((yield* failureOf(client)).message, /was refused: it has expired/)
    })))

  it.live("refuses a request for another name than the token's", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const token = parse(yield* invite("staging"))
      yield* invite("production")
      const forged = yield* (yield* newIdentity).request("production")
      const refused = yield* Effect.flip(enrol(new URL(`https://127.0.0.1:${master.port}`), token, forged))
      assert.match(refused.message, /cluster staging was refused: its subject is not exactly CN=staging/)
      // A request that is refused has spent nothing.
      const { client } = yield* startAgent({ port: master.port, token: JoinToken.format(token) })
      assert.strictEqual((yield* client.session).cluster, "staging")
    })))

  it.live("says nothing to a master that does not have the pinned key", () =>
    withState(Effect.gen(function*() {
      const token = yield* invite("staging")
      const impostor = yield* Effect.provide(startMaster(), Layer.fresh(masterState))
      const { client } = yield* startAgent({ port: impostor.port, token })
      const failure = yield* failureOf(client)
      assert.strictEqual(failure._tag, "PinMismatch")
      assert.match(failure.message, /does not present the authority .* that the join token pins/)
    })))

  it.live("refuses bodies that are too long, too late, or no request, without quoting them", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const authority = yield* CertificateAuthority
      const post = (body: string) => exchange(master.port, authority.certificate, "POST", "/v1/enrol", body)
      const garbage = yield* post(`{"token":"kpj1.secret"}`)
      assert.strictEqual(garbage.status, 400)
      assert.isFalse(garbage.body.includes("secret"))
      assert.strictEqual((yield* post("x".repeat(100_000))).status, 413)
      assert.strictEqual((yield* exchange(master.port, authority.certificate, "GET", "/v1/enrol", "")).status, 405)
      assert.strictEqual((yield* exchange(master.port, authority.certificate, "GET", "/", "")).status, 404)
    })))

  it.live("sends the excess away with Retry-After", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster({ limits: { enrolmentsPerSecond: 1 } })
      const authority = yield* CertificateAuthority
      const tries = Array.from({ length: 6 }, () =>
        exchange(master.port, authority.certificate, "POST", "/v1/enrol", "{}"))
      const answers = yield* Effect.all(tries, { concurrency: 6 })
      const excess = answers.filter(({ status }) =>
        status === 503
      )
      assert.isAbove(excess.length, 0)
      for (const { body, retryAfter } of excess) {
        assert.match(retryAfter, /^[1-9][0-9]?$/)
        assert.include(body, "Overloaded")
      }
    })))
})

describe("a link", () => {
  it.live("is refused without a certificate", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const authority = yield* CertificateAuthority
      const answer = yield* exchange(master.port, authority.certificate, "GET", LINK_PATH, "", {
        connection: "Upgrade",
        upgrade: "websocket"
      })
      assert.strictEqual(answer.status, 401)
      assert.include(answer.body, "CertificateRequired")
      const { client } = yield* startAgent({ port: master.port })
      assert.strictEqual((yield* failureOf(client))._tag, "NotEnrolled")
    })))

  it.live("is refused to a certificate that has expired", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const member = yield* (yield* Membership).add("staging")
      const identity = yield* newIdentity
      yield* earlier("25 hours", certify(identity, member))
      // The agent would not even try; this one has lost its clock.
      const lost = { ...identity, current: earlier("25 hours", identity.current) }
      const { client } = yield* startAgent({ port: master.port, identity: lost })
      assert.match((yield* failureOf(client)).message, /client certificate has expired; enrol the agent again/)
      assert.strictEqual(yield* master.links.size, 0)
    })))

  it.live("is refused to a certificate of another authority", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const member = yield* (yield* Membership).add("staging")
      const ours = yield* CertificateAuthority
      const identity = yield* newIdentity
      yield* Effect.provide(certify(identity, member), Layer.fresh(masterState))
      const forged = {
        ...identity,
        current: Effect.map(
          identity.current,
          Option.map((it) => ({ ...it, credential: { ...it.credential, authorities: ours.certificate } }))
        )
      }
      const { client } = yield* startAgent({ port: master.port, identity: forged })
      assert.match((yield* failureOf(client)).message, /was not signed by this master's authority/)
    })))

  it.live("is refused to a server's certificate, and to names the master does not know", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster()
      const membership = yield* Membership
      const authority = yield* CertificateAuthority
      const member = yield* membership.add("staging")
      const identity = yield* newIdentity
      yield* certify(identity, member)
      const server = yield* authority.issueServer(["staging"])
      const disguised = {
        ...identity,
        current: Effect.map(identity.current, Option.map((it) => ({ ...it, credential: server })))
      }
      const agent = yield* startAgent({ port: master.port, identity: disguised })
      assert.match((yield* failureOf(agent.client)).message, /client certificate (was not signed|is not an agent's)/)

      const stranger = yield* newIdentity
      yield* certify(stranger, { cluster: "stranger", uid: crypto.randomUUID() })
      const unknown = yield* startAgent({ port: master.port, identity: stranger })
      assert.match((yield* failureOf(unknown.client)).message, /this master has no cluster stranger/)

      const namesake = yield* newIdentity
      yield* certify(namesake, { cluster: "staging", uid: crypto.randomUUID() })
      const impostor = yield* startAgent({ port: master.port, identity: namesake })
      assert.match((yield* failureOf(impostor.client)).message, /cluster staging was revoked/)
    })))

  it.live("is dropped at once on revocation, and refused until the cluster is added again", () =>
    withState(Effect.gen(function*() {
      const { agent, link, master } = yield* linked("staging")
      const membership = yield* Membership
      const before = yield* Clock.currentTimeMillis
      yield* membership.revoke("staging")
      const closed = yield* Effect.flip(link.closed)
      assert.isBelow((yield* Clock.currentTimeMillis) - before, AT_ONCE)
      assert.strictEqual(closed.reason._tag, "Left")
      assert.match((yield* failureOf(agent.client)).message, /cluster staging was revoked/)
      yield* until("no link", Effect.map(master.links.size, (size) => size === 0))

      const again = yield* startAgent({ port: master.port, identity: agent.identity })
      assert.strictEqual((yield* failureOf(again.client))._tag, "Revoked")
      // A new token lets the cluster in again; the certificate of before stays void.
      const token = yield* invite("staging")
      const readmitted = yield* startAgent({ port: master.port, identity: agent.identity, token })
      assert.strictEqual((yield* readmitted.client.session).cluster, "staging")
    })))

  it.live("is made over TLS alone", () =>
    withState(Effect.gen(function*() {
      const messages = [
        "ws://master:8443",
        "http://master",
        "ftp://master",
        "master",
        "https://a:b@master",
        "https://m/x"
      ]
        .map((text) => Result.match(parseMaster(text), { onFailure: ({ detail }) => detail, onSuccess: () => "taken" }))
      assert.deepStrictEqual(messages, [
        "links are made over TLS alone",
        "links are made over TLS alone",
        "links are not made over ftp:",
        "it is not a URL",
        "it holds a password, and addresses end up in logs",
        "it has a path"
      ])
      assert.strictEqual(Result.getOrThrow(parseMaster("wss://master:8443")).href, "https://master:8443/")
      // And who speaks plainly to the master's port gets nothing.
      const master = yield* startMaster()
      const answer = yield* plainly(master.port, `GET ${LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n`)
      assert.notInclude(answer, "HTTP/1.1")
    })))

  it.live("is refused beyond what the master takes, with a time to come back", () =>
    withState(Effect.gen(function*() {
      const master = yield* startMaster({ limits: { links: 1 } })
      yield* (yield* startAgent({ port: master.port, token: yield* invite("first") })).client.session
      const { client } = yield* startAgent({ port: master.port, token: yield* invite("second") })
      const failure = yield* failureOf(client)
      assert.strictEqual(failure._tag, "Overloaded")
      const status = yield* client.status
      const now = yield* DateTime.now
      assert.isTrue(status._tag === "Waiting" && DateTime.isGreaterThan(status.until, now))
    })))
})

const exchange = (
  port: number,
  ca: string,
  method: string,
  path: string,
  body: string,
  headers: Record<string, string> = {}
) =>
  Effect.callback<{ readonly status: number; readonly body: string; readonly retryAfter: string }>((resume) => {
    const sent = request({ host: "127.0.0.1", port, path, method, ca, agent: false, headers }, (response) => {
      let text = ""
      response.on("data", (chunk) => (text += String(chunk)))
      response.on("end", () => {
        const { headers, statusCode } = response
        resume(Effect.succeed({ status: statusCode ?? 0, body: text, retryAfter: headers["retry-after"] ?? "" }))
      })
    })
    sent.on("error", (cause) => resume(Effect.die(cause)))
    sent.end(body)
  })

const plainly = (port: number, text: string) =>
  Effect.callback<string>((resume) => {
    let answer = ""
    const socket = connect(port, "127.0.0.1", () => socket.write(text))
    socket.on("data", (chunk) => (answer += chunk.toString("latin1")))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.succeed(answer)))
  })
