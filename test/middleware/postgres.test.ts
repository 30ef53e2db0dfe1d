import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { judgeDelay, judgeState, postgres } from "../../src/probes/middleware/postgres.ts"
import { eventually } from "../kube/eventually.ts"
import { blind, fault, faults, healthy, killed } from "../proofs/proof.ts"
import { holdingProxy } from "./HoldingProxy.ts"
import * as PostgresServers from "./PostgresServers.ts"
import * as Prober from "./Prober.ts"
import * as ProberProcess from "./ProberProcess.ts"

const SECRET = { "shop-db": { password: PostgresServers.PASSWORD } }

const run = Effect.fnUntraced(function*(
  config: Readonly<Record<string, unknown>>,
  secrets: Parameters<typeof Prober.credentials>[0] = SECRET
) {
  const folder = yield* Prober.credentials(secrets)
  return yield* Prober.probe({
    probe: postgres,
    config: { password: { credential: "shop-db", key: "password" }, ...config },
    folder
  })
})

describe("judging what PostgreSQL says", () => {
  const state = { recovery: false, readOnly: false, used: 1, limit: 97, xidAge: 100, xidDatabase: "shop" }
  const limits = { xidWarn: 1_200_000_000, xidError: 1_800_000_000 }
  const codesOf = (given: Partial<typeof state>) =>
    judgeState("p:1", { ...state, ...given }, limits).map(({ code }) => code)

  it("holds connections and transaction ids against their limits", () => {
    assert.deepStrictEqual(codesOf({}), [])
    assert.deepStrictEqual(codesOf({ used: 83 }), ["CONNECTIONS_HIGH"])
    assert.deepStrictEqual(codesOf({ used: 93 }), ["CONNECTIONS_EXHAUSTED"])
    assert.deepStrictEqual(codesOf({ xidAge: 1_200_000_000 }), [])
    assert.deepStrictEqual(codesOf({ xidAge: 1_200_000_001 }), ["XID_AGE_HIGH"])
    assert.deepStrictEqual(codesOf({ xidAge: 1_800_000_001 }), ["XID_WRAPAROUND"])
  })

  it("holds a standby against its limits", () => {
    const delay = (seconds: number) =>
      judgeDelay("s:1", Duration.seconds(seconds), {
        standbyDelay: Duration.seconds(30),
        standbyDelayError: Duration.seconds(300)
      }).map(({ code }) => code)
    assert.deepStrictEqual(delay(30), [])
    assert.deepStrictEqual(delay(31), ["STANDBY_BEHIND"])
    assert.deepStrictEqual(delay(301), ["STANDBY_FAR_BEHIND"])
  })
})

describe.concurrent("mw.postgres", () => {
  it.live(
    healthy(postgres, "a primary and a standby, from the first run on; an idle primary"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const primary = yield* PostgresServers.start()
        const standby = yield* PostgresServers.standby(primary)
        yield* primary.sql("GRANT pg_monitor TO kubeprober")
        const config = { servers: [primary.address], standbys: [standby.address], minimumStandbys: 1 }
        for (const beats of ["1", "2"]) {
          const report = yield* run(config)
          assert.strictEqual(Prober.verdict(report), "PASS", report.message)
          assert.strictEqual(
            yield* primary.sql("SELECT count(*), max(cardinality(beats)) FROM kubeprober_heartbeat", "kubeprober"),
            `1|${beats}`
          )
        }
      }))
  )

  it.live(
    fault(postgres, "PRIMARY_READ_ONLY", "default_transaction_read_only, and a standby addressed"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const primary = yield* PostgresServers.start()
        const expect = Effect.fnUntraced(function*(address: string) {
          const report = yield* run({ servers: [address] })
          assert.strictEqual(Prober.verdict(report), "ERROR PRIMARY_READ_ONLY", report.message)
          assert.strictEqual(report.blame, "target")
          assert.deepStrictEqual(Prober.said(report), [`PRIMARY_READ_ONLY ${address}`])
        })
        const standby = yield* PostgresServers.standby(primary)
        yield* expect(standby.address)
        yield* primary.sql("ALTER DATABASE kubeprober SET default_transaction_read_only = on")
        yield* expect(primary.address)
        yield* primary.sql("ALTER DATABASE kubeprober RESET default_transaction_read_only")
        assert.strictEqual(Prober.verdict(yield* run({ servers: [primary.address] })), "PASS")
      }))
  )

  it.live(
    faults(
      postgres,
      "replay paused on a standby, for longer and longer",
      "STANDBY_BEHIND",
      "STANDBY_FAR_BEHIND",
      "REPLAY_PAUSED"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const primary = yield* PostgresServers.start()
        const standby = yield* PostgresServers.standby(primary)
        const config = {
          servers: [primary.address],
          standbys: [standby.address],
          stepTimeout: "2s",
          standbyDelay: "60s",
          standbyDelayError: "600s"
        }
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        yield* standby.sql("SELECT pg_wal_replay_pause()")
        const paused = yield* run(config)
        assert.strictEqual(Prober.verdict(paused), "WARN REPLAY_PAUSED", paused.message)
        assert.deepStrictEqual(Prober.said(paused), [`REPLAY_PAUSED ${standby.address}`])
        const late = yield* eventually(
          "the standby is late",
          Effect.map(
            run({ ...config, standbyDelay: "2s" }),
            (report) => report.findings.some(({ code }) => code === "STANDBY_BEHIND") ? report : undefined
          ),
          40
        )
        assert.strictEqual(late.status, "WARN", late.message)
        const later = yield* eventually(
          "the standby is later",
          Effect.map(
            run({ ...config, standbyDelay: "2s", standbyDelayError: "8s" }),
            (report) => report.status === "ERROR" ? report : undefined
          ),
          60
        )
        assert.strictEqual(Prober.verdict(later), "ERROR STANDBY_FAR_BEHIND", later.message)
        assert.strictEqual(later.findings[0]?.subject?.name, standby.address)
        yield* standby.sql("SELECT pg_wal_replay_resume()")
        yield* eventually("the standby in step", Effect.map(run(config), (report) => report.status === "PASS"))
      }))
  )

  it.live(
    faults(postgres, "a standby that ended, and one that was promoted", "STANDBY_MISSING", "NOT_A_STANDBY"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const primary = yield* PostgresServers.start()
        const standby = yield* PostgresServers.standby(primary)
        const config = { servers: [primary.address], minimumStandbys: 1 }
        const hidden = yield* run(config)
        assert.strictEqual(Prober.verdict(hidden), "UNKNOWN ACCESS_MISSING", hidden.message)
        yield* primary.sql("GRANT pg_monitor TO kubeprober")
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        yield* standby.sql("SELECT pg_promote()")
        const missing = yield* eventually(
          "the standby gone from its primary",
          Effect.map(run(config), (report) => report.status === "WARN" ? report : undefined)
        )
        assert.strictEqual(Prober.verdict(missing), "WARN STANDBY_MISSING", missing.message)
        const promoted = yield* run({ servers: [primary.address], standbys: [standby.address] })
        assert.strictEqual(Prober.verdict(promoted), "WARN NOT_A_STANDBY", promoted.message)
        assert.deepStrictEqual(Prober.said(promoted), [`NOT_A_STANDBY ${standby.address}`])
      }))
  )

  it.live(
    faults(
      postgres,
      "all connections taken, then none free for the probe",
      "CONNECTIONS_EXHAUSTED",
      "CONNECTIONS_HIGH"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start([
          "max_connections=22",
          "superuser_reserved_connections=2",
          "max_wal_senders=0"
        ])
        const config = { servers: [server.address] }
        yield* Effect.scoped(Effect.gen(function*() {
          const taken = (count: number) =>
            eventually(
              `${count} sessions`,
              Effect.map(
                server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"),
                (found) => Number(found) === count
              ),
              40
            )
          yield* PostgresServers.idleSessions(server, 17)
          yield* taken(17)
          const high = yield* run(config)
          assert.strictEqual(Prober.verdict(high), "WARN CONNECTIONS_HIGH", high.message)
          yield* PostgresServers.idleSessions(server, 3)
          yield* taken(20)
          const none = yield* run(config)
          assert.strictEqual(Prober.verdict(none), "ERROR CONNECTIONS_EXHAUSTED", none.message)
          assert.strictEqual(none.findings[0]?.evidence?.["sqlstate"], "53300")
          assert.strictEqual(none.blame, "target")
          yield* server.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
          ).pipe(Effect.catchCause(() => Effect.void))
        }))
        yield* eventually("connections given back", Effect.map(run(config), (report) => report.status === "PASS"))
      }))
  )

  it.live(
    faults(postgres, "transaction ids used up but for a few hundred million", "XID_WRAPAROUND", "XID_AGE_HIGH"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start(["autovacuum_freeze_max_age=2000000000", "autovacuum=off"])
        const config = { servers: [server.address] }
        yield* server.kill
        yield* PostgresServers.age(server, 1_300_000_000)
        yield* server.restart
        const high = yield* run(config)
        assert.strictEqual(Prober.verdict(high), "WARN XID_AGE_HIGH", high.message)
        yield* server.kill
        yield* PostgresServers.age(server, 1_900_000_000)
        yield* server.restart
        const worse = yield* run(config)
        assert.strictEqual(Prober.verdict(worse), "ERROR XID_WRAPAROUND", worse.message)
        assert.deepStrictEqual(Prober.said(worse), [`XID_WRAPAROUND ${server.address}`])
        for (const database of ["postgres", "kubeprober", "template1"]) yield* server.sql("VACUUM (FREEZE)", database)
        yield* server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        yield* server.sql("VACUUM (FREEZE)", "template0")
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(postgres, "CONNECTION_FAILED", fault(postgres, "NO_ANSWER", "the server stopped, started again, and hung")),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        yield* server.kill
        const report = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(report), "ERROR CONNECTION_FAILED", report.message)
        assert.strictEqual(report.blame, "target")
        yield* server.restart
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        yield* server.signal("SIGSTOP")
        const hung = yield* run({ servers: [server.address], stepTimeout: "500ms" })
        assert.strictEqual(Prober.verdict(hung), "ERROR NO_ANSWER", hung.message)
        yield* server.signal("SIGCONT")
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    fault(postgres, "SLOW", "the path to the server held up by 400 ms"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        const proxy = yield* holdingProxy(server.port, "on conflict", { holdFor: "400 millis" })
        const config = { servers: [`127.0.0.1:${proxy.port}`], slow: "300ms" }
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "WARN SLOW", report.message)
        assert.deepStrictEqual(Prober.said(report), [`SLOW 127.0.0.1:${proxy.port}`])
        assert.strictEqual(Prober.verdict(yield* run({ ...config, slow: "10s" })), "PASS")
      }))
  )

  it.live(
    fault(postgres, "NOT_SERVING", "a server that shuts down and waits for a client to leave"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        const config = { servers: [server.address] }
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        yield* PostgresServers.idleSessions(server, 1)
        yield* eventually(
          "the client",
          Effect.map(
            server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"),
            (count) => count === "1"
          )
        )
        // The smart shutdown.
        yield* server.signal("SIGTERM")
        const report = yield* eventually(
          "it shuts down",
          Effect.map(run(config), (report) => report.status === "PASS" ? undefined : report)
        )
        assert.strictEqual(Prober.verdict(report), "ERROR NOT_SERVING", report.message)
        assert.strictEqual(report.blame, "target")
        assert.strictEqual(report.findings[0]?.evidence?.["sqlstate"], "57P03")
        yield* server.kill
        yield* server.restart
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(postgres, "WRITE_FAILED", "a table that is locked for longer than the database lets anyone wait"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        const config = { servers: [server.address] }
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        yield* server.sql("ALTER DATABASE kubeprober SET lock_timeout = '100ms'")
        yield* Effect.scoped(Effect.gen(function*() {
          yield* PostgresServers.holding(server, "LOCK TABLE kubeprober_heartbeat")
          const report = yield* run(config)
          assert.strictEqual(Prober.verdict(report), "ERROR WRITE_FAILED", report.message)
          assert.deepStrictEqual(Prober.said(report), [`WRITE_FAILED ${server.address}`])
          assert.strictEqual(report.findings[0]?.evidence?.["sqlstate"], "55P03")
        }))
        yield* eventually("the lock is gone", Effect.map(run(config), (report) => report.status === "PASS"))
      }))
  )

  it.live(
    blind(postgres, "TLS_UNTRUSTED", fault(postgres, "CERT_EXPIRED", "a server whose TLS certificate has run out")),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        const config = { servers: [server.address], tls: true, ca: { credential: "shop-db", key: "ca.crt" } }
        const plain = yield* run({ servers: [server.address], tls: true })
        assert.strictEqual(Prober.verdict(plain), "UNKNOWN TLS_UNTRUSTED", plain.message)
        const certificates = yield* PostgresServers.certificates
        const secrets = { "shop-db": { ...SECRET["shop-db"], "ca.crt": certificates.ca } }
        yield* certificates.give(server, { left: "90 days" })
        const valid = yield* run(config, secrets)
        assert.strictEqual(Prober.verdict(valid), "PASS", valid.message)
        const untrusted = yield* run({ servers: [server.address], tls: true })
        assert.strictEqual(Prober.verdict(untrusted), "UNKNOWN TLS_UNTRUSTED", untrusted.message)
        yield* certificates.give(server, { left: "-1 hours" })
        const expired = yield* eventually(
          "the expired certificate is shown",
          Effect.map(run(config, secrets), (report) => report.status === "PASS" ? undefined : report)
        )
        assert.strictEqual(Prober.verdict(expired), "ERROR CERT_EXPIRED", expired.message)
        yield* certificates.give(server, { left: "90 days" })
        yield* eventually("renewed", Effect.map(run(config, secrets), (report) => report.status === "PASS"))
      }))
  )

  it.live(
    blind(
      postgres,
      "DATABASE_MISSING",
      blind(postgres, "LOGIN_REFUSED", "a wrong password, an unknown user, and a database that is not there")
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        const wrong = yield* run({ servers: [server.address] }, { "shop-db": { password: "hunter2" } })
        assert.strictEqual(Prober.verdict(wrong), "UNKNOWN LOGIN_REFUSED", wrong.message)
        assert.strictEqual(wrong.blame, "checker")
        assert.notInclude(JSON.stringify(wrong), "hunter2")
        const nobody = yield* run({ servers: [server.address], username: "nobody" })
        assert.strictEqual(Prober.verdict(nobody), "UNKNOWN LOGIN_REFUSED", nobody.message)
        const database = yield* run({ servers: [server.address], database: "shop" })
        assert.strictEqual(Prober.verdict(database), "UNKNOWN DATABASE_MISSING", database.message)
      }))
  )

  it.live(
    blind(
      postgres,
      "LOGIN_REFUSED",
      "a user of GSSAPI, and no password configured while the environment has the right one"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        yield* server.sql("CREATE ROLE gssuser LOGIN")
        const gss = yield* run({ servers: [server.address], username: "gssuser" })
        assert.strictEqual(Prober.verdict(gss), "UNKNOWN LOGIN_REFUSED", gss.message)
        assert.strictEqual(gss.blame, "checker")
        process.env["PGPASSWORD"] = PostgresServers.PASSWORD
        yield* Effect.addFinalizer(() => Effect.sync(() => delete process.env["PGPASSWORD"]))
        const folder = yield* Prober.credentials({})
        const none = yield* Prober.probe({ probe: postgres, config: { servers: [server.address] }, folder })
        assert.strictEqual(Prober.verdict(none), "UNKNOWN LOGIN_REFUSED", none.message)
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    blind(postgres, "ACCESS_MISSING", "no right to make the table, then none to write it"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        yield* server.sql("ALTER DATABASE kubeprober OWNER TO postgres")
        const make = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(make), "UNKNOWN ACCESS_MISSING", make.message)
        yield* server.sql("GRANT ALL ON SCHEMA public TO kubeprober", "kubeprober")
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        yield* server.sql("ALTER TABLE kubeprober_heartbeat OWNER TO postgres", "kubeprober")
        yield* server.sql("REVOKE ALL ON kubeprober_heartbeat FROM kubeprober", "kubeprober")
        const write = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(write), "UNKNOWN ACCESS_MISSING", write.message)
      }))
  )

  it.live(
    blind(
      postgres,
      "TARGET_UNREACHABLE",
      blind(postgres, "CREDENTIAL_MISSING", "no Secret mounted, and a name that does not resolve")
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const report = yield* run({ servers: ["127.0.0.1:1"] }, {})
        assert.strictEqual(Prober.verdict(report), "UNKNOWN CREDENTIAL_MISSING", report.message)
        const nowhere = yield* run({ servers: ["postgres.kubeprober.invalid:5432"] })
        assert.strictEqual(Prober.verdict(nowhere), "UNKNOWN TARGET_UNREACHABLE", nowhere.message)
      }))
  )

  it.live(
    killed(postgres, "killed before it rolls back or commits, it leaves nothing, and after it one row"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServers.start()
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        const rows = server.sql("SELECT prober FROM kubeprober_heartbeat", "kubeprober")
        for (const marker of ["rollback", "on conflict"]) {
          const proxy = yield* holdingProxy(server.port, marker)
          const prober = yield* ProberProcess.start({
            probe: postgres,
            config: {
              servers: [`127.0.0.1:${proxy.port}`],
              password: { credential: "shop-db", key: "password" },
              stepTimeout: "30s"
            },
            folder: yield* Prober.credentials(SECRET)
          })
          yield* proxy.held
          yield* prober.kill
          yield* eventually(
            "the session ends",
            Effect.map(
              server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kubeprober'"),
              (count) => count === "0"
            )
          )
          assert.strictEqual(yield* rows, "test")
        }
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        assert.strictEqual(yield* rows, "test")
      }))
  )
})
