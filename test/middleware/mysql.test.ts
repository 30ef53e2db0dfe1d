import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer } from "effect"
import { ServiceError } from "../../src/infra/middleware/Service.ts"
import { judgeGalera, judgeReplica, mysql, onceMore, parseReplica } from "../../src/probes/middleware/mysql.ts"
import { eventually } from "../kube/eventually.ts"
import { blind, fault, faults, healthy, killed } from "../proofs/proof.ts"
import { holdingProxy } from "./HoldingProxy.ts"
import * as MySqlServers from "./MySqlServers.ts"
import * as Prober from "./Prober.ts"
import * as ProberProcess from "./ProberProcess.ts"

const SECRET = { "shop-db": { password: MySqlServers.PASSWORD } }

const run = Effect.fnUntraced(function*(
  config: Readonly<Record<string, unknown>>,
  secrets: Parameters<typeof Prober.credentials>[0] = SECRET
) {
  const folder = yield* Prober.credentials(secrets)
  return yield* Prober.probe({
    probe: mysql,
    config: { password: { credential: "shop-db", key: "password" }, ...config },
    folder
  })
})

describe("judging what MySQL says", () => {
  const limits = { replicaDelay: Duration.seconds(30), replicaDelayError: Duration.seconds(300) }
  const replica = (row: Readonly<Record<string, unknown>>) =>
    judgeReplica("r:1", parseReplica(row), limits).map(({ code }) => code)
  const follows = { Replica_IO_Running: "Yes", Replica_SQL_Running: "Yes" }

  it("reads both names of everything", () => {
    assert.deepStrictEqual(replica({ ...follows, Seconds_Behind_Source: 0, SQL_Delay: 0 }), [])
    assert.deepStrictEqual(
      replica({ Slave_IO_Running: "Yes", Slave_SQL_Running: "Yes", Seconds_Behind_Master: "31", SQL_Delay: "0" }),
      ["REPLICA_BEHIND"]
    )
  })

  it("measures from the delay a replica is told to keep", () => {
    const behind = (seconds: number, delay: number) =>
      replica({ ...follows, Seconds_Behind_Source: seconds, SQL_Delay: delay })
    assert.deepStrictEqual(behind(30, 0), [])
    assert.deepStrictEqual(behind(300, 0), ["REPLICA_BEHIND"])
    assert.deepStrictEqual(behind(301, 0), ["REPLICA_FAR_BEHIND"])
    assert.deepStrictEqual(behind(3600, 3600), [])
    assert.deepStrictEqual(behind(3640, 3600), ["REPLICA_BEHIND"])
  })

  it("tells a thread that is stopped from one that connects", () => {
    assert.deepStrictEqual(replica({ ...follows, Replica_SQL_Running: "No" }), ["REPLICA_STOPPED"])
    assert.deepStrictEqual(replica({ ...follows, Replica_IO_Running: "Connecting" }), ["REPLICA_CONNECTING"])
    assert.deepStrictEqual(
      replica({ ...follows, Replica_IO_Running: "Connecting", Last_IO_Error: "error connecting to source" }),
      ["REPLICA_STOPPED"]
    )
  })

  it("asks members of a Galera cluster alone", () => {
    const galera = (cluster: string, state: string, ready: string, size = "3") =>
      judgeGalera(
        "g:1",
        new Map([
          ["wsrep_cluster_status", cluster],
          ["wsrep_local_state_comment", state],
          ["wsrep_ready", ready],
          ["wsrep_cluster_size", size]
        ])
      ).map(({ code }) => code)
    assert.deepStrictEqual(galera("Primary", "Synced", "ON"), [])
    assert.deepStrictEqual(galera("Primary", "Donor/Desynced", "ON"), ["GALERA_DONOR"])
    assert.deepStrictEqual(galera("Primary", "Joined", "ON"), ["GALERA_NOT_READY"])
    assert.deepStrictEqual(galera("non-Primary", "Initialized", "OFF"), ["GALERA_NOT_READY"])
    assert.deepStrictEqual(galera("Disconnected", "", "OFF", "0"), [])
    assert.deepStrictEqual(judgeGalera("m:1", new Map()), [])
  })
})

describe("a statement that meets another's", () => {
  const attempts = Effect.fnUntraced(function*(code: string, conflicts: number) {
    let made = 0
    const statement = Effect.suspend(() =>
      made++ < conflicts
        ? Effect.fail(new ServiceError({ service: "MySQL", host: "g", port: 1, kind: "rejected", code, detail: "" }))
        : Effect.succeed("done")
    )
    const { _tag } = yield* Effect.exit(onceMore(statement))
    return [_tag, made] as const
  })

  it.effect("is made once more, and no other is", () =>
    Effect.gen(function*() {
      for (const code of ["1205", "1213"]) {
        assert.deepStrictEqual(yield* attempts(code, 0), ["Success", 1])
        assert.deepStrictEqual(yield* attempts(code, 1), ["Success", 2])
        assert.deepStrictEqual(yield* attempts(code, 2), ["Failure", 2])
      }
      assert.deepStrictEqual(yield* attempts("1290", 1), ["Failure", 1])
    }))
})

/** The data folder that all servers begin with. */
class Data extends Context.Service<Data, string>()("kubeprober/test/middleware/Data") {
  static readonly layer = Layer.effect(Data, MySqlServers.template)
}

/** A primary that the probe's user knows. */
const primary = Effect.fnUntraced(function*(...options: ReadonlyArray<string>) {
  const server = yield* MySqlServers.start(yield* Data, options)
  yield* MySqlServers.prepare(server)
  return server
})

describe.concurrent("mw.mysql", () =>
  layer(Data.layer, { excludeTestServices: true, timeout: "120 seconds" })("on a real server", (it) => {
    it.effect(
      healthy(mysql, "a primary and a replica, with no more rights than listed"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const source = yield* primary()
          const follower = yield* MySqlServers.replica(yield* Data, source)
          const delayed = yield* MySqlServers.replica(yield* Data, source, ", MASTER_DELAY=3600")
          const config = { servers: [source.address], replicas: [follower.address, delayed.address] }
          // The delayed one does not know the user yet, and the schema neither.
          yield* delayed.sql("SET sql_log_bin=0; SET GLOBAL read_only=0")
          yield* MySqlServers.prepare(delayed)
          for (const _ of [1, 2]) {
            const report = yield* run(config)
            assert.strictEqual(Prober.verdict(report), "PASS", report.message)
            assert.strictEqual(yield* source.sql("SELECT COUNT(*) FROM kubeprober.heartbeat"), "0")
          }
        }))
    )

    it.effect("lets each of several servers with one table have a row of its own, and each of several runs", () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* primary()
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        // The row is there and not read yet while another server of the run, and another run, do theirs.
        const slow = yield* holdingProxy(server.port, "select token", { holdFor: "3 seconds" })
        const both = yield* Effect.forkScoped(
          run({ servers: [`127.0.0.1:${slow.port}`, server.address], slow: "30s", stepTimeout: "30s" })
        )
        yield* slow.held
        const other = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(other), "PASS", other.message)
        const report = yield* Fiber.join(both)
        assert.strictEqual(Prober.verdict(report), "PASS", report.message)
        assert.strictEqual(yield* server.sql("SELECT COUNT(*) FROM kubeprober.heartbeat"), "0")
      })))

    it.effect(
      fault(mysql, "PRIMARY_READ_ONLY", "read_only set, and a replica addressed as the primary"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const source = yield* primary()
          yield* source.sql("SET GLOBAL read_only = 1")
          const report = yield* run({ servers: [source.address] })
          assert.strictEqual(Prober.verdict(report), "ERROR PRIMARY_READ_ONLY", report.message)
          assert.strictEqual(report.blame, "target")
          assert.deepStrictEqual(Prober.said(report), [`PRIMARY_READ_ONLY ${source.address}`])
          yield* source.sql("SET GLOBAL read_only = 0")
          assert.strictEqual(Prober.verdict(yield* run({ servers: [source.address] })), "PASS")
        }))
    )

    it.effect(
      fault(mysql, "REPLICA_STOPPED", "the SQL thread stopped, the I/O thread stopped, a source that is gone"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const source = yield* primary()
          const follower = yield* MySqlServers.replica(yield* Data, source)
          const expect = Effect.fnUntraced(function*(replicas: string) {
            const report = yield* eventually(
              "the replica notices",
              Effect.map(run({ replicas: [replicas] }), (report) => report.status === "ERROR" ? report : undefined)
            )
            assert.strictEqual(Prober.verdict(report), "ERROR REPLICA_STOPPED", report.message)
            assert.deepStrictEqual(Prober.said(report), [`REPLICA_STOPPED ${follower.address}`])
          })
          for (const thread of ["SQL_THREAD", "IO_THREAD"]) {
            yield* follower.sql(`STOP SLAVE ${thread}`)
            yield* expect(follower.address)
            yield* follower.sql("START SLAVE")
            yield* MySqlServers.follows(follower)
            assert.strictEqual(Prober.verdict(yield* run({ replicas: [follower.address] })), "PASS")
          }
          yield* source.process.kill()
          yield* expect(follower.address)
        }))
    )

    it.effect(
      fault(
        mysql,
        "REPLICA_BEHIND",
        fault(mysql, "REPLICA_FAR_BEHIND", "a replica whose tables are locked, then for longer")
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const source = yield* primary()
          const follower = yield* MySqlServers.replica(yield* Data, source)
          yield* follower.sql("SET GLOBAL event_scheduler = OFF")
          // Holds the lock as long as the statement runs.
          yield* Effect.forkScoped(follower.sql("FLUSH TABLES WITH READ LOCK; SELECT SLEEP(300)"))
          yield* eventually(
            "the lock",
            Effect.map(follower.sql("SHOW PROCESSLIST"), (list) => list.includes("SELECT SLEEP"))
          )
          yield* source.sql("CREATE DATABASE something")
          const config = { replicas: [follower.address], replicaDelay: "1s", replicaDelayError: "600s" }
          const late = yield* eventually(
            "the replica is late",
            Effect.map(run(config), (report) => report.status === "PASS" ? undefined : report)
          )
          assert.strictEqual(Prober.verdict(late), "WARN REPLICA_BEHIND", late.message)
          assert.deepStrictEqual(Prober.said(late), [`REPLICA_BEHIND ${follower.address}`])
          const later = yield* eventually(
            "the replica is later",
            Effect.map(
              run({ ...config, replicaDelayError: "5s" }),
              (report) => report.status === "ERROR" ? report : undefined
            ),
            40
          )
          assert.strictEqual(Prober.verdict(later), "ERROR REPLICA_FAR_BEHIND", later.message)
          const [id = ""] = (yield* follower.sql(
            "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'"
          )).split("\n")
          yield* follower.sql(`KILL ${id}`)
          yield* eventually("caught up", Effect.map(run(config), (report) => report.status === "PASS"))
        }))
    )

    it.effect(
      blind(mysql, "TLS_UNTRUSTED", fault(mysql, "CERT_EXPIRED", "a server whose TLS certificate has run out")),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const certificates = yield* MySqlServers.certificates({ left: "90 days" })
          const server = yield* primary(...certificates.options)
          const config = { servers: [server.address], tls: true, ca: { credential: "shop-db", key: "ca.crt" } }
          const secrets = { "shop-db": { ...SECRET["shop-db"], "ca.crt": certificates.ca } }
          const valid = yield* run(config, secrets)
          assert.strictEqual(Prober.verdict(valid), "PASS", valid.message)
          const untrusted = yield* run({ servers: [server.address], tls: true })
          assert.strictEqual(Prober.verdict(untrusted), "UNKNOWN TLS_UNTRUSTED", untrusted.message)
          yield* certificates.renew(server, { left: "-1 hours" })
          const expired = yield* run(config, secrets)
          assert.strictEqual(Prober.verdict(expired), "ERROR CERT_EXPIRED", expired.message)
          assert.deepStrictEqual(Prober.said(expired), [`CERT_EXPIRED ${server.address}`])
          yield* certificates.renew(server, { left: "90 days" })
          assert.strictEqual(Prober.verdict(yield* run(config, secrets)), "PASS")
        }))
    )

    it.effect(
      fault(mysql, "WRITE_FAILED", "a table that is locked for longer than the server lets anyone wait"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary("--lock-wait-timeout=1")
          const config = { servers: [server.address] }
          assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
          yield* Effect.forkScoped(
            Effect.ignoreCause(server.sql("LOCK TABLES kubeprober.heartbeat WRITE; SELECT SLEEP(599)"))
          )
          yield* eventually(
            "the lock",
            Effect.map(server.sql("SHOW PROCESSLIST"), (list) => list.includes("SELECT SLEEP"))
          )
          const report = yield* run(config)
          assert.strictEqual(Prober.verdict(report), "ERROR WRITE_FAILED", report.message)
          assert.deepStrictEqual(Prober.said(report), [`WRITE_FAILED ${server.address}`])
          assert.strictEqual(report.findings[0]?.evidence?.["errno"], "1205")
          const [id = ""] = (yield* server.sql(
            "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'"
          )).split("\n")
          yield* server.sql(`KILL ${id}`)
          yield* eventually("the lock is gone", Effect.map(run(config), (report) => report.status === "PASS"))
        }))
    )

    it.effect(
      faults(
        mysql,
        "all connections taken, then none free for the probe",
        "CONNECTIONS_EXHAUSTED",
        "CONNECTIONS_HIGH"
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary("--max-connections=20", "--connect-timeout=300")
          const config = { servers: [server.address] }
          const clients = yield* MySqlServers.idleClients(server, 17)
          const high = yield* run(config)
          assert.strictEqual(Prober.verdict(high), "WARN CONNECTIONS_HIGH", high.message)
          yield* clients.add(2)
          const last = yield* run(config)
          assert.strictEqual(Prober.verdict(last), "ERROR CONNECTIONS_EXHAUSTED", last.message)
          yield* clients.add(1)
          const none = yield* run(config)
          assert.strictEqual(Prober.verdict(none), "ERROR CONNECTIONS_EXHAUSTED", none.message)
          assert.strictEqual(none.findings[0]?.evidence?.["errno"], "1040")
          assert.strictEqual(none.blame, "target")
          yield* clients.close
          yield* eventually("connections given back", Effect.map(run(config), (report) => report.status === "PASS"))
        }))
    )

    it.effect(
      faults(
        mysql,
        "a member that rejects queries as without a majority, after being desynced",
        "GALERA_NOT_READY",
        "GALERA_DONOR"
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary(
            "--wsrep-on=ON",
            "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
            "--wsrep-cluster-address=gcomm://",
            "--wsrep-node-address=127.0.0.1",
            "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:0;gcache.size=4M",
            "--binlog-format=ROW"
          )
          const config = { servers: [server.address] }
          assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
          yield* server.sql("SET GLOBAL wsrep_desync = ON")
          const donor = yield* run(config)
          assert.strictEqual(Prober.verdict(donor), "WARN GALERA_DONOR", donor.message)
          yield* server.sql("SET GLOBAL wsrep_desync = OFF")
          assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
          yield* server.sql("SET GLOBAL wsrep_reject_queries = ALL")
          const rejected = yield* run(config)
          assert.strictEqual(Prober.verdict(rejected), "ERROR GALERA_NOT_READY", rejected.message)
          assert.deepStrictEqual(Prober.said(rejected), [`GALERA_NOT_READY ${server.address}`])
        }))
    )

    it.effect(
      fault(mysql, "CONNECTION_FAILED", fault(mysql, "NO_ANSWER", "the server stopped, and started again")),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary()
          yield* server.process.kill()
          const report = yield* run({ servers: [server.address] })
          assert.strictEqual(Prober.verdict(report), "ERROR CONNECTION_FAILED", report.message)
          assert.strictEqual(report.blame, "target")
          yield* server.restart
          assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
          yield* server.process.signal("SIGSTOP")
          const hung = yield* run({ servers: [server.address], stepTimeout: "500ms" })
          assert.strictEqual(Prober.verdict(hung), "ERROR NO_ANSWER", hung.message)
        }))
    )

    it.effect(
      fault(mysql, "NOT_A_REPLICA", "a server that follows nobody, listed as a replica"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary()
          const report = yield* run({ replicas: [server.address] })
          assert.strictEqual(Prober.verdict(report), "WARN NOT_A_REPLICA", report.message)
          assert.deepStrictEqual(Prober.said(report), [`NOT_A_REPLICA ${server.address}`])
          assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        }))
    )

    it.effect(
      fault(mysql, "SLOW", "the path to the server held up by 400 ms"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary()
          const proxy = yield* holdingProxy(server.port, "insert", { holdFor: "400 millis" })
          const config = { servers: [`127.0.0.1:${proxy.port}`], slow: "300ms" }
          const report = yield* run(config)
          assert.strictEqual(Prober.verdict(report), "WARN SLOW", report.message)
          assert.deepStrictEqual(Prober.said(report), [`SLOW 127.0.0.1:${proxy.port}`])
          assert.strictEqual(Prober.verdict(yield* run({ ...config, slow: "10s" })), "PASS")
        }))
    )

    it.effect(
      blind(mysql, "LOGIN_REFUSED", "a wrong password, and an unknown user"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary()
          const wrong = yield* run({ servers: [server.address] }, { "shop-db": { password: "hunter2" } })
          assert.strictEqual(Prober.verdict(wrong), "UNKNOWN LOGIN_REFUSED", wrong.message)
          assert.strictEqual(wrong.blame, "checker")
          assert.notInclude(JSON.stringify(wrong), "hunter2")
          const nobody = yield* run({ servers: [server.address], username: "nobody" })
          assert.strictEqual(Prober.verdict(nobody), "UNKNOWN LOGIN_REFUSED", nobody.message)
        }))
    )

    it.effect(
      blind(mysql, "LOGIN_REFUSED", "an account that is locked, a password that has expired, a plugin we have not"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary("--plugin-load-add=auth_ed25519")
          const config = { servers: [server.address] }
          const refused = Effect.fnUntraced(function*(change: string, heal: string, why: string) {
            yield* server.sql(change)
            const report = yield* run(config)
            assert.strictEqual(Prober.verdict(report), "UNKNOWN LOGIN_REFUSED", `${change}: ${report.message}`)
            assert.strictEqual(report.blame, "checker")
            assert.include(report.message, why)
            yield* server.sql(heal)
            assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
          })
          const alter = "ALTER USER kubeprober@'%'"
          const password = `IDENTIFIED VIA mysql_native_password USING PASSWORD('${MySqlServers.PASSWORD}')`
          yield* refused(`${alter} ACCOUNT LOCK`, `${alter} ACCOUNT UNLOCK`, "4151")
          // The server lets such a user in, to change it.
          yield* refused(`${alter} PASSWORD EXPIRE`, `${alter} ${password}`, "1820")
          yield* server.sql("SET GLOBAL disconnect_on_expired_password = ON")
          yield* refused(`${alter} PASSWORD EXPIRE`, `${alter} ${password}`, "1862")
          yield* refused(
            `${alter} IDENTIFIED VIA ed25519 USING PASSWORD('${MySqlServers.PASSWORD}')`,
            `${alter} ${password}`,
            "client_ed25519"
          )
        }))
    )

    it.effect(
      blind(
        mysql,
        "LOGIN_REFUSED",
        "a server that takes no connection without TLS, which MariaDB tells in no other way"
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const certificates = yield* MySqlServers.certificates({ left: "90 days" })
          const server = yield* primary(...certificates.options)
          yield* server.sql("SET GLOBAL require_secure_transport = ON")
          const plain = yield* run({ servers: [server.address] })
          assert.strictEqual(Prober.verdict(plain), "UNKNOWN LOGIN_REFUSED", plain.message)
          assert.strictEqual(plain.blame, "checker")
          const secure = yield* run(
            { servers: [server.address], tls: true, ca: { credential: "shop-db", key: "ca.crt" } },
            { "shop-db": { ...SECRET["shop-db"], "ca.crt": certificates.ca } }
          )
          assert.strictEqual(Prober.verdict(secure), "PASS", secure.message)
        }))
    )

    it.effect(
      blind(mysql, "ACCESS_MISSING", "each right taken away, and the one to see replication"),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const source = yield* primary()
          const follower = yield* MySqlServers.replica(yield* Data, source)
          const config = { servers: [source.address], replicas: [follower.address] }
          assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
          for (const right of ["SELECT", "INSERT", "DELETE"]) {
            yield* source.sql(`REVOKE ${right} ON kubeprober.* FROM kubeprober@'%'`)
            const report = yield* run({ servers: [source.address] })
            assert.strictEqual(Prober.verdict(report), "UNKNOWN ACCESS_MISSING", `${right}: ${report.message}`)
            yield* source.sql(`GRANT ${right} ON kubeprober.* TO kubeprober@'%'`)
          }
          yield* follower.sql("SET sql_log_bin=0; REVOKE REPLICA MONITOR ON *.* FROM kubeprober@'%'")
          const report = yield* run({ replicas: [follower.address] })
          assert.strictEqual(Prober.verdict(report), "UNKNOWN ACCESS_MISSING", report.message)
          assert.include(report.message, "REPLICA MONITOR")
        }))
    )

    it.effect(blind(mysql, "SCHEMA_MISSING", "no schema of the probe's"), () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* primary()
        yield* server.sql("DROP DATABASE kubeprober")
        const report = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(report), "UNKNOWN SCHEMA_MISSING", report.message)
        assert.include(report.message, "CREATE DATABASE")
      })))

    it.effect(
      blind(
        mysql,
        "TARGET_UNREACHABLE",
        blind(mysql, "CREDENTIAL_MISSING", "no Secret mounted, and a name that does not resolve")
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const report = yield* run({ servers: ["127.0.0.1:1"] }, {})
          assert.strictEqual(Prober.verdict(report), "UNKNOWN CREDENTIAL_MISSING", report.message)
          const nowhere = yield* run({ servers: ["mysql.kubeprober.invalid:3306"] })
          assert.strictEqual(Prober.verdict(nowhere), "UNKNOWN TARGET_UNREACHABLE", nowhere.message)
        }))
    )

    it.effect(
      killed(
        mysql,
        "killed before it reads or deletes, it leaves one row that a run takes along when the row is an hour old"
      ),
      () =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* primary()
          assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
          const count = server.sql("SELECT COUNT(*) FROM kubeprober.heartbeat")
          for (const marker of ["select token", "delete from"]) {
            const proxy = yield* holdingProxy(server.port, marker)
            const prober = yield* ProberProcess.start({
              probe: mysql,
              config: {
                servers: [`127.0.0.1:${proxy.port}`],
                password: { credential: "shop-db", key: "password" },
                stepTimeout: "30s"
              },
              folder: yield* Prober.credentials(SECRET)
            })
            yield* proxy.held
            assert.match(yield* server.sql("SELECT prober FROM kubeprober.heartbeat"), /^test\/mysql-[^/]+\/0$/)
            yield* prober.kill
            assert.strictEqual(yield* count, "1")
            // It may be that of a run under way.
            assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
            assert.strictEqual(yield* count, "1")
            yield* server.sql("INSERT INTO kubeprober.heartbeat VALUES ('tester/mysql-1/0', 'mysql-1', '2020-01-01')")
            yield* server.sql("UPDATE kubeprober.heartbeat SET beat = UTC_TIMESTAMP(3) - INTERVAL 61 MINUTE")
            assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
            assert.strictEqual(yield* server.sql("SELECT prober FROM kubeprober.heartbeat"), "tester/mysql-1/0")
            yield* server.sql("DELETE FROM kubeprober.heartbeat")
          }
        }))
    )
  }))
