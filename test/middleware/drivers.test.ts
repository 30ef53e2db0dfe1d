/** The three drivers against servers that are none, or that say what real ones cannot be brought to say. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import dns from "node:dns"
import type { EventEmitter } from "node:events"
import * as MySqlNode from "../../src/infra/middleware/MySqlNode.ts"
import * as PostgresNode from "../../src/infra/middleware/PostgresNode.ts"
import * as RedisNode from "../../src/infra/middleware/RedisNode.ts"
import type { ServiceError, ServiceServer } from "../../src/infra/middleware/Service.ts"
import { failures } from "../../src/infra/middleware/ServiceNode.ts"
import * as MySqlProbe from "../../src/probes/middleware/mysql.ts"
import * as PostgresProbe from "../../src/probes/middleware/postgres.ts"
import * as RedisProbe from "../../src/probes/middleware/redis.ts"
import { mint } from "../clusters/Mint.ts"
import * as FakeServer from "./FakeServer.ts"

const { mysql, postgres } = FakeServer

const server = (port: number, more: Partial<ServiceServer> = {}): ServiceServer => ({
  host: "127.0.0.1",
  port,
  username: "kubeprober",
  timeout: Duration.seconds(5),
  ...more
})

/** One session with one question; what a probe says of its end. */
const said = <A, R>(
  session: Effect.Effect<A, ServiceError, R>,
  judge: (error: ServiceError, address: string) => { readonly status: string; readonly code: string }
) =>
  Effect.match(session, {
    onFailure: (error) => {
      const { code, status } = judge(error, "s:1")
      return `${status} ${code}`
    },
    onSuccess: () => "answered"
  })

const ask = {
  postgres: (at: ServiceServer) =>
    said(
      Effect.scoped(Effect.flatMap(PostgresNode.service.connect({ ...at, database: "d" }), (c) => c.query("SELECT 1"))),
      PostgresProbe.judgeError
    ),
  mysql: (at: ServiceServer) =>
    said(
      Effect.scoped(Effect.flatMap(MySqlNode.service.connect(at), (c) => c.query("SELECT 1"))),
      MySqlProbe.judgeError
    ),
  redis: (at: ServiceServer) =>
    said(Effect.scoped(Effect.flatMap(RedisNode.service.connect(at), (c) => c.send("PING"))), RedisProbe.judgeAnswer)
}

/** Fails with whatever would have ended the process meanwhile. */
const survives = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const ends: Array<unknown> = []
    const note = (cause: unknown) => {
      ends.push(cause)
    }
    const emitter: EventEmitter = process
    // Those of the runner of tests would tell the run, not the test.
    for (const event of ["uncaughtException", "unhandledRejection"]) {
      const others = emitter.rawListeners(event)
      emitter.removeAllListeners(event)
      emitter.on(event, note)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          emitter.removeAllListeners(event)
          for (const other of others) emitter.on(event, (...rest) => Reflect.apply(other, process, rest))
        })
      )
    }
    const result = yield* effect
    // What is thrown in a later turn.
    yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve))))
    assert.deepStrictEqual(ends, [])
    return result
  }))

/** A session with a server that greets, and answers each message of the client in turn; the last one ends it. */
const against = (
  asked: (at: ServiceServer) => Effect.Effect<string>,
  answers: ReadonlyArray<Buffer>,
  greeting: Buffer = Buffer.alloc(0),
  timeout = Duration.seconds(5)
) =>
  survives(Effect.gen(function*() {
    const port = yield* FakeServer.start(
      (socket, _, turn) => {
        const answer = answers[turn]
        if (answer === undefined) return
        if (turn === answers.length - 1) socket.end(answer)
        else socket.write(answer)
      },
      (socket) => socket.write(greeting)
    )
    return yield* asked(server(port, { timeout }))
  }))

const Bytes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))).check(
  Schema.isMaxLength(40)
)

/** More than a session may bring, as one answer that is not whole yet. */
const large = (head: string) => Buffer.concat([Buffer.from(head, "latin1"), Buffer.alloc(12 * 1024 * 1024)])

describe("a server that sends anything", () => {
  const sane = (verdict: string) => assert.match(verdict, /^(UNKNOWN|ERROR|answered)/u)
  const options = { arbitrary: { runs: 200 } }
  const LoggedIn = Schema.Boolean
  /** What waits for more is not waited for. */
  const short = Duration.millis(200)
  const none = Buffer.alloc(0)

  it.live.prop(
    "never ends the process: PostgreSQL",
    {
      messages: Schema.Array(
        Schema.Struct({ type: Schema.Literals([..."RSKZTDCEN123nIsGHWAtd?"]), body: Bytes })
      ).check(Schema.isMaxLength(4)),
      rest: Bytes,
      loggedIn: LoggedIn
    },
    ({ loggedIn, messages, rest }) =>
      Effect.gen(function*() {
        const garbage = Buffer.concat([
          ...messages.map(({ body, type }) => postgres.message(type, Buffer.from(body))),
          Buffer.from(rest)
        ])
        const login = Buffer.concat([postgres.authentication(0), postgres.ready])
        sane(yield* against(ask.postgres, loggedIn ? [login, garbage] : [garbage], none, short))
      }),
    options
  )

  it.live.prop(
    "never ends the process: MySQL",
    {
      packets: Schema.Array(
        Schema.Struct({
          sequence: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 })),
          first: Schema.Literals([0, 1, 2, 0xFB, 0xFE, 0xFF]),
          body: Bytes
        })
      ).check(Schema.isMaxLength(4)),
      rest: Bytes,
      loggedIn: LoggedIn
    },
    ({ loggedIn, packets, rest }) =>
      Effect.gen(function*() {
        const garbage = Buffer.concat([
          ...packets.map(({ body, first, sequence }) => mysql.packet(sequence, Buffer.from([first, ...body]))),
          Buffer.from(rest)
        ])
        sane(yield* against(ask.mysql, loggedIn ? [mysql.ok(2), garbage] : [garbage], mysql.greeting(), short))
      }),
    options
  )

  it.live.prop(
    "never ends the process: Redis",
    {
      pieces: Schema.Array(
        Schema.Literals([
          "+PONG\r\n",
          "$-1\r\n",
          "*-1\r\n",
          "_\r\n",
          "-ERR no\r\n",
          ":1\r\n",
          "$3\r\nab",
          "*2\r\n",
          ">1\r\n",
          ">2\r\n",
          "+subscribe\r\n",
          "+message\r\n",
          "%1\r\n",
          "~1\r\n",
          ",x\r\n",
          "(1\r\n",
          "#t\r\n",
          "=3\r\nabc\r\n",
          "!3\r\nabc\r\n",
          "$99999999999\r\n",
          "HTTP/1.1 400\r\n"
        ])
      ).check(Schema.isMaxLength(6)),
      rest: Bytes
    },
    ({ pieces, rest }) =>
      Effect.gen(function*() {
        const garbage = Buffer.concat([Buffer.from(pieces.join(""), "latin1"), Buffer.from(rest)])
        sane(yield* against(ask.redis, [garbage], none, short))
      }),
    options
  )

  it.live("is told from one that cut the connection", () =>
    Effect.gen(function*() {
      const unexpected = "UNKNOWN UNEXPECTED_ANSWER"
      assert.strictEqual(yield* against(ask.postgres, [Buffer.from([0x15, 0, 0, 0, 4])]), unexpected)
      assert.strictEqual(yield* against(ask.mysql, [mysql.packet(2, Buffer.from([99]))], mysql.greeting()), unexpected)
      assert.strictEqual(yield* against(ask.mysql, [], mysql.packet(0, Buffer.from([10, 1]))), unexpected)
      assert.strictEqual(yield* against(ask.redis, [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")]), unexpected)
      // Nothing, twice, to one question.
      assert.strictEqual(yield* against(ask.redis, [Buffer.from(">1\r\n_\r\n$-1\r\n$-1\r\n")]), unexpected)
      // An error nobody asked for, cut short, right after the login.
      const early = Buffer.concat([mysql.ok(2), mysql.packet(3, Buffer.from([0xFF]))])
      assert.strictEqual(yield* against(ask.mysql, [early], mysql.greeting()), unexpected)
      const cut = "ERROR CONNECTION_FAILED"
      assert.strictEqual(yield* against(ask.postgres, [Buffer.alloc(0)]), cut)
      assert.strictEqual(yield* against(ask.mysql, [Buffer.alloc(0)], mysql.greeting()), cut)
      assert.strictEqual(yield* against(ask.redis, [Buffer.alloc(0)]), cut)
    }))

  it.live("is not listened to without end", () =>
    Effect.gen(function*() {
      const unexpected = "UNKNOWN UNEXPECTED_ANSWER"
      assert.strictEqual(yield* against(ask.postgres, [large("D\x7F\xFF\xFF\xFF")]), unexpected)
      // A packet of 16 MiB, the most there is.
      assert.strictEqual(yield* against(ask.mysql, [large("\xFF\xFF\xFF\x02")], mysql.greeting()), unexpected)
      assert.strictEqual(yield* against(ask.redis, [large("$99999999\r\n")]), unexpected)
      // Lists that are only announced.
      assert.strictEqual(yield* against(ask.redis, [Buffer.from("*2\r\n*999999\r\n")]), unexpected)
    }))

  it.live("is heard in the same way over TLS", () =>
    Effect.scoped(Effect.gen(function*() {
      const pair = yield* mint({ commonName: "fake", age: "1 hours", left: "1 hours" })
      const tls = { tls: { ca: pair.cert } }
      const overTls = (
        asked: (at: ServiceServer) => Effect.Effect<string>,
        answer: Buffer,
        options: { readonly greeting?: Buffer; readonly agreed?: string }
      ) =>
        survives(Effect.gen(function*() {
          const port = yield* FakeServer.start((socket, request) => {
            if (options.agreed !== undefined) socket.write(options.agreed)
            // What asks for TLS in MySQL is as long as this; PostgreSQL's client waits for what is agreed.
            FakeServer.upgrade(socket, pair, (secure) => secure.end(answer), request.subarray(36))
          }, (socket) => socket.write(options.greeting ?? Buffer.alloc(0)))
          return yield* asked(server(port, tls))
        }))
      const agreed = "S"
      assert.strictEqual(
        yield* overTls(ask.postgres, postgres.authentication(7), { agreed }),
        "UNKNOWN LOGIN_REFUSED"
      )
      const greeting = mysql.greeting()
      const unexpected = "UNKNOWN UNEXPECTED_ANSWER"
      assert.strictEqual(yield* overTls(ask.postgres, large("D\x7F\xFF\xFF\xFF"), { agreed }), unexpected)
      assert.strictEqual(yield* overTls(ask.mysql, large("\xFF\xFF\xFF\x02"), { greeting }), unexpected)
      assert.strictEqual(yield* overTls(ask.mysql, mysql.packet(3, Buffer.from([99])), { greeting }), unexpected)
    })))
})

describe("a login that the client cannot do", () => {
  it.live("is the probe's: GSSAPI, SSPI, other mechanisms, a password where there is none", () =>
    Effect.gen(function*() {
      const mechanism = (name: string) => postgres.authentication(10, Buffer.from(`${name}\0\0`))
      for (
        const answers of [
          [postgres.authentication(7)],
          [postgres.authentication(9)],
          [mechanism("OAUTHBEARER")],
          [mechanism("SCRAM-SHA-256"), postgres.authentication(11, Buffer.from("r=x,s=QUJD,i=4096"))]
        ]
      ) {
        assert.strictEqual(yield* against(ask.postgres, answers), "UNKNOWN LOGIN_REFUSED")
      }
    }))

  it.live("is the probe's: plugins of MySQL and MariaDB, and what they say of an account", () =>
    Effect.gen(function*() {
      const refused = (answer: Buffer) => against(ask.mysql, [answer], mysql.greeting())
      for (const plugin of ["mysql_clear_password", "client_ed25519", "auth_gssapi_client"]) {
        assert.strictEqual(yield* refused(mysql.switchTo(plugin)), "UNKNOWN LOGIN_REFUSED")
      }
      for (const number of [1251, 1524, 1820, 1862, 3118, 3955, 4151]) {
        assert.strictEqual(yield* refused(mysql.error(2, number, "no")), "UNKNOWN LOGIN_REFUSED", String(number))
      }
      assert.strictEqual(yield* refused(mysql.error(2, 3159, "insecure transport")), "UNKNOWN TLS_UNTRUSTED")
    }))

  it.live("is told by PgBouncer in words", () =>
    Effect.gen(function*() {
      const words = (message: string) =>
        against(ask.postgres, [postgres.message("E", Buffer.from(`SFATAL\0C08P01\0M${message}\0\0`))])
      assert.strictEqual(yield* words("no such database: shop"), "UNKNOWN DATABASE_MISSING")
      assert.strictEqual(yield* words("no such user: shop"), "UNKNOWN LOGIN_REFUSED")
      assert.strictEqual(yield* words("password authentication failed"), "UNKNOWN LOGIN_REFUSED")
      assert.strictEqual(yield* words("SSL required"), "UNKNOWN TLS_UNTRUSTED")
      assert.strictEqual(
        yield* words("no more connections allowed (max_client_conn)"),
        "ERROR CONNECTIONS_EXHAUSTED"
      )
      assert.strictEqual(yield* words("server conn crashed?"), "ERROR WRITE_FAILED")
    }))
})

describe("a session of PostgreSQL", () => {
  it.live("takes nothing from the environment", () =>
    Effect.scoped(Effect.gen(function*() {
      const strays = {
        PGPASSWORD: "stray",
        PGOPTIONS: "-c stray=1",
        PGREPLICATION: "database",
        PGAPPNAME: "stray",
        PGSSLNEGOTIATION: "direct",
        PGSSLMODE: "require",
        PGUSER: "stray"
      }
      const before = { ...process.env }
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const name of Object.keys(strays)) delete process.env[name]
          Object.assign(process.env, before)
        })
      )
      Object.assign(process.env, strays)
      const heard: Array<string> = []
      const port = yield* FakeServer.start((socket, request, turn) => {
        heard.push(request.toString("latin1"))
        if (turn === 0) socket.write(postgres.authentication(3))
        else socket.end()
      })
      yield* ask.postgres(server(port))
      // The length and the version are eight bytes.
      assert.strictEqual(
        heard[0]?.slice(8),
        "user\0kubeprober\0database\0d\0application_name\0kubeprober\0client_encoding\0UTF8\0\0"
      )
      assert.strictEqual(heard[1], "p\0\0\0\x05\0")
    })))
})

describe("alerts of TLS", () => {
  it.live("say that the two do not agree", () =>
    Effect.scoped(Effect.gen(function*() {
      // handshake_failure, bad_certificate, protocol_version, unrecognized_name (RFC 8446, 6.2)
      for (const description of [40, 42, 70, 112]) {
        const alert = Buffer.from([0x15, 3, 3, 0, 2, 2, description])
        const refusing = (agreed: string) =>
          FakeServer.start((socket, _, turn) => {
            if (turn === 0 && agreed !== "") socket.write(agreed)
            else socket.end(alert)
          })
        const tls = { tls: {} }
        assert.strictEqual(yield* ask.redis(server(yield* refusing(""), tls)), "UNKNOWN TLS_UNTRUSTED")
        assert.strictEqual(yield* ask.postgres(server(yield* refusing("S"), tls)), "UNKNOWN TLS_UNTRUSTED")
        // The client asks for TLS and begins it at once.
        const port = yield* FakeServer.start((socket) => socket.end(alert), (socket) => socket.write(mysql.greeting()))
        assert.strictEqual(yield* ask.mysql(server(port, tls)), "UNKNOWN TLS_UNTRUSTED")
      }
      const port = yield* FakeServer.start((socket) => socket.end(), (socket) => socket.write(mysql.greeting()))
      assert.strictEqual(yield* ask.mysql(server(port, { tls: {} })), "ERROR CONNECTION_FAILED")
    })))
})

describe("failures of sockets", () => {
  const coded = (code: string, message = "it failed") => Object.assign(new Error(message), { code })
  const { ofNode } = failures("Redis", server(1))
  const kind = (cause: unknown) => ofNode(cause).kind

  it("are known by their codes, and nothing is said of the server by others", () => {
    for (
      const [expected, codes] of Object.entries({
        unknown: ["EMFILE", "ENFILE", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ENOBUFS", "SOMETHING_NEW"],
        unroutable: ["ENETUNREACH", "ENETDOWN", "EACCES", "EPERM"],
        unanswered: ["ETIMEDOUT", "EHOSTUNREACH", "EHOSTDOWN"],
        reset: ["ECONNRESET", "EPIPE", "ECONNABORTED", "PROTOCOL_CONNECTION_LOST"],
        tls: ["ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "ERR_SSL_WRONG_VERSION_NUMBER", "EPROTO"],
        dns: ["ENOTFOUND", "EAI_AGAIN"]
      })
    ) {
      for (const code of codes) assert.strictEqual(kind(coded(code)), expected, code)
    }
    assert.strictEqual(kind(new Error("something new")), "unknown")
    assert.strictEqual(RedisProbe.judgeAnswer(ofNode(coded("EMFILE")), "r:1").code, "CHECKER_FAILED")
    assert.strictEqual(RedisProbe.judgeAnswer(ofNode(coded("EHOSTUNREACH")), "r:1").code, "NO_ANSWER")
  })

  it("at several addresses are what says the most of the server", () => {
    const several = (...codes: ReadonlyArray<string>) => kind(new AggregateError(codes.map((code) => coded(code))))
    assert.strictEqual(several("ENETUNREACH", "ECONNREFUSED"), "refused")
    assert.strictEqual(several("ETIMEDOUT", "ECONNREFUSED"), "refused")
    assert.strictEqual(several("EAFNOSUPPORT", "ETIMEDOUT"), "unanswered")
    assert.strictEqual(several("ENETUNREACH", "EADDRNOTAVAIL"), "unroutable")
  })
})

describe("a name that nobody resolves or denies", () => {
  it.live("is no fault of the server's", () =>
    Effect.scoped(Effect.gen(function*() {
      const { lookup } = dns
      yield* Effect.addFinalizer(() => Effect.sync(() => Object.assign(dns, { lookup })))
      // A resolver that does not answer within the deadline.
      Object.assign(dns, { lookup: () => {} })
      const at = server(1, { host: "db.kubeprober.invalid", timeout: Duration.millis(200) })
      for (const asked of [ask.redis, ask.postgres, ask.mysql]) {
        assert.strictEqual(yield* asked(at), "UNKNOWN TARGET_UNREACHABLE")
      }
    })))
})
