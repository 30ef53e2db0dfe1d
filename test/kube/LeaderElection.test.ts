import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Clock, DateTime, Deferred, Duration, Effect, Fiber, Layer, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { type LeaderElectionOptions, whileLeading } from "../../src/infra/kube/LeaderElection.ts"
import { Lease } from "../../src/infra/kube/resources/coordination.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import { eventually } from "./eventually.ts"
import * as TcpProxy from "./TcpProxy.ts"
import * as TestCluster from "./TestCluster.ts"

/** About client-go's proportions, and half its times: a busy machine may give no turn for a second or two. */
const options = (lease: string, identity: string): LeaderElectionOptions => ({
  lease: { name: lease, namespace: "default" },
  identity,
  leaseDuration: "8 seconds",
  renewDeadline: "5 seconds",
  retryPeriod: "500 millis"
})

const leaseOf = (name: string) =>
  Effect.flatMap(Kube, (kube) => Effect.map(kube.get(Lease, { name, namespace: "default" }), ({ spec }) => spec))

/** Who led when, from the bodies' own point of view. */
const makeJournal = () => {
  const terms: Array<{ readonly who: string; readonly from: number; until: number | undefined }> = []
  const term = (who: string) =>
    Effect.acquireUseRelease(
      Effect.map(Clock.currentTimeMillis, (from) => {
        const entry = { who, from, until: undefined as number | undefined }
        terms.push(entry)
        return entry
      }),
      () => Effect.never,
      (entry) =>
        // Bodies take a while to end; their successors must not have begun by then.
        Effect.andThen(
          Effect.sleep("300 millis"),
          Effect.map(Clock.currentTimeMillis, (now) => {
            entry.until = now
          })
        )
    )
  const assertNoOverlap = () => {
    for (const [index, { from }] of terms.entries()) {
      const before = terms[index - 1]
      if (before === undefined) continue
      assert.isDefined(before.until, `${before.who} still led when the next began`)
      assert.isAtMost(before.until ?? Infinity, from)
    }
  }
  return { terms, term, assertNoOverlap }
}

layer(TestCluster.layer("kube-leader").pipe(Layer.provideMerge(NodeServices.layer)), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("leader election", (it) => {
  it.effect("ends with its body, and gives the lease back", () =>
    Effect.gen(function*() {
      const lease = yield* freshName("ends")
      const kube = yield* Kube
      assert.strictEqual(yield* whileLeading(options(lease, "a"), Effect.succeed("done")), "done")
      const { spec } = yield* kube.get(Lease, { name: lease, namespace: "default" })
      assert.isUndefined(spec.holderIdentity)
      assert.strictEqual(yield* Effect.flip(whileLeading(options(lease, "b"), Effect.fail("no"))), "no")
      const after = yield* kube.get(Lease, { name: lease, namespace: "default" })
      assert.isUndefined(after.spec.holderIdentity)
      assert.strictEqual(after.spec.leaseTransitions, 1)
    }))

  it.effect("passes on at once when the leader closes", () =>
    Effect.gen(function*() {
      const lease = yield* freshName("closes")
      const journal = makeJournal()
      const first = yield* whileLeading(options(lease, "first"), journal.term("first")).pipe(Effect.forkScoped)
      yield* eventually("first leads", Effect.sync(() => journal.terms.length === 1))
      yield* whileLeading(options(lease, "second"), journal.term("second")).pipe(Effect.forkScoped)
      yield* Effect.sleep("9 seconds")
      assert.strictEqual(journal.terms.length, 1, "the leader renews, the other waits")
      const closed = yield* Clock.currentTimeMillis
      yield* Fiber.interrupt(first)
      yield* eventually("second leads", Effect.sync(() => journal.terms.length === 2))
      const taken = (yield* Clock.currentTimeMillis) - closed
      assert.isBelow(taken, 7_000, "before the lease would have ended")
      journal.assertNoOverlap()
    }))

  it.effect("lets one of many lead at a time", () =>
    Effect.gen(function*() {
      const lease = yield* freshName("many")
      const journal = makeJournal()
      const candidates = yield* Effect.forEach(["a", "b", "c", "d", "e"], (who) =>
        whileLeading(options(lease, who), journal.term(who)).pipe(
          Effect.forkScoped,
          Effect.map((fiber) => ({ who, fiber }))
        ))
      for (let turn = 1; turn <= 3; turn++) {
        yield* eventually(
          "someone leads",
          Effect.sync(() =>
            journal.terms.length === turn
          )
        )
        const leader = candidates.find(({ who }) => who === journal.terms.at(-1)?.who)
        if (leader !== undefined) yield* Fiber.interrupt(leader.fiber)
      }
      journal.assertNoOverlap()
    }))

  it.effect("stops the leader that cannot reach the server before another can lead, and lets it come back", () =>
    Effect.gen(function*() {
      const lease = yield* freshName("cut-off")
      const cluster = yield* LocalCluster
      const journal = makeJournal()
      const proxy = yield* TcpProxy.make(cluster.server)
      yield* whileLeading(options(lease, "far"), journal.term("far")).pipe(
        Effect.provide(KubeHttp.layer(TestCluster.admin(cluster, proxy.server))),
        Effect.forkScoped
      )
      yield* eventually("far leads", Effect.sync(() => journal.terms.length === 1))
      const near = yield* whileLeading(options(lease, "near"), journal.term("near")).pipe(Effect.forkScoped)
      proxy.freeze(true)
      yield* eventually("near leads", Effect.sync(() => journal.terms.length === 2))
      journal.assertNoOverlap()
      proxy.freeze(false)
      proxy.cut()
      yield* Fiber.interrupt(near)
      yield* eventually("far leads again", Effect.sync(() => journal.terms.length === 3))
      journal.assertNoOverlap()
      assert.deepStrictEqual(journal.terms.map(({ who }) => who), ["far", "near", "far"])
    }))

  it.effect(
    "lets a leader work on that cannot reach the server, until another leads or is told to",
    () =>
      Effect.gen(function*() {
        const lease = yield* freshName("worked-on")
        const cluster = yield* LocalCluster
        const journal = makeJournal()
        const proxy = yield* TcpProxy.make(cluster.server)
        const contested = yield* Deferred.make<void>()
        yield* whileLeading(
          { ...options(lease, "far"), contested: Deferred.await(contested) },
          journal.term("far")
        ).pipe(
          Effect.provide(KubeHttp.layer(TestCluster.admin(cluster, proxy.server))),
          Effect.forkScoped
        )
        yield* eventually("far leads", Effect.sync(() => journal.terms.length === 1))
        const renewals = Effect.map(leaseOf(lease), ({ renewTime }) => renewTime)
        const freeze = (frozen: boolean) =>
          Effect.sync(() => {
            proxy.freeze(frozen)
            if (!frozen) proxy.cut()
          })

        // Nobody else wants it.
        yield* freeze(true)
        const last = yield* renewals
        yield* Effect.sleep("9 seconds")
        yield* freeze(false)
        yield* eventually("far renews", Effect.map(renewals, (renewed) => renewed !== last))
        assert.lengthOf(journal.terms, 1)
        assert.isUndefined(journal.terms[0]?.until)

        // Another takes it, which is seen when the server is reached again.
        yield* freeze(true)
        const near = yield* whileLeading(options(lease, "near"), journal.term("near")).pipe(Effect.forkScoped)
        yield* eventually("near leads", Effect.sync(() => journal.terms.length === 2), 30)
        assert.isUndefined(journal.terms[0]?.until)
        yield* freeze(false)
        yield* eventually("far stopped", Effect.sync(() => journal.terms[0]?.until !== undefined))
        yield* Fiber.interrupt(near)
        yield* eventually("far leads again", Effect.sync(() => journal.terms.length === 3))

        // Another takes it, which is heard of elsewhere.
        yield* freeze(true)
        yield* whileLeading(options(lease, "near"), journal.term("near")).pipe(Effect.forkScoped)
        yield* eventually("near leads again", Effect.sync(() => journal.terms.length === 4), 30)
        assert.isUndefined(journal.terms[2]?.until)
        yield* Deferred.succeed(contested, undefined)
        yield* eventually("far stopped again", Effect.sync(() => journal.terms[2]?.until !== undefined))
      }),
    180_000
  )

  it.effect("ends the term of a leader whose lease another took", () =>
    Effect.gen(function*() {
      const lease = yield* freshName("stolen")
      const kube = yield* Kube
      const journal = makeJournal()
      yield* whileLeading(options(lease, "first"), journal.term("first")).pipe(Effect.forkScoped)
      yield* eventually("first leads", Effect.sync(() => journal.terms.length === 1))
      yield* kube.patch(Lease, { name: lease, namespace: "default" }, {
        spec: { holderIdentity: "thief", renewTime: "2026-01-01T00:00:00.000000Z" }
      })
      yield* eventually("first stopped", Effect.sync(() => journal.terms[0]?.until !== undefined), 7)
      // The thief never renews, and its clock is of no matter.
      yield* eventually("first leads again", Effect.sync(() => journal.terms.length === 2))
    }))

  it.effect("passes on when the leader's process is killed, after the lease's time", () =>
    Effect.gen(function*() {
      const cluster = yield* LocalCluster
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const started = Effect.fnUntraced(function*(identity: string) {
        const handle = yield* spawner.spawn(ChildProcess.make(
          process.execPath,
          [`${import.meta.dirname}/elector.ts`, cluster.kubeconfigPath, identity],
          { stderr: "inherit" }
        ))
        const said = { candidate: yield* Deferred.make<void>(), leading: yield* Deferred.make<void>() }
        yield* handle.stdout.pipe(
          Stream.decodeText,
          Stream.splitLines,
          Stream.runForEach((line) =>
            line === "candidate" || line === "leading" ? Deferred.succeed(said[line], undefined) : Effect.void
          ),
          Effect.forkScoped
        )
        return { handle, said }
      })
      const first = yield* started("first")
      yield* Deferred.await(first.said.leading)
      const second = yield* started("second")
      yield* Deferred.await(second.said.candidate)
      yield* Effect.sleep("3 seconds")
      assert.isFalse(yield* Deferred.isDone(second.said.leading))
      const killed = yield* Clock.currentTimeMillis
      yield* Effect.ignore(first.handle.kill({ killSignal: "SIGKILL" }))
      const last = yield* leaseOf("elected")
      assert.strictEqual(last.holderIdentity, "first", "a killed leader gives nothing back")
      yield* Deferred.await(second.said.leading)
      const taken = (yield* Clock.currentTimeMillis) - killed
      assert.isBelow(taken, 10_000)
      const next = yield* leaseOf("elected")
      assert.strictEqual(next.holderIdentity, "second")
      const { acquireTime } = next
      const { renewTime } = last
      if (acquireTime === undefined || renewTime === undefined) return assert.fail("times of the lease")
      const wait = Duration.toMillis(DateTime.distance(renewTime, acquireTime))
      assert.isAtLeast(wait, 3_000, "not before the lease has ended since its last renewal")
    }), 90_000)
})
