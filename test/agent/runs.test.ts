/** What runs leave in a real cluster: nothing, or what the sweeper knows. */
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Effect, Option } from "effect"
import * as ProbeNamespace from "../../src/agent/ProbeNamespace.ts"
import * as Round from "../../src/agent/Round.ts"
import * as RunScratch from "../../src/agent/RunScratch.ts"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Forbidden, KubeError, type KubeErrorReason, ServerFault, Unreachable } from "../../src/infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../../src/infra/kube/KubeResource.ts"
import { ConfigMap, Namespace, Service } from "../../src/infra/kube/resources/core.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import { selfAccess } from "../../src/probes/kubernetes/selfAccess.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Retry from "../../src/probes/Retry.ts"
import { EXPIRES_ANNOTATION, RUN_LABEL, Scratch } from "../../src/probes/Scratch.ts"
import { freshName } from "../clusters/freshName.ts"
import { PROBE_NAMESPACE, TestCluster, eventually, reasonOf } from "../clusters/TestCluster.ts"
import { check, codes } from "./Checks.ts"

describe("isSweepable", () => {
  const now = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
  const born = (minutes: number) => DateTime.subtract(now, { minutes })
  const of = (labels: Record<string, string>, expires?: string, age = 60) =>
    Sweeper.isSweepable({
      labels,
      creationTimestamp: born(age),
      ...(expires === undefined ? {} : { annotations: { [EXPIRES_ANNOTATION]: expires } })
    }, now)
  const ours = { [RUN_LABEL]: "a" }

  it("takes what carries a run's label and has expired, nothing else", () => {
    assert.isTrue(of(ours, "2026-01-01T11:59:59Z"))
    assert.isTrue(of(ours, "2026-01-01T12:00:00Z"))
    assert.isFalse(of(ours, "2026-01-01T12:00:01Z"))
    assert.isFalse(of({ app: "shop" }, "2026-01-01T11:00:00Z"))
  })

  it("leaves what does not say when it expires alone for 15 minutes, and what has no age for ever", () => {
    assert.isTrue(of(ours, undefined, 15))
    assert.isFalse(of(ours, undefined, 14))
    assert.isTrue(of(ours, "tomorrow", 16))
    assert.isFalse(of(ours, "tomorrow", 14))
    assert.isFalse(Sweeper.isSweepable({ labels: ours }, now))
  })
})

const configMaps = Needs.verbs(["create", "get", "delete"], "configmaps", { namespace: Needs.probeNamespace })

const creates = <E>(then: Effect.Effect<Outcome.Outcome, E>, options: { readonly timeout?: "1 seconds" } = {}) =>
  check("test.creates", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch
      for (const prefix of ["one", "two"]) {
        const name = yield* scratch.name(prefix)
        yield* scratch.create(ConfigMap, { metadata: { name, namespace: PROBE_NAMESPACE, labels: { mine: "kept" } } })
      }
      return yield* then
    }), { writes: "namespace", needs: [configMaps], ...options })

const createsOne = (
  name: string,
  then: Effect.Effect<unknown> = Effect.void,
  options: Partial<Pick<Probe.ProbeOptions<{}, {}, never>, "writes" | "needs">> = {}
) =>
  check("test.creates-one", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch
      yield* scratch.create(ConfigMap, { metadata: { name, namespace: PROBE_NAMESPACE } })
      yield* then
      return Outcome.make("created")
    }), { writes: "namespace", needs: [configMaps], retry: Retry.none, ...options })

const leftovers = Effect.flatMap(
  TestCluster,
  ({ kube }) => Effect.map(kube.list(ConfigMap, { labelSelector: RUN_LABEL }), ({ items }) => items)
)

describe("runs", () => {
  layer(TestCluster.layer({ name: "runs" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect("what a run creates carries its id and expiry, and is gone with it, however it ends", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          let seen: ReadonlyArray<ConfigMap> = []
          const look = Effect.map(
            kube.list(ConfigMap, { labelSelector: `${RUN_LABEL}=my-run` }),
            ({ items }) => {
              seen = items
              return Outcome.make("seen")
            }
          )
          const report = yield* run(creates(look), { runId: "my-run" })
          assert.strictEqual(report.status, "PASS", report.message)
          assert.strictEqual(seen.length, 2)
          for (const { metadata } of seen) {
            assert.strictEqual(metadata.labels?.["mine"], "kept")
            assert.strictEqual(metadata.labels?.["app.kubernetes.io/managed-by"], "kubeprober")
            assert.isTrue(Option.isSome(DateTime.make(metadata.annotations?.[EXPIRES_ANNOTATION] ?? "")))
          }
          assert.deepStrictEqual(yield* leftovers, [])

          const ends = {
            BROKEN: creates(codes.BROKEN.fail({ message: "" })),
            CHECKER_FAILED: creates(Effect.die("crash")),
            TIMED_OUT: creates(Effect.never, { timeout: "1 seconds" })
          }
          for (const [code, ending] of Object.entries(ends)) {
            assert.strictEqual((yield* run(ending)).code, code)
            assert.deepStrictEqual(yield* leftovers, [], code)
          }
        }))

      it.effect("what stood under a name before the run stays, whatever its run label says", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          for (const labels of [{}, { [RUN_LABEL]: "my-run" }]) {
            const name = yield* freshName("stranger")
            const metadata = { name, namespace: PROBE_NAMESPACE, labels }
            yield* kube.create(ConfigMap, { metadata })
            const report = yield* run(createsOne(name), { runId: "my-run" })
            assert.strictEqual(report.code, "CHECKER_FAILED", report.message)
            yield* kube.get(ConfigMap, metadata)
            yield* kube.delete(ConfigMap, metadata)
          }
        }))

      it.effect("what replaced an object of the run under its name stays", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          const name = yield* freshName("replaced")
          const metadata = { name, namespace: PROBE_NAMESPACE }
          const replace = Effect.andThen(kube.delete(ConfigMap, metadata), kube.create(ConfigMap, { metadata }))
          const report = yield* run(createsOne(name, Effect.orDie(replace)))
          assert.strictEqual(report.status, "PASS", report.message)
          yield* kube.get(ConfigMap, metadata)
          yield* kube.delete(ConfigMap, metadata)
        }))

      it.effect("when the answer to a create is lost, what carries the run's label is deleted and nothing else", () =>
        Effect.gen(function*() {
          const { kube, run } = yield* TestCluster
          const name = yield* freshName("lost")
          const lost = Effect.fail(
            new KubeError({
              cluster: kube.cluster,
              call: { verb: "create", resource: "configmaps" },
              reason: new Unreachable({ kind: "reset", detail: "cut by the test" })
            })
          )
          const after: Kube["Service"] = {
            ...kube,
            create: (...call) => Effect.andThen(kube.create(...call), lost)
          }
          const report = yield* run(createsOne(name), { as: after })
          assert.strictEqual(report.code, "API_UNREACHABLE", report.message)
          assert.deepStrictEqual(yield* leftovers, [])

          const metadata = { name, namespace: PROBE_NAMESPACE }
          yield* kube.create(ConfigMap, { metadata })
          yield* run(createsOne(name), { as: { ...kube, create: () => lost } })
          yield* kube.get(ConfigMap, metadata)
          yield* kube.delete(ConfigMap, metadata)
        }))

      it.effect("a run creates only what it declares", () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          for (
            const options of [{ writes: "namespace", needs: [] }, { writes: "dry-run", needs: [configMaps] }] as const
          ) {
            const report = yield* run(createsOne("undeclared", Effect.void, options))
            assert.strictEqual(report.code, "UNDECLARED_CALL", report.message)
          }
          assert.deepStrictEqual(yield* leftovers, [])
        }))

      it.effect("a failed deletion is a report of its own, which does not change the verdict", () =>
        Effect.gen(function*() {
          const { kubectl, round, userWith } = yield* TestCluster
          // Of a try that has failed.
          yield* kubectl("delete", "configmaps", "-n", PROBE_NAMESPACE, "-l", RUN_LABEL)
          const user = yield* userWith(configMaps)
          // Pre-flight has passed when the right is taken away.
          const bindings = (yield* kubectl("get", "rolebinding", "-n", PROBE_NAMESPACE, "-o", "name")).trim().split(
            "\n"
          )
          const mayDelete = user.delete(ConfigMap, { name: "any", namespace: PROBE_NAMESPACE }, { dryRun: true })
          const robbed = creates(Effect.gen(function*() {
            yield* kubectl("delete", "-n", PROBE_NAMESPACE, ...bindings)
            // The API server learns of it by a watch.
            yield* eventually(reasonOf(mayDelete), (reason) => reason?._tag === "Forbidden")
            return Outcome.make("fine")
          }))
          const [result] = yield* round([robbed], { as: user, expiresIn: "1 seconds" })
          assert.strictEqual(result?.report.status, "PASS", result?.report.message)
          const cleanup = Option.getOrThrow(result?.cleanup ?? Option.none())
          assert.strictEqual(cleanup.checker, "test.creates/cleanup")
          assert.strictEqual(cleanup.code, "CLEANUP_FAILED")
          assert.strictEqual(cleanup.findings.length, 2)
          assert.match(cleanup.message, /ConfigMap (one|two)-\w+ was not deleted and expires at /)
          assert.strictEqual((yield* leftovers).length, 2)
          yield* eventually(Sweeper.sweep({ namespace: PROBE_NAMESPACE }), (swept) => swept.length === 2)
          assert.deepStrictEqual(yield* leftovers, [])
        }))

      it.effect("the sweeper deletes what has expired, of all kinds and namespaces, and touches nothing else", () =>
        Effect.gen(function*() {
          const { apply, kube } = yield* TestCluster
          const past = "2020-01-01T00:00:00Z"
          const meta = (name: string, expires: string, labelled = true, namespace?: string) => ({
            name,
            ...(namespace === undefined ? {} : { namespace }),
            annotations: { [EXPIRES_ANNOTATION]: expires },
            labels: labelled ? { [RUN_LABEL]: "dead" } : { app: "shop" }
          })
          const configMap = (...of: Parameters<typeof meta>) => ({
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: meta(...of)
          })
          yield* apply(
            configMap("expired", past, true, "default"),
            configMap("expired", past, true, PROBE_NAMESPACE),
            configMap("running", "2999-01-01T00:00:00Z", true, "default"),
            configMap("unreadable", "soon", true, "default"),
            configMap("not-ours", past, false, "default"),
            {
              apiVersion: "v1",
              kind: "Service",
              metadata: meta("expired", past, true, "default"),
              spec: { ports: [{ port: 80 }], clusterIP: "None" }
            },
            { apiVersion: "v1", kind: "Namespace", metadata: meta("expired", past) }
          )
          const named = (swept: ReadonlyArray<Sweeper.Swept>) =>
            swept.map(({ kind, name, namespace }) => `${kind} ${namespace ?? ""}/${name}`).sort()

          assert.deepStrictEqual(named(yield* Sweeper.sweep({ namespace: PROBE_NAMESPACE, resources: [ConfigMap] })), [
            `ConfigMap ${PROBE_NAMESPACE}/expired`
          ])
          const swept = yield* Sweeper.sweep({})
          assert.deepStrictEqual(named(swept), [
            "ConfigMap default/expired",
            "Namespace /expired",
            "Service default/expired"
          ])
          assert.isTrue(swept.every(({ error, run }) => error === undefined && run === "dead"))
          yield* eventually(
            kube.list(Namespace),
            ({ items }) => items.every(({ metadata }) => metadata.name !== "expired")
          )
          const kept = (yield* kube.list(ConfigMap, { namespace: "default" })).items.map(({ metadata }) =>
            metadata.name
          )
          assert.includeMembers(kept, ["running", "unreadable", "not-ours"])
          assert.deepStrictEqual((yield* kube.list(Service, { labelSelector: RUN_LABEL })).items, [])
          assert.deepStrictEqual(yield* Sweeper.sweep({}), [])
          yield* kube.delete(ConfigMap, { name: "running", namespace: "default" })
          yield* kube.delete(ConfigMap, { name: "unreadable", namespace: "default" })
        }))

      it.effect("the sweeper skips kinds it may not list, and tells what it could not delete", () =>
        Effect.gen(function*() {
          const { apply, kube, userWith } = yield* TestCluster
          yield* apply({
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: {
              name: "stays",
              namespace: PROBE_NAMESPACE,
              labels: { [RUN_LABEL]: "dead" },
              annotations: { [EXPIRES_ANNOTATION]: "2020-01-01T00:00:00Z" }
            }
          })
          const lister = yield* userWith(Needs.list("configmaps", { namespace: Needs.probeNamespace }))
          // What it may not list yet it leaves out.
          const swept = yield* eventually(
            Sweeper.sweep({ namespace: PROBE_NAMESPACE }).pipe(Effect.provideService(Kube, lister)),
            ({ length }) => length > 0
          )
          assert.deepStrictEqual(swept.map(({ error, name }) => [name, error?.reason._tag]), [["stays", "Forbidden"]])
          yield* kube.delete(ConfigMap, { name: "stays", namespace: PROBE_NAMESPACE })
        }))

      it.effect("what the sweeper cannot remove is told, with who holds it, and reported by k8s.self.access", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          const metadata = {
            name: "held",
            namespace: PROBE_NAMESPACE,
            labels: { [RUN_LABEL]: "dead" },
            annotations: { [EXPIRES_ANNOTATION]: "2020-01-01T00:00:00Z" },
            finalizers: ["test.example/stay"]
          }
          yield* kube.create(ConfigMap, { metadata })
          const sweep = Sweeper.sweep({ namespace: PROBE_NAMESPACE, resources: [ConfigMap] })
          assert.deepStrictEqual(Sweeper.leftovers(yield* sweep), [], "its deletion has only begun")
          const later = Effect.map(
            sweep,
            (swept) => Sweeper.leftovers(swept.map((one) => ({ ...one, held: ["test.example/stay"] })))
          )
          const [finding] = yield* later
          assert.strictEqual(finding?.status, "UNKNOWN")
          assert.strictEqual(finding?.blame, "checker")
          assert.include(finding?.message, "held, left by run dead, is still there: it is being deleted and waits for")
          assert.deepStrictEqual(finding?.subject, { kind: "ConfigMap", name: "held", namespace: PROBE_NAMESPACE })
          const [result] = yield* Round.run({
            checks: [Probe.toCheck(selfAccess)],
            context: {
              runId: "r",
              probeNamespace: PROBE_NAMESPACE,
              expiresAt: yield* DateTime.now,
              leftovers: finding === undefined ? [] : [finding]
            },
            concurrency: 1,
            onEvent: () => Effect.void
          }).pipe(Effect.provideService(Kube, kube))
          assert.isTrue(
            result?.report.findings.some(({ code, status }) => code === "CLEANUP_FAILED" && status === "UNKNOWN")
          )
          yield* kube.patch(ConfigMap, { name: "held", namespace: PROBE_NAMESPACE }, { metadata: { finalizers: null } })
        }))

      it.effect("a Secret goes with the ConfigMap that owns it, for nobody may list Secrets", () =>
        Effect.gen(function*() {
          const { apply, kube, kubectl } = yield* TestCluster
          const dead = {
            namespace: PROBE_NAMESPACE,
            labels: { [RUN_LABEL]: "dead" },
            annotations: { [EXPIRES_ANNOTATION]: "2020-01-01T00:00:00Z" }
          }
          const { metadata: { uid } } = yield* kube.create(ConfigMap, { metadata: { ...dead, name: "owner" } })
          yield* apply({
            apiVersion: "v1",
            kind: "Secret",
            metadata: {
              ...dead,
              name: "owned",
              ownerReferences: [{ apiVersion: "v1", kind: "ConfigMap", name: "owner", uid }]
            }
          })
          const swept = yield* Sweeper.sweep({ namespace: PROBE_NAMESPACE, resources: Sweeper.resourcesFor(catalogue) })
          assert.deepStrictEqual(swept.map(({ kind, name }) => `${kind} ${name}`), ["ConfigMap owner"])
          yield* eventually(kubectl("get", "secrets", "-n", PROBE_NAMESPACE, "-o", "name"), (names) => names === "")
        }))

      it.effect("a kind that cannot be listed does not stop the sweeper, unless it is all of them", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          const metadata = {
            name: "expired",
            namespace: PROBE_NAMESPACE,
            labels: { [RUN_LABEL]: "dead" },
            annotations: { [EXPIRES_ANNOTATION]: "2020-01-01T00:00:00Z" }
          }
          yield* kube.create(ConfigMap, { metadata })
          const broken = new KubeError({
            cluster: kube.cluster,
            call: { verb: "list", resource: "services" },
            reason: new ServerFault({ status: 500, detail: "by the test" })
          })
          const partly: Kube["Service"] = {
            ...kube,
            list: (resource, selection) => resource.kind === "Service" ? broken : kube.list(resource, selection)
          }
          const sweep = (resources: ReadonlyArray<KubeResource<KubeObject>>) =>
            Sweeper.sweep({ namespace: PROBE_NAMESPACE, resources }).pipe(Effect.provideService(Kube, partly))
          assert.deepStrictEqual((yield* sweep([Service, ConfigMap])).map(({ name }) => name), ["expired"])
          assert.strictEqual(yield* Effect.flip(sweep([Service])), broken)
        }))

      it.effect("an ephemeral namespace is deleted with its scope, tried again, and told when it could not be", () =>
        Effect.gen(function*() {
          const { kube } = yield* TestCluster
          const [flaky, robbed] = [yield* freshName("flaky"), yield* freshName("robbed")]
          const expiresAt = DateTime.add(yield* DateTime.now, { minutes: 15 })
          const use = (name: string, with_: Kube["Service"]) =>
            Effect.scoped(ProbeNamespace.ephemeral({ runId: name, probeNamespace: name, expiresAt })).pipe(
              Effect.flatMap(({ leftovers }) => leftovers),
              Effect.provideService(Kube, with_)
            )
          const failing = (times: number, reason: KubeErrorReason): Kube["Service"] => {
            let left = times
            return {
              ...kube,
              delete: (...call) =>
                left-- > 0
                  ? Effect.fail(
                    new KubeError({ cluster: kube.cluster, call: { verb: "delete", resource: "namespaces" }, reason })
                  )
                  : kube.delete(...call)
            }
          }
          const names = Effect.map(kube.list(Namespace), ({ items }) => items.map(({ metadata }) => metadata.name))

          assert.deepStrictEqual(
            yield* use(flaky, failing(2, new ServerFault({ status: 503, detail: "" }))),
            []
          )
          assert.notInclude(yield* names, flaky)

          const [left] = yield* use(robbed, failing(9, new Forbidden({ detail: "" })))
          assert.strictEqual(left?.code, "CLEANUP_FAILED")
          assert.deepStrictEqual(left?.subject, { kind: "Namespace", name: robbed })
          assert.include(yield* names, robbed)

          // A namespace of that name that is not ours is no reason to delete it.
          const error = yield* Effect.flip(use(robbed, kube))
          assert.strictEqual(error.reason._tag, "Conflict")
          const { status } = yield* kube.get(Namespace, { name: robbed })
          assert.strictEqual(status.phase, "Active")
          yield* kube.delete(Namespace, { name: robbed })
        }))

      it.effect("names are new each time, and fit a DNS label", () =>
        Effect.gen(function*() {
          const names = yield* Effect.replicateEffect(RunScratch.randomSuffix, 200)
          assert.strictEqual(new Set(names).size, 200)
          assert.isTrue(names.every((name) => /^[a-z0-9]{10}$/.test(name)))
        }))
    }
  )
})
