import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, Redacted, Result } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Net from "node:net"
import * as Os from "node:os"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import type { RawResponse } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { KubeError, Unreachable } from "../../src/infra/kube/KubeError.ts"
import { ConfigMap, Namespace } from "../../src/infra/kube/resources/core.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import {
  type Answer,
  addressesOf,
  apiHealth,
  blameOf,
  failedChecks,
  judgeReplicas,
  judgeServer
} from "../../src/probes/kubernetes/apiHealth.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { mint } from "../clusters/Mint.ts"
import { servingCertificate } from "../clusters/ServingCertificate.ts"
import { shedUser } from "../clusters/Shedding.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, faults, healthy } from "../proofs/proof.ts"
import { againstClient } from "./againstClient.ts"

const server = "https://10.0.0.1:6443"
const answered = (path: string, status: number, body = ""): Answer => ({
  path,
  took: Duration.millis(3),
  result: Result.succeed<RawResponse>({ status, body, warnings: [] })
})
const silent = (path: string, kind: Unreachable["kind"], detail: string): Answer => ({
  path,
  took: Duration.seconds(4),
  result: Result.fail(
    new KubeError({ cluster: "c", call: { verb: "get", resource: path }, reason: new Unreachable({ kind, detail }) })
  )
})
const says = (findings: ReturnType<typeof judgeServer>) => findings.map(({ code, status }) => `${status} ${code}`)
const ETCD_FAILED = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed\n"

describe("judging an API server's answers", () => {
  it("says nothing when all is well", () =>
    assert.deepStrictEqual(judgeServer(server, [answered("/livez", 200, "ok"), answered("/version", 200, "{}")]), []))

  it("names the failed checks of a verbose answer", () => {
    assert.deepStrictEqual(failedChecks(ETCD_FAILED), ["etcd"])
    const [finding] = judgeServer(server, [answered("/livez", 200), answered("/readyz?verbose", 500, ETCD_FAILED)])
    assert.strictEqual(finding?.code, "API_NOT_READY")
    assert.include(finding?.message, "etcd")
  })

  it("takes a server that only shuts down for what it is", () =>
    assert.deepStrictEqual(says(judgeServer(server, [answered("/readyz?verbose", 500, "[-]shutdown failed: x\n")])), [
      "WARN API_SHUTTING_DOWN"
    ]))

  it("reads an error without checks as somebody else's: a balancer without backend", () =>
    assert.deepStrictEqual(says(judgeServer(server, [answered("/livez", 503, "no backend")])), ["ERROR API_DOWN"]))

  it("calls a server down only when no path is answered well, and never for a request too many", () => {
    const good = [answered("/livez", 200, "ok"), answered("/readyz?verbose", 200, "ok")]
    assert.deepStrictEqual(says(judgeServer(server, [...good, answered("/version", 429, "slow down")])), [
      "WARN API_THROTTLED"
    ])
    assert.deepStrictEqual(says(judgeServer(server, [...good, answered("/version", 502, "bad gateway")])), [
      "ERROR API_NOT_READY"
    ])
    assert.notInclude(
      says(judgeServer(server, [answered("/livez", 200), answered("/readyz?verbose", 503)])),
      "API_DOWN"
    )
  })

  it.effect("asks once more before it takes an answer for bad", () =>
    Effect.gen(function*() {
      const report = Effect.fnUntraced(function*(bad: Readonly<Record<string, ReadonlyArray<number>>>) {
        const asked: Array<string> = []
        const client = HttpClient.make((request, { pathname }) =>
          Effect.sync(() => {
            const status = bad[pathname]?.[asked.filter((path) => path === pathname).length] ?? 200
            asked.push(pathname)
            return HttpClientResponse.fromWeb(request, new Response("{}", { status }))
          })
        )
        const fiber = yield* Effect.forkChild(againstClient(apiHealth, client, { with: { endpoints: "never" } }))
        yield* TestClock.adjust("1 second")
        const { findings } = yield* Fiber.join(fiber)
        return [says(findings).join(), asked.filter((path) => path === "/version").length]
      })
      assert.deepStrictEqual(yield* report({ "/version": [429] }), ["", 2])
      assert.deepStrictEqual(yield* report({ "/version": [502] }), ["", 2])
      assert.deepStrictEqual(yield* report({ "/version": [429, 429] }), ["WARN API_THROTTLED", 2])
      assert.deepStrictEqual(yield* report({ "/version": [401] }), ["UNKNOWN UNAUTHENTICATED", 1])
      const all = { "/version": [502, 502], "/livez": [502, 502], "/readyz": [502, 502] }
      assert.deepStrictEqual(yield* report(all), ["ERROR API_DOWN,ERROR API_DOWN,ERROR API_DOWN", 2])
    }))

  it("tells what a new connection meets where those that stand go on", () => {
    const good = [answered("/livez", 200, "ok"), answered("/readyz?verbose", 200, "ok")]
    const expired = judgeServer(server, [...good, {
      ...silent("/version", "expired", "CERT_HAS_EXPIRED, x"),
      alone: true
    }])
    assert.deepStrictEqual(says(expired), ["ERROR API_CERT_EXPIRED"])
    const refused = judgeServer(server, [...good, { ...silent("/version", "refused", "ECONNREFUSED"), alone: true }])
    assert.deepStrictEqual(says(refused), ["ERROR API_NOT_READY"])
    assert.include(refused[0]?.message, "not over a new connection")
  })

  for (const proxy of ["http://127.0.0.1:1", "https://127.0.0.1:1", "socks5://127.0.0.1:1"]) {
    it.live(`never blames the server for a proxy that is away (${new URL(proxy).protocol})`, () =>
      Effect.gen(function*() {
        const kube = yield* KubeHttp.make({
          ...KubeConnection.make({ cluster: "c", server: "https://10.0.0.1:6443", identity: { tls: {} } }),
          proxy: Redacted.make(proxy)
        })
        const error = yield* Effect.flip(kube.raw("/version"))
        const findings = judgeServer(server, [{ path: "/version", took: Duration.zero, result: Result.fail(error) }])
        assert.deepStrictEqual(says(findings), ["UNKNOWN API_UNREACHABLE"])
        assert.include(findings[0]?.message, "the proxy 127.0.0.1:1 cannot be reached (refused)")
      }).pipe(Effect.scoped))
  }

  it("never blames the server for our own credentials, rights or address", () => {
    assert.deepStrictEqual(says(judgeServer(server, [answered("/livez", 200), answered("/readyz?verbose", 403)])), [
      "UNKNOWN ACCESS_MISSING"
    ])
    assert.deepStrictEqual(says(judgeServer(server, [answered("/livez", 401)])), ["UNKNOWN UNAUTHENTICATED"])
    assert.deepStrictEqual(says(judgeServer(server, [answered("/livez", 404)])), ["UNKNOWN UNEXPECTED_ANSWER"])
  })

  it("says once that nothing answers", () =>
    assert.deepStrictEqual(
      says(judgeServer(server, [silent("/livez", "refused", "ECONNREFUSED"), silent("/version", "reset", "x")])),
      ["ERROR API_DOWN"]
    ))

  it("says what is silent when the rest answers", () => {
    const [finding] = judgeServer(server, [
      answered("/livez", 200),
      silent("/readyz?verbose", "timeout", "no answer within 4s")
    ])
    assert.strictEqual(finding?.code, "API_NOT_READY")
  })

  it("tells the server's fault from our own by how the connection fails", () => {
    const blame = (kind: Unreachable["kind"], detail: string) => blameOf(new Unreachable({ kind, detail }))
    assert.deepStrictEqual([
      blame("refused", "ECONNREFUSED"),
      blame("timeout", ""),
      blame("reset", "ECONNRESET"),
      blame("unanswered", "EHOSTUNREACH, connect EHOSTUNREACH")
    ], ["down", "down", "down", "down"])
    assert.strictEqual(blame("expired", "CERT_HAS_EXPIRED, certificate has expired"), "expired")
    assert.deepStrictEqual([
      blame("tls", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
      blame("tls", "CERT_NOT_YET_VALID"),
      blame("dns", "ENOTFOUND"),
      blame("unknown", "ENETUNREACH")
    ], ["checker", "checker", "checker", "checker"])
  })
})

describe("judging replicas", () => {
  const good = { ...answered("/readyz?verbose", 200), address: "10.0.0.1:6443" }
  const dead = { ...silent("/readyz?verbose", "timeout", "no answer"), address: "10.0.0.2:6443" }
  const stranger = { ...answered("/readyz?verbose", 404), address: "10.0.0.3:6443" }

  it("judges silence only where replicas are known to be within reach", () => {
    assert.deepStrictEqual(judgeReplicas([dead], { reachable: false }), [])
    assert.deepStrictEqual(judgeReplicas([dead, stranger], { reachable: false }), [])
    assert.deepStrictEqual(says(judgeReplicas([dead], { reachable: true })), ["WARN API_REPLICA_DOWN"])
    assert.deepStrictEqual(
      judgeReplicas([good, dead, stranger], { reachable: false }).map(({ code, subject }) => [code, subject?.name]),
      [["API_REPLICA_DOWN", "10.0.0.2:6443"]]
    )
  })

  it.effect("sends no credentials to replicas whose certificates nobody verifies, and blames none", () =>
    Effect.gen(function*() {
      const kube = yield* KubeHttp.make(KubeConnection.make({
        cluster: "unverified",
        server: "https://127.0.0.1:1",
        identity: { tls: { insecure: true }, authorization: Redacted.make("Bearer secret") }
      }))
      const result = yield* Effect.result(kube.raw("/readyz?verbose", { server: "https://10.0.0.4:6443" }))
      assert.strictEqual(yield* kube.requests, 0)
      const answer = { ...answered("/readyz?verbose", 200), result, address: "10.0.0.4:6443" }
      assert.deepStrictEqual(judgeReplicas([good, answer], { reachable: false }), [])
      const [finding, ...others] = judgeReplicas([good, answer], { reachable: true })
      assert.deepStrictEqual([`${finding?.status} ${finding?.code}`, others.length], ["INFO API_REPLICAS_NOT_ASKED", 0])
      assert.include(finding?.message, "while certificates are not verified")
    }))

  it("reads addresses with the port named https, IPv6 in brackets", () => {
    const slice = (addressType: string, address: string) =>
      addressesOf({
        metadata: {},
        addressType,
        endpoints: [{ addresses: [address], conditions: {} }],
        ports: [{ name: "metrics", port: 9 }, { name: "https", port: 6443 }]
      })
    assert.deepStrictEqual(slice("IPv4", "10.0.0.1"), ["10.0.0.1:6443"])
    assert.deepStrictEqual(slice("IPv6", "fd00::1"), ["[fd00::1]:6443"])
  })
})

/** An address of this machine that is not loopback: the API server accepts no loopback endpoint. */
const ownAddress = Object.values(Os.networkInterfaces()).flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address

/** Nobody is there: RFC 5737, TEST-NET-2. */
const NOBODY = "198.51.100.1"

const child = Probe.make("test.child", {
  layer: "kubernetes",
  proves: "that children are told why they did not run",
  writes: "nothing",
  needs: [],
  codes: {},
  config: Probe.NoConfig,
  timeout: "10 seconds",
  dependsOn: ["k8s.api.health"],
  run: () => Effect.succeed(Outcome.make("ran"))
})

/** Forwards to `port`, with `delay` before every byte that comes back: a long, slow line. */
const slowLine = (port: number, delay: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const proxy = Net.createServer((near) => {
        const far = Net.connect(port, "127.0.0.1")
        sockets.add(near).add(far)
        near.pipe(far)
        far.on("data", (chunk) => setTimeout(() => near.write(chunk), delay))
        for (const socket of [near, far]) {
          socket.on("error", () => {}).on("close", () => (near.destroy(), far.destroy()))
        }
      }).listen(0, "127.0.0.1", () => {
        const address = proxy.address()
        const close = () => {
          proxy.close()
          for (const socket of sockets) socket.destroy()
        }
        resume(Effect.succeed({ port: typeof address === "object" && address !== null ? address.port : 0, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

describe("k8s.api.health", () => {
  const cluster = TestCluster.layer({
    name: "api-health",
    // Without a delay a server that ends answers nothing any more; one that has been seen to end is killed.
    extraFlags: { "kube-apiserver": ["--bind-address=0.0.0.0", "--shutdown-delay-duration=5m"] }
  })
  layer(cluster, { excludeTestServices: true, timeout: "120 seconds" })("on a real server", (it) => {
    it.effect(healthy(apiHealth, "passes on a healthy cluster, and creates nothing"), () =>
      Effect.gen(function*() {
        const { kube, run } = yield* TestCluster
        const count = Effect.map(
          Effect.all([kube.list(ConfigMap), kube.list(Namespace)]),
          (lists) => lists.map(({ items }) => items.length)
        )
        const before = yield* count
        const requests = yield* kube.requests
        const report = yield* run(apiHealth)
        assert.strictEqual(report.status, "PASS", report.message)
        assert.match(report.message, /API server v1\.\d+\.\d+ is live and ready/)
        assert.isAtMost((yield* kube.requests) - requests, 4)
        assert.deepStrictEqual(yield* count, before)
      }))

    it.effect(
      blind(
        apiHealth,
        "ACCESS_MISSING",
        "passes with its declared needs alone, and is UNKNOWN with the rule that is missing"
      ),
      () =>
        Effect.gen(function*() {
          const { kubectl, run, userWith } = yield* TestCluster
          // Both give the health paths to every authenticated user by default.
          yield* kubectl("delete", "clusterrolebinding", "system:public-info-viewer", "system:discovery")
          const passed = yield* run(apiHealth, { as: yield* userWith(apiHealth.needs) })
          assert.strictEqual(passed.status, "PASS", passed.message)
          for (const path of ["/livez", "/readyz", "/version"]) {
            const user = yield* userWith(
              apiHealth.needs.filter((need) => need._tag !== "PathNeed" || need.path !== path)
            )
            const refused = yield* run(apiHealth, { as: user })
            assert.strictEqual(`${refused.status} ${refused.code}`, "UNKNOWN ACCESS_MISSING")
            assert.include(refused.message, `get ${path}`)
          }
        })
    )

    it.effect(
      fault(
        apiHealth,
        "API_NOT_LIVE",
        fault(
          apiHealth,
          "API_NOT_READY",
          "is ERROR while etcd hangs, with the failed check's name, and passes again after"
        )
      ),
      () =>
        Effect.gen(function*() {
          const { cluster, run } = yield* TestCluster
          yield* cluster.components.etcd.pause
          const report = yield* Effect.ensuring(
            // The server gives its checks of etcd time; on a busy machine its first answers come too late to be read.
            eventually(run(apiHealth), ({ findings }) =>
              ["API_NOT_READY", "API_NOT_LIVE"].every((wanted) =>
                findings.some(({ code, evidence }) =>
                  code === wanted && String(evidence?.["failedChecks"]).includes("etcd")
                )
              )),
            cluster.components.etcd.resume
          )
          assert.strictEqual(report.status, "ERROR")
          assert.include(report.message, cluster.server)
          assert.strictEqual(
            (yield* eventually(run(apiHealth), ({ status }) =>
              status === "PASS")).status,
            "PASS"
          )
        })
    )

    it.effect(
      fault(apiHealth, "API_DOWN", "is ERROR while the server hangs, and its children are UNKNOWN because of it"),
      () =>
        Effect.gen(function*() {
          const { cluster, round } = yield* TestCluster
          yield* cluster.components.apiServer.pause
          const [health, because] = yield* Effect.ensuring(
            round([apiHealth, child]),
            cluster.components.apiServer.resume
          )
          assert.strictEqual(`${health?.report.status} ${health?.report.code}`, "ERROR API_DOWN")
          assert.include(health?.report.message, "timeout")
          // It was asked once for the 4 s of the limit, not twice.
          assert.isBelow(health?.report.duration ?? Infinity, 8_000)
          assert.strictEqual(`${because?.report.status} ${because?.report.code}`, "UNKNOWN PARENT_FAILED")
          assert.include(because?.report.message, "API_DOWN")
          const healed = yield* eventually(
            round([apiHealth, child]),
            (results) => results.every(({ report }) => report.status === "PASS")
          )
          assert.strictEqual(healed.length, 2)
        })
    )

    it.effect(
      fault(apiHealth, "API_DOWN", "is ERROR while nothing listens, and passes when the server is back"),
      () =>
        Effect.gen(function*() {
          const { cluster, run } = yield* TestCluster
          yield* cluster.components.apiServer.kill
          const report = yield* Effect.ensuring(run(apiHealth), Effect.orDie(cluster.components.apiServer.start))
          assert.strictEqual(`${report.status} ${report.code}`, "ERROR API_DOWN")
          assert.include(report.message, "refused")
          // A refusal is not waited for.
          assert.isBelow(report.duration, 4_000)
          yield* eventually(run(apiHealth), ({ status }) => status === "PASS", { within: "60 seconds" })
        }),
      90_000
    )

    it.effect.skipIf(ownAddress === undefined)(
      faults(
        apiHealth,
        "warns of replicas that are missing, down or ending, where they are within reach",
        "API_NO_ENDPOINTS",
        "API_REPLICA_DOWN",
        "API_REPLICA_NOT_READY",
        "API_SHUTTING_DOWN"
      ),
      () =>
        Effect.gen(function*() {
          const { apply, cluster, run } = yield* TestCluster
          const slice = (...addresses: ReadonlyArray<string>) =>
            apply({
              apiVersion: "discovery.k8s.io/v1",
              kind: "EndpointSlice",
              metadata: {
                name: "kubernetes",
                namespace: "default",
                labels: { "kubernetes.io/service-name": "kubernetes" }
              },
              addressType: "IPv4",
              endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
              ports: [{ name: "https", port: Number(new URL(cluster.server).port), protocol: "TCP" }]
            })
          const always = Probe.configure(apiHealth, { endpoints: "always" })

          const without = yield* run(always)
          assert.strictEqual(`${without.status} ${without.code}`, "WARN API_NO_ENDPOINTS")

          yield* slice(NOBODY)
          assert.strictEqual((yield* run(apiHealth)).status, "PASS")
          const judged = yield* run(always)
          assert.strictEqual(`${judged.status} ${judged.code}`, "WARN API_REPLICA_DOWN")

          yield* slice(ownAddress ?? "", NOBODY)
          const report = yield* run(apiHealth)
          assert.strictEqual(`${report.status} ${report.code}`, "WARN API_REPLICA_DOWN")
          assert.include(report.findings[0]?.subject?.name, NOBODY)
          assert.strictEqual((yield* run(Probe.configure(apiHealth, { endpoints: "never" }))).status, "PASS")

          yield* slice(ownAddress ?? "")
          const healed = yield* run(always)
          assert.strictEqual(healed.status, "PASS", healed.message)
          assert.include(healed.message, "1 replica ready")

          const { apiServer } = cluster.components
          process.kill(Option.getOrThrow(yield* apiServer.pid), "SIGTERM")
          const { findings } = yield* eventually(
            run(always),
            ({ findings }) =>
              [...new Set(findings.map(({ code }) => code))].sort().join() ===
                "API_REPLICA_NOT_READY,API_SHUTTING_DOWN"
          )
          const told = new Map(findings.map(({ code, message, subject }) => [code, { message, subject }]))
          assert.include(told.get("API_SHUTTING_DOWN")?.message, cluster.server)
          assert.include(told.get("API_REPLICA_NOT_READY")?.subject?.name, ownAddress ?? "")
          yield* apiServer.kill
          yield* Effect.orDie(apiServer.start)
          yield* eventually(run(always), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      fault(apiHealth, "API_THROTTLED", "warns when the simplest requests are shed, and passes when they are not"),
      () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          const { as, shedding } = yield* shedUser("shed", apiHealth.needs, {
            nonResourceRules: [{ verbs: ["*"], nonResourceURLs: ["*"] }]
          })
          const passes = eventually(run(apiHealth, { as }), ({ status }) => status === "PASS")
          yield* passes
          const { code, findings, status } = yield* Effect.scoped(Effect.andThen(shedding, run(apiHealth, { as })))
          assert.strictEqual(`${status} ${code}`, "WARN API_THROTTLED", JSON.stringify(findings))
          assert.deepStrictEqual([...new Set(findings.map(({ code }) => code))], ["API_THROTTLED"])
          yield* passes
        })
    )

    it.effect(
      fault(apiHealth, "API_SLOW", "warns of a slow path, once it is slow again"),
      () =>
        Effect.gen(function*() {
          const { cluster, run } = yield* TestCluster
          const line = yield* slowLine(Number(new URL(cluster.server).port), 250)
          const kube = yield* KubeHttp.make(KubeConnection.make({
            cluster: "slow",
            server: `https://127.0.0.1:${line.port}`,
            identity: {
              tls: { ca: cluster.caCertPem, cert: cluster.adminCertPem, key: Redacted.make(cluster.adminKeyPem) }
            }
          }))
          const report = yield* run(Probe.configure(apiHealth, { slow: "200ms" }), { as: kube })
          assert.strictEqual(`${report.status} ${report.code}`, "WARN API_SLOW")
          assert.include(report.message, `https://127.0.0.1:${line.port}`)
          const patient = yield* run(Probe.configure(apiHealth, { slow: "5s" }), { as: kube })
          assert.strictEqual(patient.status, "PASS", patient.message)
          yield* eventually(run(Probe.configure(apiHealth, { slow: "200ms" })), ({ status }) => status === "PASS")
        })
    )

    it.effect(
      blind(
        apiHealth,
        "API_UNREACHABLE",
        blind(apiHealth, "UNAUTHENTICATED", "is UNKNOWN when the fault is on our side: CA, name, credentials")
      ),
      () =>
        Effect.gen(function*() {
          const { cluster, run } = yield* TestCluster
          const stranger = yield* Certificates.makeAuthority("stranger")
          const codeWith = Effect.fnUntraced(
            function*(connection: { readonly server?: string; readonly ca?: string; readonly token?: string }) {
              const kube = yield* KubeHttp.make(KubeConnection.make({
                cluster: "test",
                server: connection.server ?? cluster.server,
                identity: {
                  tls: { ca: connection.ca ?? cluster.caCertPem },
                  ...(connection.token === undefined
                    ? {}
                    : { authorization: Redacted.make(`Bearer ${connection.token}`) })
                }
              }))
              const { code, status } = yield* run(apiHealth, { as: kube })
              return `${status} ${code}`
            }
          )
          assert.strictEqual(yield* codeWith({ ca: stranger.cert }), "UNKNOWN API_UNREACHABLE")
          assert.strictEqual(
            yield* codeWith({ server: "https://api.cluster.invalid:6443" }),
            "UNKNOWN API_UNREACHABLE"
          )
          assert.strictEqual(yield* codeWith({ token: "nobody" }), "UNKNOWN UNAUTHENTICATED")
        })
    )

    it.effect(
      fault(
        apiHealth,
        "API_CERT_EXPIRED",
        "is ERROR when the server's certificate has expired, and passes when it is renewed"
      ),
      () =>
        Effect.gen(function*() {
          const { cluster, kubeAs, run } = yield* TestCluster
          const { issuer, serve, serving } = yield* servingCertificate
          // With connections that were made before and go on.
          const as = yield* kubeAs({ cert: cluster.adminCertPem, key: cluster.adminKeyPem })
          const verdict = run(apiHealth, { as })
          assert.strictEqual((yield* verdict).status, "PASS")
          yield* serve(yield* mint({ commonName: "kube-apiserver", age: "366 days", left: "-1 days", issuer }))
          const expired = yield* Effect.ensuring(
            eventually(verdict, ({ code }) => code === "API_CERT_EXPIRED"),
            Effect.orDie(serve(serving))
          )
          assert.strictEqual(expired.status, "ERROR")
          assert.include(expired.message, cluster.server)
          yield* eventually(verdict, ({ status }) => status === "PASS")
        }).pipe(Effect.provide(NodeServices.layer))
    )
  })
})
