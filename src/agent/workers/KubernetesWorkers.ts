/**
 * Worker pods of one run, in the cluster of its `Kube`. Provides `Workers`.
 *
 * One watch follows all pods of the run. The token that seals their results is in a Secret of the run's own, made with the
 * first pod that needs it. Pods are the run's scratch, and so is the object that the Secret and they go with.
 */
import { Clock, DateTime, Duration, Effect, Redacted, Ref, Result, Schedule, Schema, Stream } from "effect"
import { quote } from "../../domain/Redaction.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import { ConfigMap, Pod } from "../../infra/kube/resources/core.ts"
import { Event } from "../../infra/kube/resources/events.ts"
import { RUN_LABEL } from "../../probes/Scratch.ts"
import { type PodSight, sight, timesOf } from "../../probes/workers/podStage.ts"
import type { Task } from "../../probes/workers/Task.ts"
import {
  type Responder,
  type Worked,
  WorkerFault,
  type WorkerPlace,
  type WorkerStage,
  type WorkerTimes,
  type Workers
} from "../../probes/workers/Workers.ts"
import type { RunScope } from "../RunScope.ts"
import * as RunScratch from "../RunScratch.ts"
import { WrittenSecret, randomToken } from "../runToken.ts"
import { Envelope } from "./envelope.ts"
import { ECHO_PORT, HTTP_PORT, TOKEN_KEY, type WorkerSettings, imageOf, workerPod } from "./manifest.ts"
import { open } from "./seal.ts"

/** How finely a pod's state is looked at; it is in memory, followed by a watch. */
const LOOK_EVERY = "50 millis"

/** From a pod's creation to its end, when nobody says otherwise: a minute for everything but the task itself. */
const POD_WITHIN = Duration.minutes(1)

/** How long after the prober's own patience the cluster ends a pod by itself: only one whose prober died gets there. */
const DEADLINE_GRACE = Duration.seconds(30)

const encodeEnvelope = Schema.encodeSync(Envelope)

type Ended = Extract<PodSight, { readonly _tag: "Ended" }>

const endOf = ({ exitCode, message, reason }: Ended): string => {
  const why = reason === "" || reason === "Error" || reason === "Completed" ? "" : ` (${reason})`
  const last = message === undefined || message === "" ? "" : `: ${quote(message, 300)}`
  return `it ended with exit code ${exitCode}${why}${last}`
}

/** What the run's watch knows of its pods, by name. */
interface Sights {
  readonly pods: Map<string, Pod>
  /** Pods that were there and are no more. */
  readonly gone: Set<string>
}

/** The workers of one run, whose watch ends with the run's scope. */
export const make = (settings: WorkerSettings) =>
  Effect.fnUntraced(function*(run: RunScope): Effect.fn.Return<Workers["Service"]> {
    const { context: { expiresAt, probeNamespace: namespace, runId }, kube, scope, scratch } = run

    const watch = yield* Effect.cached(Effect.gen(function*() {
      const sights: Sights = { pods: new Map(), gone: new Set() }
      const broken = yield* Ref.make<KubeError | undefined>(undefined)
      const see = (pod: Pod) => Effect.sync(() => sights.pods.set(pod.metadata.name ?? "", pod))
      yield* kube.reflect(Pod, { namespace, labelSelector: `${RUN_LABEL}=${runId}` }).pipe(
        Stream.runForEach((event) => {
          switch (event._tag) {
            case "Synced":
              return Effect.sync(() => {
                const there = new Set(event.items.map(({ metadata }) => metadata.name ?? ""))
                for (const name of sights.pods.keys()) if (!there.has(name)) sights.gone.add(name)
                for (const pod of event.items) sights.pods.set(pod.metadata.name ?? "", pod)
              })
            case "Deleted":
              return Effect.andThen(
                see(event.object),
                Effect.sync(() => sights.gone.add(event.object.metadata.name ?? ""))
              )
            default:
              return see(event.object)
          }
        }),
        Effect.catch((error) => Ref.set(broken, error)),
        Effect.forkIn(scope, { startImmediately: true })
      )
      return { sights, broken: Ref.get(broken) }
    }))

    const owner = yield* Effect.cached(Effect.gen(function*() {
      const name = yield* scratch.name("worker")
      const { metadata: { uid = "" } } = yield* scratch.create(ConfigMap, { metadata: { name, namespace } })
      return { name, uid }
    }))

    const secret = yield* Effect.cached(Effect.gen(function*() {
      const token = yield* randomToken
      // Nobody lists or deletes Secrets: it goes with its owner, which the run deletes, or the sweeper.
      const { name, uid } = yield* owner
      yield* kube.create(WrittenSecret, {
        metadata: {
          ...RunScratch.ownership(run.context),
          name,
          namespace,
          ownerReferences: [{ apiVersion: "v1", kind: "ConfigMap", name, uid }]
        },
        stringData: { [TOKEN_KEY]: Redacted.value(token) }
      })
      return { name, token }
    }))

    /** What the cluster's events say of a pod that does not start. */
    const events = (pod: string) =>
      kube.list(Event, { namespace, fieldSelector: `regarding.name=${pod},type=Warning`, maximum: 20 }).pipe(
        Effect.map(({ items }) => items.at(-1)),
        Effect.map((event) => event === undefined ? undefined : `${event.reason ?? ""}: ${event.note ?? ""}`),
        Effect.orElseSucceed(() => undefined)
      )

    const create = Effect.fnUntraced(function*(place: WorkerPlace, options: {
      readonly task?: string
      readonly secret?: string
      readonly within: Duration.Duration
    }) {
      const name = yield* scratch.name(place.name ?? "worker")
      const patience = options.task === undefined
        ? Duration.max(options.within, DateTime.distance(yield* DateTime.now, expiresAt))
        : options.within
      yield* scratch.create(
        Pod,
        workerPod({
          name,
          namespace,
          place,
          owner: yield* owner,
          task: options.task,
          secret: options.secret,
          deadlineSeconds: Math.ceil(Duration.toSeconds(Duration.sum(patience, DEADLINE_GRACE)))
        }, settings)
      ).pipe(
        Effect.catchIf(
          (error) => error.reason._tag === "AdmissionDenied",
          (error) => Effect.fail(new WorkerFault({ stage: "Admission", detail: error.message, node: place.node }))
        )
      )
      return name
    })

    /**
     * Waits until `wanted` answers something of the pod, or it can be said that it never will. An image whose pull fails again
     * and again is waited for no longer than `pullWithin`.
     */
    const reach = Effect.fnUntraced(function*<A>(
      name: string,
      place: WorkerPlace,
      { pullWithin, within }: { readonly within: Duration.Duration; readonly pullWithin: Duration.Duration },
      wanted: (seen: PodSight, pod: Pod) => A | undefined
    ): Effect.fn.Return<
      { readonly value: A; readonly pod: Pod; readonly times: WorkerTimes },
      WorkerFault | KubeError
    > {
      const created = yield* DateTime.now
      const startedAt = yield* Clock.currentTimeMillis
      const { broken, sights } = yield* watch
      const fault = (stage: WorkerStage, detail: string, pod: Pod | undefined) =>
        new WorkerFault({
          stage,
          detail,
          pod: name,
          node: pod?.spec.nodeName ?? place.node,
          times: pod === undefined ? { created } : timesOf(pod, created)
        })
      const look = Effect.gen(function*() {
        const error = yield* broken
        if (error !== undefined) return yield* error
        const pod = sights.pods.get(name)
        const passed = (yield* Clock.currentTimeMillis) - startedAt
        const late = passed > Duration.toMillis(within)
        if (pod === undefined) {
          if (late) return yield* fault("Silent", "the API server has shown nothing of it since it was created", pod)
          return undefined
        }
        const seen = sight(pod)
        const value = wanted(seen, pod)
        if (value !== undefined) return { value, pod, times: timesOf(pod, created) }
        if (seen._tag === "Ended") return yield* fault("Crash", endOf(seen), pod)
        if (seen._tag === "Failed") return yield* fault(seen.stage, seen.detail, pod)
        if (sights.gone.has(name)) return yield* fault("Evicted", "it was deleted by others", pod)
        // The container's own words say why; events of a pull that is tried again say it among others.
        if (seen._tag === "OnItsWay" && seen.stage === "ImagePull" && passed > Duration.toMillis(pullWithin)) {
          return yield* fault(seen.stage, `not pulled within ${Duration.format(pullWithin)}: ${seen.detail}`, pod)
        }
        if (!late) return undefined
        const waited = Duration.format(within)
        if (seen._tag === "OnItsWay") {
          const said = seen.stage === "Unscheduled" ? undefined : yield* events(name)
          return yield* fault(seen.stage, `not started within ${waited}: ${said ?? seen.detail}`, pod)
        }
        return yield* fault("Silent", `no result within ${waited}`, pod)
      })
      const found = yield* Effect.repeat(look, {
        schedule: Schedule.spaced(LOOK_EVERY),
        until: (answer) => answer !== undefined
      })
      return found ?? (yield* Effect.never)
    })

    const result = Effect.fnUntraced(function*<Input, Output>(
      task: Task<Input, Output>,
      token: Redacted.Redacted,
      name: string,
      end: { readonly value: Ended; readonly pod: Pod; readonly times: WorkerTimes }
    ) {
      const { pod, times, value: { exitCode, message = "" } } = end
      const node = pod.spec.nodeName ?? ""
      const fault = (stage: WorkerStage, detail: string) => new WorkerFault({ stage, detail, pod: name, node, times })
      const opened = open(token, name, message)
      if (Result.isFailure(opened)) {
        if (opened.failure === "forged") return yield* fault("Forged", "its result does not carry the seal of this run")
        return yield* exitCode === 0 ? fault("Silent", "it ended without a result") : fault("Crash", endOf(end.value))
      }
      if (!opened.success.ok) return yield* fault("Task", opened.success.error)
      const output = yield* Schema.decodeUnknownEffect(task.output)(opened.success.output).pipe(
        Effect.mapError((error) => fault("Silent", `its result is not one of ${task.id}: ${error.message}`))
      )
      return { output, pod: name, node, times } satisfies Worked<Output>
    })

    return {
      image: Effect.succeed(imageOf(settings)),
      run: Effect.fn("Workers.run")(function*(task, input, place = {}) {
        const { name: secretName, token } = yield* secret
        const within = place.within === undefined
          ? Duration.sum(POD_WITHIN, Duration.fromInputUnsafe(task.timeout))
          : Duration.fromInputUnsafe(place.within)
        const encoded = yield* Effect.orDie(Schema.encodeEffect(task.input)(input))
        const name = yield* create(place, {
          task: encodeEnvelope({ task: task.id, input: encoded }),
          secret: secretName,
          within
        })
        const exit = yield* Effect.exit(Effect.flatMap(
          reach(
            name,
            place,
            { within, pullWithin: place.within === undefined ? POD_WITHIN : within },
            (seen) => seen._tag === "Ended" ? seen : undefined
          ),
          (end) => result(task, token, name, end)
        ))
        // Others of the run, and of the cluster's budget, wait for its place; what fails here the end of the run does again.
        yield* Effect.ignore(kube.delete(Pod, { name, namespace }, { gracePeriodSeconds: 0 }))
        return yield* exit
      }),
      respond: Effect.fn("Workers.respond")(function*(place = {}) {
        const within = place.within === undefined ? POD_WITHIN : Duration.fromInputUnsafe(place.within)
        const name = yield* create(place, { within })
        const { pod, times, value: ip } = yield* reach(
          name,
          place,
          { within, pullWithin: within },
          (seen, { status }) => seen._tag === "Running" && seen.ready ? status.podIP : undefined
        ).pipe(
          Effect.catchTag("WorkerFault", (fault) =>
            Effect.fail(
              fault.stage === "Silent"
                ? new WorkerFault({ ...fault, stage: "Unready", detail: "it runs, and its kubelet cannot reach it" })
                : fault
            ))
        )
        return {
          pod: name,
          node: pod.spec.nodeName ?? "",
          ip,
          port: HTTP_PORT,
          echoPort: ECHO_PORT,
          times
        } satisfies Responder
      })
    }
  })
