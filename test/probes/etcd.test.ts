import { assert, describe, it, layer } from "@effect/vitest"
import { Context, DateTime, Duration, Effect, Option, Redacted, Result, Schema } from "effect"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import * as Runner from "../../src/agent/Runner.ts"
import { Credentials } from "../../src/infra/credentials/Credentials.ts"
import * as CredentialsNode from "../../src/infra/credentials/CredentialsNode.ts"
import * as EtcdApi from "../../src/infra/etcd/EtcdApi.ts"
import { EtcdUnanswered } from "../../src/infra/etcd/EtcdGateway.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Samples } from "../../src/infra/samples/Samples.ts"
import * as SamplesNode from "../../src/infra/samples/SamplesNode.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import * as Local from "../../src/local/Local.ts"
import {
  EtcdConfig,
  type Looked,
  etcd,
  growthOf,
  isSettled,
  judgeGrowth,
  judgeMembers,
  judgeRoom,
  percentile99
} from "../../src/probes/infrastructure/etcd.ts"
import { etcdCluster, leaderOf, ready } from "../clusters/EtcdCluster.ts"
import { holdingGateway } from "../clusters/HoldingGateway.ts"
import { mint } from "../clusters/Mint.ts"
import * as ProbeProcess from "../clusters/ProbeProcess.ts"
import { eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"

const defaults = Schema.decodeUnknownSync(EtcdConfig)({})

const statusOf = (member: string, leader: string, fields: Partial<EtcdApi.EtcdStatus> = {}): EtcdApi.EtcdStatus => ({
  header: { cluster_id: "1", member_id: member },
  dbSize: 100,
  dbSizeInUse: 50,
  dbSizeQuota: 1000,
  leader,
  raftTerm: 2,
  ...fields
})

const answered = (member: string, leader: string, fields?: Partial<EtcdApi.EtcdStatus>): Looked => ({
  endpoint: `h${member}:2379`,
  status: Result.succeed(statusOf(member, leader, fields))
})

const silent = (member: string, kind: EtcdUnanswered["kind"]): Looked => ({
  endpoint: `h${member}:2379`,
  status: Result.fail(new EtcdUnanswered({ endpoint: `h${member}:2379`, kind, detail: "gone" }))
})

const decodeHeader = Schema.decodeUnknownEffect(Schema.fromJsonString(
  Schema.Struct({ header: Schema.Struct({ member_id: Schema.String, revision: Schema.String }) })
))

const members = ["1", "2", "3"].map((ID): EtcdApi.EtcdMember => ({
  ID,
  name: `m${ID}`,
  clientURLs: [`https://h${ID}:2379`]
}))

describe("judging etcd", () => {
  const said = (...looked: ReadonlyArray<Looked>) =>
    judgeMembers({ looked, members }).map(({ code, status, subject }) =>
      `${status} ${code} ${subject?.name ?? ""}`.trim()
    )

  it("tells a member that is down from a lost quorum, and both from a way that is blocked", () => {
    assert.deepStrictEqual(said(answered("1", "1"), answered("2", "1"), answered("3", "1")), [])
    assert.deepStrictEqual(said(answered("1", "1"), answered("2", "1"), silent("3", "refused")), [
      "WARN MEMBER_DOWN m3"
    ])
    assert.deepStrictEqual(said(answered("1", "0"), silent("2", "refused"), silent("3", "timeout")), [
      "ERROR QUORUM_LOST m2"
    ])
    assert.deepStrictEqual(said(answered("1", "0"), answered("2", "0"), answered("3", "0")), ["ERROR NO_LEADER m1"])
    assert.deepStrictEqual(said(answered("1", "0")), ["ERROR NO_LEADER m1"])
    assert.deepStrictEqual(
      said(silent("1", "refused"), silent("2", "timeout")),
      ["UNKNOWN ENDPOINT_UNREACHABLE m1", "UNKNOWN ENDPOINT_UNREACHABLE m2"]
    )
    assert.deepStrictEqual(said(answered("1", "1"), answered("2", "0"), answered("3", "1")), ["WARN MEMBER_APART m2"])
    assert.deepStrictEqual(said(answered("1", "1"), answered("2", "2"), answered("3", "1")), ["ERROR LEADERS_DIFFER"])
    assert.deepStrictEqual(
      said(answered("1", "1"), answered("2", "1", { header: { cluster_id: "2", member_id: "2" } })),
      ["ERROR CLUSTERS_DIFFER"]
    )
    assert.deepStrictEqual(said(answered("1", "1"), silent("2", "dns"), silent("3", "tls")), [
      "UNKNOWN ENDPOINT_UNRESOLVED m2",
      "UNKNOWN TLS_FAILED m3"
    ])
    assert.deepStrictEqual(said(answered("1", "1"), silent("2", "unknown"), silent("3", "unreachable")), [
      "UNKNOWN ENDPOINT_UNREACHABLE m2",
      "UNKNOWN ENDPOINT_UNREACHABLE m3"
    ])
  })

  it("looks again while members do not agree", () => {
    assert.isTrue(isSettled([answered("1", "1"), answered("2", "1"), silent("3", "refused")]))
    assert.isFalse(isSettled([answered("1", "1"), answered("2", "0")]))
    assert.isFalse(isSettled([answered("1", "1"), answered("2", "2")]))
    assert.isFalse(isSettled([silent("1", "refused")]))
  })

  it("judges the room by the quota that the status or the metrics tell", () => {
    const room = (dbSize: number, dbSizeQuota: number, quota = 0) =>
      judgeRoom(
        defaults,
        { looked: [answered("1", "1", { dbSize, dbSizeQuota })], members },
        new Map([["1", quota]])
      ).map(({ code }) => code)
    assert.deepStrictEqual([room(799, 1000), room(800, 1000), room(949, 1000), room(950, 1000)], [
      [],
      ["DB_NEARLY_FULL"],
      ["DB_NEARLY_FULL"],
      ["DB_FULL"]
    ])
    assert.deepStrictEqual([room(960, 0, 1000), room(960, 0)], [["DB_FULL"], []])
  })

  it("takes one slow commit for an accident, and two of a hundred for a slow disk", () => {
    const of = (fast: number, slow: number) => percentile99([[0.5, fast], [1, fast + slow], [Infinity, fast + slow]])
    assert.deepStrictEqual(of(99, 0), { above: 0, below: 0.5, count: 99 })
    assert.deepStrictEqual(of(12, 1), { above: 0, below: 0.5, count: 13 })
    assert.deepStrictEqual(of(12, 2), { above: 0.5, below: 1, count: 14 })
    assert.deepStrictEqual(of(997, 3), { above: 0, below: 0.5, count: 1000 })
    assert.strictEqual(of(0, 0), undefined)
  })

  it("counts what has grown since it was last seen, and changes of the leader within their window", () => {
    const at = (seconds: number) => DateTime.makeUnsafe((10_000 + seconds) * 1000)
    const metrics = (startedAt: number, leaderChanges: number): EtcdApi.EtcdMetrics => ({
      startedAt,
      leaderChanges,
      quota: 0,
      commits: [[0.5, 10], [Infinity, 20]]
    })
    const counters = (leaderChanges: number, fast: number, all: number) => ({
      leaderChanges,
      "le=0.5": fast,
      "le=Infinity": all
    })
    const grown = (startedAt: number, earlier: ReadonlyArray<readonly [number, ReturnType<typeof counters>]>) =>
      growthOf({
        endpoint: "e",
        member: "m",
        first: { at: at(-1), counters: counters(5, 9, 9) },
        last: { at: at(0), counters: {}, metrics: metrics(startedAt, 5) },
        earlier: earlier.map(([seconds, counters]) => ({ at: at(seconds), counters })),
        window: Duration.minutes(15)
      })
    // Nobody remembers, and it runs for long: only this run's own commits, and nothing of leaders.
    const alone = grown(0, [])
    assert.deepStrictEqual(alone.commits, [[0.5, 1], [Infinity, 11]])
    assert.isUndefined(alone.leaderChanges)
    // Young: all there were, less the first.
    assert.deepStrictEqual(grown(9_990, []).leaderChanges, { count: 4, within: Duration.seconds(10) })
    const remembered = grown(0, [[-600, counters(1, 0, 0)], [-300, counters(4, 10, 12)]])
    assert.deepStrictEqual(remembered.commits, [[0.5, 0], [Infinity, 8]])
    assert.deepStrictEqual(remembered.leaderChanges, { count: 4, within: Duration.minutes(10) })
    assert.deepStrictEqual(judgeGrowth(defaults, [remembered]).map(({ code }) => code), [
      "FSYNC_SLOW",
      "LEADER_UNSTABLE"
    ])
    assert.deepStrictEqual(judgeGrowth(defaults, [alone, grown(9_000, [])]).map(({ code }) => code), [
      "FSYNC_SLOW",
      "FSYNC_SLOW"
    ])
  })

  it("reads metrics as etcd writes them, and none where there are none", () => {
    const metrics = EtcdApi.parseMetrics([
      "# HELP etcd_disk_wal_fsync_duration_seconds The latency distributions of fsync called by WAL.",
      "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.512\"} 3",
      "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 4",
      "etcd_server_leader_changes_seen_total 2",
      "etcd_server_quota_backend_bytes 2.147483648e+09",
      "process_start_time_seconds 1.79576978306e+09"
    ].join("\n"))
    assert.deepStrictEqual(Option.getOrUndefined(metrics), {
      startedAt: 1_795_769_783.06,
      leaderChanges: 2,
      quota: 2_147_483_648,
      commits: [[0.512, 3], [Infinity, 4]]
    })
    assert.isTrue(Option.isNone(EtcdApi.parseMetrics("up 1\n")))
  })
})

describe("infra.etcd", () => {
  layer(Local.layer, { excludeTestServices: true, timeout: "120 seconds" })("on real members", (it) => {
    /** It asks no API server; there is none here. */
    const noCluster = KubeHttp.make(
      KubeConnection.make({ cluster: "none", server: "https://127.0.0.1:1", identity: { tls: {} } })
    )

    /** One run, as an agent makes it; what it remembers of earlier ones is `samples`. */
    const run = Effect.fnUntraced(function*(
      config: Readonly<Record<string, unknown>>,
      options: { readonly folder?: string; readonly samples?: Samples["Service"]; readonly runId?: string } = {}
    ) {
      const world = LocalWorld.context.pipe(
        Context.add(Credentials, CredentialsNode.make(options.folder)),
        Context.add(Samples, options.samples ?? SamplesNode.make())
      )
      const { report } = yield* Runner.run({ _tag: "Check", name: etcd.id, probe: etcd, with: config }, {
        context: {
          runId: options.runId ?? "run",
          probeNamespace: "none",
          expiresAt: DateTime.addDuration(yield* DateTime.now, "15 minutes")
        },
        missing: [],
        world: { ...ProbeWorld.outside, world }
      }).pipe(Effect.provideServiceEffect(Kube, noCluster))
      return report
    })
    const said = (report: Effect.Success<ReturnType<typeof run>>) =>
      report.findings.map(({ code, status, subject }) => `${status} ${code} ${subject?.name ?? ""}`.trim())

    /** Keys under our prefix, and leases. */
    const left = Effect.fnUntraced(
      function*({ call }: Effect.Success<ReturnType<typeof etcdCluster>>["members"][number]) {
        const text = (value: string) => Buffer.from(value).toString("base64")
        const keys = yield* call("/v3/kv/range", {
          key: text("/kubeprober/"),
          rangeEnd: text("/kubeprober0"),
          countOnly: true
        })
        const leases = yield* call("/v3/lease/leases", {})
        return { keys: /"count":"\d+"/.test(keys), leases: /"ID"/.test(leases) }
      }
    )
    const nothing = { keys: false, leases: false }

    it.effect(healthy(etcd, "three members that commit, from each of them"), () =>
      Effect.gen(function*() {
        const { members: [one, two, three], urls } = yield* etcdCluster({ members: 3 })
        if (one === undefined || two === undefined || three === undefined) return assert.fail("three members")
        yield* ready([one, two, three])
        // Other work of this machine must not make it slow.
        const config = { endpoints: urls, putWarnAfter: "10s" }
        const report = yield* run(config)
        assert.strictEqual(report.status, "PASS", report.message)
        assert.match(report.message, /^3 members have a leader and commit; 15 keys were written, read and deleted/)
        assert.deepStrictEqual(yield* left(one), nothing)
        // Read from one member, they are there from all.
        assert.strictEqual((yield* run({ ...config, endpoints: urls.slice(0, 1) })).status, "PASS")
      }))

    it.effect(
      healthy(etcd, "says that there is nothing to look at where no endpoint is named"),
      () =>
        Effect.gen(function*() {
          const report = yield* run({})
          assert.strictEqual(`${report.status} ${report.code}`, "INFO NOT_APPLICABLE")
          assert.include(report.message, "`endpoints`")
        })
    )

    it.effect(fault(etcd, "MEMBER_DOWN", "one member of three killed"), () =>
      Effect.gen(function*() {
        const { members, urls } = yield* etcdCluster({ members: 3 })
        const [, , third] = members
        if (third === undefined) return assert.fail("three members")
        yield* ready(members)
        const config = { endpoints: urls, putWarnAfter: "10s" }
        yield* third.kill
        assert.deepStrictEqual(said(yield* run(config)), ["WARN MEMBER_DOWN m3"])
        yield* third.start
        yield* ready(members)
        assert.strictEqual((yield* run(config)).status, "PASS")
      }))

    it.effect(fault(etcd, "QUORUM_LOST", "two members of three killed"), () =>
      Effect.gen(function*() {
        const { members, urls } = yield* etcdCluster({ members: 3 })
        yield* ready(members)
        const config = { endpoints: urls, putWarnAfter: "10s", electionTime: "3s" }
        const gone = members.slice(1)
        yield* Effect.forEach(gone, ({ kill }) => kill)
        const report = yield* eventually(run(config), ({ code }) => code === "QUORUM_LOST")
        assert.deepStrictEqual(said(report), ["ERROR QUORUM_LOST m2"])
        assert.include(report.message, "1 of 3 members answer (2 are needed) and have no leader; silent: m2, m3")
        yield* Effect.forEach(gone, ({ start }) => start)
        yield* ready(members)
        assert.strictEqual((yield* run(config)).status, "PASS")
      }))

    it.effect(
      fault(etcd, "LEADER_UNSTABLE", "four changes of the leader in a few seconds"),
      () =>
        Effect.gen(function*() {
          const { members, urls } = yield* etcdCluster({ members: 3 })
          yield* ready(members)
          const config = { endpoints: urls, putWarnAfter: "10s" }
          const samples = SamplesNode.make()
          assert.strictEqual((yield* run(config, { samples })).status, "PASS")
          for (let change = 0; change < 4; change++) {
            const { id, member } = yield* leaderOf(members)
            const known = yield* Effect.orDie(member.api.members)
            const next = known.find(({ ID }) => ID !== id)?.ID
            yield* member.call("/v3/maintenance/transfer-leadership", { targetID: next })
          }
          yield* ready(members)
          const report = yield* run(config, { samples })
          assert.strictEqual(`${report.status} ${report.code}`, "WARN LEADER_UNSTABLE", report.message)
          assert.match(report.message, /^the leader changed \d times in the last/)
          // Once they are out of the window.
          yield* eventually(run({ ...config, leaderWindow: "2s" }, { samples }), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      `${fault(etcd, "DB_NEARLY_FULL", "a database filled")} ${fault(etcd, "DB_FULL", "to its quota")} ` +
        fault(etcd, "NO_SPACE", "and beyond"),
      () =>
        Effect.gen(function*() {
          const quota = 16 * 1024 * 1024
          const { members: [member], urls } = yield* etcdCluster({ flags: [`--quota-backend-bytes=${quota}`] })
          if (member === undefined) return assert.fail("a member")
          yield* ready([member])
          const config = { endpoints: urls, putWarnAfter: "10s" }
          const text = (value: string) => Buffer.from(value).toString("base64")
          let written = 0
          const fillTo = (percent: number) =>
            Effect.gen(function*() {
              while ((yield* Effect.orDie(member.api.status)).dbSize * 100 < quota * percent) {
                yield* member.call("/v3/kv/put", { key: text(`fill/${written++}`), value: text("x".repeat(300_000)) })
                // What is written is in the file when it is committed, which etcd does every 100 ms.
                yield* member.call("/v3/maintenance/hash", {})
              }
            })
          assert.strictEqual((yield* run(config)).status, "PASS")
          yield* fillTo(82)
          assert.deepStrictEqual(said(yield* run(config)), ["WARN DB_NEARLY_FULL m1"])
          yield* fillTo(95)
          assert.deepStrictEqual(said(yield* run(config)), ["ERROR DB_FULL m1"])
          yield* eventually(
            member.call("/v3/kv/put", { key: text(`fill/${written++}`), value: text("x".repeat(1_000_000)) }),
            (answer) => answer.includes("space exceeded")
          )
          const full = yield* run(config)
          assert.deepStrictEqual(said(full).toSorted(), ["ERROR DB_FULL m1", "ERROR NO_SPACE m1"])
          assert.deepStrictEqual(yield* left(member), nothing)
          // What the fix says.
          yield* member.call("/v3/kv/deleterange", { key: text("fill/"), rangeEnd: text("fill0") })
          const { header: { member_id: memberID, revision } } = yield* Effect.orDie(decodeHeader(
            yield* member.call("/v3/maintenance/status", {})
          ))
          yield* member.call("/v3/kv/compaction", { revision, physical: true })
          yield* member.call("/v3/maintenance/defragment", {})
          yield* member.call("/v3/maintenance/alarm", { action: "DEACTIVATE", alarm: "NOSPACE", memberID })
          const healed = yield* run(config)
          assert.strictEqual(healed.status, "PASS", healed.message)
        })
    )

    it.effect(fault(etcd, "CORRUPT", "the alarm raised"), () =>
      Effect.gen(function*() {
        const { members: [member], urls } = yield* etcdCluster()
        if (member === undefined) return assert.fail("a member")
        yield* ready([member])
        const id = (yield* Effect.orDie(member.api.status)).header.member_id
        const alarm = (action: string) =>
          member.call("/v3/maintenance/alarm", { action, alarm: "CORRUPT", memberID: id })
        yield* alarm("ACTIVATE")
        assert.include(said(yield* run({ endpoints: urls, putWarnAfter: "10s" })), "ERROR CORRUPT m1")
        yield* alarm("DEACTIVATE")
        assert.strictEqual((yield* run({ endpoints: urls, putWarnAfter: "10s" })).status, "PASS")
      }))

    it.effect(
      `${fault(etcd, "PUT_SLOW", "a disk that takes 600 ms")} ${fault(etcd, "FSYNC_SLOW", "for each commit")} ` +
        fault(etcd, "FSYNC_VERY_SLOW", "and one that takes 1.1 s"),
      () =>
        Effect.gen(function*() {
          const { members: [member], urls } = yield* etcdCluster()
          if (member === undefined) return assert.fail("a member")
          yield* ready([member])
          const config = { endpoints: urls, rounds: 2, stepTimeout: "15s", putWarnAfter: "400ms" }
          const samples = SamplesNode.make()
          yield* eventually(run(config, { samples }), ({ status }) => status === "PASS")
          // What a busy machine adds to the 600 ms is no second limit's matter.
          const slow = yield* Effect.scoped(
            Effect.andThen(member.slowDisk(600), run({ ...config, fsyncErrorAfter: "8s" }, { samples }))
          )
          assert.deepStrictEqual(said(slow).toSorted(), ["WARN FSYNC_SLOW m1", "WARN PUT_SLOW m1"], slow.message)
          const slower = yield* Effect.scoped(Effect.andThen(member.slowDisk(1_100), run(config, { samples })))
          assert.include(said(slower), "ERROR FSYNC_VERY_SLOW m1", slower.message)
          yield* eventually(run(config, { samples }), ({ status }) => status === "PASS")
        }),
      180_000
    )

    it.effect(fault(etcd, "COMMIT_FAILED", "a disk that hangs"), () =>
      Effect.gen(function*() {
        const { members: [member], urls } = yield* etcdCluster()
        if (member === undefined) return assert.fail("a member")
        yield* ready([member])
        const config = { endpoints: urls, rounds: 1, stepTimeout: "2s", putWarnAfter: "10s" }
        const report = yield* Effect.scoped(Effect.andThen(member.slowDisk(4_000), run(config)))
        assert.include(said(report), "ERROR COMMIT_FAILED m1", report.message)
        yield* eventually(run(config), ({ status }) => status === "PASS")
        // A lease whose grant was not waited for has no keys, and ends by itself.
        assert.isFalse((yield* left(member)).keys)
      }), 150_000)

    it.effect(
      fault(etcd, "CLUSTERS_DIFFER", "an endpoint of another cluster beside the right one"),
      () =>
        Effect.gen(function*() {
          const one = yield* etcdCluster()
          const other = yield* etcdCluster({ flags: ["--initial-cluster-token=other"] })
          yield* ready(one.members)
          yield* ready(other.members)
          const report = yield* run({ endpoints: [...one.urls, ...other.urls], electionTime: "1s" })
          assert.deepStrictEqual(said(report), ["ERROR CLUSTERS_DIFFER"])
          assert.strictEqual((yield* run({ endpoints: one.urls, putWarnAfter: "10s" })).status, "PASS")
        })
    )

    it.effect(
      `${healthy(etcd, "a member that asks for our certificate")} ` +
        `${blind(etcd, "TLS_FAILED", "another authority's certificate, and none")} ` +
        fault(etcd, "CERTIFICATE_EXPIRED", "the member's own certificate out of date"),
      () =>
        Effect.gen(function*() {
          const authority = yield* Certificates.makeAuthority("etcd")
          const stranger = yield* Certificates.makeAuthority("stranger")
          const client = yield* authority.issue({ commonName: "prober" })
          const other = yield* stranger.issue({ commonName: "prober" })
          const server = yield* mint({ commonName: "member", age: "1 hour", left: "1 hour", issuer: authority })
          const folder = yield* Effect.acquireRelease(
            Effect.promise(() => mkdtemp(join(tmpdir(), "kubeprober-credentials-"))),
            (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
          )
          const put = (credential: string, values: Readonly<Record<string, string>>) =>
            Effect.promise(async () => {
              await mkdir(join(folder, credential), { recursive: true })
              for (const [key, value] of Object.entries(values)) await writeFile(join(folder, credential, key), value)
            })
          yield* put("ours", { "ca.crt": authority.cert, "tls.crt": client.cert, "tls.key": client.key })
          yield* put("theirs", { "tls.crt": other.cert, "tls.key": other.key })
          const { folder: files, members: [member], urls } = yield* etcdCluster({
            tls: {
              server,
              ca: authority.cert,
              client: { ca: authority.cert, certificate: client.cert, key: Redacted.make(client.key) }
            }
          })
          if (member === undefined) return assert.fail("a member")
          yield* ready([member])
          const ref = (credential: string, key: string) => ({ credential, key })
          const config = {
            endpoints: urls,
            ca: ref("ours", "ca.crt"),
            certificate: ref("ours", "tls.crt"),
            key: ref("ours", "tls.key"),
            putWarnAfter: "10s"
          }
          const passed = yield* run(config, { folder })
          assert.strictEqual(passed.status, "PASS", passed.message)
          for (
            const wrong of [
              { ...config, certificate: ref("theirs", "tls.crt"), key: ref("theirs", "tls.key") },
              { ...config, certificate: null, key: null },
              { ...config, ca: null },
              { ...config, serverName: "elsewhere" },
              { ...config, key: ref("theirs", "tls.key") }
            ]
          ) {
            const report = yield* run(wrong, { folder })
            assert.deepStrictEqual(said(report), [`UNKNOWN TLS_FAILED ${new URL(member.url).host}`], report.message)
            assert.notInclude(JSON.stringify(report), "PRIVATE KEY")
          }
          const missing = yield* run({ ...config, key: ref("ours", "nothing") }, { folder })
          assert.strictEqual(missing.status, "UNKNOWN")
          assert.include(missing.message, "nothing")
          // etcd reads its certificate anew for each connection.
          const expired = yield* mint({ commonName: "member", age: "2 hours", left: "-1 hour", issuer: authority })
          yield* Effect.promise(() => writeFile(join(files, "server.crt"), expired.cert))
          yield* Effect.promise(() => writeFile(join(files, "server.key"), expired.key))
          const late = yield* run(config, { folder })
          assert.strictEqual(`${late.status} ${late.code}`, "ERROR CERTIFICATE_EXPIRED", late.message)
          yield* Effect.promise(() => writeFile(join(files, "server.crt"), server.cert))
          yield* Effect.promise(() => writeFile(join(files, "server.key"), server.key))
          assert.strictEqual((yield* run(config, { folder })).status, "PASS")
        })
    )

    it.effect(blind(etcd, "ENDPOINT_UNRESOLVED", "a name that has no address"), () =>
      Effect.gen(function*() {
        const report = yield* run({ endpoints: ["http://etcd.invalid:2379"] })
        assert.deepStrictEqual(said(report), ["UNKNOWN ENDPOINT_UNRESOLVED etcd.invalid:2379"])
      }))

    it.effect(blind(etcd, "ENDPOINT_UNREACHABLE", "the only endpoint refuses"), () =>
      Effect.gen(function*() {
        const { members: [member], urls } = yield* etcdCluster()
        if (member === undefined) return assert.fail("a member")
        yield* ready([member])
        yield* member.kill
        assert.deepStrictEqual(said(yield* run({ endpoints: urls })), [
          `UNKNOWN ENDPOINT_UNREACHABLE ${new URL(member.url).host}`
        ])
      }))

    it.effect(blind(etcd, "GATEWAY_MISSING", "etcd without its gateway"), () =>
      Effect.gen(function*() {
        const { members: [member], urls } = yield* etcdCluster({ flags: ["--enable-grpc-gateway=false"] })
        if (member === undefined) return assert.fail("a member")
        yield* eventually(run({ endpoints: urls }), ({ code }) => code === "GATEWAY_MISSING")
      }))

    it.effect(blind(etcd, "NOT_ALLOWED", "etcd's own roles in force"), () =>
      Effect.gen(function*() {
        const { members: [member], urls } = yield* etcdCluster()
        if (member === undefined) return assert.fail("a member")
        yield* ready([member])
        yield* member.call("/v3/auth/user/add", { name: "root", password: "x" })
        yield* member.call("/v3/auth/user/grant", { user: "root", role: "root" })
        yield* member.call("/v3/auth/enable", {})
        const report = yield* run({ endpoints: urls, putWarnAfter: "10s" })
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN NOT_ALLOWED", JSON.stringify(report.findings))
      }))

    it.effect(
      killed(etcd, "before and after each thing it makes: its keys end with their lease"),
      () =>
        Effect.gen(function*() {
          const none = yield* Certificates.makeAuthority("none")
          // The request it is killed at, and what there is then.
          const boundaries = [
            ["/v3/lease/grant", { leases: false, keys: false }],
            ["/v3/kv/txn", { leases: true, keys: false }],
            ["/v3/kv/range", { leases: true, keys: true }],
            ["/v3/kv/deleterange", { leases: true, keys: true }],
            ["/v3/lease/revoke", { leases: true, keys: false }]
          ] as const
          const killedAt = ([path, there]: typeof boundaries[number], index: number) =>
            Effect.scoped(Effect.gen(function*() {
              const { members: [member], urls: [url = ""] } = yield* etcdCluster()
              if (member === undefined) return assert.fail("a member")
              yield* ready([member])
              const gateway = yield* holdingGateway(url, path)
              const config = { endpoints: [gateway.url], leaseTtl: "8s", rounds: 1, stepTimeout: "60s" }
              const process = yield* ProbeProcess.start(
                {
                  name: "none",
                  server: "https://127.0.0.1:1",
                  caCertPem: none.cert,
                  adminCertPem: none.cert,
                  adminKeyPem: none.key
                },
                etcd,
                { runId: `killed-${index}`, namespace: "none", expiresInMillis: 60_000, config }
              )
              yield* gateway.reached
              assert.isTrue(yield* process.kill)
              assert.deepStrictEqual(yield* left(member), there, path)
              // Nobody deletes it: it goes by itself.
              yield* eventually(left(member), (now) => !now.keys && !now.leases, { within: "60 seconds" })
            }))
          // Together, as leases take their time to end.
          yield* Effect.forEach(boundaries, killedAt, { concurrency: "unbounded" })
          // An interruption, by contrast, revokes at once.
          const { members: [member], urls: [url = ""] } = yield* etcdCluster()
          if (member === undefined) return assert.fail("a member")
          yield* ready([member])
          for (const after of ["5 millis", "30 millis", "80 millis"] as const) {
            yield* Effect.timeoutOption(run({ endpoints: [url], rounds: 50 }), after)
            assert.deepStrictEqual(yield* left(member), nothing)
          }
        }),
      120_000
    )
  })
})
