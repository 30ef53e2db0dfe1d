import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Option } from "effect"
import { utimes } from "node:fs/promises"
import { type FreshnessConfig, freshness, judge } from "../../src/probes/application/freshness.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) => DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration))

const says = (last: Duration.Input | undefined, since: Duration.Input = "10 days", unread = 0) =>
  judge(Duration.hours(24))({
    what: "the backup",
    subject: { kind: "CronJob", name: "backup" },
    last: last === undefined ? Option.none() : Option.some(ago(last)),
    since: ago(since),
    now: NOW,
    besides: "",
    unread
  }).findings.map(({ code, status }) => `${status} ${code}`)

describe("judging an age", () => {
  it("lets one period pass, then two", () => {
    assert.deepStrictEqual(says("23 hours"), [])
    assert.deepStrictEqual(says("25 hours"), ["WARN GROWING_STALE"])
    assert.deepStrictEqual(says("47 hours"), ["WARN GROWING_STALE"])
    assert.deepStrictEqual(says("49 hours"), ["ERROR STALE"])
    assert.deepStrictEqual(says("-1 hours"), [], "a clock that is ahead")
  })

  it("gives what is new two periods for its first success", () => {
    assert.deepStrictEqual(says(undefined, "1 hours"), ["INFO NOT_YET_MADE"])
    assert.deepStrictEqual(says(undefined, "49 hours"), ["ERROR NEVER_MADE"])
  })

  it("accuses nobody while Jobs are left that were not read", () => {
    for (const last of ["25 hours", "49 hours", undefined] as const) {
      assert.deepStrictEqual(says(last, "10 days", 1), ["UNKNOWN JOBS_NOT_ALL_READ"], last)
    }
    assert.deepStrictEqual(says("23 hours", "10 days", 1), [], "a success is one, whatever the others say")
  })
})

const backup = {
  apiVersion: "batch/v1",
  kind: "CronJob",
  metadata: { name: "backup", namespace: "default" },
  spec: {
    schedule: "0 0 1 1 *",
    suspend: true,
    jobTemplate: {
      spec: { template: { spec: { restartPolicy: "Never", containers: [{ name: "main", image: "backup:1" }] } } }
    }
  }
}

/**
 * A Job made from the CronJob by hand, as people do it, and its end. There is no node to run it: the administrator writes
 * the status the Job controller writes when its pod has ended.
 */
const finish = Effect.fnUntraced(function*(name: string, type: "Complete" | "Failed") {
  const { kubectl } = yield* TestCluster
  yield* kubectl("create", "job", name, "--from=cronjob/backup", "-n", "default")
  yield* kubectl("label", "job", name, "-n", "default", "app=backup")
  const write = Effect.gen(function*() {
    const time = DateTime.formatIso(yield* DateTime.now).replace(/\.\d+Z$/u, "Z")
    const conditions = type === "Complete" ? ["SuccessCriteriaMet", "Complete"] : ["FailureTarget", "Failed"]
    const status = {
      ...(type === "Complete" ? { completionTime: time } : {}),
      conditions: conditions.map((type) => ({
        type,
        status: "True",
        lastProbeTime: time,
        lastTransitionTime: time
      })),
      active: 0,
      ready: 0,
      terminating: 0,
      [type === "Complete" ? "succeeded" : "failed"]: 1,
      uncountedTerminatedPods: {}
    }
    const patch = JSON.stringify({ status })
    yield* kubectl("patch", "job", name, "-n", "default", "--subresource=status", "--type=merge", "-p", patch)
  })
  // Refused until the controller has written that the Job was started.
  yield* eventually(Effect.exit(write), ({ _tag }) => _tag === "Success", { every: "300 millis", within: "60 seconds" })
})

const said = Effect.fnUntraced(function*(verdict: string, config: typeof FreshnessConfig.Encoded) {
  const { run } = yield* TestCluster
  const report = yield* run(Probe.configure(freshness, config))
  assert.strictEqual(Application.verdict(report), verdict, report.message)
  return report
})

const cronJob = { namespace: "default", cronJob: "backup" }
const labelled = { namespace: "default", jobs: "app=backup" }
const subject = { kind: "CronJob", name: "backup", namespace: "default" }

const live = TestCluster.layer({ name: "freshness" }).pipe(Layer.provideMerge(NodeServices.layer))

describe("app.freshness", () => {
  layer(live, { excludeTestServices: true, timeout: "120 seconds" })("on a real cluster", (it) => {
    it.effect(
      fault(freshness, "SOURCE_MISSING", fault(freshness, "NEVER_MADE", "the CronJob is deleted, and no Job is left")),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          const report = yield* said("ERROR SOURCE_MISSING", cronJob)
          assert.deepStrictEqual(report.findings[0]?.subject, subject)
          yield* said("ERROR SOURCE_MISSING", labelled)
          yield* apply(backup)
          yield* said("INFO NOT_YET_MADE", cronJob)
          yield* said("ERROR NEVER_MADE", { ...cronJob, period: "1ms" })
          yield* kubectl("delete", "cronjob", "backup", "-n", "default")
          yield* said("ERROR SOURCE_MISSING", cronJob)
          yield* apply(backup)
        })
    )

    it.effect(
      healthy(freshness, "a CronJob whose Job has completed lately, with the declared rights alone"),
      () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          yield* finish("fresh", "Complete")
          for (const config of [cronJob, labelled]) {
            assert.match((yield* said("PASS", config)).message, /was made .* ago \(every 1d\)/)
            const as = yield* userWith(freshness.needs)
            assert.strictEqual(Application.verdict(yield* run(Probe.configure(freshness, config), { as })), "PASS")
          }
          yield* said("INFO NOT_APPLICABLE", {})
          yield* said("UNKNOWN INVALID_CONFIG", { cronJob: "backup" })
          yield* said("UNKNOWN INVALID_CONFIG", { ...cronJob, ...labelled })
        })
    )

    it.effect(
      faults(
        freshness,
        "no backup succeeds any more: one is missed, then the next one fails",
        "STALE",
        "GROWING_STALE"
      ),
      () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          yield* finish("last", "Complete")
          const until = (verdict: string, config: typeof FreshnessConfig.Encoded) =>
            eventually(
              run(Probe.configure(freshness, { ...config, period: "8s" })),
              (report) => Application.verdict(report) === verdict,
              { every: "300 millis" }
            )
          yield* until("WARN GROWING_STALE", cronJob)
          yield* finish("failed", "Failed")
          const stale = yield* until("ERROR STALE", cronJob)
          assert.deepStrictEqual(stale.findings[0]?.subject, subject)
          assert.match(
            stale.message,
            /made last (\d+m )?\d+s ago \(limit 16s\); 1 Jobs have failed since; the CronJob is suspended/
          )
          yield* until("ERROR STALE", labelled)
          yield* finish("healed", "Complete")
          for (const config of [cronJob, labelled]) yield* said("PASS", { ...config, period: "30s" })
        })
    )

    it.effect(blind(freshness, "ACCESS_MISSING", "each right it uses is taken away"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        const used = [...Needs.list("jobs", { group: "batch" }), ...Needs.get("cronjobs", { group: "batch" })]
        for (const { resource } of used) {
          const as = yield* userWith(
            freshness.needs.filter((need) => need._tag !== "ResourceNeed" || need.resource !== resource)
          )
          const report = yield* run(Probe.configure(freshness, cronJob), { as })
          assert.strictEqual(Application.verdict(report), "UNKNOWN ACCESS_MISSING")
          assert.include(report.message, resource)
        }
      }))

    it.effect(
      blind(
        freshness,
        "AGE_UNSAID",
        fault(freshness, "SOURCE_FAILING", "an object of a server: fresh, old, gone, undated, and its server broken")
      ),
      () =>
        Effect.gen(function*() {
          const nginx = yield* Application.nginx
          const { port } = yield* Application.ports("port")
          const serve = (location = "") =>
            nginx.serve(`server { listen 127.0.0.1:${port}; ${location} location = /undated { return 200 yes; } }`)
          yield* serve()
          const url = `http://127.0.0.1:${port}/dump.gz`
          yield* said("ERROR SOURCE_MISSING", { url })
          yield* nginx.file("dump.gz", "dump")
          yield* said("PASS", { url })
          const now = yield* DateTime.now
          const age = (hours: number) =>
            Effect.promise(() => {
              const time = DateTime.toDateUtc(DateTime.subtract(now, { hours }))
              return utimes(nginx.path("dump.gz"), time, time)
            })
          yield* age(30)
          yield* said("WARN GROWING_STALE", { url })
          yield* age(50)
          const stale = yield* said("ERROR STALE", { url })
          assert.deepStrictEqual(stale.findings[0]?.subject, { kind: "URL", name: url })
          yield* age(0)
          yield* said("PASS", { url, method: "GET" })
          yield* said("UNKNOWN AGE_UNSAID", { url: url.replace("dump.gz", "undated") })
          yield* serve("location = /dump.gz { return 503; }")
          assert.deepStrictEqual((yield* said("ERROR SOURCE_FAILING", { url })).findings[0]?.subject, {
            kind: "URL",
            name: url
          })
          yield* serve()
          yield* said("PASS", { url })
          const { free } = yield* Application.ports("free")
          yield* said("ERROR SOURCE_FAILING", { url: `http://127.0.0.1:${free}/dump.gz` })
        })
    )

    it.effect(
      ["NAME_UNRESOLVED", "NO_ROUTE", "ADDRESS_REFUSED", "CREDENTIAL_REJECTED"].reduce(
        (title, code) => blind(freshness, code, title),
        "a name without an address, no route, a cloud's metadata address, and a server that wants another password"
      ),
      () =>
        Effect.gen(function*() {
          yield* said("UNKNOWN NAME_UNRESOLVED", { url: "http://backup.invalid/dump.gz" })
          yield* said("UNKNOWN NO_ROUTE", { url: "http://224.0.0.1/dump.gz" })
          yield* said("UNKNOWN ADDRESS_REFUSED", { url: "http://169.254.169.254/dump.gz" })
          const port = yield* Application.listener((socket) =>
            socket.once("data", () => socket.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"))
          )
          const credentials = yield* Application.credentials
          yield* credentials.write("backup", { username: "prober", password: "wrong" })
          const report = yield* Application.run(
            Probe.configure(freshness, { url: `http://127.0.0.1:${port}/dump.gz`, basic: "backup" }),
            credentials.world
          )
          assert.strictEqual(Application.verdict(report), "UNKNOWN CREDENTIAL_REJECTED", report.message)
        })
    )
  })
})
