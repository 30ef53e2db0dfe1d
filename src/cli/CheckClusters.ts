/** Diagnoses clusters once, side by side, with nothing installed in them. */
import { DateTime, Duration, Effect, Fiber, Option, Schema } from "effect"
import * as ProbeNamespace from "../agent/ProbeNamespace.ts"
import * as ProbeWorld from "../agent/ProbeWorld.ts"
import * as Round from "../agent/Round.ts"
import * as Runner from "../agent/Runner.ts"
import { randomSuffix } from "../agent/RunScratch.ts"
import * as Sweeper from "../agent/Sweeper.ts"
import type { CheckResult, CheckerResult, ClusterResult, NotRun } from "../domain/CheckResult.ts"
import type { Profile } from "../domain/Profile.ts"
import * as Report from "../domain/Report.ts"
import * as KubeHttp from "../infra/kube/http/KubeHttp.ts"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeConnection } from "../infra/kube/KubeConnection.ts"
import type { Check } from "../probes/Probe.ts"
import { DRY_RUN_NAMESPACE } from "./probeNamespaces.ts"
import { reasonNotToRun } from "./Selection.ts"

/** What happens meanwhile, for those who watch. */
export type CheckEvent =
  | { readonly _tag: "Version"; readonly cluster: string; readonly version: string }
  | { readonly _tag: "Planned"; readonly cluster: string; readonly notRun: ReadonlyArray<NotRun> }
  | { readonly _tag: "Started"; readonly cluster: string; readonly checker: string }
  | { readonly _tag: "Finished"; readonly cluster: string; readonly result: CheckerResult }
  | { readonly _tag: "Swept"; readonly cluster: string; readonly swept: Sweeper.Swept }

export interface CheckOptions {
  readonly connections: ReadonlyArray<KubeConnection>
  readonly checks: ReadonlyArray<Check>
  /** Checks above the profile are left out unless named here. */
  readonly profile: Profile
  readonly named: ReadonlySet<string>
  /** Use this namespace for what probes create, instead of one made for the run. */
  readonly probeNamespace: Option.Option<string>
  /** The folder of credentials; its usual place when absent. */
  readonly credentials?: Option.Option<string> | undefined
  /** For worker pods. */
  readonly workerImage: Option.Option<string>
  /** How many clusters are looked at together. */
  readonly concurrency: number
  readonly onEvent: (event: CheckEvent) => Effect.Effect<void>
}

/** Checks of one cluster that run together. */
const CHECKS_AT_ONCE = 8

/** After this whatever a run created may be swept: the longest probe timeout, its clean-up, and room. */
const EXPIRY = { minutes: 15 }

/** Under this name is told that the namespace of a run could not be removed. */
const NAMESPACE_CLEANUP = "probe-namespace/cleanup"

/** And under this one what earlier runs left behind and could not be removed either. */
const SWEEP = "sweep"

/** A server that does not tell its version in this time gets no preparation either: its health is judged by a probe. */
const VERSION_TIMEOUT = "4 seconds"

const ServerVersion = Schema.fromJsonString(Schema.Struct({ gitVersion: Schema.String }))

const resultOf = (check: Check, report: Report.Report): CheckerResult => ({
  probe: check.probe.id,
  layer: check.probe.layer,
  ...report
})

const writes = (check: Check): boolean => check.probe.writes !== "nothing" && check.probe.writes !== "dry-run"

/** All results of one run: the verdict, and what could not be cleaned up. */
const resultsOf = (check: Check, result: Runner.RunResult): ReadonlyArray<CheckerResult> =>
  [result.report, ...Option.toArray(result.cleanup)].map((report) => resultOf(check, report))

const checkCluster = Effect.fn("CheckClusters.checkCluster")(function*(options: CheckOptions) {
  const kube = yield* Kube
  const { cluster } = kube
  const startedAt = yield* DateTime.now
  const tell = options.onEvent

  const chosen = options.checks.filter((check) => reasonNotToRun(check, options) === undefined)
  const notRun = options.checks.flatMap((check): ReadonlyArray<NotRun> => {
    const reason = reasonNotToRun(check, options)
    return reason === undefined ? [] : [{ checker: check.name, probe: check.probe.id, reason }]
  })
  const world = ProbeWorld.make({
    credentials: Option.getOrUndefined(options.credentials ?? Option.none()),
    ...Option.match(options.workerImage, {
      onNone: () => ({}),
      onSome: (image) => ({ workers: Effect.succeed({ image }) })
    })
  })
  yield* tell({ _tag: "Planned", cluster, notRun })

  const version = yield* Effect.forkChild(
    kube.raw("/version").pipe(
      Effect.flatMap((answer) => Schema.decodeEffect(ServerVersion)(answer.body)),
      Effect.map(({ gitVersion }) => gitVersion),
      Effect.timeout(VERSION_TIMEOUT),
      Effect.tap((gitVersion) => tell({ _tag: "Version", cluster, version: gitVersion })),
      Effect.option
    )
  )

  const runId = yield* randomSuffix
  const expiresAt = DateTime.add(startedAt, EXPIRY)
  const anyWrites = chosen.some(writes)
  const probeNamespace = Option.getOrElse(
    options.probeNamespace,
    () => anyWrites ? `kubeprober-probes-${runId}` : DRY_RUN_NAMESPACE
  )
  const context = { runId, probeNamespace, expiresAt }

  const round = (checks: ReadonlyArray<Check>, namespace = probeNamespace) =>
    Round.run({
      checks,
      context: { ...context, probeNamespace: namespace },
      concurrency: CHECKS_AT_ONCE,
      world,
      onEvent: (event) =>
        event._tag === "Started"
          ? tell({ _tag: "Started", cluster, checker: event.check.name })
          : Effect.forEach(
            resultsOf(event.check, event.result),
            (result) => tell({ _tag: "Finished", cluster, result }),
            { discard: true }
          )
    }).pipe(
      Effect.map((results) =>
        results.flatMap((result, index) => {
          const check = checks[index]
          return check === undefined ? [] : resultsOf(check, result)
        })
      )
    )

  const inNamespace = Effect.scoped(Effect.gen(function*() {
    const made = yield* Effect.result(ProbeNamespace.ephemeral(context))
    if (made._tag === "Success") return { reports: yield* round(chosen), leftovers: made.success.leftovers }
    const now = yield* DateTime.now
    const impossible = chosen.filter(writes).map((check) =>
      resultOf(
        check,
        Report.fromFindings({
          checker: check.name,
          findings: [{
            ...Runner.findingOfKubeError(made.failure),
            message: `the namespace for what it creates could not be made: ${made.failure.message}`
          }],
          summary: "",
          startedAt: now,
          duration: 0
        })
      )
    )
    yield* Effect.forEach(impossible, (result) => tell({ _tag: "Finished", cluster, result }))
    const others = yield* round(chosen.filter((check) => !writes(check)), DRY_RUN_NAMESPACE)
    return { reports: [...others, ...impossible], leftovers: Effect.succeed([]) }
  }))

  const look = Effect.gen(function*() {
    // Sweeping and making a namespace would only wait, one after the other, for a server that does not answer.
    if (!anyWrites || Option.isNone(yield* Fiber.join(version))) return yield* round(chosen)
    const swept = yield* Sweeper.sweep({}).pipe(Effect.orElseSucceed(() => []))
    yield* Effect.forEach(swept, (object) => tell({ _tag: "Swept", cluster, swept: object }))
    const { leftovers, reports } = Option.isSome(options.probeNamespace)
      ? { reports: yield* round(chosen), leftovers: Effect.succeed([]) }
      : yield* inNamespace
    const duration = Duration.toMillis(DateTime.distance(startedAt, yield* DateTime.now))
    const left = (checker: string, findings: ReadonlyArray<Report.Finding>): ReadonlyArray<CheckerResult> =>
      findings.length === 0 ? [] : [{
        probe: checker,
        layer: "kubernetes" as const,
        ...Report.fromFindings({ checker, findings, summary: "", startedAt, duration })
      }]
    return [...reports, ...left(NAMESPACE_CLEANUP, yield* leftovers), ...left(SWEEP, Sweeper.leftovers(swept))]
  })

  const reports = yield* look
  const gitVersion = yield* Fiber.join(version)
  const finishedAt = yield* DateTime.now
  return {
    cluster,
    server: kube.server,
    ...(Option.isSome(gitVersion) ? { kubernetesVersion: gitVersion.value } : {}),
    status: Report.worst(reports),
    reports,
    notRun,
    requests: yield* kube.requests,
    duration: Duration.toMillis(DateTime.distance(startedAt, finishedAt))
  } satisfies ClusterResult
})

/** Check every connection's cluster once. Never fails: what cannot be looked at is UNKNOWN in the result. */
export const run = Effect.fn("CheckClusters.run")(function*(options: CheckOptions) {
  const startedAt = yield* DateTime.now
  const clusters = yield* Effect.forEach(
    options.connections,
    (connection) => Effect.provide(checkCluster(options), KubeHttp.layer(connection)),
    { concurrency: options.concurrency }
  )
  const result: CheckResult = {
    apiVersion: "kubeprober.erda.cloud/v1",
    kind: "CheckResult",
    profile: options.profile,
    status: Report.worst(clusters),
    startedAt,
    duration: Duration.toMillis(DateTime.distance(startedAt, yield* DateTime.now)),
    clusters
  }
  return result
})
