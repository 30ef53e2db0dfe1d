import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Context,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  Option,
  Redacted,
  References,
  Stream
} from "effect"
import { type Server, createServer } from "node:net"
import { FleetClient } from "../../../src/client/FleetClient.ts"
import type { ProbeSpec } from "../../../src/domain/kinds/Probe.ts"
import { ApiServer } from "../../../src/master/api/ApiServer.ts"
import { Authentication } from "../../../src/master/api/Authentication.ts"
import { until } from "../../link/fixture.ts"
import { record, startAgent } from "../control/fleetFixture.ts"
import { type ApiServices, Folder, apiWith, ask, clientOf, embedded, tokenOf } from "./apiFixture.ts"

const served = <A, E>(effect: Effect.Effect<A, E, ApiServices>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(apiWith(embedded))),
    Effect.provideService(References.MinimumLogLevel, process.env["TEST_LOG"] === undefined ? "None" : "Debug")
  )

const probe: ProbeSpec = {
  checks: [{ name: "one", use: "k8s.node.readiness" }],
  policy: { interval: Duration.minutes(1) },
  clusterSelector: {}
}

/** The tag of what a call failed with. */
const failure = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), ({ _tag }) => _tag)

describe("the typed client, over HTTPS", () => {
  it.live("makes, shows and deletes Probes", () =>
    served(Effect.gen(function*() {
      const fleet = yield* clientOf()
      assert.deepStrictEqual(yield* fleet.probes({}), { probes: [] })
      const made = yield* fleet.applyProbe({ name: "nodes", labels: { team: "a" }, spec: probe })
      assert.strictEqual(made.generation, 1)
      assert.deepStrictEqual(made.labels, { team: "a" })
      const changed = yield* fleet.applyProbe({
        name: "nodes",
        spec: { ...probe, policy: { interval: Duration.minutes(2) } }
      })
      assert.strictEqual(changed.generation, 2)
      yield* until(
        "the change shows",
        Effect.map(Effect.orDie(fleet.probes({})), ({ probes }) => probes[0]?.generation === 2)
      )
      yield* fleet.deleteProbe({ name: "nodes" })
      assert.strictEqual(yield* failure(fleet.deleteProbe({ name: "nodes" })), "ProbeMissing")
    })))

  it.live("adds, labels, revokes and removes clusters", () =>
    served(Effect.gen(function*() {
      const fleet = yield* clientOf()
      const { token } = yield* fleet.createJoinToken({ cluster: "a", labels: { env: "prod" } })
      assert.isAbove(Redacted.value(token).length, 32)
      yield* until("it shows", Effect.map(Effect.exit(fleet.cluster({ cluster: "a" })), Exit.isSuccess))
      const labelled = yield* fleet.labelCluster({ cluster: "a", labels: { env: null, region: "eu" } })
      assert.deepStrictEqual(labelled.labels, { region: "eu" })
      assert.strictEqual(
        yield* failure(fleet.labelCluster({ cluster: "a", labels: { "not a label": "x" } })),
        "InvalidResource"
      )
      assert.strictEqual(yield* failure(fleet.labelCluster({ cluster: "b", labels: {} })), "ClusterNotFound")
      yield* fleet.revoke({ cluster: "a" })
      yield* fleet.removeCluster({ cluster: "a" })
      assert.strictEqual(yield* failure(fleet.removeCluster({ cluster: "a" })), "ClusterNotFound")
      assert.strictEqual(yield* failure(fleet.cluster({ cluster: "a" })), "ClusterNotFound")
    })))

  it.live("pages through clusters and rows, each once, and knows its own cursors", () =>
    served(Effect.gen(function*() {
      const fleet = yield* clientOf()
      const names = ["a", "b", "c", "d", "e"]
      yield* Effect.forEach(names, (cluster) => fleet.createJoinToken({ cluster }))
      const all = yield* Stream.paginate(
        undefined as string | undefined,
        (after) =>
          Effect.map(
            fleet.matrix({ filter: {}, limit: 2, ...(after !== undefined && { after }) }),
            ({ next, rows }) => [
              rows.map(({ cluster }) => cluster),
              next === undefined ? Option.none() : Option.some(next)
            ]
          )
      ).pipe(Stream.runCollect)
      assert.deepStrictEqual([...all], names)
      const first = yield* fleet.clusters({ filter: {}, limit: 4 })
      const last = yield* fleet.clusters({ filter: {}, limit: 4, after: first.next ?? "" })
      assert.deepStrictEqual([...first.clusters, ...last.clusters].map(({ name }) => name), names)
      assert.isUndefined(last.next)
      assert.deepStrictEqual(
        (yield* fleet.clusters({ filter: { clusters: ["c", "z"] } })).clusters.map(({ name }) => name),
        ["c"]
      )
      for (const after of ["", "a", "!", Buffer.from("{}").toString("base64url")]) {
        assert.strictEqual(yield* failure(fleet.matrix({ filter: {}, after })), "InvalidCursor")
        assert.strictEqual(yield* failure(fleet.clusters({ filter: {}, after })), "InvalidCursor")
      }
    })))

  it.live("streams a run as it goes, and ends it in the cluster when its reader stops", () =>
    served(Effect.gen(function*() {
      const fleet = yield* clientOf()
      const ended = yield* Deferred.make<void>()
      yield* startAgent({
        cluster: "a",
        runNow: ({ run }) =>
          Stream.concat(
            Stream.fromEffect(Effect.map(DateTime.now, (startedAt) =>
              record({ run, probe: "nodes", checker: "one", status: "ERROR", startedAt }))),
            Stream.never
          ).pipe(Stream.ensuring(Deferred.succeed(ended, undefined)))
      })
      yield* fleet.applyProbe({ name: "nodes", spec: probe })
      const target = { _tag: "Probe", probe: { namespace: "kubeprober", name: "nodes" } } as const
      const events = yield* fleet.run({ filter: {}, target, timeout: Duration.seconds(30) }).pipe(
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepStrictEqual([...events].map(({ _tag }) => _tag), ["Started", "Reported"])
      yield* Effect.timeout(Deferred.await(ended), "10 seconds")
    })))

  it.live("tells transitions as they happen, and the history of a cell", () =>
    served(Effect.gen(function*() {
      const fleet = yield* clientOf()
      const agent = yield* startAgent({ cluster: "a" })
      yield* fleet.applyProbe({ name: "nodes", spec: probe })
      const seen = yield* fleet.transitions({ filter: { atLeast: "ERROR" } }).pipe(
        Stream.runHead,
        Effect.flatMap(Effect.fromOption),
        Effect.forkScoped
      )
      const startedAt = yield* DateTime.now
      // Whether the stream is there already cannot be seen: told anew until it was.
      let seq = 0
      yield* Effect.suspend(() => {
        seq += 1
        return agent.uplink.deliver({
          epoch: 1,
          seq,
          records: [record({
            run: `r${seq}`,
            probe: "nodes",
            checker: "one",
            status: seq % 2 === 0 ? "PASS" : "ERROR",
            startedAt: DateTime.add(startedAt, { milliseconds: seq })
          })]
        })
      }).pipe(
        Effect.delay("50 millis"),
        Effect.repeat({ until: () => Effect.sync(() => seen.pollUnsafe() !== undefined), times: 200 })
      )
      const transition = yield* Fiber.join(seen)
      assert.strictEqual(transition.cluster, "a")
      const cell = { cluster: "a", probe: { namespace: "kubeprober", name: "nodes" }, checker: "one" }
      const { entries } = yield* fleet.history({ ...cell, limit: 1 })
      assert.strictEqual(entries.length, 1)
      assert.strictEqual(yield* failure(fleet.history({ ...cell, cluster: "b" })), "ClusterNotFound")
      assert.strictEqual(yield* failure(fleet.history({ ...cell, after: "no cursor" })), "InvalidCursor")
    })))

  it.live("says what is wrong: a strange token, a strange authority, a master that is gone", () =>
    served(Effect.gen(function*() {
      const stranger = yield* clientOf("x".repeat(43))
      assert.strictEqual(yield* failure(stranger.probes({})), "Unauthenticated")
      assert.strictEqual(yield* failure(Stream.runDrain(stranger.transitions({ filter: {} }))), "Unauthenticated")
      const { port } = yield* ApiServer
      const token = Redacted.make(yield* tokenOf)
      const use = (options: { readonly server: string; readonly connectTimeout?: Duration.Input }) =>
        FleetClient.use((fleet) => Effect.flip(fleet.probes({}))).pipe(
          Effect.provide(FleetClient.layer({ ...options, token }))
        )
      const untrusted = yield* use({ server: `https://127.0.0.1:${port}` })
      assert.strictEqual(untrusted._tag, "MasterUnreachable")
      assert.notInclude(JSON.stringify(untrusted), Redacted.value(token))
      assert.include(untrusted.message, "certificate")
      assert.include((yield* use({ server: "https://127.0.0.1:1" })).message, "ECONNREFUSED")
      assert.include((yield* use({ server: "https://localhost:1" })).message, "ECONNREFUSED")
      // One that takes connections and says nothing.
      const silent = yield* Effect.acquireRelease(
        Effect.callback<Server>((resume) => {
          const server = createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = silent.address()
      const silentPort = typeof address === "object" ? address?.port : undefined
      const waited = yield* use({ server: `https://127.0.0.1:${silentPort}`, connectTimeout: "200 millis" })
      assert.strictEqual(waited._tag, "MasterUnreachable")
      assert.include(waited.message, "there was no TLS connection after 200 ms")
    })))

  it.live("tells a reader that the master went away, not that all was said", () =>
    Effect.gen(function*() {
      const stopped = yield* Deferred.make<void>()
      const served = yield* Deferred.make<
        { readonly server: string; readonly ca: string | undefined; readonly token: string }
      >()
      const master = yield* Effect.gen(function*() {
        const { ca, port } = yield* ApiServer
        yield* Deferred.succeed(served, { server: `https://127.0.0.1:${port}`, ca, token: yield* tokenOf })
        yield* Deferred.await(stopped)
      }).pipe(Effect.provide(Layer.fresh(apiWith(embedded))), Effect.forkScoped)
      const { token, ...where } = yield* Deferred.await(served)
      const context = yield* Layer.build(FleetClient.layer({ ...where, token: Redacted.make(token) }))
      const fleet = Context.get(context, FleetClient)
      yield* fleet.probes({})
      const reading = yield* Effect.forkScoped(Effect.flip(Stream.runDrain(fleet.transitions({ filter: {} }))))
      yield* Deferred.succeed(stopped, undefined)
      yield* Fiber.await(master)
      const error = yield* Effect.timeout(Fiber.join(reading), "10 seconds")
      assert.strictEqual(error._tag, "MasterUnreachable")
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")))
})

describe("the port", () => {
  it.live("answers no call without a token, and nothing that is no call", () =>
    served(Effect.gen(function*() {
      const token = yield* tokenOf
      const post = { path: "/v1/rpc", method: "POST" }
      const anonymous = yield* ask({ ...post, body: "{}" })
      assert.strictEqual(anonymous.status, 401)
      assert.strictEqual(anonymous.headers["www-authenticate"], "Bearer")
      assert.include(anonymous.body, "there is no bearer token")
      assert.strictEqual((yield* ask({ ...post, headers: { authorization: `Basic ${token}` } })).status, 401)
      assert.strictEqual((yield* ask({ path: "/v1/rpc" })).status, 405)
      assert.strictEqual((yield* ask({ path: "/" })).status, 404)
      assert.strictEqual((yield* ask({ path: "/clusters/a/api" })).status, 401)
      const authorization = `Bearer ${token}`
      assert.strictEqual((yield* ask({ path: "/clusters/a/api", headers: { authorization } })).status, 404)
      const garbage = yield* ask({ ...post, headers: { authorization }, body: "garbage" })
      assert.isBelow(garbage.status, 600)
      assert.strictEqual((yield* ask({ path: "/healthz" })).status, 200)
      assert.strictEqual((yield* ask({ path: "/readyz" })).status, 200)
      // Still there for others.
      assert.deepStrictEqual(yield* (yield* clientOf()).probes({}), { probes: [] })
    })))

  it.live("takes bodies and headers of a bounded size", () =>
    served(Effect.gen(function*() {
      const authorization = `Bearer ${yield* tokenOf}`
      const post = { path: "/v1/rpc", method: "POST" }
      const big = Buffer.alloc(2 << 20, 32)
      const told = yield* ask({
        ...post,
        headers: { authorization, "content-length": String(big.length), expect: "100-continue" }
      })
      assert.strictEqual(told.status, 413)
      // Of a length it does not say.
      const untold = yield* Effect.exit(
        ask({ ...post, headers: { authorization, "transfer-encoding": "chunked" }, body: big })
      )
      if (Exit.isSuccess(untold)) assert.isAtLeast(untold.value.status, 400)
      assert.strictEqual((yield* ask({ path: "/healthz", headers: { a: "a".repeat(20_000) } })).status, 431)
      assert.deepStrictEqual(yield* (yield* clientOf()).probes({}), { probes: [] })
    })))
})

describe("the token of an embedded master", () => {
  const authentication = (file: string) =>
    Effect.map(
      Layer.build(Layer.fresh(Authentication.layerToken(file).pipe(Layer.provide(NodeServices.layer)))),
      Context.get(Authentication)
    )

  it.live("is made once, is its owner's alone, and is refused when others can read it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { tokenFile } = yield* Folder
      const { authenticate } = yield* authentication(tokenFile)
      assert.strictEqual(Number((yield* fs.stat(tokenFile)).mode) & 0o777, 0o600)
      const token = Redacted.make((yield* fs.readFileString(tokenFile)).trim())
      assert.strictEqual((yield* authenticate(token)).user, "admin")
      assert.strictEqual((yield* Effect.flip(authenticate(undefined)))._tag, "Unauthenticated")
      assert.strictEqual(
        (yield* Effect.flip(authenticate(Redacted.make(`${Redacted.value(token)}x`))))._tag,
        "Unauthenticated"
      )
      const again = yield* authentication(tokenFile)
      assert.strictEqual((yield* again.authenticate(token)).user, "admin")
      yield* fs.chmod(tokenFile, 0o644)
      assert.include((yield* Effect.flip(authentication(tokenFile))).message, "lets others at it")
      yield* fs.chmod(tokenFile, 0o600)
      yield* fs.writeFileString(tokenFile, "short")
      assert.include((yield* Effect.flip(authentication(tokenFile))).message, "no token")
    }).pipe(Effect.scoped, Effect.provide([Folder.layer, NodeServices.layer])))
})
