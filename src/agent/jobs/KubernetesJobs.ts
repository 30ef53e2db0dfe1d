/**
 * Runs container probes: one Job a run, watched until its pod has ended, with what the pod reported meanwhile.
 *
 * The Job is made suspended, then a Secret that it owns, with the token its pod reports with, and then it is resumed: the
 * Secret goes with the Job. All of it is gone when the run is over; what a killed agent leaves, the sweeper finds by the
 * Job's run label.
 */
import { DateTime, Duration, Effect, Layer, Option, Redacted, Ref, Schedule, type Scope, Stream } from "effect"
import { counted } from "../../domain/counted.ts"
import type { Finding, Report } from "../../domain/Report.ts"
import { fromFindings } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import { Job } from "../../infra/kube/resources/batch.ts"
import { Pod } from "../../infra/kube/resources/core.ts"
import { Event } from "../../infra/kube/resources/events.ts"
import { type JobRequest, JobRunner } from "../JobRunner.ts"
import * as RunScratch from "../RunScratch.ts"
import { WrittenSecret, randomToken } from "../runToken.ts"
import { jobCodes, reported } from "./jobCodes.ts"
import { TOKEN_KEY, jobManifest, namePrefix } from "./manifest.ts"
import { type Ended, judge } from "./podVerdict.ts"
import {
  type Inbox,
  ReportServer,
  type ReportServerError,
  type ReportServerOptions,
  reportUrlIn
} from "./ReportServer.ts"

export interface KubernetesJobsOptions extends ReportServerOptions {
  /** The URL probers report to; the original's, of Service `probeagent` in the Probe's namespace, when absent. */
  readonly reportUrl?: string | undefined
}

/** Runs Jobs in the cluster of `Kube`, and listens for their reports. */
export const layer = (options: KubernetesJobsOptions): Layer.Layer<JobRunner, ReportServerError, Kube> =>
  Layer.effect(JobRunner, make(options)).pipe(Layer.provide(ReportServer.layer(options)))

/** How finely a pod's state is looked at; it is in memory, followed by a watch. */
const LOOK_EVERY = "250 millis"

/** A Job's controller makes its pod in far less; after this the Job's events are asked why it has not. */
const POD_WITHIN = Duration.seconds(15)

/** The last words of a prober that crashed. */
const LOG_LINES = 5
const LOG_BYTES = 2048
const LOG_WITHIN = "5 seconds"

/** What a watch has seen of the run's pod. */
type Sight =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Seen"; readonly pod: Pod }
  | { readonly _tag: "Gone"; readonly pod: Pod }

const make = Effect.fnUntraced(function*(options: KubernetesJobsOptions) {
  const kube = yield* Kube
  const server = yield* ReportServer

  /** Why a Job has no pod, in the words of its controller. */
  const whyNoPod = ({ name, namespace }: { readonly name: string; readonly namespace: string }) =>
    kube.list(Event, { namespace, fieldSelector: `regarding.name=${name}`, maximum: 20 }).pipe(
      Effect.map(({ items }) => items.find(({ type }) => type === "Warning")?.note),
      Effect.orElseSucceed(() => undefined)
    )

  const lastWords = (pod: Pod, container: string) =>
    kube.logs({ name: pod.metadata.name ?? "", namespace: pod.metadata.namespace }, {
      container,
      tailLines: LOG_LINES,
      limitBytes: LOG_BYTES
    }).pipe(
      Stream.runCollect,
      Effect.timeout(LOG_WITHIN),
      Effect.map((lines) => lines.join("\n").trim()),
      Effect.orElseSucceed(() => "")
    )

  /** The end of the run's pod, or why it cannot be known. */
  const awaitEnd = Effect.fnUntraced(function*(
    job: { readonly name: string; readonly namespace: string },
    inbox: Inbox
  ): Effect.fn.Return<Ended, KubeError, Scope.Scope> {
    const sight = yield* Ref.make<Sight>({ _tag: "Nothing" })
    const resumedAt = yield* DateTime.now
    const see = (pod: Pod) =>
      Effect.andThen(
        Ref.set(sight, { _tag: "Seen", pod }),
        inbox.addresses([pod.status.podIP, ...pod.status.podIPs.map(({ ip }) => ip)].filter((ip) => ip !== undefined))
      )
    const follow = kube.reflect(Pod, { namespace: job.namespace, labelSelector: `job-name=${job.name}` }).pipe(
      Stream.runForEach((event) => {
        switch (event._tag) {
          case "Synced":
            return Effect.forEach(event.items, see, { discard: true })
          case "Deleted":
            return Ref.set(sight, { _tag: "Gone", pod: event.object })
          default:
            return see(event.object)
        }
      }),
      Effect.andThen(Effect.never)
    )
    const look = Effect.gen(function*(): Effect.fn.Return<Ended | undefined> {
      const now = yield* DateTime.now
      const seen = yield* Ref.get(sight)
      switch (seen._tag) {
        case "Seen":
          return judge(seen.pod, now)
        case "Gone":
          return judge(seen.pod, now) ?? {
            _tag: "Badly",
            finding: jobCodes.PROBER_EVICTED({ message: "the prober's pod was deleted before it ended" })
          }
        case "Nothing": {
          const waited = DateTime.distance(resumedAt, now)
          if (Duration.isLessThan(waited, POD_WITHIN)) return undefined
          const why = yield* whyNoPod(job)
          return why === undefined && Duration.isLessThan(waited, Duration.times(POD_WITHIN, 2)) ? undefined : {
            _tag: "Badly",
            finding: jobCodes.PROBER_NOT_CREATED({
              message: `Job ${job.namespace}/${job.name} has no pod: ${why ?? "its controller says nothing of why"}`,
              subject: { kind: "Job", ...job }
            })
          }
        }
      }
    })
    const ended = yield* Effect.raceFirst(
      follow,
      Effect.repeat(look, { schedule: Schedule.spaced(LOOK_EVERY), until: (end) => end !== undefined })
    )
    const seen = yield* Ref.get(sight)
    if (ended === undefined) return yield* Effect.never
    if (ended._tag === "Well" || ended.container === undefined || seen._tag !== "Seen") return ended
    const words = yield* lastWords(seen.pod, ended.container)
    const { finding } = ended
    return words === ""
      ? ended
      : { ...ended, finding: { ...finding, message: `${finding.message}; last of its log: ${words}` } }
  })

  /** From the Job's creation to the end of its pod. */
  const attempt = Effect.fnUntraced(function*(request: JobRequest, inbox: Inbox, token: Redacted.Redacted) {
    const { configs, expiresAt, probe, runId, template, timeout } = request
    const { namespace } = probe
    const scope = yield* Effect.scope
    const { scratch } = yield* RunScratch.make(kube, kube, { runId, probeNamespace: namespace, expiresAt }, scope)
    const name = `${namePrefix(probe.name)}-${yield* RunScratch.randomSuffix}`
    const started = Effect.gen(function*() {
      const reportUrl = options.reportUrl ?? reportUrlIn(namespace)
      const { metadata } = yield* scratch.create(
        Job,
        jobManifest({ name, probe, template, configs, runId, timeout, reportUrl })
      )
      yield* kube.create(WrittenSecret, {
        metadata: {
          name,
          namespace,
          ownerReferences: [{ apiVersion: "batch/v1", kind: "Job", name, uid: metadata.uid ?? "" }]
        },
        data: { [TOKEN_KEY]: Buffer.from(Redacted.value(token)).toString("base64") }
      })
      yield* kube.patch(Job, { name, namespace }, { spec: { suspend: false } })
    })
    return yield* started.pipe(
      Effect.matchEffect({
        onFailure: ({ message }) =>
          Effect.succeed<Ended>({ _tag: "Badly", finding: jobCodes.PROBER_NOT_CREATED({ message }) }),
        onSuccess: () =>
          Effect.catch(
            awaitEnd({ name, namespace }, inbox),
            ({ message }) => Effect.succeed<Ended>({ _tag: "Badly", finding: jobCodes.PROBER_UNOBSERVED({ message }) })
          )
      }),
      Effect.timeoutOption(timeout),
      Effect.map(Option.getOrElse((): Ended => ({
        _tag: "Badly",
        finding: jobCodes.PROBER_TIMED_OUT({
          message: `the prober did not end within ${Duration.format(timeout)}`,
          subject: { kind: "Job", name, namespace }
        })
      })))
    )
  })

  const run = Effect.fn("KubernetesJobs.run")(function*(request: JobRequest) {
    const { known = [], probe } = request
    const startedAt = yield* DateTime.now
    const token = yield* randomToken
    const { ended, said } = yield* Effect.scoped(Effect.gen(function*() {
      const inbox = yield* server.open({ namespace: probe.namespace, probe: probe.name, token })
      const ended = yield* attempt(request, inbox, token)
      return { ended, said: yield* inbox.close }
    }))
    const duration = Duration.toMillis(DateTime.distance(startedAt, yield* DateTime.now))
    const report = (checker: string, findings: ReadonlyArray<Finding>, summary: string): Report =>
      fromFindings({ checker, findings, summary, startedAt, duration })

    const spoken = [...said].map(([checker, { message, status }]) =>
      report(checker, reported(status, message === "" ? `the prober said ${status}` : message), message)
    )
    const unsaid = known.filter((checker) => !said.has(checker))
    if (ended._tag === "Badly") {
      // Under the Probe's own name, and for every checker it did not reach: none of them keeps an old PASS.
      const silent = new Set([...unsaid, ...said.has(probe.name) ? [] : [probe.name]])
      return [...spoken, ...[...silent].map((checker) => report(checker, [ended.finding], ""))]
    }
    if (said.size === 0) {
      const finding = jobCodes.PROBER_SILENT({ message: "the prober ended well and reported nothing" })
      return [...new Set([...unsaid, probe.name])].map((checker) => report(checker, [finding], ""))
    }
    return [
      ...spoken,
      // Where an earlier run broke, this name says that it did; now it has run. What else was not reported the prober no
      // longer has: it ended well, and knows.
      ...unsaid.filter((checker) => checker === probe.name).map((checker) =>
        report(checker, [], `the prober ran and reported ${counted(said.size, "checker")}`)
      )
    ]
  })

  return JobRunner.of({ run })
})
