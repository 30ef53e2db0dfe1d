/**
 * A real cluster for one test file, and what tests do with it: run probes as the administrator or as a user with given
 * needs, apply manifests, wait for a condition.
 *
 * Use with `layer` of `@effect/vitest` and `excludeTestServices`, because a real cluster lives on the real clock:
 *
 * ```ts
 * layer(TestCluster.layer({ name: "readiness" }), { excludeTestServices: true, timeout: "120 seconds" })((it) => { ... })
 * ```
 */
import { Context, DateTime, Duration, Effect, Layer, Random, Redacted, Schedule, type Scope } from "effect"
import type { ProbeWorld } from "../../src/agent/ProbeWorld.ts"
import * as Round from "../../src/agent/Round.ts"
import type { RunResult } from "../../src/agent/Runner.ts"
import type { Report } from "../../src/domain/Report.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import type { KubeError } from "../../src/infra/kube/KubeError.ts"
import type { KeyPairPem } from "../../src/local/Certificates.ts"
import * as Local from "../../src/local/Local.ts"
import { LocalCluster, type LocalClusterOptions } from "../../src/local/LocalCluster.ts"
import type { Need } from "../../src/probes/Needs.ts"
import * as Preflight from "../../src/probes/Preflight.ts"
import { type AnyProbe, type Check, toCheck } from "../../src/probes/Probe.ts"
import * as Roles from "../../src/probes/Roles.ts"

/** Where probes of write level `namespace` create their objects in tests. */
export const PROBE_NAMESPACE = "kubeprober-probes"

export interface RunOptions {
  /** As whom; the administrator when absent. */
  readonly as?: Kube["Service"] | undefined
  readonly namespace?: string | undefined
  /** How long the sweeper must leave alone what the run creates; 15 minutes when absent. */
  readonly expiresIn?: Duration.Input | undefined
  readonly runId?: string | undefined
  /** How rules are had before the run; asked for anew when absent. */
  readonly rules?: Preflight.ReadRules | undefined
  /** What probes use besides the API; without it there are no workers, node agents or credentials. */
  readonly world?: ProbeWorld | undefined
}

export class TestCluster extends Context.Service<TestCluster, {
  readonly cluster: LocalCluster["Service"]
  /** As the administrator. */
  readonly kube: Kube["Service"]
  /** As the owner of any client certificate. */
  readonly kubeAs: (client: KeyPairPem, options?: KubeHttp.KubeHttpOptions) => Effect.Effect<
    Kube["Service"],
    never,
    Scope.Scope
  >
  /** A new user who may do exactly `needs` (and what every authenticated user may). */
  readonly userWith: (
    needs: ReadonlyArray<Need>,
    options?: { readonly optional?: boolean }
  ) => Effect.Effect<Kube["Service"], never, Scope.Scope>
  /** Server-side apply of manifests as the administrator: objects, or YAML of any number of documents. */
  readonly apply: (...manifests: ReadonlyArray<object | string>) => Effect.Effect<void>
  /** kubectl as the administrator; dies when it fails. */
  readonly kubectl: (...args: ReadonlyArray<string>) => Effect.Effect<string>
  /** One round of these checks, pre-flight included. */
  readonly round: (
    checks: ReadonlyArray<AnyProbe | Check>,
    options?: RunOptions
  ) => Effect.Effect<ReadonlyArray<RunResult>>
  /** The report of one check run alone. */
  readonly run: (check: AnyProbe | Check, options?: RunOptions) => Effect.Effect<Report>
}>()("kubeprober/test/TestCluster") {
  /** A cluster for as long as the layer; the process id in its name keeps files run side by side apart. */
  static readonly layer = (options: LocalClusterOptions) =>
    Layer.unwrap(Effect.gen(function*() {
      const cluster = yield* LocalCluster.make({ ...options, name: `${options.name}-${process.pid}`.slice(-32) })
      const test = yield* make(cluster)
      return Layer.mergeAll(
        Layer.succeed(LocalCluster, cluster),
        Layer.succeed(TestCluster, test),
        Layer.succeed(Kube, test.kube)
      )
    })).pipe(Layer.provide(Local.layer))
}

/** What is not granted yet. Who may not even ask lacks at least that right, where it is one of these. */
const lacking = (needs: ReadonlyArray<Need>, as: Kube["Service"]) =>
  Preflight.missing(needs, PROBE_NAMESPACE).pipe(
    Effect.provideService(Kube, as),
    Effect.catchIf(
      ({ reason }) => reason._tag === "Forbidden",
      () =>
        Effect.succeed(needs.filter((need) => need._tag === "ResourceNeed" && need.group === "authorization.k8s.io"))
    ),
    Effect.orDie
  )

const make = Effect.fnUntraced(function*(cluster: LocalCluster["Service"]) {
  const kubeAs = (client: KeyPairPem, options?: KubeHttp.KubeHttpOptions) =>
    KubeHttp.make(
      KubeConnection.make({
        cluster: cluster.name,
        server: cluster.server,
        identity: { tls: { ca: cluster.caCertPem, cert: client.cert, key: Redacted.make(client.key) } }
      }),
      options
    )
  const kube = yield* kubeAs({ cert: cluster.adminCertPem, key: cluster.adminKeyPem })

  const kubectl = (...args: ReadonlyArray<string>) => Effect.orDie(cluster.kubectl(args))
  const apply = (...manifests: ReadonlyArray<object | string>) =>
    cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], {
      // What begins with `---` is read as YAML by every kubectl; old ones read one document of JSON alone.
      stdin: manifests.map((manifest) => `---\n${typeof manifest === "string" ? manifest : JSON.stringify(manifest)}\n`)
        .join("")
    }).pipe(Effect.orDie, Effect.asVoid)
  yield* apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: PROBE_NAMESPACE } })

  const round = Effect.fnUntraced(function*(checks: ReadonlyArray<AnyProbe | Check>, options: RunOptions = {}) {
    const now = yield* DateTime.now
    return yield* Round.run({
      checks: checks.map(toCheck),
      context: {
        runId: options.runId ?? `run-${yield* Random.nextIntBetween(0, 1_000_000_000)}`,
        probeNamespace: options.namespace ?? PROBE_NAMESPACE,
        expiresAt: DateTime.addDuration(now, Duration.fromInputUnsafe(options.expiresIn ?? "15 minutes"))
      },
      concurrency: 8,
      onEvent: () => Effect.void,
      rules: options.rules,
      world: options.world
    }).pipe(Effect.provideService(Kube, options.as ?? kube))
  })

  return TestCluster.of({
    cluster,
    kube,
    kubeAs,
    userWith: Effect.fnUntraced(function*(needs, options) {
      const user = `prober-${yield* Random.nextIntBetween(0, 1_000_000_000)}`
      const roles = Roles.forNeeds(needs, { name: user, probeNamespace: PROBE_NAMESPACE, ...options })
      if (roles.length > 0) yield* apply(...roles, ...Roles.bindings(roles, [{ kind: "User", name: user }]))
      const certificate = yield* cluster.issueClientCertificate({ user })
      // The API server hears of what is granted a moment after it is stored. It is asked by another client, so that the
      // one that is given away has made no request.
      yield* Effect.scoped(Effect.flatMap(
        kubeAs(certificate),
        (as) =>
          eventually(
            lacking(needs.filter(({ optional }) => !optional || options?.optional !== false), as),
            (needs) => needs.length === 0,
            { within: "30 seconds" }
          )
      ))
      return yield* kubeAs(certificate)
    }),
    apply,
    kubectl,
    round,
    run: (check, options) =>
      Effect.flatMap(
        round([check], options),
        ([result]) =>
          result === undefined ? Effect.die("a round of one check has one result") : Effect.succeed(result.report)
      )
  })
})

/** Asks again until the answer is as wanted; dies with the last answer when it is not in time (default 60 seconds). */
export const eventually = <A, E, R>(
  ask: Effect.Effect<A, E, R>,
  wanted: (answer: A) => boolean,
  options: { readonly within?: Duration.Input; readonly every?: Duration.Input } = {}
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let last: A | undefined
    return ask.pipe(
      Effect.tap((answer) => Effect.sync(() => last = answer)),
      Effect.repeat({ until: wanted, schedule: Schedule.spaced(options.every ?? "100 millis") }),
      Effect.timeoutOrElse({
        duration: options.within ?? "60 seconds",
        orElse: () => Effect.die(new Error(`not as wanted in time; the last answer was ${JSON.stringify(last)}`))
      })
    )
  })

/** Whether an API request fails, and why. */
export const reasonOf = <A, R>(effect: Effect.Effect<A, KubeError, R>) =>
  Effect.match(effect, { onSuccess: () => undefined, onFailure: (error) => error.reason })
