import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as Ports from "../../src/local/Ports.ts"
import {
  inStep,
  judgeLink,
  judgeListed,
  judgeRoom,
  judgeSentinels,
  keyIn,
  parseInfo,
  parseNodes,
  parseReplicas,
  redis
} from "../../src/probes/middleware/redis.ts"
import { mint } from "../clusters/Mint.ts"
import { eventually } from "../kube/eventually.ts"
import { blind, fault, faults, healthy, killed } from "../proofs/proof.ts"
import { holdingProxy, rewritingProxy } from "./HoldingProxy.ts"
import * as Prober from "./Prober.ts"
import * as ProberProcess from "./ProberProcess.ts"
import * as RedisServers from "./RedisServers.ts"

const run = Effect.fnUntraced(function*(config: Readonly<Record<string, unknown>>, secrets: Secrets = {}) {
  const folder = yield* Prober.credentials(secrets)
  return yield* Prober.probe({ probe: redis, config, folder })
})
type Secrets = Parameters<typeof Prober.credentials>[0]

/** No key of the probe is left. */
const nothingLeft = Effect.fnUntraced(function*(...servers: ReadonlyArray<RedisServers.RedisServer>) {
  for (const server of servers) assert.strictEqual(yield* server.cli("keys", "kubeprober:*"), "", server.address)
})

describe("judging what Redis says", () => {
  const room = (fields: string) => judgeRoom("r:1", parseInfo(fields)).map(({ code }) => code)

  it("holds memory against the limit only where nothing is evicted", () => {
    assert.deepStrictEqual(room("maxmemory:1000\r\nused_memory:900\r\nmaxmemory_policy:noeviction"), ["MEMORY_HIGH"])
    assert.deepStrictEqual(room("maxmemory:1000\r\nused_memory:899\r\nmaxmemory_policy:noeviction"), [])
    assert.deepStrictEqual(room("maxmemory:1000\r\nused_memory:1000\r\nmaxmemory_policy:allkeys-lru"), [])
    assert.deepStrictEqual(room("maxmemory:0\r\nused_memory:1000\r\nmaxmemory_policy:noeviction"), [])
    assert.deepStrictEqual(
      room("maxmemory:1000\nused_memory:950\nmem_not_counted_for_evict:100\nmaxmemory_policy:noeviction"),
      []
    )
  })

  it("holds connections against the limit", () => {
    assert.deepStrictEqual(room("connected_clients:84\nmaxclients:100"), [])
    assert.deepStrictEqual(room("connected_clients:85\nmaxclients:100"), ["CONNECTIONS_HIGH"])
    assert.deepStrictEqual(room("connected_clients:95\nmaxclients:100"), ["CONNECTIONS_EXHAUSTED"])
    assert.deepStrictEqual(room(""), [])
  })

  it("forgives a replica that has just lost its master, or is being filled", () => {
    const link = (fields: string) => judgeLink("r:1", parseInfo(fields), Duration.seconds(10)).map(({ code }) => code)
    assert.deepStrictEqual(link("master_link_status:up"), [])
    assert.deepStrictEqual(link("master_link_status:down\nmaster_link_down_since_seconds:3"), ["REPLICA_SYNCING"])
    assert.deepStrictEqual(link("master_link_status:down\nmaster_link_down_since_seconds:30"), ["LINK_DOWN"])
    assert.deepStrictEqual(
      link("master_link_status:down\nmaster_link_down_since_seconds:30\nmaster_sync_in_progress:1"),
      ["REPLICA_SYNCING"]
    )
    // Never connected: it counts from its start.
    const never = "master_link_status:down\nmaster_link_down_since_seconds:-1\nuptime_in_seconds:"
    assert.deepStrictEqual(link(`${never}60`), ["LINK_DOWN"])
    assert.deepStrictEqual(link(`${never}6`), ["REPLICA_SYNCING"])
  })

  it("counts replicas in step", () => {
    assert.strictEqual(
      inStep(parseInfo("slave0:ip=a,port=1,state=online,offset=1\nslave1:ip=b,port=1,state=wait_bgsave,offset=0")),
      1
    )
  })

  it("reads the nodes of a cluster", () => {
    const nodes = parseNodes(
      "07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected\n" +
        "67ed fd00::1:30002@31002 myself,master - 0 0 2 connected 5461-10922 [93-<-292f]\n" +
        "292f :0@0 master,noaddr,fail - 1 1 3 disconnected 10923 10925-10927\n"
    )
    assert.deepStrictEqual(nodes.map(({ address, failed, master, slots }) => ({ address, failed, master, slots })), [
      { address: "127.0.0.1:30004", failed: false, master: false, slots: [] },
      { address: "[fd00::1]:30002", failed: false, master: true, slots: [[5461, 10_922]] },
      { address: "", failed: true, master: true, slots: [[10_923, 10_923], [10_925, 10_927]] }
    ])
  })

  it("finds a key for any slots, of which there are some", () => {
    for (const slots of [[[0, 16_383]], [[5461, 10_922]], [[16_383, 16_383]]] as const) {
      assert.isTrue(keyIn("kubeprober:x", slots)._tag === "Some", String(slots))
    }
    assert.isTrue(keyIn("kubeprober:x", [])._tag === "None")
  })

  it("asks replicas that any Sentinel has not down", () => {
    const listed = (...flags: ReadonlyArray<readonly [port: string, flags: string]>) => {
      const { findings, replicas } = judgeListed(
        "m",
        parseReplicas(flags.map(([port, flags]) => new Map([["ip", "::1"], ["port", port], ["flags", flags]])))
      )
      return [replicas, findings.map(({ code, subject }) => `${code} ${subject?.name}`)]
    }
    assert.deepStrictEqual(listed(["1", "slave"], ["1", "s_down,slave"]), [["[::1]:1"], []])
    assert.deepStrictEqual(listed(["1", "s_down,slave,disconnected"], ["1", "o_down,slave"]), [
      [],
      ["REPLICA_DOWN [::1]:1"]
    ])
    // Learnt of just now.
    assert.deepStrictEqual(listed(["1", "slave,disconnected"]), [["[::1]:1"], []])
  })

  it("asks Sentinels to agree, not to be many", () => {
    const says = (...masters: ReadonlyArray<string>) =>
      judgeSentinels("m", masters.map((master, index) => ({ sentinel: `s${index}`, master, noQuorum: undefined })))
    assert.deepStrictEqual(says("a:1", "a:1"), { master: "a:1", findings: [] })
    assert.deepStrictEqual(says("a:1", "b:1").findings.map(({ code }) => code), ["SENTINEL_DISAGREE"])
    assert.deepStrictEqual(says("a:1", "").findings.map(({ code }) => code), ["SENTINEL_DISAGREE"])
    assert.deepStrictEqual(says("", "").findings.map(({ code }) => code), ["MASTER_UNKNOWN"])
    assert.deepStrictEqual(says().findings, [])
  })
})

describe.concurrent("mw.redis on one server", () => {
  it.live(
    healthy(redis, "a server with a password, and a cache that is full"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["requirepass s3cret"], cli: ["-a", "s3cret"] })
        const config = { servers: [server.address], password: { credential: "shop-redis", key: "password" } }
        const report = yield* run(config, { "shop-redis": { password: "s3cret\n" } })
        assert.strictEqual(Prober.verdict(report), "PASS", report.message)
        yield* nothingLeft(server)

        const used = Number(yield* RedisServers.field(server, "used_memory"))
        yield* server.cli("config", "set", "maxmemory-policy", "allkeys-lru", "maxmemory", String(used + 2_000_000))
        yield* server.cli(
          "eval",
          "for i = 1, 40000 do redis.call('set', 'filler' .. i, string.rep('x', 200)) end",
          "0"
        )
        yield* eventually(
          "keys evicted",
          Effect.map(
            Effect.andThen(server.cli("set", "one", "more"), RedisServers.field(server, "evicted_keys")),
            (count) => Number(count) > 0
          )
        )
        const full = yield* run(config, { "shop-redis": { password: "s3cret" } })
        assert.strictEqual(Prober.verdict(full), "PASS", full.message)
      }))
  )

  it.live("asks nothing when no servers are configured", () =>
    Effect.scoped(Effect.gen(function*() {
      assert.strictEqual(Prober.verdict(yield* run({})), "INFO NOT_APPLICABLE")
    })))

  it.live(
    fault(redis, "WRITE_REFUSED", "memory used up, replicas required, and a replica addressed"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start()
        const expect = Effect.fnUntraced(function*(reason: string, address = server.address) {
          const report = yield* run({ servers: [address] })
          assert.strictEqual(Prober.verdict(report), "ERROR WRITE_REFUSED", report.message)
          assert.strictEqual(report.blame, "target")
          assert.strictEqual(report.findings[0]?.subject?.name, address)
          assert.strictEqual(report.findings[0]?.evidence?.["code"], reason)
        })
        const heals = Effect.gen(function*() {
          assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
        })
        yield* server.cli("config", "set", "maxmemory", "1")
        yield* expect("OOM")
        yield* server.cli("config", "set", "maxmemory", "0")
        yield* heals
        yield* server.cli("config", "set", "min-replicas-to-write", "1")
        yield* expect("NOREPLICAS")
        yield* server.cli("config", "set", "min-replicas-to-write", "0")
        yield* heals
        const replica = yield* RedisServers.replica(server)
        yield* expect("READONLY", replica.address)
      }))
  )

  it.live(
    fault(redis, "MEMORY_HIGH", "maxmemory nearly reached, with noeviction"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start()
        const used = Number(yield* RedisServers.field(server, "used_memory"))
        yield* server.cli("config", "set", "maxmemory", String(Math.floor(used * 1.08)))
        const report = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(report), "WARN MEMORY_HIGH", report.message)
        assert.deepStrictEqual(Prober.said(report), [`MEMORY_HIGH ${server.address}`])
        yield* server.cli("config", "set", "maxmemory", String(used * 10))
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    faults(
      redis,
      "all connections taken, then none free for the probe",
      "CONNECTIONS_EXHAUSTED",
      "CONNECTIONS_HIGH"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["maxclients 20"] })
        const clients = yield* RedisServers.idleClients(server, 16)
        const high = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(high), "WARN CONNECTIONS_HIGH", high.message)
        yield* clients.add(3)
        const last = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(last), "ERROR CONNECTIONS_EXHAUSTED", last.message)
        yield* clients.add(1)
        const none = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(none), "ERROR CONNECTIONS_EXHAUSTED", none.message)
        assert.strictEqual(none.blame, "target")
        yield* clients.close
        yield* eventually(
          "connections given back",
          Effect.map(RedisServers.field(server, "connected_clients"), (count) => Number(count) < 5)
        )
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    fault(redis, "NO_ANSWER", "the process stopped, then connections that nobody takes"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["tcp-backlog 1"] })
        yield* server.process.signal("SIGSTOP")
        const report = yield* run({ servers: [server.address], stepTimeout: "300ms" })
        assert.strictEqual(Prober.verdict(report), "ERROR NO_ANSWER", report.message)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* RedisServers.fillBacklog(server)
          const untaken = yield* run({ servers: [server.address], stepTimeout: "300ms" })
          assert.strictEqual(Prober.verdict(untaken), "ERROR NO_ANSWER", untaken.message)
          assert.include(untaken.message, "unanswered")
        }))
        yield* server.process.signal("SIGCONT")
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    fault(redis, "CONNECTION_FAILED", "the server gone from its host"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start()
        yield* server.process.kill()
        const report = yield* run({ servers: [server.address] })
        assert.strictEqual(Prober.verdict(report), "ERROR CONNECTION_FAILED", report.message)
        assert.strictEqual(report.blame, "target")
        yield* RedisServers.start({ port: server.port })
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "PASS")
      }))
  )

  it.live(
    fault(redis, "NOT_SERVING", "a server that a script blocks"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["busy-reply-threshold 50"] })
        const config = { servers: [server.address] }
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        yield* Effect.forkScoped(Effect.ignoreCause(server.cli("eval", "while true do end", "0")))
        yield* eventually("the server is busy", Effect.map(server.cli("ping"), (answer) => answer.startsWith("BUSY")))
        const busy = yield* run(config)
        assert.strictEqual(Prober.verdict(busy), "ERROR NOT_SERVING", busy.message)
        assert.strictEqual(busy.blame, "target")
        assert.deepStrictEqual(Prober.said(busy), [`NOT_SERVING ${server.address}`])
        yield* server.cli("script", "kill")
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(redis, "CERT_EXPIRED", "a server whose TLS certificate has run out"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.startTls({ left: "90 days" })
        const config = { servers: [server.address], tls: true, ca: { credential: "shop-redis", key: "ca.crt" } }
        const secrets = { "shop-redis": { "ca.crt": server.ca } }
        assert.strictEqual(Prober.verdict(yield* run(config, secrets)), "PASS")
        yield* server.renew({ left: "-1 hours" })
        const report = yield* run(config, secrets)
        assert.strictEqual(Prober.verdict(report), "ERROR CERT_EXPIRED", report.message)
        assert.strictEqual(report.findings[0]?.subject?.name, server.address)
        yield* server.renew({ left: "90 days" })
        assert.strictEqual(Prober.verdict(yield* run(config, secrets)), "PASS")
      }))
  )

  it.live(
    blind(redis, "TLS_UNTRUSTED", "another authority, none, and a server without TLS"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.startTls({ left: "90 days" })
        const other = yield* mint({ commonName: "other", age: "1 hours", left: "90 days" })
        const config = { servers: [server.address], tls: true, ca: { credential: "shop-redis", key: "ca.crt" } }
        const wrong = yield* run(config, { "shop-redis": { "ca.crt": other.cert } })
        assert.strictEqual(Prober.verdict(wrong), "UNKNOWN TLS_UNTRUSTED", wrong.message)
        const none = yield* run({ servers: [server.address], tls: true })
        assert.strictEqual(Prober.verdict(none), "UNKNOWN TLS_UNTRUSTED", none.message)
        const plain = yield* RedisServers.start()
        const spoken = yield* run({ servers: [plain.address], tls: true })
        assert.strictEqual(spoken.status, "UNKNOWN", spoken.message)
      }))
  )

  it.live(
    blind(redis, "LOGIN_REFUSED", "a wrong password, none, and one rotated without us"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["requirepass s3cret"], cli: ["-a", "s3cret"] })
        const config = { servers: [server.address], password: { credential: "shop-redis", key: "password" } }
        const wrong = yield* run(config, { "shop-redis": { password: "hunter2" } })
        assert.strictEqual(Prober.verdict(wrong), "UNKNOWN LOGIN_REFUSED", wrong.message)
        assert.strictEqual(wrong.blame, "checker")
        assert.notInclude(JSON.stringify(wrong), "hunter2")
        assert.strictEqual(Prober.verdict(yield* run({ servers: [server.address] })), "UNKNOWN LOGIN_REFUSED")
      }))
  )

  it.live(
    blind(redis, "ACCESS_MISSING", "an ACL user without a right to write"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({
          lines: ["user reader on >s3cret ~* +info +get", "user full on >s3cret ~kubeprober:* +info +get +set +del"]
        })
        const config = { servers: [server.address], password: { credential: "shop-redis", key: "password" } }
        const secrets = { "shop-redis": { password: "s3cret" } }
        const report = yield* run({ ...config, username: "reader" }, secrets)
        assert.strictEqual(Prober.verdict(report), "UNKNOWN ACCESS_MISSING", report.message)
        assert.include(report.message, "+set")
        assert.strictEqual(Prober.verdict(yield* run({ ...config, username: "full" }, secrets)), "PASS")
      }))
  )

  it.live(
    blind(redis, "CREDENTIAL_MISSING", "no Secret mounted, another key, an empty one"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const config = { servers: ["127.0.0.1:1"], password: { credential: "shop-redis", key: "password" } }
        for (const secrets of [{}, { "shop-redis": { username: "u" } }, { "shop-redis": { password: "\n" } }]) {
          const report = yield* run(config, secrets)
          assert.strictEqual(Prober.verdict(report), "UNKNOWN CREDENTIAL_MISSING")
          assert.include(report.message, "shop-redis/password")
          assert.include(report.message, "--credentials")
        }
      }))
  )

  it.live(
    blind(redis, "TARGET_UNREACHABLE", "a name that does not resolve"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const report = yield* run({ servers: ["redis.kubeprober.invalid:6379"] })
        assert.strictEqual(Prober.verdict(report), "UNKNOWN TARGET_UNREACHABLE", report.message)
        assert.strictEqual(report.blame, "checker")
      }))
  )

  it.live(
    killed(redis, "killed between write and delete it leaves a key that expires"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const killedAt = Effect.fnUntraced(function*(marker: string) {
          const server = yield* RedisServers.start()
          const proxy = yield* holdingProxy(server.port, marker.toLowerCase())
          const folder = yield* Prober.credentials({})
          const prober = yield* ProberProcess.start({
            probe: redis,
            config: { servers: [`127.0.0.1:${proxy.port}`], expiry: "10s", stepTimeout: "60s" },
            folder
          })
          yield* proxy.held
          const keys = yield* server.cli("keys", "*")
          assert.match(keys, /^kubeprober:\S+$/u)
          yield* prober.kill
          const left = Number(yield* server.cli("pttl", keys))
          assert.isAbove(left, 0)
          assert.isAtMost(left, 10_000)
          yield* eventually("expiry", Effect.map(server.cli("keys", "*"), (left) => left === ""), 30)
        })
        // Together, as the keys take their time to expire.
        yield* Effect.forEach(["\r\nGET\r\n", "\r\nDEL\r\n"], killedAt, { concurrency: "unbounded" })
      }))
  )
})

/** A server as one of before 6.2: a proxy hides what it says of its limit. */
const older = (server: RedisServers.RedisServer) =>
  Effect.map(
    rewritingProxy(server.port, (answer) => answer.replaceAll("\r\nmaxclients:", "\r\nmax_hidden:")),
    (port) => `127.0.0.1:${port}`
  )

describe.concurrent("mw.redis on a server that does not say how many connections it takes", () => {
  it.live(
    fault(redis, "CONNECTIONS_EXHAUSTED", "all connections taken, where only CONFIG GET tells the limit"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start({ lines: ["maxclients 20"] })
        const config = { servers: [yield* older(server)] }
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
        const clients = yield* RedisServers.idleClients(server, 19)
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "ERROR CONNECTIONS_EXHAUSTED", report.message)
        assert.deepStrictEqual(Prober.said(report), [`CONNECTIONS_EXHAUSTED ${config.servers[0]}`])
        yield* clients.close
        yield* eventually("connections given back", Effect.map(run(config), (report) => report.status === "PASS"))
      }))
  )

  it.live("says so where CONFIG is forbidden", () =>
    Effect.scoped(Effect.gen(function*() {
      const server = yield* RedisServers.start({
        lines: ["user full on >s3cret ~kubeprober:* +info +get +set +del"]
      })
      const config = { username: "full", password: { credential: "shop-redis", key: "password" } }
      const secrets = { "shop-redis": { password: "s3cret" } }
      const hidden = yield* run({ ...config, servers: [yield* older(server)] }, secrets)
      assert.strictEqual(Prober.verdict(hidden), "PASS", hidden.message)
      assert.include(hidden.message, "how many connections 1 server can take is not known")
      const told = yield* run({ ...config, servers: [server.address] }, secrets)
      assert.notInclude(told.message, "not known")
    })))
})

describe.concurrent("mw.redis on a master and replicas", () => {
  it.live(
    healthy(redis, "a master with two replicas, in any order, and after roles were changed"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const [a, b] = [yield* RedisServers.replica(master), yield* RedisServers.replica(master)]
        const config = { mode: "replica", servers: [a.address, master.address, b.address], minimumReplicas: 2 }
        yield* RedisServers.online(master, 2)
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "PASS", report.message)
        assert.include(report.message, "2 replicas")
        yield* nothingLeft(master, a, b)
        yield* a.cli("replicaof", "no", "one")
        for (const other of [master, b]) yield* other.cli("replicaof", "127.0.0.1", String(a.port))
        yield* Effect.forEach([master, b], RedisServers.inStep)
        yield* RedisServers.online(a, 2)
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(redis, "LINK_DOWN", "a replica that does not reach its master any more"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const replica = yield* RedisServers.replica(master)
        const config = { mode: "replica", servers: [master.address, replica.address], linkGrace: "1s" }
        yield* replica.cli("replicaof", "127.0.0.1", "1")
        yield* eventually(
          "a link that is down for more than a second",
          Effect.map(
            RedisServers.field(replica, "master_link_down_since_seconds"),
            (seconds) => seconds !== "" && Number(seconds) > 1
          )
        )
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "ERROR LINK_DOWN", report.message)
        assert.deepStrictEqual(Prober.said(report), [
          `LINK_DOWN ${replica.address}`,
          `REPLICAS_MISSING ${master.address}`
        ])
        yield* replica.cli("replicaof", "127.0.0.1", String(master.port))
        yield* RedisServers.inStep(replica)
        yield* RedisServers.online(master, 1)
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(redis, "REPLICA_SYNCING", "a replica that has lost its master a moment ago"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const replica = yield* RedisServers.replica(master)
        yield* RedisServers.online(master, 1)
        const config = { mode: "replica", servers: [master.address, replica.address], minimumReplicas: 0 }
        yield* replica.cli("replicaof", "127.0.0.1", "1")
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "WARN REPLICA_SYNCING", report.message)
        assert.deepStrictEqual(Prober.said(report), [`REPLICA_SYNCING ${replica.address}`])
        yield* replica.cli("replicaof", "127.0.0.1", String(master.port))
        yield* RedisServers.inStep(replica)
        yield* RedisServers.online(master, 1)
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(fault(redis, "SLOW", "the path to the server held up by 400 ms"), () =>
    Effect.scoped(Effect.gen(function*() {
      const server = yield* RedisServers.start()
      const proxy = yield* holdingProxy(server.port, "kubeprober:", { holdFor: "400 millis" })
      const config = { servers: [`127.0.0.1:${proxy.port}`], slow: "300ms" }
      const report = yield* run(config)
      assert.strictEqual(Prober.verdict(report), "WARN SLOW", report.message)
      assert.deepStrictEqual(Prober.said(report), [`SLOW 127.0.0.1:${proxy.port}`])
      assert.strictEqual(Prober.verdict(yield* run({ ...config, slow: "10s" })), "PASS")
    })))

  it.live(fault(redis, "REPLICAS_MISSING", "a master without a replica"), () =>
    Effect.scoped(Effect.gen(function*() {
      const master = yield* RedisServers.start()
      const config = { mode: "replica", servers: [master.address] }
      const report = yield* run(config)
      assert.strictEqual(Prober.verdict(report), "WARN REPLICAS_MISSING", report.message)
      assert.deepStrictEqual(Prober.said(report), [`REPLICAS_MISSING ${master.address}`])
      assert.strictEqual(Prober.verdict(yield* run({ ...config, minimumReplicas: 0 })), "PASS")
      yield* RedisServers.replica(master)
      yield* eventually("in step", Effect.map(RedisServers.field(master, "slave0"), (text) => text.includes("online")))
      assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
    })))

  it.live(
    fault(redis, "REPLICA_STALE", "a replica that follows another master"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        // A replica of another master: its link is up, and our write never comes.
        const other = yield* RedisServers.start()
        const replica = yield* RedisServers.replica(other)
        const config = {
          mode: "replica",
          servers: [master.address, replica.address],
          minimumReplicas: 0,
          stepTimeout: "500ms"
        }
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "ERROR REPLICA_STALE", report.message)
        assert.deepStrictEqual(Prober.said(report), [`REPLICA_STALE ${replica.address}`])
        yield* replica.cli("replicaof", "127.0.0.1", String(master.port))
        yield* eventually(
          "a link to the right master",
          Effect.map(RedisServers.field(master, "slave0"), (text) => text.includes("online"))
        )
        yield* RedisServers.inStep(replica)
        yield* RedisServers.online(master, 1)
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    fault(redis, "REPLICA_LAG", "the path from master to replica held up for a second"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const proxy = yield* holdingProxy(master.port, "kubeprober:", { direction: "answers", holdFor: "700 millis" })
        const replica = yield* RedisServers.start({
          lines: [`replicaof 127.0.0.1 ${proxy.port}`, "repl-diskless-sync-delay 0"]
        })
        yield* RedisServers.inStep(replica)
        yield* RedisServers.online(master, 1)
        const config = { mode: "replica", servers: [master.address, replica.address], replicaLag: "500ms" }
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "WARN REPLICA_LAG", report.message)
        assert.deepStrictEqual(Prober.said(report), [`REPLICA_LAG ${replica.address}`])
      }))
  )

  it.live(
    fault(redis, "SEVERAL_MASTERS", fault(redis, "NO_MASTER", "a replica promoted by hand, and no master at all")),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const replica = yield* RedisServers.replica(master)
        const config = { mode: "replica", servers: [master.address, replica.address] }
        yield* replica.cli("replicaof", "no", "one")
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "ERROR SEVERAL_MASTERS", report.message)
        const none = yield* RedisServers.start()
        yield* replica.cli("replicaof", "127.0.0.1", String(none.port))
        yield* master.cli("replicaof", "127.0.0.1", String(none.port))
        assert.strictEqual(Prober.verdict(yield* run(config)), "ERROR NO_MASTER")
      }))
  )
})

describe.concurrent("mw.redis with Sentinel", () => {
  it.live(
    healthy(redis, "three Sentinels that agree, also after a failover"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { config, master, replica, sentinels } = yield* watched
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "PASS", report.message)
        assert.include(report.message, master.address)
        assert.strictEqual(yield* sentinels[0].cli("sentinel", "failover", "shop"), "OK")
        yield* eventually(
          "the failover",
          Effect.map(
            Effect.forEach(sentinels, (sentinel) => sentinel.cli("sentinel", "get-master-addr-by-name", "shop")),
            (answers) => answers.every((answer) => answer.includes(String(replica.port)))
          ),
          60
        )
        yield* eventually(
          "the old master follows",
          Effect.map(
            RedisServers.field(replica, "slave0"),
            (text) => text.includes("online")
          ),
          60
        )
        const after = yield* run(config)
        assert.strictEqual(Prober.verdict(after), "PASS", after.message)
        assert.include(after.message, replica.address)
        yield* nothingLeft(master, replica)
      }))
  )

  it.live(
    fault(redis, "REPLICA_DOWN", "a replica taken away, which Sentinels list until they are reset"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { config, master, sentinels } = yield* watched
        const other = yield* RedisServers.replica(master)
        yield* eventually(
          "the Sentinels know the other replica",
          Effect.map(
            Effect.forEach(sentinels, (sentinel) => sentinel.cli("sentinel", "replicas", "shop")),
            (lists) => lists.every((list) => list.includes(String(other.port)))
          ),
          60
        )
        yield* other.process.kill()
        const down = yield* eventually(
          "the Sentinels notice",
          Effect.map(run(config), (report) => report.status === "WARN" ? report : undefined),
          60
        )
        assert.strictEqual(Prober.verdict(down), "WARN REPLICA_DOWN", down.message)
        assert.deepStrictEqual(Prober.said(down), [`REPLICA_DOWN ${other.address}`])
        // The master has one left; two are too few now, and the master says so.
        const few = yield* run({ ...config, minimumReplicas: 2 })
        assert.sameMembers([...Prober.said(few)], [
          `REPLICA_DOWN ${other.address}`,
          `REPLICAS_MISSING ${master.address}`
        ])
        for (const sentinel of sentinels) yield* sentinel.cli("sentinel", "reset", "shop")
        yield* eventually("forgotten", Effect.map(run(config), (report) => report.status === "PASS"), 60)
      }))
  )

  it.live(
    fault(redis, "SENTINEL_DISAGREE", "a Sentinel that watches another master"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { config } = yield* watched
        const other = yield* RedisServers.start()
        const stray = yield* RedisServers.sentinel(other, 1)
        const report = yield* run({ ...config, servers: [...config.servers, stray.address] })
        assert.strictEqual(Prober.verdict(report), "ERROR SENTINEL_DISAGREE", report.message)
        assert.strictEqual(report.findings[0]?.subject?.name, "shop")
        assert.include(report.message, other.address)
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")
      }))
  )

  it.live(
    faults(redis, "one Sentinel of three down, then two", "SENTINEL_NO_QUORUM", "SENTINEL_DOWN"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { config, sentinels } = yield* watched
        yield* sentinels[2].process.kill()
        const one = yield* run(config)
        assert.strictEqual(Prober.verdict(one), "WARN SENTINEL_DOWN", one.message)
        assert.deepStrictEqual(Prober.said(one), [`SENTINEL_DOWN ${sentinels[2].address}`])
        yield* sentinels[1].process.kill()
        const two = yield* eventually(
          "the last Sentinel notices",
          Effect.map(run(config), (report) => report.status === "ERROR" ? report : undefined),
          60
        )
        assert.strictEqual(Prober.verdict(two), "ERROR SENTINEL_NO_QUORUM", two.message)
        assert.strictEqual(two.findings[0]?.subject?.name, "shop")
      }))
  )

  it.live(
    fault(
      redis,
      "MASTER_DEMOTED",
      "a master made a replica by hand, where one Sentinel is too few to agree on another"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const master = yield* RedisServers.start()
        const sentinel = yield* RedisServers.sentinel(master, 2)
        const config = { mode: "sentinel", masterName: "shop", servers: [sentinel.address] }
        const other = yield* RedisServers.start()
        yield* master.cli("replicaof", "127.0.0.1", String(other.port))
        const report = yield* run(config)
        const demoted = report.findings.find(({ code }) => code === "MASTER_DEMOTED")
        assert.strictEqual(demoted?.status, "ERROR", report.message)
        assert.strictEqual(demoted?.subject?.name, master.address)
        assert.include(demoted?.message ?? "", "it says that it is a replica")
        yield* master.cli("replicaof", "no", "one")
        const after = yield* run(config)
        assert.isUndefined(after.findings.find(({ code }) => code === "MASTER_DEMOTED"), after.message)
      }))
  )

  it.live(blind(redis, "MASTER_UNKNOWN", "a name that no Sentinel knows"), () =>
    Effect.scoped(Effect.gen(function*() {
      const master = yield* RedisServers.start()
      const sentinel = yield* RedisServers.sentinel(master, 1)
      const report = yield* run({ mode: "sentinel", servers: [sentinel.address], masterName: "shopp" })
      assert.strictEqual(Prober.verdict(report), "UNKNOWN MASTER_UNKNOWN", report.message)
    })))
})

/** A master, a replica, and three Sentinels that know each other. */
const watched = Effect.gen(function*() {
  const master = yield* RedisServers.start()
  const replica = yield* RedisServers.replica(master)
  const sentinels = [
    yield* RedisServers.sentinel(master, 2),
    yield* RedisServers.sentinel(master, 2),
    yield* RedisServers.sentinel(master, 2)
  ] as const
  yield* Effect.forEach(sentinels, (sentinel) =>
    eventually(
      "the Sentinels know each other and the replica",
      Effect.map(
        Effect.all([
          sentinel.cli("sentinel", "ckquorum", "shop"),
          sentinel.cli("sentinel", "sentinels", "shop"),
          sentinel.cli("sentinel", "replicas", "shop")
        ]),
        ([quorum, others, replicas]) =>
          quorum.startsWith("OK 3") && others.split("\n").filter((line) => line === "name").length === 2 &&
          replicas.includes(String(replica.port))
      ),
      40
    ))
  const config = { mode: "sentinel", masterName: "shop", servers: sentinels.map(({ address }) => address) }
  return { master, replica, sentinels, config }
})

describe.concurrent("mw.redis on a cluster", () => {
  it.live(
    healthy(redis, "three masters, each with its share of the slots"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const nodes = yield* RedisServers.cluster(3)
        const config = { mode: "cluster", servers: [nodes[0]?.address ?? ""], minimumReplicas: 0 }
        const report = yield* run(config)
        assert.strictEqual(Prober.verdict(report), "PASS", report.message)
        assert.include(report.message, "3 masters")
        yield* nothingLeft(...nodes)
      }))
  )

  it.live(
    faults(
      redis,
      "slots of a cluster taken from their node, and a node lost",
      "SLOTS_MISSING",
      "CLUSTER_DOWN",
      "NODE_FAILED"
    ),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const nodes = yield* RedisServers.cluster(3)
        const config = { mode: "cluster", servers: nodes.map(({ address }) => address), minimumReplicas: 0 }
        yield* Effect.forEach(nodes, (node) => node.cli("cluster", "delslotsrange", "0", "99"))
        const missing = yield* run(config)
        assert.strictEqual(Prober.verdict(missing), "ERROR CLUSTER_DOWN", missing.message)
        const slots = missing.findings.find(({ code }) => code === "SLOTS_MISSING")
        assert.include(slots?.message ?? "", "100 of 16384")
        yield* (nodes[0]?.cli("cluster", "addslotsrange", "0", "99") ?? Effect.die("no node"))
        yield* eventually(
          "all slots served",
          Effect.map(
            Effect.forEach(nodes, (node) => node.cli("cluster", "info")),
            (texts) => texts.every((text) => text.includes("cluster_state:ok") && text.includes("slots_ok:16384"))
          )
        )
        assert.strictEqual(Prober.verdict(yield* run(config)), "PASS")

        yield* (nodes[2]?.process.kill() ?? Effect.die("no node"))
        const lost = yield* eventually(
          "the loss noticed by the others",
          Effect.map(
            run(config),
            (report) =>
              ["NODE_FAILED", "SLOTS_MISSING"].every((wanted) => report.findings.some(({ code }) => code === wanted))
                ? report
                : undefined
          ),
          60
        )
        assert.strictEqual(lost.status, "ERROR")
        assert.include(Prober.said(lost), `NODE_FAILED ${nodes[2]?.address}`)
      }))
  )

  it.live(
    blind(redis, "UNEXPECTED_ANSWER", "a server that is no member of a cluster"),
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* RedisServers.start()
        const report = yield* run({ mode: "cluster", servers: [server.address] })
        assert.strictEqual(Prober.verdict(report), "UNKNOWN UNEXPECTED_ANSWER", report.message)
      }))
  )
})

it.live("a port nobody listens at is refused by the host, which is the target's fault", () =>
  Effect.scoped(Effect.gen(function*() {
    const { redis: port } = yield* Ports.free("127.0.0.1", ["redis"])
    const report = yield* run({ servers: [`127.0.0.1:${port}`] })
    assert.deepStrictEqual(Prober.said(report), [`CONNECTION_FAILED 127.0.0.1:${port}`])
    assert.strictEqual(report.blame, "target")
  })))
